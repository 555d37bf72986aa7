"""What a model costs: counted by hand, beside torch's own counter, and never run."""

from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from lottery_tickets import (
    Mask,
    check_held,
    compute_costs,
    create_magnitude_mask,
    create_unit_mask,
    hold_mask,
    shrink,
)
from lottery_tickets.workloads import build_model

BATCH = 4


def make_images(size: int) -> tuple[Tensor, Tensor]:
    return torch.randn(BATCH, 1, size, size), torch.randint(10, (BATCH,))


def count_by_torch(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[int, int]:
    """The oracle: torch's counter over passes that are really computed."""
    with FlopCounterMode(display=False) as counter:
        loss = functional.cross_entropy(model(batch[0]), batch[1])
        forward = counter.get_total_flops()
        loss.backward()
    return forward, counter.get_total_flops()


@pytest.mark.parametrize("name", ["lenet-300-100", "resnet-20", "conv-4"])
def test_flops_are_those_of_torchs_counter(name: str) -> None:
    batch = make_images(28)
    model = build_model(name, input_shape=(1, 28, 28), num_classes=10, generator=torch.Generator().manual_seed(0))
    state = {key: value.clone() for key, value in model.state_dict().items()}
    dense = compute_costs(model, batch)["dense"]
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert (dense["forward_flops"], dense["step_flops"]) == count_by_torch(model, batch)
    assert dense["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert dense["disk_bytes"] == sum(value.nbytes for value in state.values())


def test_what_is_skipped_is_the_share_of_each_weight_in_all_that_it_is_multiplied_in() -> None:
    """A network of one weight whose input needs no gradient: all of its FLOPs belong to the weight."""
    model = nn.Linear(8, 2, bias=False)
    costs = compute_costs(
        model, (torch.randn(BATCH, 8), torch.tensor([0, 1, 0, 1])), create_magnitude_mask(model, 0.75)
    )
    assert costs["dense"]["step_flops"] == 2 * costs["dense"]["forward_flops"] == 4 * BATCH * 16
    for key in ("forward_flops", "step_flops"):
        assert 4 * cast("dict[str, int]", costs["masked"])[key] == cast("dict[str, int]", costs["dense"])[key]
    assert costs["masked"]["parameters"] == 4
    assert costs["masked"]["disk_bytes"] == 4 * 4 + 2  # four float32, and 16 bits
    assert costs["masked"]["memory_bytes"] == costs["dense"]["memory_bytes"] == 64


@pytest.mark.parametrize("name", ["lenet-300-100", "resnet-20"])
def test_a_mask_that_prunes_all_leaves_what_no_weight_is_part_of(name: str) -> None:
    model = build_model(name, input_shape=(1, 28, 28), num_classes=10, generator=torch.Generator().manual_seed(0))
    nothing = Mask.from_tensors(
        {key: torch.zeros(value.shape) for key, value in model.named_parameters() if value.ndim > 1}
    )
    costs = compute_costs(model, make_images(28), nothing)
    assert costs["masked"]["forward_flops"] == costs["masked"]["step_flops"] == 0
    everything = compute_costs(model, make_images(28), Mask.keeping_all(dict(nothing.shapes)))
    assert everything["masked"]["step_flops"] == everything["dense"]["step_flops"]


def test_a_model_without_values_has_the_same_costs() -> None:
    model = build_model("lenet-300-100", input_shape=(1, 28, 28), num_classes=10, generator=torch.Generator())
    batch = make_images(28)
    assert compute_costs(model.to("meta"), batch) == compute_costs(model.to_empty(device="cpu"), batch)


def test_a_mask_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match="was it made for another model"):
        compute_costs(nn.Linear(4, 2), (torch.randn(2, 4), torch.tensor([0, 1])), Mask.keeping_all({"weight": (2, 3)}))


def test_a_mask_of_units_saves_what_the_smaller_network_does_not_compute() -> None:
    batch = make_images(28)
    model = build_model("conv-2", input_shape=(1, 28, 28), num_classes=10, generator=torch.Generator().manual_seed(0))
    mask = create_unit_mask(model, 0.5, units="channels", example_inputs=batch[0])
    costs = compute_costs(model, batch, mask)
    smaller = shrink(model, mask, example_inputs=batch[0])
    assert costs["shrunk"] == compute_costs(smaller.model, batch)["dense"]
    assert costs["shrunk"]["step_flops"] == costs["masked"]["step_flops"] < costs["dense"]["step_flops"]
    assert costs["shrunk"]["parameters"] == costs["masked"]["parameters"]


def test_a_model_without_units_says_why() -> None:
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    sequences, targets = torch.randn(BATCH, 3, 8), torch.zeros(BATCH, 8, dtype=torch.long)
    mask = create_magnitude_mask(model, 0.5)
    costs = compute_costs(model.to("meta"), (sequences, targets), mask)
    assert "shrunk" not in costs
    assert "meta device" in costs["no_units"]


def test_a_held_model_costs_what_it_costs() -> None:
    model = build_model("lenet-300-100", input_shape=(1, 28, 28), num_classes=10, generator=torch.Generator())
    batch, mask = make_images(28), create_magnitude_mask(model, 0.5)
    costs = compute_costs(model, batch, mask)
    hold_mask(model, mask)
    assert compute_costs(model, batch, mask) == costs
    check_held(model)


def test_costs_are_counted_where_no_gradients_are_asked_for() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    expected = compute_costs(model, make_images(8))
    with torch.no_grad():
        assert compute_costs(model, make_images(8)) == expected
