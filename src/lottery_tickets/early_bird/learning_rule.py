"""Has a network learnt from its inputs, and do its ranked weights carry that? The rule, on the figures of one check."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from lottery_tickets.early_bird.history import PartEvidence, Verdict

SHARE_OF_SPREAD: Final = 0.5

Outcome = tuple[Verdict | None, str]


def judge_learning(check: Mapping[str, Any], level: float, floor: float, *, once: float) -> Outcome:
    """Returns the verdict on a ticket that is stable and has moved, None when it has learnt; and why.

    Args:
        check: Its figures.
        level: Of each test at this check.
        floor: The least share of the ranked weights that must have moved down the gradient of the loss.
        once: The level of what is tested once, at the start.
    """
    gap_p, rise_p, learnable_p = (check.get(name) for name in ("gap_p", "rise_p", "learnable_p"))
    if gap_p is None or rise_p is None:
        return "stable, learning not shown", (
            "nothing was measured on a probe, and a loss that falls is no evidence, because a bias or a scale makes it "
            "fall too; give probe= samples, best such that are not trained on"
        )
    why = (
        f"exchanging targets raises the loss on the probe by {_show(check.get('gap'))} "
        f"(z {_show(check.get('gap_z'))}, p {gap_p:.1e}; at the start {_show(check.get('start_gap'))}, p of the rise "
        f"{rise_p:.1e}; at most {level:.1e} is allowed)"
    )
    if _is_worse(check, level):
        start, now = (_show(check.get(name)) for name in ("start_probe_loss", "probe_loss"))
        return "diverged", (
            f"the loss on the probe rose from {start} at the start to {now}, beyond chance and by more than half of "
            "what exchanging the targets of two samples changes: outputs have grown large, and wrong"
        )
    if max(gap_p, rise_p) > level:
        return "trivially stable", f"{why}: the network owes its inputs nothing that chance, or luck, could not give"
    if not check.get("held_out", True):
        if learnable_p is None or learnable_p > once:
            return "trivially stable", (
                f"{why}, but the probe's samples are trained on, and a step on one half of them did not help on the "
                f"other half (p {_show(learnable_p)}): they are memorised, or too few; give probe= samples that are "
                "not trained on"
            )
        why += f", on samples that are trained on, of which one half taught the other (p {learnable_p:.1e})"
    parts: Sequence[PartEvidence] = check.get("parts", ())
    share = _find_share(parts, level, closing=False)
    if share < floor:
        return "trivially stable", (
            f"{why}, but only {share:.0%} of the ranked weights moved down the gradient of the loss (at least "
            f"{floor:.0%} are asked for): others learnt, such as a head, and the ranked ones moved as noise would"
        )
    return None, why


def judge_carrying(check: Mapping[str, Any], level: float, floor: float) -> Outcome:
    """Returns the verdict on a ticket that has learnt, None when enough of its weights carry that; and why.

    Args:
        check: Its figures.
        level: Of each test at this check.
        floor: The least share of the ranked weights.
    """
    parts: Sequence[PartEvidence] = check.get("parts", ())
    if all(part["closing_p"] is None for part in parts):
        return "stable, learning not shown", "no weights were put back at this check to see whether they carry the gap"
    share = _find_share(parts, level, closing=True)
    what = f"without what they moved, {share:.0%} of the ranked weights close it"
    if share < floor:
        return "trivially stable", f"the gap stays: {what}, at least {floor:.0%} are asked for"
    return None, what


def _find_share(parts: Sequence[PartEvidence], level: float, *, closing: bool) -> float:
    """Returns which share of the ranked weights is in parts that learnt; the parts share the level."""
    each = level / max(1, len(parts))
    num_learnt = 0
    for part in parts:
        tests = [part["along_p"], part["closing_p"]] if closing else [part["along_p"]]
        if all(p is not None and p <= each for p in tests):
            num_learnt += part["num_weights"]
    return num_learnt / max(1, sum(part["num_weights"] for part in parts))


def _is_worse(check: Mapping[str, Any], level: float) -> bool:
    """Returns whether the loss on the probe has risen as that of a network does whose outputs have grown large."""
    names = ("worse_p", "probe_loss", "start_probe_loss", "gap_spread")
    p, now, start, spread = (check.get(name) for name in names)
    if p is None or now is None or start is None or spread is None:
        return False
    loss, start_loss = check.get("loss"), check.get("start_loss")
    # A training loss that falls while that on the probe rises is memorising, which is another thing.
    falls = loss is not None and start_loss is not None and loss < start_loss
    return not falls and p <= level and now - start > SHARE_OF_SPREAD * spread


def _show(value: float | None) -> str:
    return "unknown" if value is None or not math.isfinite(value) else f"{value:.3g}"
