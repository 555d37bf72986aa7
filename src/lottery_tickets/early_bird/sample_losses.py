"""The loss of each sample, with its own target and with that of the other of its pair, from one forward pass."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lottery_tickets._core.batches.samples import find_tensors
from lottery_tickets._core.gradients.losses import LOSSES
from lottery_tickets._core.measuring.performance import CLASSIFIERS

TOLERANCE: Final = 0.02  # of a loss, within which it is the mean of its samples; bfloat16 rounds to 0.4 %


@final
@dataclass(frozen=True)
class SampleLosses:
    """Losses by sample, 1-D float64.

    Attributes:
        own: With the targets that the batch has.
        exchanged: With the targets of each pair of samples exchanged where the loss function is called: what the
            network would do if it saw the exchanged targets too is not in it.
    """

    own: Tensor
    exchanged: Tensor


def tell_samples(compute: Callable[[], Tensor], num_samples: int) -> SampleLosses | None:
    """Returns the loss of each sample; None where the loss is not the mean of one loss function of torch over them.

    Args:
        compute: Returns the mean loss of a batch.
        num_samples: In the batch, an even number; the first two are a pair, the next two, and so on.
    """
    with _Listener(num_samples) as listener:
        loss = compute()
    if listener.num_calls != 1 or listener.own is None or listener.exchanged is None:
        return None
    terms, counts = listener.own
    mean = terms.sum() / counts.sum()
    if mean.isfinite() and (loss - mean).abs() > TOLERANCE * mean.abs():
        return None
    return SampleLosses(*(_average(*side) for side in (listener.own, listener.exchanged)))


@final
class LargestTensor(TorchFunctionMode):
    """Within the block it is noted how many elements the largest tensor has that a function of torch returns."""

    def __init__(self) -> None:
        super().__init__()
        self.num_elements = 1

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - whatever func returns
        result = func(*args, **(kwargs or {}))
        self.num_elements = max([self.num_elements, *(tensor.numel() for tensor in find_tensors(result))])
        return result


@final
class _Listener(TorchFunctionMode):
    """Computes the losses of samples beside the one loss function that a forward pass calls."""

    def __init__(self, num_samples: int) -> None:
        super().__init__()
        self._num_samples = num_samples
        self.num_calls = 0
        self.own: tuple[Tensor, Tensor] | None = None
        self.exchanged: tuple[Tensor, Tensor] | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - whatever func returns
        if func in LOSSES:
            self.num_calls += 1
            bound = _find_signature(func).bind(*args, **(kwargs or {}))
            bound.apply_defaults()
            target = bound.arguments["target"]
            self.own = self._sum_terms(func, bound)
            if self.own is not None and target.numel() and target.numel() % self._num_samples == 0:
                by_pair = target.reshape(-1, 2, target.numel() // self._num_samples)
                bound.arguments["target"] = by_pair.flip(1).reshape(target.shape)
                self.exchanged = self._sum_terms(func, bound)
        return func(*args, **(kwargs or {}))

    def _sum_terms(self, func: Callable[..., Tensor], bound: inspect.BoundArguments) -> tuple[Tensor, Tensor] | None:
        """Returns for each sample the sum of its terms, and their number; None where they cannot be told."""
        counts = LOSSES[func](bound.arguments, self._num_samples)
        if counts is None:
            return None
        reduced = bound.arguments["reduction"]
        bound.arguments["reduction"] = "none"
        terms = func(*bound.args, **bound.kwargs).double()
        bound.arguments["reduction"] = reduced
        if terms.numel() % self._num_samples:
            return None
        by_sample = terms.reshape(self._num_samples, -1)
        if func not in CLASSIFIERS:  # these average over all elements
            counts = torch.full((self._num_samples,), by_sample.shape[1], dtype=torch.float64)
        return by_sample.sum(1), counts.to(terms.device)


@cache
def _find_signature(func: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(func)


def _average(terms: Tensor, counts: Tensor) -> Tensor:
    return torch.where(counts > 0, terms / counts.clamp_min(1), 0.0)
