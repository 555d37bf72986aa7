"""The tables of the documentation, made from the JSON that benchmarks write.

`.venv/bin/python benchmarks/tables.py` fills them in between `<!-- table NAME -->` and `<!-- end -->`; a test holds
that pages and JSON agree.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MATCHING = 0.002  # "matching" is an accuracy within 0.2 points of dense (Frankle et al. 1912.05671)
MARKED = re.compile(r"(<!-- table (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Fills in every table of every page."""
    for page in PAGES:
        filled = fill_page(page.read_text(encoding="utf-8"))
        page.write_text(filled, encoding="utf-8")


def fill_page(text: str) -> str:
    """Returns a page with its tables made anew."""
    return MARKED.sub(lambda found: f"{found[1]}\n{TABLES[found['name']]()}\n\n{found[3]}", text)


def load(name: str) -> dict[str, Any]:
    """Returns the figures of a benchmark."""
    content: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    return content


def make_table(*rows: tuple[str, ...]) -> str:
    """Returns a Markdown table; the first row is its head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def format_interval(interval: dict[str, Any], scale: float = 100.0, form: str = ".2f") -> str:
    """Returns a mean and its interval, such as "89.31 [89.10, 89.52]"."""
    mean, low, high = (interval[name] * scale for name in ("mean", "low", "high"))
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def find_summary(level: int, branch: str = "ticket", moment: str = "early_stop") -> dict[str, Any]:
    """Returns the summary of one level and branch of the LeNet experiment."""
    found = [s for s in load("fashion_lenet")["summaries"][moment] if (s["level"], s["branch"]) == (level, branch)]
    summary: dict[str, Any] = found[0]
    return summary


def tabulate_experiment() -> str:
    """All levels and branches of the LeNet experiment."""
    figures = load("fashion_lenet")["summaries"]
    ends = {(s["level"], s["branch"]): s for s in figures["end"]}
    rows = [
        (
            f"{100 * s['density']:.1f}",
            s["branch"] if s["level"] else "dense",
            format_interval(s["value"]),
            format_interval(s["minus_dense"], form="+.2f") if s["level"] else "",
            f"{s['step']['mean']:,.0f}",
            format_interval(ends[s["level"], s["branch"]]["value"]),
            format_interval(ends[s["level"], s["branch"]]["minus_dense"], form="+.2f") if s["level"] else "",
        )
        for s in figures["early_stop"]
    ]
    heads = (
        *("weights, %", "branch", "accuracy at early stop, %", "minus dense, points", "early stop at step"),
        *("at the end, %", "minus dense, points"),
    )
    return make_table(heads, *rows)


def tabulate_claims() -> str:
    """The claims of the paper beside our figures; every figure is computed here, every verdict follows from it."""
    speed, control = find_summary(7)["step_over_dense"], find_summary(7, "reinitialised")["step_over_ticket"]
    head = ("claim of the paper (MNIST, 50,000 steps)", "here (Fashion-MNIST)", "verdict")
    faster = (
        "tickets learn faster: at 21 % early stop comes 38 % sooner than dense",
        f"early-stop step over dense {format_interval(speed, 1.0)}",
        judge(speed["high"] < 1, speed["low"] > 1),
    )
    faster_than_control = (
        "at 21 % the ticket learns 2.51 times as fast as when reinitialised",
        f"reinitialised step over ticket step {format_interval(control, 1.0)}",
        judge(control["low"] > 1, control["high"] < 1),
    )
    rows = [faster, faster_than_control]
    for moment in ("early_stop", "end"):
        rows += [
            compare("at 13.5 % the ticket is 0.3 points above dense", 9, "ticket", "minus_dense", moment, sign=1),
            compare(
                "at 21 % it is half a point above its reinitialisation", 7, "reinitialised", "minus_ticket", moment
            ),
            compare("at 7 % the same", 12, "reinitialised", "minus_ticket", moment),
            compare("reinitialised tickets lose accuracy: at 7 %", 12, "reinitialised", "minus_dense", moment),
            compare("at 3.6 %", 15, "reinitialised", "minus_dense", moment),
            match("the ticket matches dense down to about 3.6 %", 15, moment),
        ]
    return make_table(head, *rows)


def compare(
    claim: str, level: int, branch: str, difference: str, moment: str, *, sign: int = -1
) -> tuple[str, str, str]:
    """Returns the row of a claim that a difference of accuracies is positive (`sign` 1) or negative."""
    interval = find_summary(level, branch, moment)[difference]
    above, below = interval["low"] > 0, interval["high"] < 0
    words = (
        f"{branch} {difference.replace('_', ' ')}, {moment.replace('_', ' ')}: {format_interval(interval, form='+.2f')}"
    )
    return claim, words, judge(above if sign > 0 else below, below if sign > 0 else above)


def match(claim: str, level: int, moment: str) -> tuple[str, str, str]:
    """Returns the row of the claim that a ticket is at most 0.2 points below dense."""
    interval = find_summary(level, "ticket", moment)["minus_dense"]
    words = f"ticket minus dense, {moment.replace('_', ' ')}: {format_interval(interval, form='+.2f')}"
    return claim, words, judge(interval["low"] >= -MATCHING, interval["high"] < -MATCHING)


def judge(shown: object, contradicted: object) -> str:
    """Returns the verdict in a word."""
    return "seen" if shown else "contradicted" if contradicted else "undecided"


def tabulate_holding() -> str:
    """What holding costs."""
    figures = load("holding")
    rows = [
        (
            name,
            f"{1000 * figures[name]['median_seconds_a_step']['bare']:.2f}",
            f"{figures[name]['cost_of_holding']:.1%}",
            goal,
            f"{figures[name]['speed_of_our_loop']:.0%}",
        )
        for name, goal in (("lenet-300-100", "15 %"), ("resnet-20", "5 %"))
    ]
    heads = ("model", "bare step, ms", "holding adds", "goal, at most", "our loop's speed, masked loop by hand = 100 %")
    return make_table(heads, *rows)


def tabulate_selection() -> str:
    """How fast selection is beside its peers."""
    rows = []
    for case in load("selection")["large"]:
        ratios = case["ratios"]
        prune = ratios.get("torch_prune_over_ours")
        rows.append(
            (
                f"{case['sparsity']}",
                f"{1000 * case['timings']['ours']['median_seconds']:.0f}",
                "" if prune is None else f"{prune:.0f}",
                f"{ratios['numpy_partition_over_ours']:.1f}",
                f"{ratios['ours_over_torch_sum']:.1f}",
                f"{ratios['ours_bfloat16_over_ours']:.2f}",
                f"{case['peak_extra_share_of_weights']:.1%}",
            )
        )
    heads = (
        "sparsity", "ours, ms", "torch prune / ours (goal 200)", "numpy partition / ours (goal 2)",
        "ours / torch.sum (goal 12)", "bf16 / fp32 (goal 1)", "extra memory (goal 5 %)",
    )  # fmt: skip
    return make_table(heads, *rows)


def tabulate_demo() -> str:
    """What the demo shows: dense, and the levels that have controls."""
    summaries = load("demo")["summaries"]
    shown = {0, *(s["level"] for s in summaries if s["branch"] != "ticket")}
    rows = [
        (
            f"{100 * s['density']:.1f} %",
            s["branch"] if s["level"] else "dense",
            format_interval(s["value"]),
            format_interval(s["minus_dense"], form="+.2f") if s["level"] else "",
        )
        for s in summaries
        if s["level"] in shown
    ]
    return make_table(("weights", "branch", "test accuracy, %", "minus dense, points"), *rows)


def tell_time_of_demo() -> str:
    """How long the demo takes."""
    figures = load("demo")
    machine = figures["machine"]
    seconds, cpus = figures["seconds"], machine["num_cpus"]
    return f"It took {seconds:.0f} seconds on {cpus} cores ({machine['processor']}), after installation."


TABLES: dict[str, Callable[[], str]] = {
    "demo": tabulate_demo,
    "demo-time": tell_time_of_demo,
    "lenet-experiment": tabulate_experiment,
    "lenet-claims": tabulate_claims,
    "holding": tabulate_holding,
    "selection": tabulate_selection,
}


if __name__ == "__main__":
    main()
