"""The rule on histories: what is called converged, what only looks like it, and a replay of the published detector."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lottery_tickets import ConvergenceRule, EarlyBirdWatcher, detect_early_bird_convergence
from tests.models import TrainedNorms
from tests.reference import PublishedDetector

PARTS = [
    {"weights": [name], "num_weights": size, "along_p": 1e-9, "closing_p": 1e-9}
    for name, size in (("a", 60), ("b", 40))
]
LEARNT = {"gap_p": 1e-9, "rise_p": 1e-9, "held_out": True, "parts": PARTS}
MOVED = {"corrected_start_distance": 0.5, "movement": 0.3, **LEARNT}


WORSE = {"worse_p": 1e-9, "probe_loss": 9.0, "start_probe_loss": 2.0, "gap_spread": 5.0}


def change_part(number: int, **changes: float | None) -> list[dict[str, Any]]:
    return [part | changes if place == number else part for place, part in enumerate(PARTS)]


def make_history(correlations: Sequence[float | None], **evidence: object) -> list[dict[str, Any]]:
    return [
        {"epoch": epoch, "correlation": correlation, **MOVED, **evidence}
        for epoch, correlation in enumerate(correlations, start=1)
    ]


def test_a_miss_starts_the_count_anew() -> None:
    found = detect_early_bird_convergence(make_history([0.96, 0.97, 0.94, 0.96, 0.97, 0.98, 0.5]))
    assert found["convergence_epoch"] == 6
    assert found["verdicts"] == ["still changing"] * 5 + ["converged", "still changing"]
    assert detect_early_bird_convergence(make_history([0.96, 0.97, 0.94] * 9))["verdict"] == "still changing"


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30), st.integers(1, 4), st.floats(0.5, 1))
def test_converges_where_the_first_run_of_stable_checks_ends(
    correlations: list[float], window: int, threshold: float
) -> None:
    found = detect_early_bird_convergence(
        make_history(list(correlations)), ConvergenceRule(convergence_threshold=threshold, stability_window=window)
    )
    runs = [
        all(c >= threshold for c in correlations[end - window : end]) for end in range(window, len(correlations) + 1)
    ]
    assert found["convergence_epoch"] == (runs.index(True) + window if True in runs else None)
    assert found["converged"] == (True in runs)


@pytest.mark.parametrize(
    ("evidence", "verdict", "reason"),
    [
        ({"corrected_start_distance": 0.09}, "trivially stable", "hardly moved"),
        ({"movement": 0.009}, "trivially stable", "hardly moved"),
        ({"gap_p": None}, "stable, learning not shown", "nothing was measured on a probe"),
        ({"gap_p": 1e-3}, "trivially stable", "owes its inputs nothing"),
        ({"rise_p": 1e-3}, "trivially stable", "owes its inputs nothing"),
        ({"held_out": False, "learnable_p": 1e-2}, "trivially stable", "they are memorised"),
        ({"held_out": False, "learnable_p": 1e-9}, "converged", "one half taught the other"),
        ({"parts": change_part(0, along_p=0.5)}, "trivially stable", "only 40% of the ranked weights moved down"),
        ({"parts": change_part(1, along_p=0.5)}, "converged", "60% of the ranked weights close it"),
        ({"parts": change_part(0, closing_p=0.5)}, "trivially stable", "the gap stays"),
        ({"parts": change_part(1, closing_p=None)}, "converged", "at least 60% of the ranked weights close it"),
        (
            {"parts": change_part(0, closing_p=None)},
            "stable, learning not shown",
            "only 40% of the ranked weights were",
        ),
        ({"parts": [part | {"closing_p": None} for part in PARTS]}, "stable, learning not shown", "were put back"),
        (WORSE, "diverged", "rose from 2 at the start to 9"),
        (WORSE | {"worse_p": 0.01}, "converged", "close it"),
        (WORSE | {"gap_spread": 20.0}, "converged", "close it"),
        (WORSE | {"loss": 0.1, "start_loss": 2.0}, "converged", "close it"),
        ({"finite": False}, "diverged", "not finite"),
        ({"loss": float("nan")}, "diverged", "not finite"),
        ({"correlation": None}, "still changing", "all magnitudes tie"),
    ],
)
def test_stability_alone_does_not_count(evidence: dict[str, Any], verdict: str, reason: str) -> None:
    found = detect_early_bird_convergence([check | evidence for check in make_history([0.99] * 4)])
    assert found["verdict"] == verdict
    assert reason in found["reason"]
    assert found["converged"] == (verdict == "converged")
    assert (found["convergence_epoch"] == 3) == (verdict == "converged")


@pytest.mark.parametrize("power", [1.0, 0.55])
def test_a_steady_drift_has_not_settled(power: float) -> None:
    history = make_history([0.99] * 12)
    for epoch, check in enumerate(history, start=1):
        check["corrected_start_distance"] = 0.15 * epoch**power
    assert set(detect_early_bird_convergence(history)["verdicts"]) == {"still changing"}
    for epoch, check in enumerate(history, start=1):
        check["corrected_start_distance"] = 0.2 * epoch**0.45
    assert detect_early_bird_convergence(history)["verdict"] == "converged"


def test_a_history_can_be_judged_again_with_other_floors() -> None:
    history = [check | {"corrected_start_distance": 0.07} for check in make_history([0.99] * 4)]
    assert detect_early_bird_convergence(history)["verdict"] == "trivially stable"
    assert detect_early_bird_convergence(history, rule=ConvergenceRule(movement_floor=0.05))["converged"]


def test_the_error_rate_is_that_of_all_checks_together() -> None:
    """Check t is judged at rate / (t (t + 1)): these add up to the rate, however many checks there are."""
    rule = ConvergenceRule(stability_window=1, error_rate=0.01)
    for number in range(1, 30):
        level = 0.01 / (number * (number + 1))
        for p, converged in ((0.99 * level, True), (1.01 * level, False)):
            history = make_history([0.5] * (number - 1) + [0.99], gap_p=p)
            assert detect_early_bird_convergence(history, rule)["converged"] == converged
    assert sum(0.01 / (t * (t + 1)) for t in range(1, 100_000)) < 0.01


def test_a_part_that_has_moved_down_the_gradient_may_turn_later() -> None:
    turned = [part | {"along_p": 0.9} for part in PARTS]
    history = [*make_history([0.5]), *make_history([0.99] * 3, parts=turned)]
    assert detect_early_bird_convergence(history)["verdict"] == "converged"
    assert detect_early_bird_convergence(history[1:])["verdict"] == "trivially stable"
    history[0]["parts"] = [part | {"along_p": 0.0003} for part in PARTS]  # of 0.0005 at the first check, two parts
    assert detect_early_bird_convergence(history)["verdict"] == "trivially stable"


def test_what_a_history_lacks_is_named() -> None:
    with pytest.raises(ValueError, match=r"must have 'corrected_start_distance'.*require_movement=False"):
        detect_early_bird_convergence([{"epoch": n, "correlation": 0.99} for n in range(4)])
    with pytest.raises(ValueError, match="at least one checkpoint"):
        detect_early_bird_convergence([])
    with pytest.raises(ValueError, match="method must be one of"):
        detect_early_bird_convergence([{"epoch": 1}], ConvergenceRule(method="pearson"))  # type: ignore[arg-type] # the test
    with pytest.raises(ValueError, match="convergence_threshold must be from 0 to 1, got 95"):
        ConvergenceRule(convergence_threshold=95)
    with pytest.raises(ValueError, match="stability_window must be"):
        ConvergenceRule(stability_window=0)
    with pytest.raises(ValueError, match="error_rate must be from 0 to 1, got 5"):
        ConvergenceRule(error_rate=5)
    with pytest.raises(ValueError, match="queue_length must be at least 2"):
        ConvergenceRule("mask_distance", queue_length=1)


def test_a_history_that_was_read_back_gives_the_same_verdicts() -> None:
    judged = make_history([0.9, 0.96, 0.97, 0.98])
    first = detect_early_bird_convergence(judged)
    assert (
        detect_early_bird_convergence([check | {"verdict": "nonsense", "num_stable": 9} for check in judged]) == first
    )


@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("learning_rate", [0.02, 0.3])
def test_mask_distance_emerges_when_the_published_detector_says(sparsity: float, learning_rate: float) -> None:
    training = TrainedNorms(learning_rate)
    published = PublishedDetector(sparsity)
    rule = ConvergenceRule("mask_distance", require_movement=False)
    watcher = EarlyBirdWatcher(training.model, target_sparsity=sparsity, rule=rule, check_steps=1, channels=True)
    said = []
    for epoch in range(1, 15):
        training.train_epoch()
        said.append(published.has_emerged(training.model))
        check = watcher.observe(training.model, epoch)
        assert check is not None
        assert check["stable"] == said[-1], epoch
        assert len(check["queue_distances"]) == min(epoch - 1, 4)
        if epoch > 4:
            assert check["queue_distances"] == pytest.approx(published.distances, abs=1e-7)
    assert any(said) or learning_rate > 0.1
    found = watcher.results()
    assert found["convergence_epoch"] == (said.index(True) + 1 if True in said else None)
    assert found["final_mask"].shapes.keys() == {
        name for name, module in _named_weights(training.model) if isinstance(module, nn.BatchNorm1d)
    }


def _named_weights(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(f"{name}.weight", module) for name, module in model.named_modules() if hasattr(module, "weight")]


def test_scales_that_start_equal_are_no_ticket() -> None:
    """At the start all scales are 1, so every ranking of them is one of the tiniest differences."""
    torch.manual_seed(0)
    training = TrainedNorms(1e-6)
    watcher = EarlyBirdWatcher(training.model, check_steps=1, channels=True)
    for epoch in range(1, 8):
        training.train_epoch()
        watcher.observe(training.model, epoch)
    assert watcher.checkpoints[-1]["corrected_start_distance"] > 0.5  # type: ignore[operator] # a figure
    assert watcher.verdict == "trivially stable"
