"""The passes that analyses consist of, run on a stand-in: what they hold at the moment when it is the most."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lottery_tickets._core.batches.samples import require_samples
from lottery_tickets._core.gradients.losses import LOSSES
from lottery_tickets._core.gradients.passes import Objective, Passes
from lottery_tickets._core.gradients.places import Place
from lottery_tickets._core.gradients.sums import Totals, ValueSums, add_uses
from lottery_tickets._core.gradients.uses import LookupUse, Use
from lottery_tickets._core.gradients.values import SQUARE
from lottery_tickets._core.measuring.stand_ins import ReplacedReads
from lottery_tickets._core.memory.counting import StorageCounter
from lottery_tickets._core.memory.sizes import Parts
from lottery_tickets._core.memory.stand_in import WEIGHTS, StandIn
from lottery_tickets._core.objective import LossFunction, compute_loss
from lottery_tickets._core.rates.work import Work, WorkCounter
from lottery_tickets._core.training.in_backward import InBackwardSGD
from lottery_tickets._core.training.light_training import checkpointing
from lottery_tickets._core.training.settings import TrainerSettings
from lottery_tickets._core.weights import Weights

ACTIVATIONS: Final = "activations"  # what a forward pass makes, and what of it is kept for the backward pass
BACKWARD: Final = "backward pass"  # what it makes: gradients of activations, recomputed activations
GRADIENTS: Final = "gradients"  # those of weights that are complete
SUMS: Final = "sums of scores"
HELD: Final = "held meanwhile"
FEW: Final = 2  # samples whose gradients are added: these are taken in blocks, one after the other


class Pass(NamedTuple):
    """What a pass holds beside weights and buffers.

    Attributes:
        parts: At the moment when they are the most together; bytes.
        largest_elements: Of the largest tensor that is made.
        work: What is computed.
    """

    parts: Parts
    largest_elements: int
    work: Work


def run_training(stand_in: StandIn, batch: object, training: TrainerSettings, loss_fn: LossFunction | None) -> Pass:
    """Returns what a step of the default trainer holds, but for the optimizer's state.

    Args:
        stand_in: Of the model.
        batch: Of the stand-in.
        training: How it is trained.
        loss_fn: As in `compute_loss`.
    """
    model = stand_in.model.train()
    trained = {name: parameter for name, parameter in stand_in.parameters.items() if parameter.requires_grad}
    sgd = InBackwardSGD(trained, learning_rate=0.1, stochastic_rounding=training.stochastic_rounding)
    with stand_in.counting() as (counter, computed), checkpointing(model, training):
        counter.label = ACTIVATIONS
        loss = compute_loss(model, batch, loss_fn)
        counter.label = BACKWARD
        hooks = [parameter.register_post_accumulate_grad_hook(_say_gradient(counter)) for parameter in trained.values()]
        if training.use_sgd:
            with sgd.hooked():
                sgd.backward(loss, 1.0)
        else:
            loss.backward()
    _let_go(trained.values(), hooks)
    return _describe(counter, computed)


def run_backward(
    stand_in: StandIn, batch: object, names: Iterable[str], loss_fn: LossFunction | None, *, summed: bool = False
) -> Pass:
    """Returns what a forward and a backward pass hold in evaluation mode, where each gradient is used and freed.

    Args:
        stand_in: Of the model.
        batch: Of the stand-in.
        names: The weights that are differentiated by.
        loss_fn: As in `compute_loss`.
        summed: Whether gradients are added to sums of their size.
    """
    model = stand_in.model.eval()
    chosen = set(names)
    handles = {name: parameter for name, parameter in stand_in.parameters.items() if name in chosen}
    with _differentiating(stand_in.parameters, handles), stand_in.counting() as (counter, computed):
        counter.label = HELD
        sums = [torch.zeros_like(handle) for handle in handles.values()] if summed else []
        counter.label = ACTIVATIONS
        loss = compute_loss(model, batch, loss_fn)
        counter.label = BACKWARD
        hooks = []
        for handle in handles.values():
            hooks += [handle.register_post_accumulate_grad_hook(hook) for hook in (_say_gradient(counter), _free)]
        loss.backward()
    _let_go(handles.values(), hooks)
    del sums
    return _describe(counter, computed)


def run_scoring(
    stand_in: StandIn,
    batch: object,
    names: Iterable[str],
    loss_fn: LossFunction | None,
    block: int | None,
    *,
    autocast: torch.dtype | None = None,
) -> Pass:
    """Returns what the per-sample gradients of a batch and their sums hold, of a batch that is not the first.

    Args:
        stand_in: Of the model.
        batch: Of the stand-in.
        names: The weights that are scored.
        loss_fn: As in `compute_loss`.
        block: The most gradients at once; None for what suits the device.
        autocast: The dtype of mixed precision, None for none.
    """
    chosen = set(names)
    weights = Weights.from_tensors({name: weight for name, weight in stand_in.parameters.items() if name in chosen})
    stand_in.model.eval()
    with stand_in.counting(autocast) as (counter, computed):
        passes = Passes(stand_in.model, weights, Objective(loss_fn, "empirical", torch.Generator(), autocast))
        sums = [ValueSums(SQUARE, Totals(passes.weights, None))]
        counter.label = SUMS
        sums[0].totals.complete()  # as the first batch has left them
        counter.label = ACTIVATIONS
        ready = passes.run_whole(batch, require_samples(batch))
        ready.tracker.drops_bad = False  # which looks at values
        ready = replace(ready, call=replace(ready.call, counts=None))  # likewise
        counter.label = BACKWARD

        def receive(place: Place, uses: Sequence[Use]) -> None:
            few = [Use.take(use, slice(FEW)) for use in uses if not isinstance(use, LookupUse)]
            if not few:
                return
            with computed.counting_for_more(max(1.0, uses[0].num_samples / FEW)):
                add_uses(sums, place, few, passes.weights[place.name], block)

        ready.run_backward(receive)
    return _describe(counter, computed)


def run_forward(
    stand_in: StandIn,
    batch: object,
    names: Iterable[str],
    loss_fn: LossFunction | None,
    *,
    bytes_beside: int = 0,
    tells_samples: bool = False,
) -> Pass:
    """Returns what a forward pass without gradients holds, where some weights are read as copies.

    Args:
        stand_in: Of the model.
        batch: Of the stand-in.
        names: The weights of which a copy is made whenever one is read.
        loss_fn: As in `compute_loss`.
        bytes_beside: What a copy takes beside itself while it is made, for each element.
        tells_samples: Whether the loss of each sample is computed too.
    """
    chosen = set(names)
    replaced = {name: weight for name, weight in stand_in.parameters.items() if name in chosen}

    def copy(_: str, parameter: nn.Parameter) -> Tensor:
        copied = parameter.detach().clone()
        beside = torch.empty(parameter.numel() * bytes_beside, dtype=torch.uint8)
        del beside
        return copied

    model = stand_in.model.eval()
    with (
        stand_in.counting() as (counter, computed),
        torch.no_grad(),
        ReplacedReads(replaced, copy, purpose="a plan is for measuring"),
    ):
        counter.label = ACTIVATIONS
        if tells_samples:
            with _LossOfSamples():
                compute_loss(model, batch, loss_fn)
        else:
            compute_loss(model, batch, loss_fn)
    return _describe(counter, computed)


@final
class _LossOfSamples(TorchFunctionMode):
    """Computes beside each loss its terms, as a probe does."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever func returns
        if func in LOSSES:
            func(*args, **{**(kwargs or {}), "reduction": "none"}).double()
        return func(*args, **(kwargs or {}))


class _differentiating:  # noqa: N801 - a context manager
    """Within the block these weights alone are differentiated by."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], chosen: Mapping[str, nn.Parameter]) -> None:
        self._before = [(parameter, parameter.requires_grad) for parameter in parameters.values()]
        self._chosen = set(chosen)
        self._parameters = parameters

    def __enter__(self) -> None:
        for name, parameter in self._parameters.items():
            parameter.requires_grad_(name in self._chosen and parameter.is_floating_point())

    def __exit__(self, *_: object) -> None:
        for parameter, before in self._before:
            parameter.requires_grad_(before)


def _say_gradient(counter: StorageCounter) -> Callable[[Tensor], None]:
    def say(weight: Tensor) -> None:
        if weight.grad is not None and not weight.grad.is_sparse:
            counter.count_as(weight.grad, GRADIENTS)

    return say


def _free(weight: Tensor) -> None:
    weight.grad = None


def _let_go(weights: Iterable[nn.Parameter], hooks: Iterable[Any]) -> None:
    for hook in hooks:
        hook.remove()
    for weight in weights:
        weight.grad = None


def _describe(counter: StorageCounter, computed: WorkCounter) -> Pass:
    parts = {name: num_bytes for name, num_bytes in counter.peak.items() if num_bytes and name != WEIGHTS}
    return Pass(parts, counter.largest_elements, computed.work)
