"""Random directions: filters as long as those of the weights, functions of seed and name, drawn in little memory."""

import gc
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.peers.plain_landscape import normalise
from benchmarks.speed.training_memory import StorageTracker
from torch import Tensor, nn

from lottery_tickets import Mask, compute_loss_landscape, create_magnitude_mask
from lottery_tickets._core.prunable_weights import find_filtered_weights
from lottery_tickets.landscape.directions import MovedWeights
from tests.lottery_tickets.landscape.pairs import PAIRS
from tests.models import make_convolutions, make_language_model, make_mlp

SEEDS = (3, 4)


class Mixed(nn.Module):
    """One of each kind of weight that is no plain linear one."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(6, 4)
        self.up = nn.ConvTranspose1d(4, 3, 2)
        self.norm = nn.LayerNorm(3)
        self.position = nn.Parameter(torch.randn(1, 5, 2))
        self.counter = nn.Parameter(torch.ones(2, 2, dtype=torch.int64), requires_grad=False)


MODELS: dict[str, tuple[Callable[[], nn.Module], dict[str, tuple[int, ...]]]] = {
    "MLP": (make_mlp, {}),
    "convolutions": (make_convolutions, {}),
    "mixed": (Mixed, {"up.weight": (1,)}),
    "GPT-2": (lambda: make_language_model("GPT2"), {".c_attn.": (1,), ".c_proj.": (1,), ".c_fc.": (1,)}),
    "Mixtral": (lambda: make_language_model("Mixtral"), {".experts.": (0, 1)}),
}


def make_moved(model: nn.Module, **options: Any) -> MovedWeights:  # noqa: ANN401 - of many types
    return MovedWeights(model, find_filtered_weights(model), SEEDS, **options)


def list_directions(model: nn.Module, number: int = 0, **options: Any) -> dict[str, Tensor]:  # noqa: ANN401 - as above
    moved = make_moved(model, **options)
    return {name: moved.make_direction(name, number) for name in find_filtered_weights(model)}


def read_moved(moved: MovedWeights, model: nn.Module, steps: tuple[float, ...]) -> dict[str, Tensor]:
    """Returns what a function of torch reads."""
    with moved.at(*steps), torch.no_grad():
        return {name: parameter.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("name", MODELS)
def test_each_filter_is_as_long_as_that_of_the_weights(name: str) -> None:
    make, transposed = MODELS[name]
    model = make()
    weights = find_filtered_weights(model)
    large = {n for n, p in model.named_parameters() if p.ndim > 1 and p.is_floating_point()}
    assert weights.keys() == large
    for weight_name, direction in list_directions(model).items():
        output_dims = next((dims for part, dims in transposed.items() if part in weight_name), (0,))
        assert weights[weight_name].output_dims == output_dims
        weight = weights[weight_name].tensor.detach()
        assert (direction.shape, direction.dtype) == (weight.shape, torch.promote_types(weight.dtype, torch.float32))
        torch.testing.assert_close(direction, normalise(direction, weight, output_dims), rtol=1e-6, atol=1e-7)
        assert bool(direction.any())


def test_values_are_standard_normal_before_they_are_scaled() -> None:
    model = nn.Linear(4000, 60)
    with torch.no_grad():
        model.weight.fill_(1.0)  # so that each filter has the norm that standard normal values have, nearly
    first, second = (list_directions(model, number)["weight"] for number in (0, 1))
    for direction in (first, second):
        assert abs(float(direction.mean())) < 0.01
        assert abs(float(direction.pow(2).mean()) - 1) < 1e-5
        assert abs(float(direction.pow(4).mean()) - 3) < 0.06
    assert abs(float((first * second).mean())) < 0.01


def test_biases_and_norms_do_not_move() -> None:
    """loss-landscapes, a peer, scales a direction of a bias element by element, and moves it."""
    model = make_convolutions()
    moved = read_moved(make_moved(model), model, (0.5, -1.0))
    for name, parameter in model.named_parameters():
        assert torch.equal(moved[name], parameter) == (parameter.ndim == 1), name


def test_a_filter_of_zeros_stays() -> None:
    model = nn.Linear(5, 3, bias=False)
    with torch.no_grad():
        model.weight[1] = 0
    direction = list_directions(model)["weight"]
    assert (direction[1] == 0).all()
    assert direction[0].any()
    assert (read_moved(make_moved(model), model, (1.0, 1.0))["weight"][1] == 0).all()


def test_a_direction_is_a_function_of_seed_and_name_alone() -> None:
    model = make_mlp()
    torch.manual_seed(1)
    found = list_directions(model)
    torch.manual_seed(2)
    for kept_bytes in (0, 1 << 30):
        moved = MovedWeights(model, find_filtered_weights(model, include="4"), SEEDS, kept_bytes=kept_bytes)
        state = torch.get_rng_state()
        assert torch.equal(moved.make_direction("4.weight", 0), found["4.weight"])
        assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(list_directions(model, 1)["4.weight"], found["4.weight"])
    square = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    square[1].load_state_dict(square[0].state_dict())
    assert not torch.equal(*list_directions(square).values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_narrow_weights_are_moved_in_float32_and_rounded_once(dtype: torch.dtype) -> None:
    model = nn.Linear(9, 400).to(dtype)  # several blocks need not be as wide
    wide = nn.Linear(9, 400, dtype=torch.promote_types(dtype, torch.float32))
    with torch.no_grad():
        wide.weight.copy_(model.weight)
    directions = [list_directions(wide, number)["weight"] for number in (0, 1)]
    assert torch.equal(list_directions(model)["weight"], directions[0])
    expected = (wide.weight.detach() + (0.3 * directions[0] + -0.7 * directions[1])).to(dtype)
    assert torch.equal(read_moved(make_moved(model), model, (0.3, -0.7))["weight"], expected)


def test_a_step_of_zero_is_the_weights_themselves() -> None:
    model = make_mlp()
    moved = make_moved(model)
    read_moved(moved, model, (1.0, 1.0))
    for name, values in read_moved(moved, model, (0.0, 0.0)).items():
        assert torch.equal(values, model.get_parameter(name))


def test_keeping_what_was_drawn_changes_no_bit() -> None:
    model = nn.Sequential(nn.Linear(700, 300), nn.Linear(300, 700))  # several blocks each
    keeping, drawing = make_moved(model), make_moved(model, kept_bytes=0)
    for steps in ((0.2, 0.3), (0.2, 0.3), (-1.0, 0.0), (0.0, 0.7), (0.2, 0.3)):
        kept, drawn = (read_moved(moved, model, steps) for moved in (keeping, drawing))
        for name, values in kept.items():
            assert torch.equal(values, drawn[name]), (name, steps)


def test_swapped_seeds_swap_the_axes() -> None:
    model = make_mlp()
    weights = find_filtered_weights(model)
    straight, swapped = MovedWeights(model, weights, SEEDS), MovedWeights(model, weights, SEEDS[::-1])
    for name, values in read_moved(straight, model, (0.4, -0.9)).items():
        assert torch.equal(values, read_moved(swapped, model, (-0.9, 0.4))[name])


@pytest.mark.parametrize("name", ["MLP", "GPT-2", "mixed"])
def test_pruned_weights_are_zero_and_norms_are_over_what_is_kept(name: str) -> None:
    make, transposed = MODELS[name]
    model = make()
    mask = create_magnitude_mask(model, 0.6)
    weights = find_filtered_weights(model)
    directions = list_directions(model, bits=mask.bits)
    moved = read_moved(make_moved(model, bits=mask.bits), model, (0.3, 0.2))
    assert set(mask) < {*weights, "bias"}
    for weight_name, kept in mask.items():
        assert (directions[weight_name][~kept] == 0).all()
        assert (moved[weight_name][~kept] == 0).all()
        pruned = weights[weight_name].tensor.detach() * kept
        output_dims = next((dims for part, dims in transposed.items() if part in weight_name), (0,))
        again = normalise(directions[weight_name], pruned, output_dims)
        torch.testing.assert_close(directions[weight_name], again, rtol=1e-6, atol=1e-7)


def test_a_mask_over_scales_of_norms_is_read_too() -> None:
    model = make_convolutions()
    bits = Mask.from_tensors({"1.weight": torch.tensor([1, 0, 1, 0])}).bits
    assert (read_moved(make_moved(model, bits=bits), model, (0.1, 0.1))["1.weight"][1::2] == 0).all()


def test_a_weight_of_several_names_or_parameters_is_moved_once() -> None:
    language_model = make_language_model("GPT2")
    assert language_model.get_parameter("lm_head.weight") is language_model.get_parameter("transformer.wte.weight")
    assert "lm_head.weight" not in find_filtered_weights(language_model)
    twins = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    weight = twins.get_parameter("0.weight")
    twins[1].weight = nn.Parameter(weight.detach())  # another parameter in the same memory
    assert list(find_filtered_weights(twins)) == ["0.weight"]
    first, second = read_moved(make_moved(twins), twins, (1.0, 0.5)).values()
    assert torch.equal(first, second)
    assert not torch.equal(first, weight)
    kept = {"1.weight": torch.eye(4)}  # a mask may use any name
    pruned = read_moved(make_moved(twins, bits=Mask.from_tensors(kept).bits), twins, (1.0, 0.5))
    for values in pruned.values():
        assert torch.equal(values != 0, torch.eye(4).bool())


def test_what_the_model_writes_into_a_moved_weight_is_not_read_again() -> None:
    """nn.Embedding(max_norm=...) rescales the rows that it reads, in place."""
    model = nn.Embedding(4, 3, max_norm=0.1)
    before, places = model.weight.detach().clone(), torch.tensor([0, 1])
    moved = make_moved(model)
    with moved.at(0.5, 0.5), torch.no_grad():
        whole = model.weight.clone()
        assert bool((model(places).norm(dim=1) < 0.11).all())
        assert torch.equal(model.weight.clone(), whole)
    assert torch.equal(model.weight, before)


def test_nothing_may_be_written() -> None:
    model = make_mlp()
    with (
        pytest.raises(RuntimeError, match=r"a landscape is for measuring: nothing may change \['0.weight'\]"),
        make_moved(model).at(0.1, 0.1),
        torch.no_grad(),
    ):
        model.get_parameter("0.weight").mul_(2)


def test_extra_memory_is_one_weight_and_a_few_blocks() -> None:
    model = nn.Sequential(*(nn.Linear(1000, 1000) for _ in range(4)))
    moved, inputs = make_moved(model, kept_bytes=0), torch.ones(1, 1000)
    peaks = []
    for steps in ((0.0, 0.0), (0.5, 0.5)):
        gc.collect()
        tracker = StorageTracker()
        for parameter in model.parameters():
            tracker.add(parameter)
        before = tracker.bytes_alive
        with torch.no_grad(), moved.at(*steps), tracker:
            model(inputs)
        peaks.append(tracker.peak_bytes - before)
    largest = 4_000_000
    assert largest <= peaks[0] < 1.01 * largest
    assert largest < peaks[1] < 1.6 * largest  # a block is a fifteenth of it, and a few are alive


WRONG: Mapping[str, dict[str, Any]] = {
    "include must match a parameter, but 'nothing' matches none": {"include": "nothing"},
    "there must be a weight of two or more dimensions, but none is left": {"include": "*.bias"},
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_choices_are_refused(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_filtered_weights(make_mlp(), **WRONG[message])


def test_a_lazy_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="'weight' must be initialised, but it is lazy"):
        find_filtered_weights(nn.LazyLinear(3))


def test_scaling_one_layer_up_and_the_next_down_changes_nothing() -> None:
    """Which is why filters are normalised: the network is the same function, so its landscape must be the same."""
    model = nn.Sequential(nn.Linear(5, 9, bias=False), nn.ReLU(), nn.Linear(9, 3)).double()
    found = compute_loss_landscape(model, PAIRS, 5)
    with torch.no_grad():
        model.get_parameter("0.weight").mul_(64)
        model.get_parameter("2.weight").div_(64)
    assert compute_loss_landscape(model, PAIRS, 5)["losses"] == found["losses"]
    with torch.no_grad():
        model.get_parameter("0.weight").mul_(10)
        model.get_parameter("2.weight").div_(10)
    again = compute_loss_landscape(model, PAIRS, 5)["losses"]
    np.testing.assert_allclose(np.array(again), np.array(found["losses"]), rtol=1e-5)


def test_only_what_is_chosen_moves() -> None:
    model = make_mlp()
    found = compute_loss_landscape(model, PAIRS, 3, include=nn.Linear, exclude="2")
    described = [(moved["name"], moved["shape"], moved["num_filters"]) for moved in found["parameters"]]
    assert described == [("0.weight", [7, 5], 7), ("4.weight", [3, 6], 3)]
    assert found["losses"] != compute_loss_landscape(model, PAIRS, 3)["losses"]
