"""The tests behind the verdicts, on many experiments at once: claims use them on one, their simulation on thousands."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from statistical_report_generator.inference.equivalence import (
    Differences,
    Floats,
    Test,
    adjust_holm,
    compute_p_above,
    compute_p_below,
)

Booleans = npt.NDArray[np.bool_]


@final
@dataclass(frozen=True)
class HypothesisTest:
    """One hypothesis, tested at each level: p values, with the levels along the last axis.

    Attributes:
        p_value: Of each level alone.
        adjusted_p_value: Corrected by Holm's method for the number of tests in its family.
    """

    p_value: Floats
    adjusted_p_value: Floats

    def holds(self, alpha: float) -> Booleans:
        """Returns at which levels the hypothesis is shown, with a family-wise error of at most alpha."""
        return self.adjusted_p_value <= alpha


@final
@dataclass(frozen=True)
class AgainstDense:
    """Tests of d, the difference ticket minus dense of each level, where larger is better.

    Attributes say what a small p value shows.

    Attributes:
        not_worse: d > -margin: the ticket is matching.
        not_better: d < margin; with `not_worse` the two one-sided tests (Schuirmann 1987).
        equivalent: Both: -margin < d < margin.
        worse: d < -margin: the ticket is not matching.
        above: d > 0.
        below: d < 0.
    """

    not_worse: HypothesisTest
    not_better: HypothesisTest
    equivalent: HypothesisTest
    worse: HypothesisTest
    above: HypothesisTest
    below: HypothesisTest


@final
@dataclass(frozen=True)
class AgainstControls:
    """Tests of c, the difference ticket minus control of each level, where larger is better.

    Attributes say what a small p value shows.

    Attributes:
        beaten: By control: c > 0. Corrected over levels.
        better: By control: c < 0. Corrected over levels and controls.
        equal: By control: -margin < c < margin. Corrected over levels and controls.
        winning: The ticket is matching and beats every control: the largest of these p values (intersection-union
            test), corrected over levels.
    """

    beaten: dict[str, HypothesisTest]
    better: dict[str, HypothesisTest]
    equal: dict[str, HypothesisTest]
    winning: HypothesisTest


def compare_with_dense(differences: Differences, margin: float, test: Test = "t") -> AgainstDense:
    """Returns the tests of tickets against the dense network.

    Args:
        differences: Ticket minus dense, larger being better, shape (..., number of levels).
        margin: The loss that counts as none, positive, in the units of the metric.
        test: On the mean or on the median, see `compute_p_above`.
    """
    not_worse, not_better = compute_p_above(differences, -margin, test), compute_p_below(differences, margin, test)
    return AgainstDense(
        not_worse=_correct(not_worse),
        not_better=_correct(not_better),
        equivalent=_correct(np.maximum(not_worse, not_better)),
        worse=_correct(compute_p_below(differences, -margin, test)),
        above=_correct(compute_p_above(differences, 0.0, test)),
        below=_correct(compute_p_below(differences, 0.0, test)),
    )


def compare_with_controls(
    differences: Mapping[str, Differences], not_worse: Floats, margin: float, test: Test = "t"
) -> AgainstControls:
    """Returns the tests of tickets against their controls.

    Verdicts never contradict each other: where `winning` is shown, so are matching and `beaten` for each control. For
    the p value of winning is the largest of theirs, and Holm's correction over the same levels keeps this order.

    Args:
        differences: By control: ticket minus control, larger being better, shape (..., number of levels). A control
            that a level lacks has no differences there, so that this level cannot win.
        not_worse: The p values, not corrected, that the tickets of the same levels are matching.
        margin: The difference that counts as none, positive.
        test: On the mean or on the median, see `compute_p_above`.
    """
    beaten = {name: compute_p_above(found, 0.0, test) for name, found in differences.items()}
    better = {name: compute_p_below(found, 0.0, test) for name, found in differences.items()}
    equal = {
        name: np.maximum(compute_p_above(found, -margin, test), compute_p_below(found, margin, test))
        for name, found in differences.items()
    }
    return AgainstControls(
        beaten={name: _correct(p_value) for name, p_value in beaten.items()},
        better=_correct_together(better),
        equal=_correct_together(equal),
        winning=_correct(np.maximum.reduce([not_worse, *beaten.values()])),
    )


def _correct(p_value: Floats) -> HypothesisTest:
    return HypothesisTest(p_value, adjust_holm(p_value))


def _correct_together(p_values: Mapping[str, Floats]) -> dict[str, HypothesisTest]:
    """Returns several hypotheses at each level, corrected as one family."""
    stacked = np.stack(list(p_values.values()), axis=-1)  # levels, controls
    adjusted = adjust_holm(stacked.reshape(*stacked.shape[:-2], -1)).reshape(stacked.shape)
    return {name: HypothesisTest(p_values[name], adjusted[..., place]) for place, name in enumerate(p_values)}
