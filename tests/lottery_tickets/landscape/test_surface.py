"""Loss landscapes: equal to those of a copy whose weights are written; they write none, and go on where they stop."""

import json
import math
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.peers.plain_landscape import evaluate_language, evaluate_pairs, measure_plane
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lottery_tickets import compute_loss_landscape, create_magnitude_mask, load_results, save_results
from lottery_tickets._core.determinism import derive_seed
from lottery_tickets._core.prunable_weights import find_filtered_weights
from lottery_tickets.landscape import surface
from lottery_tickets.landscape.directions import MovedWeights
from lottery_tickets.landscape.surface import LandscapeResults
from tests.data import make_data, split
from tests.lottery_tickets.landscape.pairs import PAIRS
from tests.models import make_convolutions, make_language_model, make_mlp, make_norm_mlp


def make_texts() -> list[dict[str, Tensor]]:
    tokens = torch.randint(0, 23, (6, 9), generator=torch.Generator().manual_seed(2))
    return [{"input_ids": part} for part in tokens.split(2)]


def find_directions(model: nn.Module, seed: int, **options: Any) -> list[dict[str, Tensor]]:  # noqa: ANN401 - of many types
    weights = find_filtered_weights(model)
    moved = MovedWeights(model, weights, [derive_seed(seed, "landscape", axis) for axis in ("x", "y")], **options)
    return [{name: moved.make_direction(name, number) for name in weights} for number in (0, 1)]


IMAGES = split(make_data(shape=(2, 4, 4)), 5)

NARROW = [(inputs.bfloat16(), targets) for inputs, targets in PAIRS]

PLAIN: dict[str, tuple[Callable[[], nn.Module], Sequence[Any], Any]] = {
    "MLP": (make_mlp, PAIRS, evaluate_pairs),
    "float32": (lambda: make_mlp().float(), [(i.float(), t) for i, t in PAIRS], evaluate_pairs),
    "bfloat16": (lambda: make_mlp().bfloat16(), NARROW, evaluate_pairs),
    "convolutions, batch norm": (make_convolutions, IMAGES, evaluate_pairs),
    "dropout, batch norm": (make_norm_mlp, PAIRS, evaluate_pairs),
    "tied Llama": (lambda: make_language_model("tied Llama"), make_texts(), evaluate_language),
    "GPT-2": (lambda: make_language_model("GPT2"), make_texts(), evaluate_language),
}


@pytest.fixture(params=["kept", "drawn again"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models of these tests are so small that their directions are kept; here they are also drawn again each time."""
    if request.param != "kept":
        monkeypatch.setattr(surface, "MovedWeights", partial(MovedWeights, kept_bytes=0))


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("name", PLAIN)
def test_each_point_is_that_of_a_copy_whose_weights_are_written(name: str) -> None:
    make, data, evaluate = PLAIN[name]
    model = make()
    found = compute_loss_landscape(model, data, (3, 4), span=(0.5, 0.8), seed=5)
    assert found["x"] == [-0.5, 0.0, 0.5]
    assert found["y"] == [pytest.approx(0.8 * place / 3) for place in (-3, -1, 1, 3)]
    expected = measure_plane(model, data, find_directions(model, 5), (found["x"], found["y"]), evaluate)
    assert found["losses"] == [[loss for loss, _ in row] for row in expected]
    if evaluate is evaluate_pairs:
        assert found["accuracies"] == [[accuracy for _, accuracy in row] for row in expected]
    assert len({loss for row in found["losses"] for loss in row}) > 6
    assert found["num_nonfinite"] == 0
    assert found["num_measured"] == 12


def test_the_landscape_of_a_pruned_network() -> None:
    model, pruned = make_mlp(), make_mlp()
    mask = create_magnitude_mask(model, 0.7)
    for name, kept in mask.items():
        pruned.get_parameter(name).data.mul_(kept)
    found = compute_loss_landscape(model, PAIRS, 3, seed=0, mask=mask)
    directions = find_directions(model, 0, bits=mask.bits)
    expected = measure_plane(pruned, PAIRS, directions, (found["x"], found["y"]), evaluate_pairs)
    assert found["losses"] == [[loss for loss, _ in row] for row in expected]
    assert found["losses"] == compute_loss_landscape(pruned, PAIRS, 3, seed=0, mask=dict(mask))["losses"]
    assert found["centre"]["loss"] == evaluate_pairs(pruned, PAIRS)[0]


def test_any_loss() -> None:
    model = make_mlp()
    data = [inputs for inputs, _ in PAIRS]
    found = compute_loss_landscape(model, data, 3, loss_fn=lambda m, inputs: m(inputs).square().mean())
    losses = [(float(model(inputs).detach().square().mean()), len(inputs)) for inputs in data]
    assert found["losses"][1][1] == pytest.approx(sum(loss * size for loss, size in losses) / 12, rel=1e-12)
    assert found["accuracies"] == [[None] * 3] * 3


# ----------------------------------------------------------------------------------------------------------------- laws


def test_the_centre_is_the_model_itself() -> None:
    for name in ("MLP", "tied Llama", "bfloat16"):
        make, data, evaluate = PLAIN[name]
        found = compute_loss_landscape(make(), data, 5, span=0.3)
        assert found["centre"]["loss"] == found["losses"][2][2] == evaluate(make().eval(), data)[0]


def test_seeds_decide() -> None:
    def find(seed: int) -> LandscapeResults:
        torch.manual_seed(random.randrange(1000))  # noqa: S311 - anything
        return compute_loss_landscape(make_mlp(), PAIRS, 3, seed=seed)

    assert find(1) == find(1)
    assert find(1)["losses"] != find(2)["losses"]
    assert find(1)["seeds"] == {axis: derive_seed(1, "landscape", axis) for axis in ("x", "y")}


def test_swapped_axes_transpose(monkeypatch: pytest.MonkeyPatch) -> None:
    found = compute_loss_landscape(make_mlp(), PAIRS, (3, 5), span=(0.5, 0.7))
    monkeypatch.setattr(surface, "AXES", ("y", "x"))
    swapped = compute_loss_landscape(make_mlp(), PAIRS, (5, 3), span=(0.7, 0.5))
    assert swapped["losses"] == [list(column) for column in zip(*found["losses"], strict=True)]


@pytest.mark.parametrize("grid", [1, (1, 1), (4, 1), (1, 3), 2])
def test_any_grid(grid: Any) -> None:  # noqa: ANN401 - a number or two
    found = compute_loss_landscape(make_mlp(), PAIRS, grid, span=2)
    num_x, num_y = grid if isinstance(grid, tuple) else (grid, grid)
    assert (len(found["losses"]), len(found["losses"][0])) == (num_y, num_x) == (len(found["y"]), len(found["x"]))
    for positions in (found["x"], found["y"]):
        assert positions == [-position for position in reversed(positions)]
        assert positions[-1] == (2 if len(positions) > 1 else 0)


def test_results_are_json(tmp_path: Path) -> None:
    found = compute_loss_landscape(make_mlp(), PAIRS, 3)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    save_results(found, tmp_path / "found.json")
    assert load_results(tmp_path / "found.json") == found


# --------------------------------------------------------------------------------------------------------------- traces


class Traced(nn.Module):
    """Keeps count of its calls in a buffer, uses chance, and can fail."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.calls: Tensor
        self.inner = make_norm_mlp()
        self.fail_at = -1
        self.seen = Counter[str]()  # a thing of its own, because numbers are put back after measuring

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        self.seen["calls"] += 1
        if self.seen["calls"] == self.fail_at:
            raise KeyboardInterrupt("by the user")
        noise = torch.randn(()) + random.random() + np.random.rand()  # noqa: NPY002, S311 - a caller's model may
        logits: Tensor = self.inner(inputs) + noise * 1e-3
        return logits


def snap(model: nn.Module, loader: DataLoader[Any]) -> list[Any]:
    """Returns all that must come back: bits, places, counts of writes, gradients, modes, hooks, states of chance."""
    assert loader.generator is not None
    tensors = [*model.parameters(), *model.buffers()]
    return [
        [tensor.detach().clone().view(-1).view(torch.uint8).tolist() for tensor in tensors],
        [(id(tensor), tensor.data_ptr()) for tensor in tensors],
        [parameter._version for parameter in model.parameters()],
        [None if p.grad is None else (id(p.grad), p.grad.tolist()) for p in model.parameters()],
        [p.requires_grad for p in model.parameters()],
        [(module.training, len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()],
        torch.get_rng_state().tolist(),
        loader.generator.get_state().tolist(),
        np.random.get_state()[1].tolist(),  # type: ignore[index] # noqa: NPY002 - a caller's code may use it
    ]  # beartype, which checks calls in tests, uses Python's generator, so that has a test of its own


@pytest.fixture
def traced() -> tuple[Traced, DataLoader[Any]]:
    model = Traced().train()
    inputs, targets = make_data()
    model(inputs).square().mean().backward()
    model.inner[3].eval()
    model.get_parameter("inner.0.bias").requires_grad_(False)
    data = TensorDataset(inputs, targets)
    return model, DataLoader(data, batch_size=5, shuffle=True, generator=torch.Generator().manual_seed(7))


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("mode", ["plane", "line", "mask"])
def test_the_model_comes_back_bit_for_bit(traced: tuple[Traced, DataLoader[Any]], mode: str) -> None:
    model, loader = traced
    before = snap(model, loader)
    further: dict[str, dict[str, Any]] = {
        "plane": {},
        "line": {"end_state": {name: tensor * 2 for name, tensor in model.state_dict().items()}},
        "mask": {"mask": create_magnitude_mask(model, 0.5)},
    }
    options = further[mode]
    found = compute_loss_landscape(model, loader, 3, **options)
    assert snap(model, loader) == before
    assert compute_loss_landscape(model, loader, 3, **options) == found


@pytest.mark.parametrize("fail_at", [1, 3, 5])
def test_it_comes_back_when_the_model_is_interrupted(traced: tuple[Traced, DataLoader[Any]], fail_at: int) -> None:
    model, loader = traced
    before = snap(model, loader)
    model.fail_at = model.seen["calls"] + fail_at
    with pytest.raises(KeyboardInterrupt, match="by the user"):
        compute_loss_landscape(model, loader, 3)
    assert snap(model, loader) == before


def test_it_comes_back_when_the_loss_fails(traced: tuple[Traced, DataLoader[Any]]) -> None:
    model, loader = traced
    before, num_calls = snap(model, loader), 0

    def fail(inner: nn.Module, batch: Any) -> Tensor:  # noqa: ANN401 - any batch
        nonlocal num_calls
        num_calls += 1
        if num_calls == 7:
            raise OSError("the disk is gone")
        loss: Tensor = inner(batch[0]).mean()
        return loss

    with pytest.raises(OSError, match="the disk is gone"):
        compute_loss_landscape(model, loader, 3, loss_fn=fail)
    assert snap(model, loader) == before


CHANCE = """
import random, torch
from lottery_tickets import compute_loss_landscape
model, data = torch.nn.Linear(3, 2), [(torch.randn(4, 3), torch.randint(2, (4,)))]
before = random.getstate()
compute_loss_landscape(model, data, 3, path="found.json")
compute_loss_landscape(model, data, 3, end_state=model.state_dict())
assert random.getstate() == before
"""


def test_pythons_generator_is_left_alone(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", CHANCE], cwd=tmp_path, check=True)


def test_losses_that_are_not_finite_are_none_and_counted() -> None:
    def burst(model: nn.Module, _: Any) -> Tensor:  # noqa: ANN401 - any batch
        moved = float(model.get_parameter("0.weight").norm())
        return torch.tensor(math.nan if moved > norm * 1.2 else moved)

    model = make_mlp()
    norm = float(model.get_parameter("0.weight").detach().norm())
    found = compute_loss_landscape(model, PAIRS, 5, loss_fn=burst)
    missing = sum(loss is None for row in found["losses"] for loss in row)
    assert 0 < missing == found["num_nonfinite"] < 25
    assert found["num_measured"] == 25
    assert found["sharpness"][-1]["mean_rise"] is None
    json.dumps(found, allow_nan=False)


def test_a_compiled_model_is_measured_too() -> None:
    model = make_mlp()
    compiled: Any = torch.compile(model, backend="eager")
    found = compute_loss_landscape(compiled, PAIRS, 3)
    assert found["losses"] == compute_loss_landscape(model, PAIRS, 3)["losses"]
    assert found["parameters"][0]["name"] == "0.weight"


# ----------------------------------------------------------------------------------------------------------------- line


def test_a_line_holds_the_networks_between() -> None:
    first, second, between = make_mlp(), make_mlp(), make_mlp()
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    found = compute_loss_landscape(first, PAIRS, 9, end_state=second.state_dict(), span=(-0.5, 1.5))
    assert found["mode"] == "line"
    assert (found["x"], found["y"]) == ([-0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5], [0.0])
    ends = [evaluate_pairs(model, PAIRS) for model in (first, second)]
    assert [found["losses"][0][place] for place in (2, 6)] == [loss for loss, _ in ends]
    assert [found["accuracies"][0][place] for place in (2, 6)] == [accuracy for _, accuracy in ends]
    assert found["centre"]["loss"] == ends[0][0]
    for x, loss in zip(found["x"], found["losses"][0], strict=True):
        state = second.state_dict()
        between.load_state_dict({name: t + x * (state[name] - t) for name, t in first.state_dict().items()})
        assert loss == pytest.approx(evaluate_pairs(between, PAIRS)[0], rel=1e-12)
    assert compute_loss_landscape(first, PAIRS, 3, end_state=second.state_dict())["x"] == [0.0, 0.5, 1.0]


# ------------------------------------------------------------------------------------------------------------ bad input


def make_diverged() -> nn.Module:
    model = make_mlp()
    with torch.no_grad():
        model.get_parameter("2.bias")[1] = math.inf
    return model


def generate() -> Iterator[Any]:
    yield PAIRS[0]


STATE = make_mlp().state_dict()

WRONG: dict[str, tuple[type[Exception], dict[str, Any]]] = {
    r"grid_points must be an integer of at least 1, or two .* got 0": (ValueError, {"grid_points": 0}),
    r"grid_points must be .* got 2\.5": (TypeError, {"grid_points": 2.5}),
    r"grid_points must be .* got \(1, 2, 3\)": (ValueError, {"grid_points": (1, 2, 3)}),
    r"grid_points must be .* got -1": (ValueError, {"grid_points": (3, -1)}),
    r"span must be a finite number above 0, .* got -1": (ValueError, {"span": -1}),
    r"span must be .* got \(1\.0, 0\)": (ValueError, {"span": (1.0, 0)}),
    r"span must be .* got inf": (ValueError, {"span": math.inf}),
    r"span must be .* got nan": (ValueError, {"span": math.nan}),
    r"span must be .* got 'wide'": (TypeError, {"span": "wide"}),
    r"span must be .* got \(1, 1, 1\)": (ValueError, {"span": (1, 1, 1)}),
    r"seed must be an integer, got 0\.5": (TypeError, {"seed": 0.5}),
    r"weights must be finite, but '2\.bias' holds NaN or infinity": (ValueError, {"model": make_diverged()}),
    r"hold at least one batch, but got none": (ValueError, {"dataloader": []}),
    r"dataloader must start anew": (TypeError, {"dataloader": generate()}),
    r"dataloader must give batches, got NoneType": (TypeError, {"dataloader": None}),
    r"the model must be a torch\.nn\.Module, got OrderedDict": (TypeError, {"model": STATE}),
    r"mask names 'fc', but the model has no such": (ValueError, {"mask": {"fc": torch.ones(2)}}),
    r"mask for '0\.weight' has shape \(2, 2\)": (ValueError, {"mask": {"0.weight": torch.ones(2, 2)}}),
    r"model \(first\) and end_state \(second\) must fit, but": (
        ValueError,
        {"end_state": nn.Linear(2, 2).state_dict()},
    ),
    r"end_state must be a state dict, got Linear": (TypeError, {"end_state": nn.Linear(2, 2)}),
    r"mask must be left out on the line": (ValueError, {"end_state": STATE, "mask": {"0.weight": torch.ones(7, 5)}}),
    r"grid_points on a line must be .* got \(3, 3\)": (TypeError, {"end_state": STATE, "grid_points": (3, 3)}),
    r"span must be two .* the lower first, .* got \(1, 0\)": (ValueError, {"end_state": STATE, "span": (1, 0)}),
    r"span must be two .* got 2\.0": (TypeError, {"end_state": STATE, "span": 2.0}),
    r"a batch must be a dict .* or a pair": (TypeError, {"dataloader": [torch.ones(2, 5)]}),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_arguments_are_refused(message: str, tmp_path: Path) -> None:
    error, changed = WRONG[message]
    path = tmp_path / "landscape.json"
    arguments = {"model": make_mlp(), "dataloader": PAIRS, "grid_points": 3, "path": path, **changed}
    with pytest.raises(error, match=message):
        compute_loss_landscape(**arguments)
    assert not path.exists()


def test_a_scripted_model_is_refused() -> None:
    class Scripted(torch.jit.ScriptModule):  # torch.jit.script itself warns
        pass

    with pytest.raises(TypeError, match="TorchScript hides what it reads"):
        compute_loss_landscape(nn.Sequential(make_mlp(), Scripted()), PAIRS, 3)


def test_progress_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    compute_loss_landscape(make_mlp(), PAIRS, 3, progress=True)
    assert "9/9" in capsys.readouterr().err
    compute_loss_landscape(make_mlp(), PAIRS, 3)
    assert not capsys.readouterr().err
