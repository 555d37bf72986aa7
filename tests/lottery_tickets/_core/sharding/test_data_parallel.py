"""Scores under DistributedDataParallel are those of one process that sees all samples."""

import pytest

from tests.lottery_tickets._core.sharding import models
from tests.processes import Processes

SCORES = (
    "compute_fisher_importance",
    "compute_gradient_importance",
    "compute_taylor_importance",
    "compute_grasp_importance",
)


@pytest.mark.parametrize("score", SCORES)
def test_each_process_scores_its_samples(processes: Processes, score: str) -> None:
    processes.run(models.check_scores, score)
