"""The early-bird rule is not fooled by trainings in which no ticket emerges, nor blind to those in which one does.

One run of each kind, of those with real gradients a few; `benchmarks/studies/early_bird_verdicts.py` does hundreds.
"""

import pytest
from benchmarks.studies import probed_trainings
from benchmarks.studies.null_trainings import CHANNEL_NULLS, EMERGENCES, NULLS, watch
from benchmarks.studies.probed_trainings import REAL, watch_recipe

from lottery_tickets import ConvergenceRule, detect_early_bird_convergence
from lottery_tickets.early_bird.history import METHODS

RULES = [(ConvergenceRule(method), 0.5) for method in METHODS]
# Stability alone does not call these converged at sparsity 0.5; all the others it does.
UNSTABLE = {"independent weights", "noise, SGD at 3e-2", "noise, SGD at 3e-3", "noise, momentum", "noise, weight decay"}


@pytest.mark.parametrize("name", [*NULLS, *CHANNEL_NULLS])
def test_no_ticket_is_found_where_there_is_none(name: str) -> None:
    simulation = {**NULLS, **CHANNEL_NULLS}[name]
    histories = watch(simulation, 0, RULES, channels=name in CHANNEL_NULLS)
    for method, checks in zip(METHODS, histories, strict=True):
        assert all(check["verdict"] != "converged" for check in checks)
        common = detect_early_bird_convergence(checks, ConvergenceRule(method=method, require_movement=False))
        assert common["converged"] == (name not in UNSTABLE | {"channels, noise"})


@pytest.mark.parametrize("name", EMERGENCES)
def test_a_ticket_that_emerges_is_found(name: str) -> None:
    for checks in watch(EMERGENCES[name], 0, RULES):
        assert any(check["verdict"] == "converged" for check in checks)


@pytest.mark.parametrize(
    "name",
    [
        "skewed labels",
        "skewed labels, 30 loss + 30, probe trained on",
        "memorised labels, probe trained on",
        "biases learn, weights are noise",
        "head learns, body is noise",
        "channels, scales are noise",
    ],
)
def test_real_gradients_from_which_nothing_is_learnt_make_no_ticket(name: str) -> None:
    for method, checks in zip(METHODS, watch_recipe(probed_trainings.NULLS[name], 0, RULES), strict=True):
        assert all(check["verdict"] != "converged" for check in checks)
        common = detect_early_bird_convergence(checks, ConvergenceRule(method=method, require_movement=False))
        assert common["converged"]


@pytest.mark.parametrize("name", ["Adam, warm-up", "fine-tuning", "40 % label noise", "loss - 3", "channels"])
def test_real_trainings_are_found(name: str) -> None:
    for checks in watch_recipe(REAL[name], 0, RULES):
        assert any(check["verdict"] == "converged" for check in checks)
