"""What follows from losses and accuracies along a line: errors, instability, barriers."""

from collections.abc import Sequence
from typing import Final, TypedDict

WORST_ERROR: Final = 1.0


class EndFigures(TypedDict):
    """One end of the line.

    Attributes:
        loss: Mean loss.
        accuracy: Share of right answers, of tokens for language models; None where there are no answers to count.
        error: 1 - accuracy.
    """

    loss: float
    accuracy: float | None
    error: float | None


class PathFigures(TypedDict):
    """What was found on the line between two networks, JSON-able.

    Attributes:
        alphas: Points, from 0 (the first network) to 1 (the second).
        errors: 1 - accuracy at each; None where the loss is not finite. None as a whole where no accuracy exists.
        losses: Mean loss at each; None where it is not finite.
        num_nonfinite: Points whose loss or accuracy is not finite.
        first: The end at 0.
        second: The end at 1.
        instability: Largest error minus the mean of the ends' errors, at least 0; a point that is not finite counts as
            an error of 1. None where no accuracy exists.
        stable: Whether the instability is below the threshold; None where no accuracy exists.
        barrier: Largest loss minus the mean of the ends' losses, at least 0; None when a loss is not finite.
        barrier_over_line: Largest distance of the loss above the straight line between the ends' losses, at least 0;
            None when a loss is not finite.
    """

    alphas: list[float]
    errors: list[float | None] | None
    losses: list[float | None]
    num_nonfinite: int
    first: EndFigures
    second: EndFigures
    instability: float | None
    stable: bool | None
    barrier: float | None
    barrier_over_line: float | None


def summarise_path(
    alphas: Sequence[float], losses: Sequence[float | None], accuracies: Sequence[float | None], threshold: float
) -> PathFigures:
    """Returns the figures of a line.

    Args:
        alphas: Ascending from 0 to 1.
        losses: At each alpha; None where it is not finite.
        accuracies: At each alpha, in [0, 1]; None where it is not finite, all None where no accuracy exists.
        threshold: Instability below which the line is stable.

    Raises:
        ValueError: When an end is not finite.
    """
    has_accuracy = any(accuracy is not None for accuracy in accuracies)
    first, second = (_describe_end(losses[at], accuracies[at], at, has_accuracy=has_accuracy) for at in (0, -1))
    instability = _find_instability(accuracies, first, second)
    return {
        "alphas": list(alphas),
        "errors": [None if accuracy is None else 1 - accuracy for accuracy in accuracies] if has_accuracy else None,
        "losses": list(losses),
        "num_nonfinite": sum(
            loss is None or (has_accuracy and accuracy is None)
            for loss, accuracy in zip(losses, accuracies, strict=True)
        ),
        "first": first,
        "second": second,
        "instability": instability,
        "stable": None if instability is None else instability < threshold,
        "barrier": _find_barrier(losses, [(first["loss"] + second["loss"]) / 2] * len(losses)),
        "barrier_over_line": _find_barrier(losses, [_mix(first["loss"], second["loss"], alpha) for alpha in alphas]),
    }


def _describe_end(loss: float | None, accuracy: float | None, at: int, *, has_accuracy: bool) -> EndFigures:
    if loss is None or (has_accuracy and accuracy is None):
        which, what = ("second" if at else "first"), ("loss" if loss is None else "metric")
        raise ValueError(f"the {what} of the {which} network must be finite on the data, but is not; did it diverge?")
    return {"loss": loss, "accuracy": accuracy, "error": None if accuracy is None else 1 - accuracy}


def _find_instability(accuracies: Sequence[float | None], first: EndFigures, second: EndFigures) -> float | None:
    if first["error"] is None or second["error"] is None:
        return None
    worst = max(WORST_ERROR if accuracy is None else 1 - accuracy for accuracy in accuracies)
    return worst - (first["error"] + second["error"]) / 2


def _find_barrier(losses: Sequence[float | None], references: Sequence[float]) -> float | None:
    known = [loss - reference for loss, reference in zip(losses, references, strict=True) if loss is not None]
    return max(known) if len(known) == len(losses) else None


def _mix(first: float, second: float, alpha: float) -> float:
    """Returns the point between two numbers: exactly the first at alpha 0, exactly the second at 1."""
    return first + alpha * (second - first) if 2 * alpha < 1 else second - (1 - alpha) * (second - first)
