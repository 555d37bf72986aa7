"""Has a network learnt from its inputs, and do its ranked weights carry that? The rule, on the figures of one check."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from lottery_tickets.early_bird.history import PartEvidence, Verdict

SHARE_OF_SPREAD: Final = 0.5

Outcome = tuple[Verdict | None, str]


def find_level(error_rate: float, number: int) -> float:
    """Returns the level at which the check of a number, from 1, is judged; those of all checks add up to the rate."""
    return error_rate / (number * (number + 1))


def judge_learning(history: Sequence[Mapping[str, Any]], error_rate: float, floor: float) -> Outcome:
    """Returns the verdict on a ticket that is stable and has moved, None when it has learnt; and why.

    Args:
        history: All checks so far.
        error_rate: Of all of them together.
        floor: The least share of the ranked weights that must have moved down the gradient of the loss.
    """
    check, level = history[-1], find_level(error_rate, len(history))
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
        if learnable_p is None or learnable_p > error_rate:
            return "trivially stable", (
                f"{why}, but the probe's samples are trained on, and a step on one half of them did not help on the "
                f"other half (p {_show(learnable_p)}): they are memorised, or too few; give probe= samples that are "
                "not trained on"
            )
        why += f", on samples that are trained on, of which one half taught the other (p {learnable_p:.1e})"
    share = _add_up(check.get("parts", ()), has_moved(history, error_rate))
    if share < floor:
        return "trivially stable", (
            f"{why}, but only {share:.0%} of the ranked weights moved down the gradient of the loss (at least "
            f"{floor:.0%} are asked for): others learnt, such as a head, and the ranked ones moved as noise would"
        )
    return None, why


def judge_carrying(history: Sequence[Mapping[str, Any]], error_rate: float, floor: float) -> Outcome:
    """Returns the verdict on a ticket that has learnt, None when enough of its weights carry that; and why.

    Args:
        history: All checks so far.
        error_rate: Of all of them together.
        floor: The least share of the ranked weights.
    """
    parts: Sequence[PartEvidence] = history[-1].get("parts", ())
    is_put_back = [part["closing_p"] is not None for part in parts]
    level = find_level(error_rate, len(history)) / max(1, len(parts))
    closes = [part["closing_p"] is not None and part["closing_p"] <= level for part in parts]
    carries = [moved and closing for moved, closing in zip(has_moved(history, error_rate), closes, strict=True)]
    may_carry = [carried or not known for carried, known in zip(carries, is_put_back, strict=True)]
    share = _add_up(parts, carries)
    if share < floor <= _add_up(parts, may_carry):
        return "stable, learning not shown", (
            f"only {_add_up(parts, is_put_back):.0%} of the ranked weights were put back at this check to see whether "
            "they carry the gap"
        )
    least = "" if all(is_put_back) else "at least "
    what = f"without what they moved, {least}{share:.0%} of the ranked weights close it"
    if share < floor:
        return "trivially stable", f"the gap stays: {what}, at least {floor:.0%} are asked for"
    return None, what


def has_moved(history: Sequence[Mapping[str, Any]], error_rate: float) -> list[bool]:
    """Returns for each part whether it moved down the gradient of the loss at the start, at this check or one before.

    That a part did so counts once it is seen: later it turns to other directions. The parts share the level.

    Args:
        history: All checks so far.
        error_rate: Of all of them together.
    """
    num_parts = len(history[-1].get("parts", ()))
    levels = [find_level(error_rate, number) / max(1, num_parts) for number in range(1, len(history) + 1)]
    return [
        any(
            len(check.get("parts", ())) > place and check["parts"][place]["along_p"] <= level
            for check, level in zip(history, levels, strict=True)
        )
        for place in range(num_parts)
    ]


def _add_up(parts: Sequence[PartEvidence], chosen: Sequence[bool]) -> float:
    """Returns which share of the ranked weights is in the chosen parts."""
    num_chosen = sum(part["num_weights"] for part, is_chosen in zip(parts, chosen, strict=True) if is_chosen)
    return num_chosen / max(1, sum(part["num_weights"] for part in parts))


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
