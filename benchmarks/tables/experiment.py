"""The tables of the LeNet experiment and of the demo."""

from collections.abc import Mapping
from typing import Any

from benchmarks.common import read_results
from benchmarks.tables.parts import Columns, Tables, make_table, tabulate
from statistical_report_generator.claims.assessment import MARGIN
from statistical_report_generator.tables import format_interval


def find_summary(level: int, branch: str, moment: str = "early_stop") -> dict[str, Any]:
    """Returns the summary of one level and branch of the LeNet experiment."""
    summaries: list[dict[str, Any]] = read_results("fashion-lenet")["summaries"][moment]
    return next(summary for summary in summaries if (summary["level"], summary["branch"]) == (level, branch))


def show_branch(summary: Mapping[str, Any]) -> tuple[str, str, str]:
    """Returns the name of a branch, its accuracy and its difference from dense, which is left out for dense itself."""
    value, difference = format_interval(summary["value"]), format_interval(summary["minus_dense"], form="+.2f")
    return (summary["branch"], value, difference) if summary["level"] else ("dense", value, "")


def tabulate_experiment() -> str:
    """All levels and branches of the LeNet experiment."""
    rows = [
        (
            f"{100 * early['density']:.1f}",
            *show_branch(early),
            f"{early['step']['mean']:,.0f}",
            *show_branch(find_summary(early["level"], early["branch"], "end"))[1:],
        )
        for early in read_results("fashion-lenet")["summaries"]["early_stop"]
    ]
    heads = (
        *("weights, %", "branch", "accuracy at early stop, %", "minus dense, points", "early stop at step"),
        *("at the end, %", "minus dense, points"),
    )
    return make_table(heads, *rows)


def tabulate_claims() -> str:
    """The claims of the paper beside our figures; every figure is computed here, every verdict follows from it."""
    speed = find_summary(7, "ticket")["step_over_dense"]
    control = find_summary(7, "reinitialised")["step_over_ticket"]
    head = ("claim of the paper (MNIST, 50,000 steps)", "here (Fashion-MNIST)", "verdict")
    faster = (
        "tickets learn faster: at 21 % early stop comes 38 % sooner than dense",
        f"early-stop step over dense {format_interval(speed, scale=1.0)}",
        judge(speed["high"] < 1, speed["low"] > 1),
    )
    faster_than_control = (
        "at 21 % the ticket learns 2.51 times as fast as when reinitialised",
        f"reinitialised step over ticket step {format_interval(control, scale=1.0)}",
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
    return claim, words, judge(interval["low"] >= -MARGIN, interval["high"] < -MARGIN)


def judge(shown: object, contradicted: object) -> str:
    """Returns the verdict in a word."""
    return "seen" if shown else "contradicted" if contradicted else "undecided"


def tabulate_demo() -> str:
    """What the demo shows: dense, and the levels that have controls."""
    summaries = read_results("demo")["summaries"]
    shown = {0, *(summary["level"] for summary in summaries if summary["branch"] != "ticket")}
    rows = [
        (f"{100 * summary['density']:.1f} %", *show_branch(summary))
        for summary in summaries
        if summary["level"] in shown
    ]
    return make_table(("weights", "branch", "test accuracy, %", "minus dense, points"), *rows)


def tell_time_of_demo() -> str:
    """How long the demo takes."""
    figures = read_results("demo")
    seconds, machine = figures["seconds"], figures["machine"]
    return f"It took {seconds:.0f} seconds on {machine['num_cpus']} cores ({machine['processor']}), after installation."


def tabulate_clone() -> str:
    """How long the two commands of a fresh clone take where nothing is installed."""
    columns: Columns = {
        "command": lambda case: f"`{case['command']}`",
        "seconds": lambda case: f"{case['seconds']:.0f}",
        "of it installing": lambda case: f"{case['of_it_installing']:.0f}",
    }
    return tabulate(read_results("fresh-clone")["commands"], columns)


TABLES: Tables = {
    "demo": tabulate_demo,
    "demo-time": tell_time_of_demo,
    "fresh-clone": tabulate_clone,
    "lenet-experiment": tabulate_experiment,
    "lenet-claims": tabulate_claims,
}
