"""Magnitude masks of models, end to end."""

import copy
import logging

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn
from torch.nn.utils import prune

from lottery_tickets.magnitude_pruning import compute_layerwise_magnitude_ticket, create_magnitude_mask
from lottery_tickets.masks.mask import Mask
from tests.strategies import SPARSITIES


def make_model(seed: int = 0) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(32, 10))
    for parameter in model.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    return model


@pytest.mark.filterwarnings("ignore:layer collapse")
@given(sparsity=SPARSITIES)
@settings(max_examples=40, deadline=None)
def test_exactly_the_share_is_removed(sparsity: float) -> None:
    mask = create_magnitude_mask(make_model(), sparsity)
    assert mask.num_kept == 536 - round(sparsity * 536)


def test_it_agrees_with_torch_prune() -> None:
    model = make_model()
    mask = create_magnitude_mask(model, 0.8)
    prune.global_unstructured(
        [(model[0], "weight"), (model[4], "weight")], pruning_method=prune.L1Unstructured, amount=round(0.8 * 536)
    )
    assert torch.equal(mask["0.weight"], model[0].get_buffer("weight_mask").bool())
    assert torch.equal(mask["4.weight"], model[4].get_buffer("weight_mask").bool())


def test_the_model_stays_bit_for_bit_as_it_was() -> None:
    model = make_model()
    model(torch.randn(2, 3, 4, 4)).sum().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    state = copy.deepcopy(model.state_dict())
    random_state = torch.get_rng_state()
    for scope in ("global", "erk", "lamp", "row"):
        create_magnitude_mask(model, 0.5, scope=scope)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert model.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is g for p, g in zip(model.parameters(), gradients, strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_mapping_a_model_and_a_wider_dtype_give_the_same_mask(dtype: torch.dtype) -> None:
    model = make_model().to(dtype)
    mask = create_magnitude_mask(model, 0.7)
    assert mask == create_magnitude_mask(model.state_dict(), 0.7)
    assert mask == create_magnitude_mask(model.to(torch.float64), 0.7)


def test_rounds_of_pruning_are_nested_and_rank_survivors_only() -> None:
    model = make_model()
    mask = create_magnitude_mask(model, 0.5)
    first = model.get_parameter("0.weight")
    first.data[~mask["0.weight"]] = 100.0  # what was pruned grows, and stays pruned
    later = create_magnitude_mask(model, 0.75, within=mask)
    assert all(not bool((later[name] & ~mask[name]).any()) for name in mask)
    assert later.num_kept == 536 - round(0.75 * 536)
    assert create_magnitude_mask(model, 0.75, within=dict(mask)) == later


def test_scopes_reach_the_model() -> None:
    model = make_model()
    rows = create_magnitude_mask(model, 0.5, scope="row")
    assert rows["4.weight"].sum(dim=1).tolist() == [16] * 10
    two_of_four = create_magnitude_mask(model, None, scope="2:4", include="4.weight")
    assert two_of_four["4.weight"].view(10, 8, 4).sum(dim=2).unique().tolist() == [2]
    assert two_of_four.provenance["sparsity"] == 0.5
    transposed = nn.ConvTranspose2d(4, 6, 3)
    mask = create_magnitude_mask(transposed, 0.5, scope="row")
    assert mask["weight"].sum(dim=(0, 2, 3)).tolist() == [18] * 6


def test_the_mask_says_how_it_was_made_and_the_log_what_it_took(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="lottery_tickets.masks.selector"):
        mask = create_magnitude_mask(make_model(), 0.5)
    assert mask.provenance.keys() == {"method", "sparsity", "scope", "lottery_tickets", "torch"}
    assert mask.provenance["method"] == "magnitude"
    assert "scope global: 268 of 536 weights removed, in 2 parameters: 0.weight, 4.weight" in caplog.text


def test_an_emptied_layer_is_warned_of() -> None:
    weights = {"a.weight": torch.full((2, 2), 0.1), "b.weight": torch.ones(2, 2)}
    with pytest.warns(UserWarning, match="layer collapse: nothing is kept of a.weight") as caught:
        create_magnitude_mask(weights, 0.5)
    assert caught[0].filename == __file__
    create_magnitude_mask(weights, 1.0)  # asked for: no warning, which would be an error here


def test_the_ticket_describes_its_mask() -> None:
    weights = {"a.weight": torch.tensor([[1.0, -2.0]]), "b.weight": torch.tensor([[3.0, -4.0], [5.0, 6.0]])}
    ticket = compute_layerwise_magnitude_ticket(weights, 0.5, use_global_ranking=False)
    assert ticket["mask"] == create_magnitude_mask(weights, 0.5, scope="layer")
    assert ticket["layer_sparsities"] == {"a.weight": 0.5, "b.weight": 0.5}
    assert ticket["thresholds"] == {"a.weight": 2.0, "b.weight": 5.0}
    assert ticket["actual_sparsity"] == 0.5
    assert ticket["collapsed_layers"] == []
    with pytest.warns(UserWarning, match="layer collapse"):
        ticket = compute_layerwise_magnitude_ticket(weights, 0.5)
    assert ticket["collapsed_layers"] == ["a.weight"]
    assert ticket["thresholds"] == {"a.weight": None, "b.weight": 4.0}


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_is_refused_by_name(value: float) -> None:
    model = make_model()
    model.get_parameter("4.weight").data[3, 3] = value
    with pytest.raises(ValueError, match=r"'4\.weight' must be finite to be ranked"):
        create_magnitude_mask(model, 0.5)


@pytest.mark.parametrize(
    ("within", "message"),
    [
        ({"0.weight": torch.ones(8, 3, 3, 3)}, "`within` must cover every weight, but '4.weight' is missing"),
        (
            {"0.weight": torch.ones(8, 3, 3, 3), "4.weight": torch.ones(32, 10)},
            r"mask for '4.weight' has shape \(32, 10\), but the parameter has shape \(10, 32\); was it made",
        ),
        (
            {"0.weight": torch.ones(8, 3, 3, 3), "4.weight": torch.ones(10, 32), "x": torch.ones(1)},
            r"`within` must hold masks of the weights only, got \['x'\]",
        ),
        (
            {"0.weight": torch.ones(8, 3, 3, 3), "4.weight": torch.zeros(10, 32)},
            "keeps 268 of the weights, but .* only 216",
        ),
    ],
)
def test_an_earlier_mask_must_fit(within: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_magnitude_mask(make_model(), 0.5, within=within)


@pytest.mark.parametrize("sparsity", ["0.5", True, torch.tensor(0.5)])
def test_a_sparsity_must_be_a_number(sparsity: object) -> None:
    with pytest.raises(TypeError, match="sparsity must be a number from 0 to 1, got"):
        create_magnitude_mask(make_model(), sparsity)  # type: ignore[arg-type]


def test_what_comes_back_is_a_mask() -> None:
    assert isinstance(create_magnitude_mask(nn.Linear(3, 2), 0.5), Mask)
