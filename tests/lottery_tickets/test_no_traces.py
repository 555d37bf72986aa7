"""One battery for every function that only measures: whatever the model, and whatever goes wrong, nothing is left."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, final

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lottery_tickets as lt
from lottery_tickets._core.measuring.performance import Measurement, measure
from tests.models import make_convolutions, make_language_model, make_mlp
from tests.traces import take_traces

Loader = Any
Case = Callable[[], tuple[nn.Module, Loader, dict[str, Any]]]


@final
class Trap(nn.Module):
    """Passes its input on; raises at the call it is set to."""

    def __init__(self) -> None:
        super().__init__()
        self.raise_at: int | None = None
        self.seen = Counter[str]()  # a thing of its own, because numbers are put back after measuring

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen["calls"] += 1
        if self.seen["calls"] == self.raise_at:
            raise OSError("the trap")
        return inputs


def images() -> tuple[nn.Module, Loader, dict[str, Any]]:
    """Batch norm, dropout, a shuffling loader with a generator of its own."""
    model = nn.Sequential(*make_convolutions(), nn.Dropout(0.5), Trap()).float()
    data = TensorDataset(torch.randn(12, 2, 4, 4), torch.randint(3, (12,)))
    return model, DataLoader(data, 4, shuffle=True, generator=torch.Generator().manual_seed(5)), {}


def perceptron() -> tuple[nn.Module, Loader, dict[str, Any]]:
    model = nn.Sequential(make_mlp(torch.float32), Trap())
    return model, [(torch.randn(4, 5), torch.randint(3, (4,))) for _ in range(3)], {}


def bfloat16() -> tuple[nn.Module, Loader, dict[str, Any]]:
    model = nn.Sequential(make_mlp(torch.bfloat16), Trap())
    return model, [(torch.randn(4, 5).bfloat16(), torch.randint(3, (4,))) for _ in range(3)], {}


def regression() -> tuple[nn.Module, Loader, dict[str, Any]]:
    """A loss of the caller's own, over batches of no kind we know."""
    model = nn.Sequential(make_mlp(torch.float32), Trap())

    def loss_fn(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        output: Tensor = model(batch["x"])
        return (output - batch["y"]).square().mean()

    return model, [{"x": torch.randn(4, 5), "y": torch.randn(4, 3)} for _ in range(3)], {"loss_fn": loss_fn}


def language(kind: str) -> Case:
    def make() -> tuple[nn.Module, Loader, dict[str, Any]]:
        model = make_language_model(kind)
        block = model.get_submodule("transformer.h.0" if kind == "GPT2" else "model.layers.0")
        block.add_module("trap", trap := Trap())
        block.register_forward_pre_hook(lambda _module, args: (trap(args[0]), *args[1:]))
        return model, [{"input_ids": torch.randint(23, (2, 6))} for _ in range(3)], {}

    return make


CASES: dict[str, Case] = {
    "images": images,
    "perceptron": perceptron,
    "bfloat16": bfloat16,
    "regression": regression,
    "Llama": language("Llama"),
    "GPT2": language("GPT2"),
}


def _scale(model: nn.Module, factor: float) -> dict[str, Tensor]:
    return {n: t * factor if t.is_floating_point() else t.clone() for n, t in model.state_dict().items()}


MEASUREMENTS: dict[str, Callable[[nn.Module, Loader, dict[str, Any]], object]] = {
    "quality": lambda model, data, options: lt.compute_lottery_ticket_quality(
        model, lt.create_magnitude_mask(model, 0.5, scope="layer"), data, **options
    ),
    "robustness": lambda model, data, options: lt.compute_pruning_robustness(
        model, next(iter(list(data))), [0.3, 0.9], **options
    ),
    "validation": lambda model, data, options: lt.validate_pruning_correctness(
        model, lt.create_magnitude_mask(model, 0.5, scope="layer"), data, 1.0, **options
    ),
    "landscape": lambda model, data, options: lt.compute_loss_landscape(model, data, 2, **options),
    "landscape, line": lambda model, data, options: lt.compute_loss_landscape(
        model, data, 2, end_state=_scale(model, 2.0), **options
    ),
    "connectivity": lambda model, data, options: lt.compute_linear_connectivity(
        model, data, model.state_dict(), _scale(model, 1.1), num_points=3, **options
    ),
    "performance": lambda model, data, options: measure(model, data, Measurement(**options)),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Iterator[tuple[nn.Module, Loader, dict[str, Any]]]:
    model, data, options = CASES[request.param]()
    model.train()
    next(iter(model.children())).eval()  # mixed modes must come back too
    for number, parameter in enumerate(model.parameters()):
        if number % 2:
            parameter.grad = torch.randn_like(parameter)
    next(iter(model.parameters())).requires_grad_(False)
    yield model, data, options
    assert torch.is_grad_enabled()


def _find_trap(model: nn.Module) -> Trap:
    return next(module for module in model.modules() if isinstance(module, Trap))


def _generators(data: Loader) -> list[torch.Generator]:
    return [data.generator] if isinstance(data, DataLoader) else []


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_nothing_is_left_after_success(name: str, case: tuple[nn.Module, Loader, dict[str, Any]]) -> None:
    model, data, options = case
    if name == "robustness" and isinstance(data, DataLoader):
        data = list(data)
    before = take_traces(model, *_generators(data))
    MEASUREMENTS[name](model, data, options)
    assert take_traces(model, *_generators(data)) == before


@pytest.mark.parametrize("raise_at", [1, 2])
@pytest.mark.parametrize("name", MEASUREMENTS)
def test_nothing_is_left_when_the_model_raises(
    name: str, raise_at: int, case: tuple[nn.Module, Loader, dict[str, Any]]
) -> None:
    model, data, options = case
    if name == "robustness" and isinstance(data, DataLoader):
        data = list(data)
    _find_trap(model).raise_at = raise_at
    before = take_traces(model, *_generators(data))
    with pytest.raises(OSError, match="the trap"):
        MEASUREMENTS[name](model, data, options)
    assert take_traces(model, *_generators(data)) == before


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_nothing_is_left_when_the_loss_raises(name: str) -> None:
    model, data, _ = regression()

    def loss_fn(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        model(batch["x"])
        raise OSError("the loss")

    before = take_traces(model)
    with pytest.raises(OSError, match="the loss"):
        MEASUREMENTS[name](model, data, {"loss_fn": loss_fn})
    assert take_traces(model) == before


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_equal_calls_give_equal_results_whatever_the_state_of_the_generators(name: str) -> None:
    model, data, options = images()
    if name == "robustness":
        data = list(data)
    first = MEASUREMENTS[name](model, data, options)
    torch.rand(3)
    assert MEASUREMENTS[name](model, data, options) == first


@pytest.mark.parametrize("name", [name for name in MEASUREMENTS if name != "robustness"])
def test_an_iterator_and_an_empty_loader_are_refused(name: str) -> None:
    model, data, options = perceptron()
    with pytest.raises(TypeError, match="dataloader must start anew each epoch, but a list_iterator is used up"):
        MEASUREMENTS[name](model, iter(data), options)
    with pytest.raises(ValueError, match="must hold at least one batch, but got none"):
        MEASUREMENTS[name](model, [], options)
