"""Batches as sequences of samples: how many there are, some of them, and a loader cut where a count is reached."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def count_samples(batch: Any) -> int:  # noqa: ANN401 - any batch
    """Returns the number of samples: the first dimension of the batch's first tensor.

    Raises:
        ValueError: When there is no tensor with a first dimension.
    """
    for tensor in _find_tensors(batch):
        if tensor.ndim:
            return len(tensor)
    raise ValueError(
        "a batch must hold a tensor whose first dimension numbers the samples, "
        f"got a {type(batch).__name__} with none; give dicts, tuples or lists of tensors"
    )


def take_samples(batch: Any, start: int, stop: int) -> Any:  # noqa: ANN401 - a batch of the same kind
    """Returns a batch of samples `start` to `stop` only; tensors of another first dimension are kept whole."""
    num_samples = count_samples(batch)
    return _map_tensors(batch, lambda t: t[start:stop] if t.ndim and len(t) == num_samples else t)


def pick_samples(batch: Any, *chosen: int) -> Any:  # noqa: ANN401 - a batch of the same kind
    """Returns the batch that holds the chosen samples only; tensors of another first dimension are kept whole."""
    num_samples = count_samples(batch)
    return _map_tensors(batch, lambda t: t[list(chosen)] if t.ndim and len(t) == num_samples else t)


def find_different(batch: Any, most: int) -> list[int]:  # noqa: ANN401 - any batch
    """Returns the first sample and up to `most` further ones that differ from it in some tensor."""
    num_samples = count_samples(batch)
    different = torch.zeros(num_samples, dtype=torch.bool)
    for tensor in _find_tensors(batch):
        if tensor.ndim and len(tensor) == num_samples:
            different |= (
                (tensor != tensor[:1]).flatten(1).any(1).cpu() if tensor.ndim > 1 else (tensor != tensor[0]).cpu()
            )
    return [0, *different.nonzero().flatten().tolist()[:most]]


def move_batch(batch: Any, device: torch.device) -> Any:  # noqa: ANN401 - a batch of the same kind
    """Returns the batch with its tensors on a device."""
    return _map_tensors(batch, lambda t: t.to(device, non_blocking=True))


def cut_batches(batches: Iterable[Any], limit: int, stops: Iterable[int] = ()) -> Iterator[tuple[Any, int]]:
    """Yields batches with the samples each holds, cut so that one ends at each of `stops` and the last at `limit`."""
    ends = iter(sorted({stop for stop in stops if 0 < stop < limit} | {limit}))
    end, seen = next(ends), 0
    for batch in batches:
        size, start = count_samples(batch), 0
        while start < size:
            stop = min(size, start + end - seen)
            yield (batch if stop - start == size else take_samples(batch, start, stop)), stop - start
            seen, start = seen + stop - start, stop
            if seen == end:
                end = next(ends, 0)
            if not end:
                return


def _find_tensors(value: Any) -> Iterator[Tensor]:  # noqa: ANN401 - any batch
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _find_tensors(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _find_tensors(item)


def _map_tensors(value: Any, change: Any) -> Any:  # noqa: ANN401 - any batch
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _map_tensors(item, change) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_map_tensors(item, change) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(_map_tensors(item, change) for item in value)
    return value
