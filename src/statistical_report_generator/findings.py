"""What an experiment shows and what it does not, in words, each with its figures."""

from collections.abc import Sequence
from typing import Final, Literal

from statistical_report_generator.statistics import BranchSummary, Interval
from statistical_report_generator.tables import POINTS, format_percent

MARGIN: Final = 0.005  # half a point: the loss of accuracy that counts as none
Verdict = Literal["keeps", "loses", "undecided"]

NAMES: Final = {
    "ticket": "the ticket",
    "reinitialised": "the same mask with fresh weights (reinitialised)",
    "shuffled": "a shuffled mask with the original weights",
    "random": "a random mask with fresh weights",
}


def judge(difference: Interval, margin: float = MARGIN) -> Verdict:
    """Returns whether an accuracy is kept, from the interval of its difference to the dense network's.

    "keeps": the whole interval lies above -margin. "loses": it lies below zero and reaches beyond -margin. Otherwise,
    and with a single replicate, "undecided".

    Args:
        difference: Accuracy minus the dense network's, paired by replicate.
        margin: The loss that counts as none, a fraction.
    """
    if difference.low is None or difference.high is None:
        return "undecided"
    if difference.low >= -margin:
        return "keeps"
    return "loses" if difference.high < 0 else "undecided"


def describe_findings(summaries: Sequence[BranchSummary], margin: float = MARGIN) -> list[str]:
    """Returns sentences: for each level with controls what the ticket and each control did, then what was not shown.

    Args:
        summaries: Of one experiment.
        margin: As in `judge`.
    """
    levels = sorted({summary.level for summary in summaries if summary.branch != "ticket"})
    sentences = []
    for level in levels:
        branches = [summary for summary in summaries if summary.level == level]
        sentences.append(f"At {POINTS * branches[0].density:.1f} % of the weights:")
        sentences += [f"  {_describe_branch(summary, margin)}" for summary in branches]
        sentences.append(f"  {_conclude(branches, margin)}")
    if not levels:
        sentences.append("No controls were trained, so nothing can be said about winning tickets.")
    return [*sentences, _state_limits(summaries, margin)]


def _describe_branch(summary: BranchSummary, margin: float) -> str:
    verdict = judge(summary.minus_dense, margin)
    words = {
        "keeps": "keeps the dense accuracy",
        "loses": "falls below the dense accuracy",
        "undecided": "is undecided: the interval neither stays within the margin nor lies below zero",
    }[verdict]
    if verdict == "keeps" and summary.minus_dense.high is not None and summary.minus_dense.high < 0:
        words += " within the margin, though it is measurably lower"
    return f"{NAMES[summary.branch]} {words} ({format_percent(summary.minus_dense, sign=True)} points)."


def _conclude(branches: Sequence[BranchSummary], margin: float) -> str:
    verdicts = {summary.branch: judge(summary.minus_dense, margin) for summary in branches}
    # A control loses to the ticket when the paired difference between the two lies below zero.
    beaten = {
        s.branch
        for s in branches
        if s.branch != "ticket" and s.minus_ticket.high is not None and s.minus_ticket.high < 0
    }
    controls = [summary.branch for summary in branches if summary.branch != "ticket"]
    if verdicts["ticket"] == "keeps" and set(controls) <= beaten:
        return "=> Found: a ticket that keeps the dense accuracy while every control does worse than it."
    if verdicts["ticket"] == "keeps":
        others = ", ".join(control for control in controls if control not in beaten)
        return f"=> Not shown: that the weights or places of this ticket matter; not clearly worse than it: {others}."
    return "=> Not shown: that this ticket keeps the dense accuracy."


def _state_limits(summaries: Sequence[BranchSummary], margin: float) -> str:
    num = summaries[0].value.num_replicates
    return (
        f"Intervals are 95 % Student t intervals, replicates: {num}; differences are paired by replicate,"
        f" the margin is {POINTS * margin:.1f} points; no correction for looking at several levels."
    )
