"""Batches in an order that is a function of seed and position; moved to a device, cut into pieces."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, final

import torch
from torch import Tensor

from lottery_tickets._core.checks import check_restartable
from lottery_tickets._core.determinism import derive_seed, seed_everything


@final
class ResumableBatches:
    """The batches of a data loader, epoch after epoch, from any position on.

    The global generators are seeded where an epoch starts and before each batch is fetched, so that order and
    augmentation do not depend on where a stretch began. Generators that a data loader has of its own go on as the
    caller left them; their state is part of the position. (Not so the generators of workers that outlive an epoch,
    `persistent_workers=True`, and those inside a data set.)

    Args:
        dataloader: Starts anew each time it is iterated over.
        seed: Decides the order, as far as the global generators do.

    Raises:
        TypeError: When `dataloader` is an iterator.
    """

    def __init__(self, dataloader: Iterable[Any], seed: int) -> None:
        check_restartable(dataloader)
        self.dataloader, self.seed = dataloader, seed
        self.num_steps = self.num_epochs = self.num_epoch_steps = 0
        self._iterator: Iterator[Any] | None = None
        self._generator_states: list[Tensor] | None = None  # where the present epoch started

    def rest_of_epoch(self) -> Iterator[Any]:
        """Yields the batches that are left of the present epoch; a batch is done when `count` is called.

        Raises:
            ValueError: When the data loader gives no batch, or fewer than were done before.
        """
        if self._iterator is None:
            self._iterator = self._open()
        while True:
            seed_everything(derive_seed(self.seed, "step", self.num_steps))
            try:
                batch = next(self._iterator)
            except StopIteration:
                break
            yield batch
        if not self.num_epoch_steps:
            raise ValueError("the dataloader must hold at least one batch each epoch, but gave none; is it empty?")
        self.num_epochs, self.num_epoch_steps = self.num_epochs + 1, 0
        self._iterator = self._generator_states = None

    def count(self) -> None:
        """Counts the batch that was yielded last."""
        self.num_steps += 1
        self.num_epoch_steps += 1

    def drop(self) -> None:
        """Goes back to the last batch that was counted, after something went wrong with the next."""
        self._iterator = None

    def state(self) -> dict[str, Any]:
        """Returns the position: numbers, and the states of the data loader's own generators."""
        states = self._generator_states or [generator.get_state() for generator in find_generators(self.dataloader)]
        return {
            "num_steps": self.num_steps,
            "num_epochs": self.num_epochs,
            "num_epoch_steps": self.num_epoch_steps,
            "generators": [state.clone() for state in states],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Goes to a position.

        Raises:
            ValueError: When the data loader has another number of generators than the one the state is of.
        """
        wanted, got = len(state["generators"]), len(find_generators(self.dataloader))
        if wanted != got:
            raise ValueError(
                f"the dataloader must have {wanted} generators of its own, as when the state was saved, but has {got}; "
                "build it the same way"
            )
        self.num_steps, self.num_epochs = state["num_steps"], state["num_epochs"]
        self.num_epoch_steps = state["num_epoch_steps"]
        self._iterator, self._generator_states = None, [saved.clone() for saved in state["generators"]]

    def _open(self) -> Iterator[Any]:
        """Starts the present epoch and goes through what was done of it."""
        generators = find_generators(self.dataloader)
        if self._generator_states is None:
            self._generator_states = [generator.get_state() for generator in generators]
        for generator, saved in zip(generators, self._generator_states, strict=True):
            generator.set_state(saved)
        seed_everything(derive_seed(self.seed, "epoch", self.num_epochs))
        iterator = iter(self.dataloader)
        for step in range(self.num_epoch_steps):
            seed_everything(derive_seed(self.seed, "step", self.num_steps - self.num_epoch_steps + step))
            try:
                next(iterator)
            except StopIteration:
                raise ValueError(
                    f"the dataloader must give the {self.num_epoch_steps} batches that were done of this epoch, but "
                    f"gave {step}; is it over the same data?"
                ) from None
        return iterator


def find_generators(dataloader: object) -> list[torch.Generator]:
    """Returns the generators that a data loader has of its own, each once."""
    sampler = getattr(dataloader, "sampler", None)
    inner = getattr(getattr(dataloader, "batch_sampler", None), "sampler", None)
    found = [getattr(owner, "generator", None) for owner in (dataloader, sampler, inner)]
    return list({id(generator): generator for generator in found if isinstance(generator, torch.Generator)}.values())


def move_batch(batch: Any, device: torch.device) -> Any:  # noqa: ANN401 - any batch
    """Returns the batch with its tensors on a device; what is there already is not copied."""
    if not isinstance(batch, Tensor) and callable(getattr(batch, "to", None)):
        return batch.to(device)  # such as the dicts of tokenizers
    if all(tensor.device == device for tensor in _list_tensors(batch)):
        return batch
    return _map(batch, lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf)


def count_samples(batch: Any) -> int | None:  # noqa: ANN401 - any batch
    """Returns the length of the first dimension of `input_ids`, or else of the first tensor; None without any."""
    if isinstance(batch, Mapping) and isinstance(batch.get("input_ids"), Tensor):
        return len(batch["input_ids"])
    return next((len(tensor) for tensor in _list_tensors(batch) if tensor.dim()), None)


def split_batch(batch: Any, max_batch_size: int | None) -> list[tuple[Any, float]]:  # noqa: ANN401 - any batch
    """Returns pieces of nearly equal size, each with its share of the batch; a batch that is small enough is one.

    Tensors whose first dimension is the batch's are cut, other tensors and numbers go with each piece.

    Args:
        batch: Tensors, in dicts, tuples and lists.
        max_batch_size: Samples a piece; None for no limit.

    Raises:
        ValueError: When the batch has no size, or holds something of which nobody knows how it is cut.
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
        (_map(batch, _make_cut(size, first, last)), (last - first) / size) for first, last in itertools.pairwise(edges)
    ]


def _check_lists(batch: Any, size: int, *, is_inside: bool = False) -> None:  # noqa: ANN401 - any batch
    """Raises where a list seems to hold one item a sample: it would go whole with each piece, beside other samples."""
    if isinstance(batch, Mapping):
        for value in batch.values():
            _check_lists(value, size, is_inside=True)
    elif isinstance(batch, tuple | list):
        is_cut = [any(len(t) == size for t in _list_tensors(item) if t.dim()) for item in batch]
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


def _map(batch: Any, change: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - any batch
    if isinstance(batch, Mapping):
        return {key: _map(value, change) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        items = [_map(item, change) for item in batch]
        if hasattr(batch, "_fields"):  # a named tuple
            return type(batch)(*items)
        return type(batch)(items)
    return change(batch)


def _list_tensors(batch: Any) -> Iterator[Tensor]:  # noqa: ANN401 - any batch
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping | tuple | list):
        for item in batch.values() if isinstance(batch, Mapping) else batch:
            yield from _list_tensors(item)
