"""Scores with how they were found survive copies."""

import copy
import pickle

import torch

from lottery_tickets import (
    Importance,
    ScoringOptions,
    compute_fisher_importance,
)
from tests.lottery_tickets.scores.battery import batch, make_data, make_mlp


def test_the_result_survives_copies_and_pickles() -> None:
    scores = compute_fisher_importance(make_mlp(), batch(make_data(), 24), options=ScoringOptions(standard_errors=True))
    for twin in (copy.deepcopy(scores), pickle.loads(pickle.dumps(scores))):
        assert isinstance(twin, Importance)
        assert twin.report == scores.report
        assert twin.output_dims == scores.output_dims
        assert all(torch.equal(twin[name], score) for name, score in scores.items())
