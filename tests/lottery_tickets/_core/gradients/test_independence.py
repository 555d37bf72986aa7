"""The proof that no sample depends on another: what it accepts, and what ends it, however it is hidden."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from lottery_tickets import compute_fisher_importance
from lottery_tickets._core.gradients import independence, rules
from lottery_tickets._core.gradients.separation import Separation
from tests.lottery_tickets._core.gradients.cases import draw, draw_classes, loop_over_samples

# torch says that scripts will go; they are what no mode sees.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")

NUM_SAMPLES = 4
script: Any = functools.cache(torch.jit.script)
Change = Callable[[Tensor], Tensor]


class Changed(nn.Module):
    """Two convolutions with something between them."""

    def __init__(self, change: Change | nn.Module) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 3, 3)
        self.change = change
        self.register_buffer("scale", torch.ones(4))

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.second(self.change(self.first(inputs))).mean((2, 3))
        return logits


class MixingBack(torch.autograd.Function):
    """Whose forward pass is of each sample, whose backward pass is not; by functions that are known."""

    @staticmethod
    def forward(_: object, inputs: Tensor) -> Tensor:
        return torch.relu(inputs)

    @staticmethod
    def backward(_: object, gradient: Tensor) -> Tensor:
        return gradient - gradient.mean(0)


class MixingBackInPlace(MixingBack):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:  # noqa: ANN401 - torch's protocol
        ctx.mark_dirty(inputs)
        return inputs


class MixingBackWithGraph(MixingBack):
    @staticmethod
    def forward(_: object, inputs: Tensor) -> Tensor:
        with torch.enable_grad():
            return torch.relu(inputs)


def _mix_gradients(_: nn.Module, given: tuple[Tensor, ...], __: object) -> tuple[Tensor, ...]:
    return tuple(gradient - gradient.mean(0) for gradient in given)


class Hooked(nn.Module):
    """Whose gradients are mixed by a module's hook."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ReLU()
        self.body.register_full_backward_hook(_mix_gradients)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.body(inputs)
        return outputs


class Remembering(nn.Module):
    """Which adds in its second call what it saw in its first."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen.append(inputs)
        return inputs + self.seen[0 if len(self.seen) == 2 else -1]


class Switching(nn.Module):
    """Whose weights are made of the batch where nobody sees it."""

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.conv2d(inputs, script(_make_kernel)(inputs))


class Writing(nn.Module):
    """Whose buffer is made of the batch where nobody sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel: Tensor
        self.register_buffer("kernel", torch.ones(4, 1, 1, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        script(_write)(inputs, self.kernel)
        return functional.conv2d(inputs, self.kernel, groups=4)


def _write(inputs: Tensor, kernel: Tensor) -> None:
    kernel.copy_(inputs.detach().mean(0).mean([1, 2]).view(4, 1, 1, 1))


def _make_kernel(inputs: Tensor) -> Tensor:
    return inputs.mean(0).mean([1, 2]).view(4, 1, 1, 1).expand(4, 4, 1, 1)


def hook_gradient(inputs: Tensor) -> Tensor:
    outputs = torch.relu(inputs)
    outputs.register_hook(lambda gradient: gradient - gradient.mean(0))
    return outputs


def hook_node(inputs: Tensor) -> Tensor:
    outputs = torch.relu(inputs)
    assert outputs.grad_fn is not None
    outputs.grad_fn.register_prehook(lambda gradients: tuple(g - g.mean(0) for g in gradients))
    return outputs


def change_in_numpy(inputs: Tensor) -> Tensor:
    outputs = torch.relu(inputs)
    outputs.detach().numpy()[:] -= outputs.detach().numpy().mean(0)
    return outputs


def change_saved(inputs: Tensor) -> Tensor:
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: saved, lambda saved: saved - saved.mean(0)):
        return torch.tanh(inputs)


def _subtract_mean_(inputs: Tensor) -> Tensor:
    return inputs.sub_(inputs.mean(0))


def change_unseen(inputs: Tensor) -> Tensor:
    outputs = inputs + inputs
    script(_subtract_mean_)(outputs)
    return outputs


def turn(inputs: Tensor) -> Tensor:
    """Returns what takes samples for channels; for one sample alone something else, of the same shape."""
    if len(inputs) < NUM_SAMPLES:
        return inputs
    return inputs.transpose(0, 1)


SEPARATE: dict[str, Change] = {
    "relu": nn.ReLU(),
    "relu in place": nn.ReLU(inplace=True),
    "relu6": nn.ReLU6(),
    "norm": nn.BatchNorm2d(4),
    "group norm": nn.GroupNorm(2, 4),
    "layer norm": nn.LayerNorm(6),
    "depthwise": nn.Conv2d(4, 4, 3, padding="same", groups=4, bias=False),
    "strided": nn.Conv2d(4, 4, 1, stride=2, padding=2, bias=False),
    "residual": lambda x: x + functional.gelu(x),
    "in place": lambda x: (x * 2).add_(x),
    "number": lambda x: 0.5 * x + 1,
    "gate": lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
    "pools": lambda x: functional.max_pool2d(x, 2) + functional.avg_pool2d(x, 2),
    "dropout": nn.Dropout(0.5),
    "dimensions asked for": lambda x: x if x.ndim == 4 and x.dtype == torch.float64 and x.dim() == 4 else x[0],
}  # fmt: skip
"""What keeps samples apart, and is known to."""
MIXING: dict[str, Change | nn.Module] = {
    "mean over samples": lambda x: x + x.mean(0, keepdim=True),
    "mean over samples, from behind": lambda x: x + x.mean((-4, 3), keepdim=True),
    "mean over samples, taken away": lambda x: x - x.mean(0),
    "mean over all": lambda x: x - x.mean(),
    "statistics of the batch": lambda x: functional.batch_norm(x, None, None, training=True),
    "neighbours": lambda x: x + x.roll(1, 0),
    "other way round": lambda x: x + x.flip(0),
    "number of samples": lambda x: x * x.shape[0],
    "length": lambda x: x * len(x),
    "number of elements": lambda x: x * x.numel(),
    "size": lambda x: x * x.size(0),
    "item": lambda x: x * float(x.detach()[0, 0, 0, 0]),
    "channels from samples": turn,
    "weights that hold one entry a sample": lambda x: x * functional.linear(x, x.mean((1, 2))).mean(3, keepdim=True),
    "attention over samples": lambda x: torch.einsum("nchw,mchw,mkhw->nkhw", x, x, x) / 100,
    "hook of a tensor": hook_gradient,
    "hook of a node": hook_node,
    "hook of a module": Hooked(),
    "backward step": MixingBack.apply,
    "backward step in place": lambda x: MixingBackInPlace.apply(x * 1),  # type: ignore[no-untyped-call]  # torch's
    "backward step with a graph": MixingBackWithGraph.apply,
    "numpy": change_in_numpy,
    "changed unseen": change_unseen,
    "weights of the batch": Switching(),
    "buffer of the batch": Writing(),
    "saved tensors": change_saved,
    "control flow": lambda x: x * 2 if x.detach().sum() > 0 else x * 3,
    "dropped": lambda x: functional.dropout(x, 0.5, training=True),
    "noise": lambda x: x + torch.randn_like(x),
}  # fmt: skip
"""What must end the proof; all but the last three mix samples, this time."""


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each sample that is run alone."""
    runs: list[int] = []
    plain = Separation._find_alone

    def find_alone(self: Separation, batch: object, chosen: int) -> Tensor:
        runs.append(chosen)
        return plain(self, batch, chosen)

    monkeypatch.setattr(Separation, "_find_alone", find_alone)
    return runs


def make(change: Change | nn.Module) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    torch.manual_seed(1)
    return Changed(change).double().eval(), (draw(NUM_SAMPLES, 2, 8, 8), draw_classes(NUM_SAMPLES, 3))


@pytest.mark.parametrize("name", SEPARATE)
def test_no_sample_is_run_alone_where_all_functions_are_known(name: str, alone: list[int]) -> None:
    model, batch = make(SEPARATE[name])
    found = compute_fisher_importance(model, [batch], NUM_SAMPLES)
    assert not alone
    assert found.report["computed"] == "whole batches"
    gradients = loop_over_samples(model, [batch], list(found))
    for weight, score in found.items():
        torch.testing.assert_close(score, gradients[weight].square().mean(0).float())


@pytest.mark.parametrize(
    "function", [function for function, test in independence.FUNCTIONS.items() if test is independence._is_alone]
)
def test_functions_of_each_element_are_known(function: Change, alone: list[int]) -> None:
    model, batch = make(function)
    found = compute_fisher_importance(model, [batch], NUM_SAMPLES)
    assert not alone
    gradients = loop_over_samples(model, [batch], list(found))
    for weight, score in found.items():
        torch.testing.assert_close(score, gradients[weight].square().mean(0).float())


@pytest.mark.parametrize("name", MIXING)
def test_whatever_can_mix_samples_ends_the_proof(name: str, alone: list[int]) -> None:
    model, batch = make(MIXING[name])
    found = compute_fisher_importance(model, [batch], NUM_SAMPLES)
    assert alone
    if name in {"control flow", "dropped", "noise"}:
        return
    assert found.report["computed"] == "one sample at a time"
    gradients = loop_over_samples(model, [batch], list(found))
    for weight, score in found.items():
        torch.testing.assert_close(score, gradients[weight].square().mean(0).float())


def test_what_an_earlier_pass_has_left_is_not_known(alone: list[int]) -> None:
    model, batch = make(nn.ReLU())
    model = nn.Sequential(Remembering(), model)
    compute_fisher_importance(model, [batch], NUM_SAMPLES)
    del alone[:]
    compute_fisher_importance(model, [batch], NUM_SAMPLES)
    assert alone


class ChangingUnseen(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return change_unseen(inputs)


def test_what_has_no_gradient_is_not_changed_unseen_either(alone: list[int]) -> None:
    model, batch = make(nn.ReLU())
    compute_fisher_importance(nn.Sequential(ChangingUnseen(), model), [batch], NUM_SAMPLES)
    assert alone


class Averaging(TorchFunctionMode):
    """A mode of the caller's, with which a ReLU mixes samples."""

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - torch's protocol
        result = func(*args, **(kwargs or {}))
        return result - result.mean(0) if func is functional.relu else result


class Watching(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - as above
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", [Averaging, Watching])
def test_nothing_is_proved_in_a_mode_of_the_callers(mode: type[Any], alone: list[int]) -> None:
    model, batch = make(nn.ReLU())
    with mode():
        compute_fisher_importance(model, [batch], NUM_SAMPLES)
    assert alone


def test_other_batches_losses_and_weights_begin_no_proof(alone: list[int]) -> None:
    model, (inputs, targets) = make(nn.ReLU())

    def count(batch: object, **options: Any) -> int:  # noqa: ANN401 - of the scores
        del alone[:]
        compute_fisher_importance(model, [batch], NUM_SAMPLES, **options)
        return len(alone)

    assert not count((inputs, targets))
    assert not count([inputs, targets])
    assert count((inputs, targets), loss_fn=lambda own, given: functional.cross_entropy(own(given[0]), given[1]))
    assert count((inputs.clone().requires_grad_(), targets))
    assert count((inputs, targets), include=["first.bias"]), "whose gradient has no second way to it"
    assert count((inputs, targets), kind="sampled")
    assert count((inputs, targets), gradient_clip=1e6)


def test_classes_in_turn_are_compared_as_well(alone: list[int]) -> None:
    model, batch = make(nn.ReLU())
    found = compute_fisher_importance(model, [batch], NUM_SAMPLES, kind="exact")
    assert not alone
    assert found.report["computed"] == "whole batches"


@pytest.mark.parametrize("layer", ["conv2d", "linear"])
def test_a_rule_that_is_wrong_is_found_without_a_sample_alone(
    layer: str, alone: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).double().eval()
    batch = (draw(NUM_SAMPLES, 2, 8, 8), draw_classes(NUM_SAMPLES, 3))
    wrong = {"conv2d": (rules, "GroupedConvolutionUse"), "linear": (rules, "ProductUse")}[layer]
    plain = getattr(*wrong)
    monkeypatch.setattr(*wrong, lambda gradient, *rest: plain(1.1 * gradient, *rest))
    monkeypatch.setattr(rules, "MIN_GROUPED_POSITIONS", 1)
    report = compute_fisher_importance(model, [batch], NUM_SAMPLES).report
    assert report["computed"] == "one sample at a time"
    assert not alone


def test_inputs_of_the_caller_are_left_without_a_mark() -> None:
    model, (inputs, targets) = make(nn.ReLU())
    before = vars(inputs).copy()
    compute_fisher_importance(model, [(inputs, targets)], NUM_SAMPLES)
    assert vars(inputs) == before
