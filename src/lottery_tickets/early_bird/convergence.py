"""Has a ticket settled, or does it only look so? The rule of early-bird detection, on a recorded history alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypedDict, final

from lottery_tickets._core.checks import check_count, check_number, check_share
from lottery_tickets._core.training.settings import TrainerSettings
from lottery_tickets.early_bird.history import METHODS, Detection, Method, Verdict
from lottery_tickets.early_bird.learning_rule import judge_carrying, judge_learning

# You et al. (arXiv 1909.11957) train fresh weights by SGD so; AdamW's rate is what the command takes for images.
RATE_ADVICE: Final = (
    f"the default learning rate, {TrainerSettings.learning_rate:g}, is for fine-tuning; for fresh weights try what was "
    "published, training=TrainerSettings(learning_rate=0.1, momentum=0.9), or 1e-3 with AdamW"
)


class Judgement(TypedDict):
    """What the rule says of the last check of a history."""

    stable: bool
    num_stable: int
    verdict: Verdict
    reason: str


@final
@dataclass(frozen=True)
class ConvergenceRule:
    """When a ticket counts as converged; explained in `detect_early_bird_convergence`.

    Attributes:
        method: "magnitude_ranking" or "mask_distance".
        convergence_threshold: The least rank correlation of two checks in a row that is stable, in (0, 1].
        stability_window: How many checks in a row must be stable ("magnitude_ranking").
        distance_threshold: The most that a mask may differ from each in the queue ("mask_distance"), raw.
        queue_length: Masks in the queue, the newest among them ("mask_distance").
        movement_floor: The least corrected distance from the mask of the starting weights.
        size_floor: The least movement, as a share of the weights' norm; ranks of weights that start equal mean nothing.
        error_rate: How often a training that cannot learn from its inputs may be said to have learnt, over all checks
            together: check t is judged at error_rate / (t (t + 1)), whose sum this is.
        carried_floor: The least share of the ranked weights that must carry what was learnt.
        growth_ceiling: The largest exponent g with which the distance to the starting mask may have grown over the
            last doubling of training time: distance ~ time^g. A random walk has g = 0.5, a steady drift 1.
        require_movement: Whether the weights must have moved, and learnt. False is the rule as it is commonly used,
            which weights that do not train at all pass.
    """

    method: Method = "magnitude_ranking"
    convergence_threshold: float = 0.95
    stability_window: int = 3
    distance_threshold: float = 0.1
    queue_length: int = 5
    movement_floor: float = 0.1
    size_floor: float = 0.01
    error_rate: float = 0.001
    carried_floor: float = 0.5
    growth_ceiling: float = 0.5
    require_movement: bool = True

    def __post_init__(self) -> None:
        """Checks every field."""
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(map(repr, METHODS))}, got {self.method!r}")
        check_count("stability_window", self.stability_window)
        check_count("queue_length", self.queue_length)
        if self.method == "mask_distance" and self.queue_length < 2:  # noqa: PLR2004 - a pair
            raise ValueError(f"queue_length must be at least 2, to compare masks, got {self.queue_length}")
        shares = ("convergence_threshold", "distance_threshold", "movement_floor", "size_floor", "carried_floor")
        for name in (*shares, "error_rate"):
            check_share(name, getattr(self, name))
        check_number("growth_ceiling", self.growth_ceiling, "at least 0", lambda value: value >= 0)

    def judge(self, history: Sequence[Mapping[str, Any]]) -> Judgement:
        """Returns what can be said after the last check of a history, whose earlier checks have been judged."""
        last = history[-1]
        if _is_diverged(last):
            reason = "weights or losses are not finite; lower the learning rate, and start again from good weights"
            return {"stable": False, "num_stable": 0, "verdict": "diverged", "reason": reason}
        stable, what = self._is_stable(last)
        before = int(history[-2]["num_stable"]) if len(history) > 1 else 0
        num_stable = before + 1 if stable else 0
        window = self.stability_window if self.method == "magnitude_ranking" else 1
        if num_stable < window:
            verdict: Verdict = "still changing"
            reason = f"{what}; {num_stable} of {window} stable checks in a row"
        elif self.require_movement:
            verdict, why = self._judge_stable(history)
            reason = f"{what}; {why}"
        else:
            verdict, reason = "converged", f"{what}; movement was not asked for"
        return {"stable": stable, "num_stable": num_stable, "verdict": verdict, "reason": reason}

    def _is_stable(self, check: Mapping[str, Any]) -> tuple[bool, str]:
        if self.method == "magnitude_ranking":
            correlation = _get(check, "correlation")
            if correlation is None:
                return False, "the rank correlation is undefined, because all magnitudes tie"
            sign = ">=" if correlation >= self.convergence_threshold else "<"
            what = f"rank correlation {correlation:.4f} {sign} {self.convergence_threshold:g}"
            return correlation >= self.convergence_threshold, what
        distances = _get(check, "queue_distances")
        if len(distances) < self.queue_length - 1:
            return False, f"the queue holds {len(distances) + 1} of {self.queue_length} masks"
        sign = "<=" if max(distances) <= self.distance_threshold else ">"
        what = f"largest mask distance in the queue {max(distances):.4f} {sign} {self.distance_threshold:g}"
        return max(distances) <= self.distance_threshold, what

    def _judge_stable(self, history: Sequence[Mapping[str, Any]]) -> tuple[Verdict, str]:
        """Returns the verdict on a stable ticket: has it moved, has it learnt, does it slow down?"""
        last = history[-1]
        moved, size = _get(last, "corrected_start_distance"), _get(last, "movement")
        if moved < self.movement_floor or size < self.size_floor:
            return "trivially stable", (
                f"the mask differs from that of the starting weights by {moved:.4f} of chance (at least "
                f"{self.movement_floor:g} is asked for), and the weights moved by {size:.2%} of their norm (at least "
                f"{self.size_floor:.0%}): they have hardly moved, so stability says nothing{_advise_rate(last)}"
            )
        without, why = judge_learning(history, self.error_rate, self.carried_floor)
        if without is not None:
            return without, why
        growth = _find_growth(history)
        if growth > self.growth_ceiling:
            return "still changing", (
                f"the distance to the mask of the starting weights still grows, as training time to the power "
                f"{growth:.2f}; at most {self.growth_ceiling:g} is allowed"
            )
        without, carried = judge_carrying(history, self.error_rate, self.carried_floor)
        if without is not None:
            return without, carried
        return "converged", (
            f"the mask differs from that of the starting weights by {moved:.4f} of chance; {why}; {carried}"
        )


def detect_early_bird_convergence(
    checkpoints: Sequence[Mapping[str, Any]], rule: ConvergenceRule | None = None
) -> Detection:
    """Returns whether and when a ticket had converged, from a recorded history alone.

    A ticket has *converged* at the first check at which all of these hold:

    1. It is stable. "magnitude_ranking": the rank correlation of each of the last `stability_window` checks with the
       one before is at least `convergence_threshold`; a miss starts the count anew. "mask_distance": the newest mask
       differs from each other in a queue of `queue_length` by at most `distance_threshold` (You et al.).
    2. It has moved: its mask differs from that of the starting weights by at least 0.1 of what chance gives, and the
       weights by 1 % of their norm.
    3. It has learnt from its inputs. On a probe, samples whose targets are exchanged in pairs have a larger loss than
       with their own: by Wilcoxon's signed ranks, which are exact, at a level that all checks share. So has the rise of
       this gap since the start. Where the probe's samples are trained on, a step on one half of them must also have
       opened a gap on the other half, at the start; else they are memorised. And half of the ranked weights or more
       carry it: at some check until then they had moved down the gradient of the loss at the start, and
       without what they moved the gap closes.
    4. It slows down. Let d(t) be the distance to the starting mask after training time t. Over the last doubling of
       time, d grew as t^g with g = log2(d(t) / d(t / 2)), and g is at most 0.5. A random walk has g = 0.5, a steady
       drift g = 1.

    Stable, but without 2 or 3, is *trivially stable*: weights that do not train, diffuse, or follow a bias look like
    that. Without a probe a ticket that has moved is *stable, learning not shown*: a loss that falls, or does not, is no
    evidence. *Diverged* is a loss or weights that are not finite; or, of a stable ticket, a loss on the probe that is
    above that at the start beyond chance, by more than half of what exchanging the targets of two samples changes,
    while the training loss, where it is told, is not below its start. All else is *still changing*.

    Args:
        checkpoints: As `compute_early_bird_tickets` records them, in order. Of each, this reads `epoch` (and `step`
            where it is there), `correlation` or `queue_distances`, `corrected_start_distance`, `movement`, `loss`,
            `start_loss`, and the figures of the probe.
        rule: With thresholds of your own. `ConvergenceRule(require_movement=False)` applies 1 alone, as is common, to
            histories that recorded nothing else; weights that do not train at all pass it.

    Returns:
        `converged`; `convergence_epoch`, None when not; `verdict` and `reason` at the first converged check, else at
        the last; `verdicts`, one a checkpoint.

    Raises:
        ValueError: When there is no checkpoint, one lacks what the rule reads, or an argument is out of range.

    References:
        You et al., arXiv:1909.11957 (mask distance and queue). The rest is ours: docs/early-bird.md.

    Examples:
        >>> evidence = {"correlation": 0.99, "corrected_start_distance": 0.01, "movement": 0.001}
        >>> history = [{"epoch": epoch, **evidence} for epoch in range(1, 5)]
        >>> detect_early_bird_convergence(history)["verdict"]
        'trivially stable'
        >>> detect_early_bird_convergence(history, ConvergenceRule(require_movement=False))["convergence_epoch"]
        3
    """
    judging = rule or ConvergenceRule()
    if not checkpoints:
        raise ValueError("a history must hold at least one checkpoint, got none; train until the first check")
    history: list[dict[str, Any]] = []
    for checkpoint in checkpoints:
        history.append(dict(checkpoint))
        history[-1].update(judging.judge(history))
    return summarise_history(history)


def summarise_history(history: Sequence[Mapping[str, Any]]) -> Detection:
    """Returns the outcome of a history whose checks have been judged."""
    decisive = next((check for check in history if check["verdict"] == "converged"), history[-1])
    converged = decisive["verdict"] == "converged"
    return {
        "converged": converged,
        "convergence_epoch": _get(decisive, "epoch") if converged else None,
        "verdict": decisive["verdict"],
        "reason": decisive["reason"],
        "verdicts": [check["verdict"] for check in history],
    }


def _is_diverged(check: Mapping[str, Any]) -> bool:
    """Returns whether a check saw values that are not finite."""
    figures = [check.get(name) for name in ("correlation", "loss", "corrected_start_distance")]
    return not check.get("finite", True) or any(f is not None and not math.isfinite(f) for f in figures)


def _advise_rate(check: Mapping[str, Any]) -> str:
    """Returns what to try where weights have hardly moved at the default learning rate."""
    if check.get("learning_rate") != TrainerSettings.learning_rate:
        return ""
    return f"; {RATE_ADVICE}"


def _get(check: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401 - a figure or a list of them
    if name not in check:
        raise ValueError(
            f"a checkpoint must have {name!r}, but has {sorted(check)}; record it as compute_early_bird_tickets does, "
            "or take ConvergenceRule(require_movement=False), which needs no evidence of movement"
        )
    return check[name]


def _find_growth(history: Sequence[Mapping[str, Any]]) -> float:
    """Returns g, where the distance to the starting mask grew as training time^g over the last doubling of time."""
    last = history[-1]
    earlier = [check for check in history[:-1] if 2 * _time_of(check) <= _time_of(last)]
    first = earlier[-1] if earlier else history[0]  # the first stands in until time has doubled since it
    times = [_time_of(check) for check in (first, last)]
    distances = [_get(check, "corrected_start_distance") for check in (first, last)]
    if min(*times, *distances) <= 0 or times[1] <= times[0]:
        return 0.0
    return math.log(distances[1] / distances[0]) / math.log(times[1] / times[0])


def _time_of(check: Mapping[str, Any]) -> float:
    step = check.get("step")
    return float(_get(check, "epoch") if step is None else step)
