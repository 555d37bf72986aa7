"""The tables of the documentation, made from the JSON that benchmarks write.

`python -m benchmarks.tables.fill` fills them in between `<!-- table NAME -->` and `<!-- end -->`; a test holds
that pages and JSON agree.
"""

import re
from collections.abc import Callable
from typing import Any

from benchmarks.tables.claims import CLAIMS_TABLES
from benchmarks.tables.connectivity import CONNECTIVITY_TABLES
from benchmarks.tables.early_bird import EARLY_BIRD_TABLES
from benchmarks.tables.landscape import LANDSCAPE_TABLES
from benchmarks.tables.measuring import MEASURING_TABLES
from benchmarks.tables.parts import ROOT, format_interval, load, make_table

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


SCORE_MODELS = {"lenet-300-100": "LeNet-300-100", "resnet-20": "ResNet-20", "smollm2-135m": "SmolLM2-135M"}
SCORE_METRICS = {"accuracy": 100.0, "loss": 1.0}
NEAR_DENSE = 0.02  # two points of accuracy


def list_scores(model: str, scopes: tuple[str, ...]) -> dict[str, dict[float, dict[str, Any]]]:
    """Returns the rows of one model by the label of the score, then by sparsity."""
    rows = load("score_worth")["models"][model]["rows"]
    found: dict[str, dict[float, dict[str, Any]]] = {}
    for row in rows:
        if row["scope"] in scopes and row["score"] != "dense":
            label = row["score"] + (", rows" if row["scope"] == "row" else "")
            found.setdefault(label, {})[row["sparsity"]] = row
    return found


def find_dense(model: str) -> dict[str, Any]:
    """Returns the row of a model that is not pruned."""
    found: dict[str, Any] = next(r for r in load("score_worth")["models"][model]["rows"] if r["score"] == "dense")
    return found


def tabulate_worth(model: str, metric: str, *scopes: str) -> str:
    """Loss or accuracy of a model pruned by each score."""
    scale = SCORE_METRICS[metric]
    form = ".1f" if metric == "accuracy" else ".2f"
    scores = list_scores(model, scopes)
    sparsities = load("score_worth")["models"][model]["sparsities"]
    words = "accuracy, %" if metric == "accuracy" else "loss, nats"
    dense = format_half_width(find_dense(model)[metric], scale, form)
    head = (f"{words}; dense {dense}", *(f"{100 * sparsity:.0f} %" for sparsity in sparsities))
    rows = [
        (
            label,
            *(format_half_width(cells[s][metric], scale, form) if s in cells else "lost" for s in sparsities),
        )
        for label, cells in scores.items()
    ]
    return make_table(head, *rows)


def format_half_width(interval: dict[str, Any], scale: float, form: str) -> str:
    """Returns a mean and half its interval's width, such as "89.3 ± 0.2"; the mean alone where there is no interval."""
    mean = f"{interval['mean'] * scale:{form}}"
    if interval["low"] is None:
        return mean
    return f"{mean} ± {(interval['high'] - interval['mean']) * scale:{form}}"


def tabulate_verdicts(model: str) -> str:
    """At which sparsities a score is better or worse than magnitude of the same scope, by paired intervals."""
    rows = []
    for label, cells in list_scores(model, ("global", "row")).items():
        if label.startswith("magnitude"):
            continue
        row = [label]
        for metric, sign in (("accuracy", 1), ("loss", -1)):
            differences = {s: cell[f"{metric}_minus_magnitude"] for s, cell in cells.items()}
            ends = {s: sorted((sign * d["low"], sign * d["high"])) for s, d in differences.items()}
            better = [s for s, (low, _) in ends.items() if low > 0]
            worse = [s for s, (_, high) in ends.items() if high < 0]
            row += [name_sparsities(better), name_sparsities(worse)]
        rows.append(tuple(row))
    heads = ("score", "accuracy better at", "accuracy worse at", "loss better at", "loss worse at")
    return make_table(heads, *rows)


def name_sparsities(sparsities: list[float]) -> str:
    """Returns sparsities such as "40, 60 %"."""
    return ", ".join(f"{100 * sparsity:.0f}" for sparsity in sparsities) + (" %" if sparsities else "")


def tabulate_reach() -> str:
    """The largest sparsity up to which each score stays near dense accuracy."""
    rows: dict[str, list[str]] = {}
    for number, model in enumerate(SCORE_MODELS):
        dense = find_dense(model)["accuracy"]["mean"]
        for label, cells in list_scores(model, ("global", "row")).items():
            reached = "none"
            for sparsity, cell in cells.items():
                if cell["accuracy"]["mean"] < dense - NEAR_DENSE:
                    break
                reached = f"{100 * sparsity:.0f} %"
            rows.setdefault(label, [""] * len(SCORE_MODELS))[number] = reached
    return make_table(("score", *SCORE_MODELS.values()), *((label, *reached) for label, reached in rows.items()))


def tell_settings_of_worth() -> str:
    """What was measured, in sentences."""
    figures = load("score_worth")
    settings, models = figures["settings"], figures["models"]
    lines = []
    for model in ("lenet-300-100", "resnet-20"):
        facts = models[model]
        lines.append(
            f"- {SCORE_MODELS[model]} on Fashion-MNIST: {facts['num_replicates']} replicates, each trained for "
            f"{facts['num_steps']:,} steps from its own seed; scored on {settings['num_scoring_images']:,} training "
            f"images of its own; judged on the first {facts['num_test_images']:,} test images."
        )
    facts = models["smollm2-135m"]
    lines.append(
        f"- SmolLM2-135M on State-of-the-Union speeches: {facts['num_replicates']} replicates, each scored on its own "
        f"{settings['num_scoring_texts']} sequences of {settings['num_tokens']} tokens from speeches before 2000; all "
        f"judged on the same {settings['num_test_texts']} sequences from later ones. Its {facts['num_weights']:,} "
        f"prunable weights have {facts['num_distinct_magnitudes']:,} distinct magnitudes. Once its loss is above "
        f"{settings['lost_above_nats']} nats in some replicate, sparser cells are *lost*."
    )
    return "\n".join(lines)


PEER_NAMES = {"loop": "one by one", "vmap": "torch.func vmap", "backpack": "BackPACK", "opacus": "Opacus",
              "nngeometry": "nngeometry", "curvlinops": "curvlinops"}  # fmt: skip


def tabulate_fisher_time() -> str:
    """Time of a Fisher diagonal over one plain forward and backward pass, ours and the peers'."""
    figures = load("fisher")["time"]
    peers = [name for name in PEER_NAMES if any(name in case["peers_over_plain"] for case in figures.values())]
    rows = []
    for name, case in figures.items():
        ratios = case["ours_over_plain_all"]
        ours = f"{case['ours_over_plain']:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        others = (case["peers_over_plain"].get(peer) for peer in peers)
        cells = (f"{other:.1f}" if other is not None else "cannot" for other in others)
        rows.append((name, f"{1000 * case['plain_seconds']:,.0f}", ours, *cells))
    heads = ("batch", "forward + backward, ms", "ours / that (goal 1.5)", *(PEER_NAMES[peer] for peer in peers))
    return make_table(heads, *rows)


def tabulate_fisher_memory() -> str:
    """Peak extra memory of a Fisher diagonal, beside that of its passes alone."""
    memory = load("fisher")["memory"]
    peak, mega = memory["peak_extra_bytes"], 1e6
    return make_table(
        ("SmolLM2-135M, 4 x 256 tokens", "MB"),
        ("forward and backward pass, all gradients", f"{peak['plain'] / mega:,.0f}"),
        ("our passes, nothing summed", f"{peak['passes'] / mega:,.0f}"),
        ("Fisher diagonal", f"{peak['fisher'] / mega:,.0f}"),
        ("with standard errors", f"{peak['errors'] / mega:,.0f}"),
        ("of it the float32 sums", f"{memory['sums_bytes'] / mega:,.0f}"),
        ("Fisher beside passes and sums", f"{memory['beside_sums_bytes'] / mega:,.1f}"),
        ("one sample's gradient of the largest layer", f"{memory['largest_layer_bytes'] / mega:,.1f}"),
    )


def tabulate_fisher_equality() -> str:
    """Largest difference to one backward pass a sample, in float64, ours and the peers'."""
    findings = load("fisher_peers")["findings"]
    ways = ("lottery-tickets", "vmap", "backpack", "opacus", "nngeometry", "curvlinops")
    rows = []
    for name, case in findings.items():
        if case["dtype"] == "float64":
            cells = (f"{case[way]:.0e}" if isinstance(case.get(way), float) else "cannot" for way in ways)
            rows.append((name, *cells))
    return make_table(("model", "ours", *(PEER_NAMES[way] for way in ways[1:])), *rows)


TABLES: dict[str, Callable[[], str]] = {
    "fisher-time": tabulate_fisher_time,
    "fisher-memory": tabulate_fisher_memory,
    "fisher-equality": tabulate_fisher_equality,
    "demo": tabulate_demo,
    "demo-time": tell_time_of_demo,
    "lenet-experiment": tabulate_experiment,
    "lenet-claims": tabulate_claims,
    "holding": tabulate_holding,
    "selection": tabulate_selection,
    "score-worth-settings": tell_settings_of_worth,
    "score-worth-reach": tabulate_reach,
    "score-worth-lenet": lambda: tabulate_worth("lenet-300-100", "accuracy", "global", "row"),
    "score-worth-lenet-layer": lambda: tabulate_worth("lenet-300-100", "accuracy", "layer"),
    "score-worth-lenet-verdicts": lambda: tabulate_verdicts("lenet-300-100"),
    "score-worth-resnet": lambda: tabulate_worth("resnet-20", "accuracy", "global", "row"),
    "score-worth-resnet-verdicts": lambda: tabulate_verdicts("resnet-20"),
    "score-worth-language": lambda: tabulate_worth("smollm2-135m", "loss", "global", "row"),
    "score-worth-language-verdicts": lambda: tabulate_verdicts("smollm2-135m"),
    **CLAIMS_TABLES,
    **CONNECTIVITY_TABLES,
    **EARLY_BIRD_TABLES,
    **LANDSCAPE_TABLES,
    **MEASURING_TABLES,
}


if __name__ == "__main__":
    main()
