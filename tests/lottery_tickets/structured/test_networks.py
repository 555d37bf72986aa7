"""Shrunk networks of any graph compute what the masked ones compute; another implementation removes the same."""

import copy
import sys
from collections.abc import Callable
from typing import Any, Final

import pytest
import torch
import torch_pruning
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from lottery_tickets import apply_mask, masked, shrink
from lottery_tickets.structured import find_units
from lottery_tickets.structured.units import prune_units
from tests.lottery_tickets.structured.networks import NETWORKS, draw_mask, make_images, make_network

TOLERANCE: Final = 1e-12  # relative, in float64
GROUPS: Final = {
    "residual": {"stem": 6, "first": 5, "shortcut": 4},
    "dense": {"first": 3, "second": 4, "third": 5, "hidden": 6},
    "twice": {"first": 6},
    "gated": {"stem": 6, "squeeze": 4, "last": 5},
    "depthwise": {"0": 6, "5": 4, "7": 3, "9": 4},
    "transposed": {"0": 5, "5": 4},
    "perceptron": {"1": 7, "4": 6},
}


def is_close(one: Tensor, other: Tensor) -> bool:
    one, other = one.detach(), other.detach()
    return float((one - other).abs().max()) <= TOLERANCE * float(other.abs().max())


@pytest.mark.parametrize("name", GROUPS)
def test_channels_that_go_together_are_found(name: str) -> None:
    units = find_units(make_network(name), make_images(1))
    assert {group.name: group.num_units for group in units.groups.values()} == GROUPS[name]
    assert units.left_out == {}


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_shrunk_network_computes_what_the_masked_one_does(name: str, seed: int) -> None:
    model, images = make_network(name), make_images()
    before = copy.deepcopy(model.state_dict())
    mask = draw_mask(model, find_units(model, images).groups.values(), seed)
    shrunk = shrink(model, mask, example_inputs=images)
    assert shrunk.report["difference"] is not None
    assert shrunk.report["difference"] <= TOLERANCE
    for training in (False, True):
        for one in (model, shrunk.model):
            one.train(training)
        with masked(model, mask):
            assert is_close(shrunk.model(images), model(images))
    model.eval().load_state_dict(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def prune_elsewhere(model: nn.Module, images: Tensor, name: str, gone: list[int]) -> nn.Module:
    """Returns a copy from which Torch-Pruning has removed outputs of a layer, and what goes with them."""
    other = copy.deepcopy(model)
    graph = torch_pruning.DependencyGraph().build_dependency(other, images, verbose=False)
    layer: Any = other.get_submodule(name)
    remove = (
        torch_pruning.prune_linear_out_channels
        if isinstance(layer, nn.Linear)
        else torch_pruning.prune_conv_out_channels
    )
    graph.get_pruning_group(layer, remove, gone).prune()
    return other


@pytest.mark.parametrize(
    ("name", "layer", "gone"),
    [("residual", "stem", [0, 3]), ("dense", "third", [1, 4]), ("dense", "first", [2]), ("perceptron", "1", [5, 6]),
     ("depthwise", "0", [1, 4]), ("gated", "last", [0, 2]), ("resnet", "stages.0.0.conv1", [2, 3, 9])],
)  # fmt: skip
def test_torch_pruning_removes_the_same(name: str, layer: str, gone: list[int]) -> None:
    model, images = make_network(name), make_images()
    [group] = [group for group in find_units(model, images).groups.values() if group.name == layer]
    kept = torch.ones(group.num_units, dtype=torch.bool)
    kept[gone] = False
    mask = prune_units([group], {layer: kept}, {name: p.shape for name, p in model.named_parameters()})
    apply_mask(model, mask)
    ours, theirs = shrink(model, mask, example_inputs=images).model, prune_elsewhere(model, images, layer, gone)
    assert {n: p.shape for n, p in ours.named_parameters()} == {n: p.shape for n, p in theirs.named_parameters()}
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in ours.state_dict().items())
    assert is_close(ours(images), theirs(images))


class Normed(nn.Module):
    """A layer norm over a width that is no unit, and hidden neurons that are."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 4, 3, padding=1), norm
        self.up, self.down, self.head = nn.Linear(4, 6), nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.norm(self.stem(inputs)).mean((2, 3))
        outputs: Tensor = self.head(hidden + self.down(functional.gelu(self.up(hidden))))
        return outputs


class Softmax(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.softmax(1)


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 4), nn.LayerNorm([4, 8, 8]), nn.RMSNorm([4, 8, 8]), Softmax()])
def test_what_computes_with_all_channels_is_left_out_with_the_reason(norm: nn.Module) -> None:
    units = find_units(Normed(norm), make_images(1).float())
    assert list(units.groups) == ["up"]
    assert "stem" in units.left_out
    with pytest.raises(ValueError, match="must have units of the kind 'channels' to prune, but has neurons; stem: "):
        units.of_kind("channels")


class Odd(nn.Module):
    """Channels that are split and added: one goes with another one of the same layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(8, 6), nn.Linear(3, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        one, other = torch.relu(self.first(inputs.flatten(1)[:, :8])).chunk(2, 1)
        outputs: Tensor = self.head(one + other)
        return outputs


class Recurrent(nn.Module):
    """A layer called twice, at first with the inputs of the network, which stay as wide as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(torch.tanh(self.inner(torch.tanh(self.inner(inputs.flatten(1)[:, :8])))))
        return outputs


class Returned(nn.Module):
    """Neurons that the network gives back beside its outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(8, 6), nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        hidden = torch.relu(self.first(inputs.flatten(1)[:, :8]))
        return {"logits": self.head(torch.relu(self.second(hidden))), "hidden": hidden}


@pytest.mark.parametrize(
    ("network", "others"),
    [(Odd, []), (Recurrent, []), (Returned, ["second"])],
)
def test_a_group_that_cannot_lose_units_is_left_out(network: Callable[[], nn.Module], others: list[str]) -> None:
    units = find_units(network(), make_images(1).float())
    assert list(units.groups) == others
    assert all("without half of it the network" in reason for reason in units.left_out.values())


def test_channels_that_can_only_go_together_are_no_units() -> None:
    layers = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 8, 1, groups=4), nn.Flatten(), nn.Linear(512, 2)
    units = find_units(nn.Sequential(*layers), make_images(1).float())
    assert units.left_out["0"] == "its channels can only go together"


@pytest.mark.parametrize(("make", "found"), [(Returned, "second"), (lambda: Normed(Softmax()), "up")])
def test_weights_that_are_zero_hide_no_path(make: Callable[[], nn.Module], found: str) -> None:
    model = make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert list(find_units(model, make_images(1).float()).groups) == [found]


def test_without_torch_pruning_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)  # what Python takes for missing
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'lottery-tickets\[shrink\]'"):
        find_units(make_network("dense"), make_images(1))


def test_a_network_that_does_not_run_says_so() -> None:
    with pytest.raises(ValueError, match=r"units of a Dense must be found by Torch-Pruning, .* it ended with Runtime"):
        find_units(make_network("dense"), torch.ones(1, 3, 8, 8))


def test_a_network_needs_example_inputs_and_is_a_module() -> None:
    with pytest.raises(ValueError, match="example_inputs must be given"):
        find_units(make_network("dense"))
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module"):
        find_units({"weight": torch.ones(2, 2)})  # type: ignore[arg-type] # on purpose
