"""Batches as dicts, tuples and lists of tensors: how to count their samples, move them, pick from them and cut them.

A tensor whose first dimension is the number of samples holds one entry a sample. Everything else belongs to the whole
batch and goes with each part of it.
"""

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def find_tensors(batch: Any) -> Iterator[Tensor]:  # noqa: ANN401 - any batch
    """Yields the tensors of a batch, in order."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping | tuple | list):
        for item in batch.values() if isinstance(batch, Mapping) else batch:
            yield from find_tensors(item)


def map_leaves(batch: Any, change: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - a batch of the same kind
    """Returns the batch with a function applied to everything in it that is not a mapping, tuple or list."""
    if isinstance(batch, Mapping):
        return {key: map_leaves(value, change) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        items = [map_leaves(item, change) for item in batch]
        if hasattr(batch, "_fields"):  # a named tuple
            return type(batch)(*items)
        return type(batch)(items)
    return change(batch)


def move_batch(batch: Any, device: torch.device) -> Any:  # noqa: ANN401 - a batch of the same kind
    """Returns the batch with its tensors on a device; the given batch stays as it is.

    Tensors that are there already are not copied.
    """
    if not isinstance(batch, Tensor) and callable(getattr(batch, "to", None)):
        return copy.copy(batch).to(device)  # such as the dicts of tokenizers, which move in place
    if all(tensor.device == device for tensor in find_tensors(batch)):
        return batch
    return map_leaves(batch, lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf)


def count_samples(batch: Any) -> int | None:  # noqa: ANN401 - any batch
    """Returns the length of the first dimension of `input_ids`, or else of the first tensor; None without tensors."""
    if isinstance(batch, Mapping) and isinstance(batch.get("input_ids"), Tensor):
        return len(batch["input_ids"])
    return next((len(tensor) for tensor in find_tensors(batch) if tensor.ndim), None)


def require_samples(batch: Any) -> int:  # noqa: ANN401 - any batch
    """Returns the number of samples of a batch that must have one.

    Raises:
        ValueError: When there is no tensor with a first dimension.
    """
    num_samples = count_samples(batch)
    if num_samples is None:
        raise ValueError(
            "a batch must hold a tensor whose first dimension numbers the samples, "
            f"got a {type(batch).__name__} with none; give dicts, tuples or lists of tensors"
        )
    return num_samples


def take_samples(batch: Any, start: int, stop: int) -> Any:  # noqa: ANN401 - a batch of the same kind
    """Returns a batch of samples `start` to `stop` only."""
    return _index_samples(batch, slice(start, stop))


def pick_samples(batch: Any, *chosen: int) -> Any:  # noqa: ANN401 - a batch of the same kind
    """Returns the batch that holds the chosen samples only."""
    return _index_samples(batch, list(chosen))


def join_batches(batches: Sequence[Any]) -> Any:  # noqa: ANN401 - a batch of the same kind
    """Returns the samples of all batches as one batch; None where they are of different shapes or kinds.

    Args:
        batches: At least one. What belongs to a whole batch must be the same in all.
    """
    sizes = [require_samples(batch) for batch in batches]
    leaves: list[list[Any]] = [[] for _ in batches]
    forms = [map_leaves(batch, held.append) for batch, held in zip(batches, leaves, strict=True)]
    if any(form != forms[0] for form in forms):
        return None
    columns = list(zip(*leaves, strict=True))
    held = [_hold_samples(column, sizes) for column in columns]
    if not all(holds or _are_one(column, sizes) for column, holds in zip(columns, held, strict=True)):
        return None
    joined = (torch.cat(column) if holds else column[0] for column, holds in zip(columns, held, strict=True))
    return map_leaves(batches[0], lambda _: next(joined))


def find_different(batch: Any, most: int) -> list[int]:  # noqa: ANN401 - any batch
    """Returns the first sample and up to `most` further ones that differ from it in some tensor."""
    num_samples = require_samples(batch)
    different = torch.zeros(num_samples, dtype=torch.bool)
    for tensor in find_tensors(batch):
        if tensor.ndim and len(tensor) == num_samples:
            different |= (
                (tensor != tensor[:1]).flatten(1).any(1).cpu() if tensor.ndim > 1 else (tensor != tensor[0]).cpu()
            )
    return [0, *different.nonzero().flatten().tolist()[:most]]


def cut_batches(batches: Iterable[Any], limit: int, stops: Iterable[int] = ()) -> Iterator[tuple[Any, int]]:
    """Yields batches with the samples each holds, cut so that one ends at each of `stops` and the last at `limit`."""
    ends = iter(sorted({stop for stop in stops if 0 < stop < limit} | {limit}))
    end, seen = next(ends), 0
    for batch in batches:
        size, start = require_samples(batch), 0
        while start < size:
            stop = min(size, start + end - seen)
            yield (batch if stop - start == size else take_samples(batch, start, stop)), stop - start
            seen, start = seen + stop - start, stop
            if seen == end:
                end = next(ends, 0)
            if not end:
                return


def split_batch(batch: Any, max_batch_size: int | None) -> list[tuple[Any, float]]:  # noqa: ANN401 - any batch
    """Returns pieces of nearly equal size, each with its share of the batch; a small enough batch is one piece.

    Tensors whose first dimension is the batch's are cut, other tensors and numbers go with each piece.

    Args:
        batch: Tensors, in dicts, tuples and lists.
        max_batch_size: Samples a piece; None for no limit.

    Raises:
        ValueError: When the batch has no size, or holds something that cannot be cut.
    """
    if max_batch_size is None:
        return [(batch, 1.0)]
    size = count_samples(batch)
    if size is None:
        raise ValueError(
            f"a batch must hold tensors for max_batch_size to split it, but got {type(batch).__name__}; leave "
            "max_batch_size None"
        )
    if size <= max_batch_size:
        return [(batch, 1.0)]
    _check_lists(batch, size)
    num_pieces = -(-size // max_batch_size)
    edges = [size * piece // num_pieces for piece in range(num_pieces + 1)]
    return [
        (map_leaves(batch, _make_cut(size, first, last)), (last - first) / size)
        for first, last in itertools.pairwise(edges)
    ]


def _hold_samples(leaves: Sequence[Any], sizes: Sequence[int]) -> bool:
    """Returns whether leaves are tensors of one entry a sample, which can be joined."""
    are_held = all(_holds_samples(leaf, size) for leaf, size in zip(leaves, sizes, strict=True))
    return are_held and len({(leaf.shape[1:], leaf.dtype, leaf.device) for leaf in leaves}) == 1


def _are_one(leaves: Sequence[Any], sizes: Sequence[int]) -> bool:
    """Returns whether leaves belong to whole batches, and to all of them the same."""
    first = leaves[0]
    if any(type(leaf) is not type(first) for leaf in leaves):
        return False
    if not isinstance(first, Tensor):
        return isinstance(first, int | float | str | None) and all(leaf == first for leaf in leaves)
    alike = len({(leaf.shape, leaf.dtype, leaf.device) for leaf in leaves}) == 1
    return alike and not any(map(_holds_samples, leaves, sizes)) and all(torch.equal(leaf, first) for leaf in leaves)


def _holds_samples(leaf: Any, size: int) -> bool:  # noqa: ANN401 - whatever a batch holds
    return isinstance(leaf, Tensor) and leaf.ndim > 0 and len(leaf) == size


def _check_lists(batch: Any, size: int, *, is_inside: bool = False) -> None:  # noqa: ANN401 - any batch
    """Raises where a list seems to hold one item a sample: it would go whole with each piece, beside other samples."""
    if isinstance(batch, Mapping):
        for value in batch.values():
            _check_lists(value, size, is_inside=True)
    elif isinstance(batch, tuple | list):
        is_cut = [any(len(t) == size for t in find_tensors(item) if t.dim()) for item in batch]
        # Only inside, because a pair (inputs, targets) of two samples has as many items as samples too.
        if is_inside and len(batch) == size and not all(is_cut):
            raise ValueError(
                f"max_batch_size can split tensors, but the batch holds a {type(batch).__name__} with one item for "
                f"each of its {size} samples; make its batches smaller, or turn it into a tensor"
            )
        for item in batch:
            _check_lists(item, size, is_inside=True)


def _make_cut(size: int, first: int, last: int) -> Callable[[Any], Any]:
    def cut(leaf: Any) -> Any:  # noqa: ANN401 - whatever a batch holds
        if isinstance(leaf, Tensor):
            return leaf[first:last] if leaf.dim() and len(leaf) == size else leaf
        if leaf is None or isinstance(leaf, bool | int | float):
            return leaf
        raise ValueError(
            f"max_batch_size can split a batch of tensors, numbers, dicts, tuples and lists, but this one holds a "
            f"{type(leaf).__name__}; make its batches smaller, or turn it into tensors"
        )

    return cut


def _index_samples(batch: Any, index: slice | list[int]) -> Any:  # noqa: ANN401 - a batch of the same kind
    num_samples = require_samples(batch)

    def take(leaf: Any) -> Any:  # noqa: ANN401 - whatever a batch holds
        return leaf[index] if isinstance(leaf, Tensor) and leaf.ndim and len(leaf) == num_samples else leaf

    return map_leaves(batch, take)
