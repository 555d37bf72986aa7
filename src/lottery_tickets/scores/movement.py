"""Movement: where training takes each weight, away from zero or towards it, watched while anyone trains."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from lottery_tickets._core.prunable_weights import Choices, find_prunable_weights
from lottery_tickets._core.sharding.dtensors import redistribute_like, see_local, wrap_like
from lottery_tickets._core.weights import Weights
from lottery_tickets.scores.importance import Importance, ImportanceReport


class MovementReport(ImportanceReport, total=False):
    """How movement was recorded.

    Attributes:
        num_steps: Optimizer steps in which at least one of the weights had a gradient.
        num_still_weights: Weights whose parameter never had one; their score is 0.
    """

    num_steps: int
    num_still_weights: int


@final
class MovementRecorder:
    """Sums over optimizer steps of -gradient * weight; made by `record_movement`."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._names = {id(tensor): name for name, tensor in weights.tensors.items()}
        self._totals = {  # of what lies here
            name: torch.zeros_like(see_local(tensor), dtype=torch.float32, requires_grad=False)
            for name, tensor in weights.tensors.items()
        }
        self._moved: set[str] = set()
        self._num_steps = 0

    def importance(self) -> Importance:
        """Returns what has been recorded so far, as signed scores: the larger, the more training moved away from zero.

        Returns:
            By parameter name a float32 tensor in the parameter's shape. `create_importance_mask` keeps the largest,
            with their sign. In the report `num_steps`, and `num_still_weights` that no step gave a gradient.

        Raises:
            ValueError: When no step was recorded, or a sum is not finite.
        """
        if not self._num_steps:
            raise ValueError(
                "there must be an optimizer step to record, but no torch.optim optimizer stepped these weights inside "
                "the block; train there, and make sure that the weights require gradients"
            )
        self._weights.together.agree(self._check_finite)
        report: MovementReport = {
            "score": "sum over steps of -gradient * w",
            "num_steps": self._num_steps,
            "num_still_weights": sum(w.tensor.numel() for name, w in self._weights.items() if name not in self._moved),
        }
        scores = {name: wrap_like(total.clone(), self._weights[name].tensor) for name, total in self._totals.items()}
        return Importance(scores, report, output_dims=self._weights.output_dims)

    def before_step(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Adds a step about to be made; with a closure, once its first call has computed the gradients."""
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if not callable(closure):
            self._add(optimizer)
            return None
        watched = _Closure(closure, partial(self._add, optimizer))
        return ((args[0], watched, *args[2:]), kwargs) if len(args) > 1 else (args, {**kwargs, "closure": watched})

    @torch.no_grad()
    def _add(self, optimizer: torch.optim.Optimizer) -> None:
        # Fused optimizers under a GradScaler unscale the gradients, or skip the step, in their own kernel.
        scale, found_inf = getattr(optimizer, "grad_scale", None), getattr(optimizer, "found_inf", None)
        if found_inf is not None and bool(found_inf):
            return
        factor = 1.0 if scale is None else 1 / float(scale)
        moved = set()
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                name = self._names.get(id(parameter))
                if name is not None and parameter.grad is not None:
                    self._add_weight(name, parameter, parameter.grad, factor)
                    moved.add(name)
        self._moved |= moved
        self._num_steps += bool(moved)

    def _add_weight(self, name: str, weight: Tensor, gradient: Tensor, factor: float) -> None:
        total = self._totals[name] = self._totals[name].to(weight.device)  # the model may have moved
        here, own = see_local(redistribute_like(gradient, weight)), see_local(weight)
        dense = here if here.layout == torch.strided else here.to_dense()
        total.addcmul_(dense.to(total.dtype), own.to(total.dtype), value=-factor)

    def _check_finite(self) -> None:
        for name, total in self._totals.items():
            if not bool(total.isfinite().all()):
                raise ValueError(f"movement must be finite, but {name!r} had a gradient that is not; did it diverge?")


@contextlib.contextmanager
def record_movement(
    model: nn.Module, *, include: Choices | None = None, exclude: Choices | None = None
) -> Iterator[MovementRecorder]:
    """Within the block, each optimizer step adds -gradient * weight to the movement of each weight.

    A weight that training takes away from zero gathers a positive score, one that is drawn towards zero a negative one,
    however large the two are; so movement ranks the weights of a pretrained model, whose magnitudes fine-tuning hardly
    changes. Train in any way: a loop of your own, any `torch.optim` style optimizer (or several), accumulated or
    clipped gradients, closures, gradient scalers. What counts is the gradient that the optimizer is given, once a step.
    The paper trains with the scores' own mask in place; `hold_mask` does that for a mask that is fixed.

    An optimizer that steps copies of the parameters (fp32 "master weights" kept outside the model) is not seen.
    Memory: one float32 a chosen weight. Of a sharded model each process records what lies there; all must ask for the
    scores.

    Args:
        model: Any model. Nothing is changed in it, and nothing is left behind, also after an exception.
        include: Replaces the default choice of weights: names, glob patterns or module types.
        exclude: Removes from the choice.

    Yields:
        The recorder: its `importance()` returns the scores so far, inside the block or after it.

    Raises:
        TypeError: When `model` is not a module.
        ValueError: When a pattern matches nothing or nothing is left; of `importance()`, when no step was made.

    References:
        Sanh et al., arXiv:2005.07683.

    Examples:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with record_movement(model) as movement:
        ...     for _ in range(3):
        ...         optimizer.zero_grad()
        ...         model(torch.ones(1, 2)).square().sum().backward()
        ...         optimizer.step()
        >>> movement.importance()["weight"].shape, movement.importance().report["score"]
        (torch.Size([1, 2]), 'sum over steps of -gradient * w')
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model must be a torch.nn.Module, which can be trained, got {type(model).__name__}")
    recorder = MovementRecorder(find_prunable_weights(model, include=include, exclude=exclude))
    hook = register_optimizer_step_pre_hook(recorder.before_step)
    try:
        yield recorder
    finally:
        hook.remove()


@final
class _Closure:
    """An optimizer's closure that calls a function after its own first call, so once a step."""

    def __init__(self, closure: Callable[[], Any], then: Callable[[], None]) -> None:
        self.closure, self.then, self.is_first = closure, then, True

    def __call__(self) -> Any:  # noqa: ANN401 - whatever the closure returns
        loss = self.closure()
        if self.is_first:
            self.is_first = False
            self.then()
        return loss
