"""Options of a wrong type are named, as those out of range are."""

from typing import Any

import pytest

from lottery_tickets import ConvergenceRule, ScoringOptions, TrainerSettings


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (TrainerSettings, "learning_rate"),
        (TrainerSettings, "momentum"),
        (TrainerSettings, "nonfinite_limit"),
        (ConvergenceRule, "convergence_threshold"),
        (ConvergenceRule, "growth_ceiling"),
        (ConvergenceRule, "error_rate"),
        (ScoringOptions, "gradient_clip"),
        (ScoringOptions, "tolerance"),
    ],
)
def test_a_number_of_a_wrong_type_is_named(options: type, name: str) -> None:
    values: tuple[Any, ...] = ("0.5", [0.5], True)
    for value in values:
        with pytest.raises(TypeError, match=f"{name} must be a number "):
            options(**{name: value})
    with pytest.raises(ValueError, match=f"{name} must be .*, got nan"):
        options(**{name: float("nan")})
