"""How a loss averages over samples, read from the loss function it calls; and labels that the model draws itself."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, final

import torch
from torch import Tensor
from torch.nn import functional

from lottery_tickets._core.sharding.dtensors import gather

Labels = Literal["empirical", "sampled", "exact"]


@dataclass(frozen=True)
class LossCall:
    """One call of a loss function within a forward pass.

    Attributes:
        output: What it returned.
        version: torch's count of writes to the output, by which a later change in place is seen.
        counts: For each sample the number of terms that the mean is over, float64 on the CPU; None when unknown.
        logits: What the loss was computed from; kept for "exact" labels only, for they are large.
    """

    output: Tensor
    version: int
    counts: Tensor | None
    logits: Tensor | None


@final
class LossCalls:
    """Watches the loss functions of one forward pass, and exchanges their labels for labels drawn from the model."""

    def __init__(self, num_samples: int, labels: Labels, generator: torch.Generator) -> None:
        self.num_samples, self.labels, self.generator = num_samples, labels, generator
        self.calls: list[LossCall] = []

    def call(self, function: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Returns the loss, computed by the function with the right labels, and remembers the call."""
        bound = inspect.signature(function).bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = bound.arguments
        if self.labels == "sampled" and function is functional.cross_entropy:
            arguments["target"] = self._draw(arguments["input"], arguments["target"], arguments["ignore_index"])
        output = function(*bound.args, **bound.kwargs)
        counts = LOSSES[function](arguments, self.num_samples)
        logits = arguments["input"] if self.labels == "exact" else None
        self.calls.append(LossCall(output, output._version, counts, logits))  # noqa: SLF001 - torch's write counter
        return output

    def pop(self, loss: Tensor) -> LossCall | None:
        """Returns the call whose output is the loss itself, unchanged; forgets all calls, and so their graphs."""
        calls, self.calls = self.calls, []
        for call in calls:
            if call.output is loss and call.version == loss._version:  # noqa: SLF001 - as above
                return call
        return None

    def _draw(self, logits: Tensor, targets: Tensor, ignored: int) -> Tensor:
        """Returns labels drawn from the softmax of the logits, at the places that have one."""
        logits, targets = gather(logits), gather(targets)
        classes = logits.movedim(1, -1) if logits.ndim > 1 else logits
        cumulative = classes.float().softmax(-1).cumsum(-1)
        # One number a label, in order of the samples: however the samples are batched, each gets the same.
        drawn = torch.rand(cumulative.shape[:-1], generator=self.generator, dtype=torch.float64)
        points = drawn.to(cumulative.device, cumulative.dtype) * cumulative[..., -1]
        labels = torch.searchsorted(cumulative, points.unsqueeze(-1)).squeeze(-1).clamp(max=cumulative.shape[-1] - 1)
        if targets.is_floating_point():
            return labels
        return torch.where(targets == ignored, targets, labels)


def count_classified(arguments: dict[str, Any], num_samples: int) -> Tensor | None:
    """Returns the number of labels of each sample that a cross-entropy averages over."""
    target = gather(arguments["target"])
    if arguments["reduction"] != "mean" or arguments["weight"] is not None or target.ndim == 0:
        return None
    if target.is_floating_point():  # class probabilities: one for each row
        target = torch.zeros(target.shape[0], *target.shape[2:])
        return _sum_by_sample(torch.ones_like(target), num_samples)
    return _sum_by_sample(target.cpu() != arguments["ignore_index"], num_samples)


def weigh_equally(arguments: dict[str, Any], num_samples: int) -> Tensor | None:
    """Returns equal counts, for losses that average over all elements: only the ratio of samples matters."""
    if arguments["reduction"] != "mean" or arguments.get("weight") is not None:
        return None
    shape = torch.broadcast_shapes(arguments["input"].shape, arguments["target"].shape)
    if not shape or shape[0] % num_samples:
        return None
    return torch.ones(num_samples, dtype=torch.float64)


def _sum_by_sample(flags: Tensor, num_samples: int) -> Tensor | None:
    if len(flags) % num_samples:
        return None
    return flags.reshape(num_samples, -1).sum(1).double()


LOSSES: Final[dict[Callable[..., Tensor], Callable[[dict[str, Any], int], Tensor | None]]] = {
    functional.cross_entropy: count_classified,
    functional.nll_loss: count_classified,
    functional.mse_loss: weigh_equally,
    functional.l1_loss: weigh_equally,
    functional.smooth_l1_loss: weigh_equally,
    functional.huber_loss: weigh_equally,
    functional.binary_cross_entropy: weigh_equally,
    functional.binary_cross_entropy_with_logits: weigh_equally,
}
