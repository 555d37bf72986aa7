"""From paired differences to verdicts, for many experiments at once: what claims and their simulation share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from statistical_report_generator.inference.equivalence import (
    Differences,
    Floats,
    adjust_holm,
    compute_p_above,
    compute_p_below,
)

Booleans = npt.NDArray[np.bool_]


@final
@dataclass(frozen=True)
class Evidence:
    """P values of one hypothesis at each level, the last axis.

    Attributes:
        p_value: Of each level alone.
        adjusted_p_value: Corrected for the number of levels by Holm's method.
    """

    p_value: Floats
    adjusted_p_value: Floats

    def holds(self, alpha: float) -> Booleans:
        """Returns where it is shown with a family-wise error of at most alpha."""
        return self.adjusted_p_value <= alpha


@final
@dataclass(frozen=True)
class AgainstDense:
    """What is tested of each level's ticket minus dense, d, larger being better. Small p values show it.

    Attributes:
        not_worse: d > -margin: the ticket is matching.
        not_better: d < margin; with `not_worse` the two one-sided tests (Schuirmann 1987).
        equivalent: Both: -margin < d < margin.
        worse: d < -margin: the ticket is not matching.
        above: d > 0.
        below: d < 0.
    """

    not_worse: Evidence
    not_better: Evidence
    equivalent: Evidence
    worse: Evidence
    above: Evidence
    below: Evidence


@final
@dataclass(frozen=True)
class AgainstControls:
    """What is tested of each level's ticket minus control, c, larger being better. Small p values show it.

    Attributes:
        beaten: By control: c > 0. Corrected over levels.
        better: By control: c < 0. Corrected over levels and controls.
        equal: By control: -margin < c < margin. Corrected over levels and controls.
        winning: The ticket is matching and beats every control: the largest of these p values (intersection-union
            test), corrected over levels.
    """

    beaten: dict[str, Evidence]
    better: dict[str, Evidence]
    equal: dict[str, Evidence]
    winning: Evidence


def compare_with_dense(differences: Differences, margin: float) -> AgainstDense:
    """Returns the tests of tickets against the dense network.

    Args:
        differences: Ticket minus dense, larger being better, shape (..., number of levels).
        margin: The loss that counts as none, positive, in the units of the metric.
    """
    not_worse, not_better = compute_p_above(differences, -margin), compute_p_below(differences, margin)
    return AgainstDense(
        not_worse=_correct(not_worse),
        not_better=_correct(not_better),
        equivalent=_correct(np.maximum(not_worse, not_better)),
        worse=_correct(compute_p_below(differences, -margin)),
        above=_correct(compute_p_above(differences, 0.0)),
        below=_correct(compute_p_below(differences, 0.0)),
    )


def compare_with_controls(differences: Mapping[str, Differences], not_worse: Floats, margin: float) -> AgainstControls:
    """Returns the tests of tickets against their controls.

    A level whose ticket is shown to win is matching, and beats each control, by the corrected tests of these too,
    for their p values are no larger.

    Args:
        differences: By control: ticket minus control, larger being better, shape (..., number of levels). A control
            that a level lacks has no differences there, so that this level cannot win.
        not_worse: The p values of these levels that the ticket is matching, not corrected.
        margin: The difference that counts as none, positive.
    """
    beaten = {name: compute_p_above(found, 0.0) for name, found in differences.items()}
    better = {name: compute_p_below(found, 0.0) for name, found in differences.items()}
    equal = {
        name: np.maximum(compute_p_above(found, -margin), compute_p_below(found, margin))
        for name, found in differences.items()
    }
    return AgainstControls(
        beaten={name: _correct(p_value) for name, p_value in beaten.items()},
        better=_correct_together(better),
        equal=_correct_together(equal),
        winning=_correct(np.maximum.reduce([not_worse, *beaten.values()])),
    )


def _correct(p_value: Floats) -> Evidence:
    return Evidence(p_value, adjust_holm(p_value))


def _correct_together(p_values: Mapping[str, Floats]) -> dict[str, Evidence]:
    """Returns several hypotheses at each level, corrected as one family."""
    stacked = np.stack(list(p_values.values()), axis=-1)  # levels, controls
    adjusted = adjust_holm(stacked.reshape(*stacked.shape[:-2], -1)).reshape(stacked.shape)
    return {name: Evidence(p_values[name], adjusted[..., place]) for place, name in enumerate(p_values)}
