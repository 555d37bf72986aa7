"""Batches whose samples have exchanged their targets: what a network that has learnt from its inputs does worse on.

The samples of a batch are put into pairs, and the two of a pair exchange their targets. What a loss owes to the inputs
alone, or to the targets alone, is in both; what is left is their pairing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor

from lottery_tickets._core.batches.order import ordered_by
from lottery_tickets._core.batches.samples import (
    count_samples,
    find_tensors,
    join_batches,
    pick_samples,
    require_samples,
    take_samples,
)
from lottery_tickets._core.checks import check_restartable
from lottery_tickets._core.determinism import derive_seed, make_generator
from lottery_tickets._core.states import hash_state

Targets = str | int | Sequence[str | int]

TARGET_NAMES: Final = ("labels", "label", "targets", "target", "y")
IGNORED: Final = -100  # the label that losses leave out, torch's default
FEWEST, MOST, PER_BATCH = 64, 256, 8  # samples: at least, at most, and times the batch size in between


@final
@dataclass(frozen=True)
class Exchange:
    """Samples with their own targets and with each other's.

    Attributes:
        own: As the data has it; the two samples of a pair lie beside each other.
        exchanged: The same with the targets of each pair exchanged.
        num_samples: An even number.
    """

    own: Any
    exchanged: Any
    num_samples: int

    @property
    def differs(self) -> bool:
        """Whether any pair has two targets to exchange."""
        sides = zip(find_tensors(self.own), find_tensors(self.exchanged), strict=True)
        return any(not torch.equal(one, other) for one, other in sides)

    def cut(self, size: int) -> "Iterator[Exchange]":
        """Yields pieces of at most so many samples, an even number."""
        for start in range(0, self.num_samples, size):
            stop = min(start + size, self.num_samples)
            own, exchanged = (take_samples(batch, start, stop) for batch in (self.own, self.exchanged))
            yield Exchange(own, exchanged, stop - start)


def join_exchanges(exchanges: Iterable[Exchange], most: int) -> list[Exchange]:
    """Returns the same samples, neighbours of one shape joined to at most so many."""
    joined: list[Exchange] = []
    for exchange in exchanges:
        both = _join(joined[-1], exchange) if joined and joined[-1].num_samples + exchange.num_samples <= most else None
        joined = [*joined, exchange] if both is None else [*joined[:-1], both]
    return joined


def _join(first: Exchange, second: Exchange) -> Exchange | None:
    own, exchanged = (join_batches(side) for side in ((first.own, second.own), (first.exchanged, second.exchanged)))
    if own is None or exchanged is None:
        return None
    return Exchange(own, exchanged, first.num_samples + second.num_samples)


def make_exchange(batch: Any, targets: Targets | None, order: Tensor) -> Exchange:  # noqa: ANN401 - any batch
    """Returns a batch with its targets, and with those of each pair exchanged.

    A label of a token counts only where both sequences of a pair have one: what lies beyond the end of a shorter one
    would be compared with what the network says to padding.

    Args:
        batch: Of two samples or more.
        targets: Where its targets are: keys of a mapping, places in a tuple. None for the second of a pair, for
            "labels" (or "label", "targets", "target", "y") of a mapping, or else its "input_ids".
        order: A permutation of the samples; the first two are a pair, the next two, and so on. An odd one is left out.

    Raises:
        ValueError: When it is not known which part of the batch are its targets, or it holds one sample.
    """
    num_samples = require_samples(batch) // 2 * 2
    if not num_samples:
        raise ValueError("samples must exchange their targets, but a batch holds only one; give batches of at least 2")
    batch = pick_samples(batch, *order[:num_samples].tolist())
    batch, keys = _find_targets(batch, targets)
    partners = torch.arange(num_samples).view(-1, 2).flip(1).flatten()
    others = pick_samples(batch, *partners.tolist())
    items = batch if isinstance(batch, Mapping) else dict(enumerate(batch))
    other_items = others if isinstance(others, Mapping) else dict(enumerate(others))
    changed = {key: _keep_common(items[key], other_items[key]) for key in keys}
    own = _replace(batch, {key: pair[0] for key, pair in changed.items()})
    exchanged = _replace(batch, {key: pair[1] for key, pair in changed.items()})
    return Exchange(own, exchanged, num_samples)


def draw_batches(source: Iterable[Any], num_samples: int | None, seed: int) -> list[Any]:
    """Returns batches of a fixed sample of some data, of two samples or more each.

    Of a data set that can be indexed, samples from all over it; of a list of batches, some that are evenly spread; else
    the first ones. Repeated samples are left out. The generators of loaders come back as they were.

    Args:
        source: A data loader, a list of batches, or one batch.
        num_samples: How many; by default 8 times the size of a batch, but at least 64 and at most 256.
        seed: Decides which.

    Raises:
        TypeError: When it is an iterator.
        ValueError: When there is no batch.
    """
    if isinstance(source, Mapping) or (isinstance(source, tuple | list) and any(isinstance(i, Tensor) for i in source)):
        source = [source]
    check_restartable(source)
    with ordered_by(source, derive_seed(seed, "probe")):
        data = getattr(source, "dataset", None)
        collate = getattr(source, "collate_fn", None)
        sampler = getattr(source, "batch_sampler", None)
        if sampler is not None and callable(collate) and _is_indexed(data):
            size = getattr(source, "batch_size", None) or getattr(
                sampler, "batch_size", None
            )  # accelerate's has none itself
            return _join_single(_leave_out_repeats(_draw_indexed(data, collate, size, num_samples, seed)))
        batches: list[Any] = []
        drawn, wanted = 0, num_samples
        for batch in _spread(source, num_samples) if isinstance(source, list) else source:
            size = require_samples(batch)
            wanted = wanted or choose_num_samples(size)
            batches.append(take_samples(batch, 0, wanted - drawn) if size > wanted - drawn else batch)
            drawn += size
            if drawn >= wanted:
                break
    return _join_single(_leave_out_repeats(batches))


def choose_num_samples(batch_size: int) -> int:
    """Returns how many samples a probe has beside training in batches of a size."""
    return min(MOST, max(FEWEST, PER_BATCH * batch_size))


def _draw_indexed(
    data: Any,  # noqa: ANN401 - any data set
    collate: Callable[[list[Any]], Any],
    batch_size: int | None,
    num_samples: int | None,
    seed: int,
) -> list[Any]:
    size = max(2, batch_size or 1)
    wanted = min(num_samples or choose_num_samples(size), len(data))
    places = torch.randperm(len(data), generator=make_generator(seed, "probe", "samples"))[:wanted].tolist()
    return [collate([data[place] for place in places[start : start + size]]) for start in range(0, wanted, size)]


def _is_indexed(data: object) -> bool:
    return hasattr(data, "__len__") and hasattr(data, "__getitem__")


def _spread(batches: list[Any], num_samples: int | None) -> list[Any]:
    size = (batches and count_samples(batches[0])) or 1
    num = min(len(batches), -(-(num_samples or choose_num_samples(size)) // size))
    return [batches[place * len(batches) // num] for place in range(num)]


def _leave_out_repeats(batches: list[Any]) -> list[Any]:
    """Returns the batches without samples that were there before: they are no further evidence.

    Raises:
        ValueError: When there is no batch.
    """
    if not batches:
        raise ValueError("the probe must hold at least one batch, but gave none; is its loader empty?")
    seen: set[str] = set()
    left = []
    for batch in batches:
        num_samples = require_samples(batch)
        parts = [tensor for tensor in find_tensors(batch) if tensor.ndim and len(tensor) == num_samples]
        new = []
        for place in range(num_samples):
            digest = hash_state({str(number): part[place] for number, part in enumerate(parts)})
            if digest not in seen:
                seen.add(digest)
                new.append(place)
        if new:
            left.append(batch if len(new) == num_samples else pick_samples(batch, *new))
    return left


def _join_single(batches: list[Any]) -> list[Any]:
    """Returns the batches; where each holds one sample, joined to one batch, because alone none can exchange."""
    if any(require_samples(batch) > 1 for batch in batches):
        return [batch for batch in batches if require_samples(batch) > 1]
    joined = join_batches(batches)
    if len(batches) == 1 or joined is None:
        raise ValueError(
            "samples must exchange their targets, but each batch of the probe holds one sample, of another shape than "
            "others; give a probe of batches of at least 2"
        )
    return [joined]


def _find_targets(batch: Any, targets: Targets | None) -> tuple[Any, list[str | int]]:  # noqa: ANN401 - any batch
    """Returns the batch, with labels of its own where they default to its tokens, and where its targets are."""
    keys: list[str | int]
    if targets is not None:
        keys = [targets] if isinstance(targets, str | int) else list(targets)
    elif isinstance(batch, Mapping):
        keys = [*[name for name in TARGET_NAMES if name in batch][:1]]
        if not keys and "input_ids" in batch:
            batch, keys = {**batch, "labels": _label_tokens(batch)}, ["labels"]
    else:
        keys = [1] if isinstance(batch, tuple | list) and len(batch) == 2 else []  # noqa: PLR2004 - a pair
    held = batch if isinstance(batch, Mapping) else range(len(batch)) if isinstance(batch, tuple | list) else ()
    if not keys or not all(key in held for key in keys):
        raise ValueError(
            f"the targets of a batch must be known for samples to exchange them, but this one is a "
            f"{type(batch).__name__}{f' of {sorted(map(str, batch))}' if isinstance(batch, Mapping) else ''}; say "
            "where they are: Probe(batches, targets=), or give pairs (inputs, targets) with a loss_fn of their own"
        )
    return batch, keys


def _label_tokens(batch: Mapping[str, Any]) -> Tensor:
    tokens: Tensor = batch["input_ids"]
    attended = batch.get("attention_mask")
    is_mask = isinstance(attended, Tensor) and attended.shape == tokens.shape
    return torch.where(attended.bool(), tokens, IGNORED) if is_mask and attended is not None else tokens


def _keep_common(own: Any, other: Any) -> tuple[Any, Any]:  # noqa: ANN401 - any targets
    """Returns targets with only the token labels that the other of the pair has a label for too."""
    if not isinstance(own, Tensor) or own.ndim < 2 or own.is_floating_point():  # noqa: PLR2004 - samples, tokens
        return own, other
    ignored = (own == IGNORED) | (other == IGNORED)
    return (own.masked_fill(ignored, IGNORED), other.masked_fill(ignored, IGNORED)) if ignored.any() else (own, other)


def _replace(batch: Any, items: Mapping[Any, Any]) -> Any:  # noqa: ANN401 - a batch of the same kind
    if isinstance(batch, Mapping):
        return {**batch, **items}
    changed = [items.get(place, item) for place, item in enumerate(batch)]
    return type(batch)(*changed) if hasattr(batch, "_fields") else type(batch)(changed)
