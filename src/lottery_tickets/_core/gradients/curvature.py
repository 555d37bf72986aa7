"""The gradient of a mean loss over a data set, and its Hessian times a vector, by a double backward pass a batch."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from lottery_tickets._core.batches.samples import move_batch
from lottery_tickets._core.gradients.losses import LOSSES
from lottery_tickets._core.measuring.running import differentiate, run_with
from lottery_tickets._core.objective import LossFunction, compute_loss

Batches = Sequence[tuple[Any, int]]


@final
@dataclass(frozen=True)
class Curvature:
    """A mean loss as a function of some weights of a model, all others being constants.

    Attributes:
        model: In the mode in which it is to run.
        weights: By name; their handles are handed to the model in place of the parameters.
        loss_fn: The caller's loss; None for the model's own.
        temperature: What the logits of each cross-entropy are divided by.
    """

    model: nn.Module
    weights: Mapping[str, Tensor]
    loss_fn: LossFunction | None
    temperature: float

    def average_gradient(self, batches: Batches, num_samples: int, then: Callable[[], object]) -> dict[str, Tensor]:
        """Returns the gradient of the mean loss over all samples, in float32 or better; the share of these batches.

        Args:
            batches: Each with its number of samples.
            num_samples: Of all batches, those of other processes too.
            then: Called after each batch.

        Raises:
            ValueError: When a loss is not finite, depends on no weight, or calls no cross-entropy for a temperature.
        """
        sums = self._make_sums()
        for batch, size in batches:
            loss, handles = self._compute_loss(batch, size)
            self._add(sums, differentiate(loss, handles), size / num_samples)
            then()
        return sums

    def average_product(
        self, batches: Batches, num_samples: int, vector: Mapping[str, Tensor], then: Callable[[], object]
    ) -> dict[str, Tensor]:
        """Returns the Hessian of the mean loss over all samples, times a vector; arguments as in `average_gradient`."""
        sums = self._make_sums()
        for batch, size in batches:
            with sdpa_kernel(SDPBackend.MATH):  # the fused kernels of attention have no second derivative
                loss, handles = self._compute_loss(batch, size)
                found = differentiate(loss, handles, create_graph=True)
                # Of a loss that is linear in a weight, the gradient is a constant, and has no graph.
                terms = [
                    (vector[name] * g.to(vector[name].dtype)).sum() for name, g in found.items() if g.requires_grad
                ]
                if terms:
                    products = differentiate(torch.stack(terms).sum(), handles)
                    self._add(sums, products, size / num_samples)
            then()
        return sums

    def _make_sums(self) -> dict[str, Tensor]:
        return {
            name: torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
            for name, weight in self.weights.items()
        }

    def _add(self, sums: Mapping[str, Tensor], found: Mapping[str, Tensor], share: float) -> None:
        for name, gradient in found.items():
            sums[name].add_(gradient.to(sums[name].dtype), alpha=share)

    def _compute_loss(self, batch: object, size: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the mean loss of a batch, with its graph, and the handles that stand for the weights in it."""
        handles = {name: weight.detach().requires_grad_() for name, weight in self.weights.items()}
        moved = move_batch(batch, next(iter(handles.values())).device)
        tempered = _Tempered(self.temperature, size)
        with torch.enable_grad(), tempered:
            loss: Tensor = run_with(self.model, handles, lambda module: compute_loss(module, moved, self.loss_fn))
        if self.temperature != 1 and not tempered.num_calls:
            raise ValueError(
                "a temperature divides the logits of torch's cross_entropy, but the loss does not call it; "
                "pass temperature=1"
            )
        if not bool(loss.isfinite()):
            raise ValueError(f"the loss of each batch must be finite, got {loss.item()}; look for NaN or empty samples")
        if not loss.requires_grad:
            some = ", ".join(list(handles)[:5])
            raise ValueError(f"the loss must depend on a chosen weight, but has no gradient for any of {some}")
        return loss, handles


@final
class _Tempered(TorchFunctionMode):
    """Divides the logits of each cross-entropy by a temperature; takes its mean over samples, not over labels."""

    def __init__(self, temperature: float, num_samples: int) -> None:
        super().__init__()
        self.temperature, self.num_samples, self.num_calls = temperature, num_samples, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - whatever func returns
        if func is not functional.cross_entropy:
            return func(*args, **(kwargs or {}))
        self.num_calls += 1
        bound = inspect.signature(func).bind(*args, **(kwargs or {}))
        bound.apply_defaults()
        bound.arguments["input"] = bound.arguments["input"] / self.temperature
        counts = LOSSES[func](bound.arguments, self.num_samples)
        if counts is None or bool((counts == counts[0]).all()):
            return func(*bound.args, **bound.kwargs)
        # Samples of different numbers of labels: each counts once, not each label.
        bound.arguments["reduction"] = "none"
        losses: Tensor = func(*bound.args, **bound.kwargs)
        return (losses.reshape(self.num_samples, -1).sum(1) / counts.to(losses)).mean()
