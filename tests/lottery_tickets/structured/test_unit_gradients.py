"""Scores of units from data are those of a gate on all that reads the unit, found here weight by weight."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lottery_tickets import create_unit_mask
from lottery_tickets._core.objective import compute_loss
from lottery_tickets.structured import find_units
from lottery_tickets.structured.unit_gradients import score_by_gradients
from lottery_tickets.structured.units import NOBODY, UnitGroup
from tests.lottery_tickets.structured.networks import make_images, make_network
from tests.models import make_language_model

IMAGES = make_images(6)
SAMPLES = [(IMAGES, torch.arange(6) % 3)]
TOKENS = [{"input_ids": torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8], [3, 1, 4, 1]])}]


def score_slowly(model: nn.Module, group: UnitGroup, samples: list[Any]) -> tuple[Tensor, Tensor]:
    """The oracle: w * dL_n / dw of each weight that reads a unit, summed in a loop; returns Taylor and Fisher."""
    named = dict(model.named_parameters())
    per_sample = []
    for sample in samples:
        model.zero_grad()
        compute_loss(model, sample).backward()
        total = torch.zeros(group.num_units, dtype=torch.float64)
        for member in group.members:
            if not member.is_outgoing:
                continue
            weight = named[member.name]
            assert weight.grad is not None
            products = (weight.detach() * weight.grad).movedim(member.dim, 0).flatten(1).sum(1).double()
            for place, owner in enumerate(member.owners.tolist()):
                if owner != NOBODY:
                    total[owner] += products[place]
        per_sample.append(total)
    model.zero_grad()
    stacked = torch.stack(per_sample)
    return stacked.abs().mean(0), 0.5 * stacked.square().mean(0)


@pytest.mark.parametrize(
    ("name", "units"),
    [("residual", "channels"), ("dense", "channels"), ("dense", "neurons"), ("Llama", "kv_groups"),
     ("Llama", "neurons"), ("Llama", "layers"), ("Mixtral", "experts")],
)  # fmt: skip
def test_a_gate_says_what_the_weights_that_read_a_unit_say_together(name: str, units: str) -> None:
    is_network = name.islower()
    options = {"experts_implementation": "eager"} if name == "Mixtral" else {}  # in groups they take no float64
    model: nn.Module = make_network(name) if is_network else make_language_model(name, **options)
    model.double().eval()
    data: Any = [(IMAGES.double(), SAMPLES[0][1])] if is_network else TOKENS
    samples = (
        [(data[0][0][[n]], data[0][1][[n]]) for n in range(5)]
        if is_network
        else [{"input_ids": TOKENS[0]["input_ids"][[n]]} for n in range(2)]
    )
    groups = find_units(model, IMAGES[:1].double() if is_network else None).of_kind(units)
    for place, score in enumerate(("taylor", "fisher")):
        found = score_by_gradients(model, groups, score, data, len(samples), loss_fn=None, seed=0)
        for group in groups:
            wanted = score_slowly(model, group, samples)[place]
            assert float(wanted.max()) > 0
            torch.testing.assert_close(found[group.name], wanted, rtol=1e-6 if options else 1e-9, atol=1e-15)


def test_a_mask_by_name_keeps_the_units_that_the_loss_needs() -> None:
    model = make_network("residual").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    chance = torch.get_rng_state()
    options: Any = {"dataloader": SAMPLES, "num_samples": 4, "example_inputs": IMAGES[:1]}
    mask = create_unit_mask(model, 0.5, scores="fisher", **options)
    groups = find_units(model, IMAGES[:1]).of_kind("channels")
    scores = score_by_gradients(model, groups, "fisher", SAMPLES, 4, loss_fn=None, seed=0)
    best = scores["stem"].topk(mask.provenance["kept"]["stem"]).indices
    assert sorted(best.tolist()) == mask["stem.bias"].nonzero().flatten().tolist()
    assert (mask.provenance["scores"], mask.provenance["num_samples"]) == ("fisher", 4)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(chance, torch.get_rng_state())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scores": "taylor"}, "'taylor', 'fisher' need a dataloader, and others take none, got 'taylor' with none"),
        ({"scores": "norm", "dataloader": SAMPLES}, "and others take none, got 'norm' with one"),
        ({"scores": "taylor", "dataloader": []}, "must give at least one sample to score units on, got none"),
        ({"scores": "taylor", "dataloader": SAMPLES, "num_samples": 0}, "num_samples must be an integer of at least 1"),
        (
            {"scores": "fisher", "dataloader": [(IMAGES * float("nan"), SAMPLES[0][1])]},
            "gradients must be finite, but those of units of 'stem' are not; look for NaN in the data",
        ),
    ],
)
def test_what_data_cannot_say_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_unit_mask(make_network("residual"), 0.5, example_inputs=IMAGES[:1], **options)
