"""SGD whose step happens inside the backward pass, so that at most one parameter's gradient is alive.

A gradient is used the moment autograd has summed it and is let go before the next one is. What that costs: gradients
cannot be accumulated over batches or clipped by a common norm.

Each parameter has an optimizer of its own, a real `torch.optim.Optimizer`, so whatever watches optimizer steps (a held
mask, a record of movement) sees these.
"""

import contextlib
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, final

import torch
from torch import Tensor, nn

from lottery_tickets._core.reading import check_form
from lottery_tickets._core.sharding.dtensors import is_sharded, redistribute_like, see_local
from lottery_tickets._core.training.rounding import CHUNK, DEVICE_CHUNK, copy_rounded_

MOMENTUM = "momentum_buffer"


@final
class PartialSGD(torch.optim.Optimizer):
    """SGD with momentum, equal to `torch.optim.SGD` bit for bit, that can also take a batch in parts.

    A part of share s adds s times its gradient (with decay and L1) to the momentum buffer. The buffer decays, and the
    weights follow it, at the first part of a batch; the later parts move the weights by their own gradients. So all
    parts together make one step. Only the later gradients are taken at weights that have moved already, which changes
    nothing to first order in the learning rate.

    Args:
        parameters: Usually one.
        learning_rate: Above 0.
        momentum: In [0, 1); its buffer has the weight's dtype.
        weight_decay: Times the weight, added to the gradient.
        norm_l1: Times the weight's sign, added to the gradient.
        stochastic_rounding: Whether bfloat16 weights and buffers are computed in float32 and rounded at random; rounded
            to nearest, a step below half a unit in the last place is lost.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter],
        *,
        learning_rate: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        norm_l1: float = 0.0,
        stochastic_rounding: bool = False,
    ) -> None:
        defaults = {"lr": learning_rate, "momentum": momentum, "weight_decay": weight_decay, "norm_l1": norm_l1}
        super().__init__(parameters, defaults)
        self.stochastic_rounding = stochastic_rounding

    @torch.no_grad()
    def step(self, closure: None = None, *, share: float = 1.0, starts_batch: bool = True) -> None:  # type: ignore[override]
        """Moves the weights along their gradients, which are used up as scratch.

        Args:
            closure: None.
            share: Of the batch that the gradients are of, in (0, 1].
            starts_batch: Whether this is the first part of the batch.
        """
        assert closure is None, "a step inside the backward pass has no closure"  # noqa: S101 - torch's signature
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group, share=share, starts_batch=starts_batch)

    def _move(self, parameter: Tensor, group: dict[str, Any], *, share: float, starts_batch: bool) -> None:
        assert parameter.grad is not None  # noqa: S101 - the caller looked
        # detach() shares the version counter, so that autograd notices a weight that it still needs.
        weight, gradient = see_local(parameter.detach()), see_local(redistribute_like(parameter.grad, parameter))
        if is_sharded(parameter):
            torch.autograd.graph.increment_version(parameter)  # what lies here has a counter of its own
        gradient = gradient.to_dense() if gradient.is_sparse else gradient
        state = self.state[parameter] if group["momentum"] else {}
        is_first = bool(group["momentum"]) and MOMENTUM not in state
        if is_first:
            state[MOMENTUM] = torch.empty_like(weight)
        buffer = state.get(MOMENTUM)
        how: dict[str, Any] = {"share": share, "starts_batch": starts_batch, "is_first": is_first}
        if weight.dtype != torch.bfloat16 or not self.stochastic_rounding:
            _update_(weight, gradient, buffer, group, **how)
            return
        weights = _cut(weight)
        buffers = [None] * len(weights) if buffer is None else _cut(buffer)
        for low, low_gradient, low_buffer in zip(weights, _cut(gradient), buffers, strict=True):
            high, high_buffer = low.float(), None if low_buffer is None else low_buffer.float()
            _update_(high, low_gradient.float(), high_buffer, group, **how)
            copy_rounded_(low, high)
            if low_buffer is not None and high_buffer is not None:
                copy_rounded_(low_buffer, high_buffer)


def _update_(
    weight: Tensor,
    gradient: Tensor,
    buffer: Tensor | None,
    group: Mapping[str, Any],
    *,
    share: float,
    starts_batch: bool,
    is_first: bool,
) -> None:
    """Moves weight and buffer in place by torch's own sequence of operations; the gradient is scratch."""
    if group["norm_l1"]:
        gradient.add_(weight.sign(), alpha=group["norm_l1"])
    if group["weight_decay"]:
        gradient.add_(weight, alpha=group["weight_decay"])
    if share != 1:
        gradient.mul_(share)
    direction = gradient
    if buffer is not None:
        if is_first:
            buffer.copy_(gradient)
        else:
            (buffer.mul_(group["momentum"]) if starts_batch else buffer).add_(gradient)
        direction = buffer if starts_batch else gradient
    weight.add_(direction, alpha=-group["lr"])


def _cut(tensor: Tensor) -> tuple[Tensor, ...]:
    """Returns views of stretches of the first dimension (any layout has one), small enough to be rounded at once."""
    tensor = torch.atleast_1d(tensor)
    row = max(1, tensor[:1].numel())
    views: tuple[Tensor, ...] = tensor.split(max(1, (CHUNK if tensor.device.type == "cpu" else DEVICE_CHUNK) // row))
    return views


@final
class InBackwardSGD:
    """Hooks that step each parameter inside the backward pass.

    The weights of tied layers, or of a layer that is used twice, step once, when all their uses are summed. Until then
    autograd holds that sum, beside the one gradient that is being used: with tied embeddings it waits from the output
    layer, where the backward pass starts, to the embedding, where it ends. A weight that autograd still needs after its
    step raises RuntimeError (torch checks versions); a checkpointed block that reads a *detached* weight of another
    layer would not be noticed.

    Args:
        parameters: By name; frozen ones are left alone.
        learning_rate: As in `PartialSGD`, like the next ones.
        momentum: See there.
        weight_decay: See there.
        norm_l1: See there; only for the parameters of `norm_names`.
        norm_names: Which ones have the L1 penalty.
        stochastic_rounding: See there.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        *,
        learning_rate: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        norm_l1: float = 0.0,
        norm_names: AbstractSet[str] = frozenset(),
        stochastic_rounding: bool = True,
    ) -> None:
        self.parameters = dict(parameters)
        self.optimizers = {
            parameter: PartialSGD(
                [parameter],
                learning_rate=learning_rate,
                momentum=momentum,
                weight_decay=weight_decay,
                norm_l1=norm_l1 if name in norm_names else 0.0,
                stochastic_rounding=stochastic_rounding,
            )
            for name, parameter in self.parameters.items()
        }
        self.share = 1.0
        self.done_in_batch: set[nn.Parameter] = set()
        self.done_in_part: set[nn.Parameter] = set()

    @contextlib.contextmanager
    def hooked(self) -> Iterator[None]:
        """Within the block, `backward` steps; afterwards the hooks are gone, whatever happened."""
        hooks = [
            parameter.register_post_accumulate_grad_hook(self._step)
            for parameter in self.parameters.values()
            if parameter.requires_grad
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def backward(self, loss: Tensor, share: float) -> None:
        """Runs the backward pass of a part of a batch, and with it the step.

        Args:
            loss: The mean loss of the part.
            share: The part's share of the batch, in (0, 1].
        """
        self.share = share
        self.done_in_part.clear()
        loss.backward()

    def finish_batch(self) -> None:
        """Says that the next part is the first of a batch."""
        self.done_in_batch.clear()

    def drop_batch(self) -> None:
        """Gives up what is left of a batch; steps that were made stay made."""
        self.done_in_batch.clear()

    def state(self) -> dict[str, Any]:
        """Returns copies of the momentum buffers by name, on the CPU; empty without momentum."""
        buffers = {name: self.optimizers[p].state.get(p, {}).get(MOMENTUM) for name, p in self.parameters.items()}
        return {name: buffer.to("cpu", copy=True) for name, buffer in buffers.items() if buffer is not None}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes over the buffers of `state()`.

        Raises:
            ValueError: When the buffers are not of these parameters.
        """
        check_form(state, {...: Tensor}, "the saved momentum")
        for name, buffer in state.items():
            parameter = self.parameters.get(name)
            if parameter is None or parameter.shape != buffer.shape:
                got = "has no such trainable parameter" if parameter is None else f"has shape {tuple(parameter.shape)}"
                raise ValueError(
                    f"the saved momentum of {name!r} has shape {tuple(buffer.shape)}, but the model {got}; load the "
                    "state into a trainer of the same model"
                )
        for name, parameter in self.parameters.items():
            own = self.optimizers[parameter].state
            own.clear()
            if name in state:
                own[parameter] = {MOMENTUM: torch.empty_like(parameter, requires_grad=False).copy_(state[name])}

    def _step(self, parameter: nn.Parameter) -> None:
        if parameter in self.done_in_part:
            raise RuntimeError(
                "a parameter must get its gradient once a backward pass, but one got it twice, as reentrant "
                "checkpointing does; pass use_reentrant=False there"
            )
        self.optimizers[parameter].step(share=self.share, starts_batch=parameter not in self.done_in_batch)
        self.done_in_part.add(parameter)
        self.done_in_batch.add(parameter)
        parameter.grad = None
