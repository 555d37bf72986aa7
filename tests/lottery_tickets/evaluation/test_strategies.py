"""Strategies side by side: each row is what measuring under its own mask says, with random masks beside."""

import math

import pytest
import torch
from torch import nn

from lottery_tickets import (
    compare_pruning_strategies,
    compute_fisher_importance,
    compute_lottery_ticket_quality,
    compute_magnitude_importance,
    create_importance_mask,
    create_random_mask,
)
from lottery_tickets.storage import hash_state
from tests.models import make_mlp

pytestmark = pytest.mark.filterwarnings("ignore:layer collapse")  # of so small a network, with some weights
DATA = [(torch.randn(16, 5).double(), torch.randint(3, (16,))) for _ in range(2)]


def make_scores(model: nn.Module) -> dict[str, dict[str, torch.Tensor]]:
    return {
        "magnitude": compute_magnitude_importance(model),
        "saliency": compute_fisher_importance(model, DATA, 16, saliency=True),
    }


def test_each_row_is_the_quality_under_its_mask() -> None:
    model = make_mlp()
    scores = make_scores(model)
    found = compare_pruning_strategies(model, DATA, scores, sparsity_levels=[0.8, 0.3], seed=3)
    assert [(row["strategy"], row["sparsity"]) for row in found["rows"]] == [
        (name, sparsity) for name in ("magnitude", "saliency", "random") for sparsity in (0.3, 0.8)
    ]
    for row in found["rows"]:
        if row["strategy"] == "random":
            mask = create_random_mask(model, row["sparsity"], 3)
        else:
            mask = create_importance_mask(scores[row["strategy"]], row["sparsity"])
        quality = compute_lottery_ticket_quality(model, mask, DATA)
        assert row["loss"] == quality["ticket_loss"]
        assert row["retention"] == quality["performance_retention"]
        assert row["actual_sparsity"] == mask.sparsity
        assert found["baseline"]["loss"] == quality["baseline_loss"]


def test_scores_are_asked_for_when_their_turn_comes_and_one_at_a_time() -> None:
    model, asked = make_mlp(), []

    def ask(name: str) -> dict[str, torch.Tensor]:
        asked.append(name)
        return make_scores(model)[name]

    makers = {name: lambda name=name: ask(name) for name in ("saliency", "magnitude")}
    lazy = compare_pruning_strategies(model, DATA, makers, sparsity_levels=[0.5, 0.9])
    assert asked == ["saliency", "magnitude"]
    scores = make_scores(model)
    given = {name: scores[name] for name in ("saliency", "magnitude")}
    assert lazy == compare_pruning_strategies(model, DATA, given, sparsity_levels=[0.5, 0.9])


def test_the_model_is_left_as_it_was() -> None:
    model = make_mlp().train()
    before, generator = hash_state(model.state_dict()), torch.get_rng_state()
    compare_pruning_strategies(model, DATA, sparsity_levels=[0.5])
    assert hash_state(model.state_dict()) == before
    assert model.training
    assert torch.equal(torch.get_rng_state(), generator)


def test_layers_that_keep_nothing_are_counted() -> None:
    model = make_mlp()
    with torch.no_grad():
        model.get_parameter("2.weight").mul_(1e-6)
    with pytest.warns(UserWarning, match=r"layer collapse: nothing is kept of 2\.weight"):
        found = compare_pruning_strategies(model, DATA, sparsity_levels=[0.7])
    assert [row["num_collapsed_layers"] for row in found["rows"]] == [1, 0]


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"sparsity_levels": []}, "at least one number in"),
        ({"sparsity_levels": [1.5]}, "sparsity must be from 0"),
        ({"strategies": {"random": {}}}, "no strategy may be called 'random'"),
        ({"dataloader": iter(DATA)}, "iterator"),
    ],
)
def test_what_cannot_be_compared_is_refused(settings: dict[str, object], match: str) -> None:
    given = {"dataloader": DATA, **settings}
    with pytest.raises((ValueError, TypeError), match=match):
        compare_pruning_strategies(make_mlp(), **given)  # type: ignore[arg-type] # on purpose


def test_a_model_whose_loss_is_not_finite_is_refused() -> None:
    model = make_mlp()
    with torch.no_grad():
        model.get_parameter("4.bias").fill_(math.inf)
    with pytest.raises(ValueError, match="the unpruned model's loss must be finite"):
        compare_pruning_strategies(model, DATA)
