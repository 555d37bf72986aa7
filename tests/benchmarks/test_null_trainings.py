"""The early-bird rule is not fooled by trainings in which no ticket emerges, nor blind to those in which one does.

One run of each kind; `benchmarks/studies/early_bird_verdicts.py` does hundreds.
"""

import pytest
from benchmarks.studies.null_trainings import CHANNEL_NULLS, EMERGENCES, NULLS, watch

from lottery_tickets import ConvergenceRule, detect_early_bird_convergence
from lottery_tickets.early_bird.convergence import METHODS

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
