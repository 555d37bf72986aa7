"""What data a loader gives: the samples themselves, in whatever order and batches, read within bounded time."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from torch.utils.data import DataLoader, IterableDataset

from lottery_tickets._core.batches.tensor_batches import TensorBatches
from lottery_tickets._core.identity.bytecode import BYTECODE
from lottery_tickets._core.identity.chance import under_seeds
from lottery_tickets._core.identity.identities import Identity, name_identity
from lottery_tickets._core.identity.loaders import Loading, describe_dataset, describe_structure, find_loading
from lottery_tickets._core.identity.samples import SampleSum, hash_batch, hash_rows, hash_sample

LEVELS: Final = (16, 1024)  # evenly spread samples that are read before all are
NUM_PROBES: Final = 8  # samples, or batches, that are read again
SEED: Final = 0

_Reseed = Callable[[int], None]
_Cut = Callable[[Any, list[str]], Iterable[bytes]]


class _Subject(NamedTuple):
    """What is identified, how sentences call it, and how long that may take."""

    what: str
    argument: str
    max_seconds: float
    deadline: float  # of time.monotonic()

    def is_over(self) -> bool:
        return time.monotonic() > self.deadline

    def give_up(self, reason: str, digest: str | None = None, num_samples: int | None = None) -> Identity:
        says = f"{self.what} could not be identified: {reason}; pass {self.argument}="
        unknown: Identity = {"kind": "unknown", "digest": digest, "says": says, "complete": False}
        if digest is not None:
            unknown["bytecode"] = BYTECODE
        if num_samples is not None:
            unknown["num_samples"] = num_samples
        return unknown

    def too_slow(self) -> str:
        return f"takes longer than {self.max_seconds:g} seconds"


def identify_data(
    loader: Iterable[Any] | TensorBatches,
    given_id: str | None = None,
    *,
    max_seconds: float = 5.0,
    what: str = "the training data",
    argument: str = "data_id",
) -> Identity:
    """Returns the identity of the samples that a loader gives in an epoch, whatever their order and batch size.

    A sample is its inputs and targets together. Of a DataLoader, the data set is read by index, in this process and on
    no worker; what its sampler and its `collate_fn` do counts where they are not torch's usual ones. A batch of any
    other loader is cut into samples where all its tensors have the same first dimension, and is one sample otherwise.
    All generators that can be found are under fixed seeds meanwhile, and afterwards as before, so that random
    augmentation is identified by what it draws there.

    Where reading takes too long, the digest is of as many evenly spread samples as could be read, and `complete` is
    False. A stream has to be read to its end, because its beginning depends on its order.

    Args:
        loader: Read at most two and a half times. What reading does to it besides drawing numbers, such as filling a
            cache, stays done.
        given_id: The caller's own name for the data, in place of all this.
        max_seconds: After how many seconds reading stops, at the next sample.
        what: What sentences call the data.
        argument: The argument by which the caller can name it.

    Examples:
        >>> import torch
        >>> images, labels = torch.rand(6, 2), torch.arange(6)
        >>> whole, halves = [(images, labels)], [(images[3:], labels[3:]), (images[:3], labels[:3])]
        >>> identify_data(whole) == identify_data(halves)
        True
        >>> identify_data(whole)["says"]
        'the training data has 6 samples'
    """
    if given_id is not None:
        return name_identity(given_id, what)
    subject = _Subject(what, argument, max_seconds, time.monotonic() + max_seconds)
    if isinstance(loader, Iterator):
        return subject.give_up(f"a {type(loader).__name__} is used up after one epoch")
    with under_seeds(loader) as reseed:
        if isinstance(loader, TensorBatches):
            tensors = (loader.inputs, loader.targets)
            return _identify_indexed(subject, Loading(loader, tensors, range(len(loader.inputs)), b"", []), reseed)
        if not isinstance(loader, DataLoader):
            return _identify_stream(subject, loader, hash_batch, reseed)
        if isinstance(loader.dataset, IterableDataset) or not hasattr(loader.dataset, "__len__"):
            is_batched = loader.batch_size is None
            return _identify_stream(subject, loader.dataset, hash_batch if is_batched else _hash_single, reseed)  # type: ignore[arg-type] # has __iter__
        return _identify_indexed(subject, find_loading(loader), reseed)


def _identify_indexed(subject: _Subject, loading: Loading, reseed: _Reseed) -> Identity:
    num_samples, unknown = len(loading.positions), list(loading.unknown)
    is_random = False
    if loading.tensors is None:
        reads = [_probe(subject, loading, reseed, seed) for seed in (SEED, SEED + 1, SEED)]
        is_random = reads[0] != reads[1]
        if subject.is_over():
            return subject.give_up(f"reading {3 * NUM_PROBES} samples {subject.too_slow()}", num_samples=num_samples)
        if reads[0] != reads[2]:
            reason = "its samples differ from read to read (random augmentation that no seed decides)"
            return subject.give_up(reason, describe_dataset(loading.dataset, num_samples), num_samples)
    digests = _read_levels(subject, loading, unknown, reseed)
    if not digests:
        return subject.give_up(f"reading {LEVELS[0]} samples {subject.too_slow()}", num_samples=num_samples)
    num_read = max(map(int, digests))
    says = f"{subject.what} has {num_samples} samples"
    says += ", read as they are augmented with a fixed seed" if is_random else ""
    if num_read < num_samples:
        says += f"; {num_read} evenly spread ones were read, as reading all {subject.too_slow()}"
    identity = _conclude(subject, says, unknown, digests, num_samples)
    if loading.facts:
        identity["bytecode"] = BYTECODE
    return identity


def _read_levels(subject: _Subject, loading: Loading, unknown: list[str], reseed: _Reseed) -> dict[str, str]:
    """Returns the digests of more and more evenly spread samples, up to all, by their number, as far as time goes."""
    digests: dict[str, str] = {}
    num_samples = len(loading.positions)
    for level in (*(size for size in LEVELS if size < num_samples), num_samples):
        reseed(SEED)
        read = SampleSum()
        for digest in _read(loading, spread(loading.positions, level), unknown):
            read.add([digest])
            if subject.is_over():
                break
        if read.num_samples < level:
            break
        digests[str(level)] = read.conclude(loading.facts)
    return digests


class _Epoch(NamedTuple):
    """What was read of an epoch."""

    read: SampleSum
    first: list[list[bytes]]  # the digests of the first batches
    structure: str | None  # of the first batch
    is_whole: bool


def _identify_stream(subject: _Subject, batches: Iterable[Any], cut: _Cut, reseed: _Reseed) -> Identity:
    unknown: list[str] = []

    def read(most: int | None = None) -> _Epoch:
        reseed(SEED)
        return _read_epoch(subject, itertools.islice(batches, most), cut, unknown)

    too_slow = f"it can only be read from beginning to end, and that {subject.too_slow()}"
    epoch = read()
    if not epoch.is_whole:
        return subject.give_up(too_slow, epoch.structure)
    total, digest = epoch.read.num_samples, epoch.read.conclude()
    # Its order may come from a generator that was not found; then the samples may still be the same.
    if not isinstance(batches, list | tuple) and not _begins_alike(epoch, read(NUM_PROBES)):
        again = read()
        if not again.is_whole or again.read.conclude() != digest:
            reason = "its samples differ from epoch to epoch under the same seeds" if again.is_whole else too_slow
            return subject.give_up(reason, epoch.structure)
    return _conclude(subject, f"{subject.what} has {total} samples", unknown, {str(total): digest}, total)


def _read_epoch(subject: _Subject, batches: Iterable[Any], cut: _Cut, unknown: list[str]) -> _Epoch:
    total, first, structure = SampleSum(), list[list[bytes]](), None
    for batch in batches:
        if subject.is_over():
            return _Epoch(total, first, structure, is_whole=False)
        digests = list(cut(batch, unknown))
        total.add(digests)
        if len(first) < NUM_PROBES:
            structure = structure or describe_structure(batch)
            first.append(digests)
    return _Epoch(total, first, structure, is_whole=True)


def _begins_alike(epoch: _Epoch, again: _Epoch) -> bool:
    """Returns whether a second epoch began like the first, as far as it was read."""
    return again.first == epoch.first[: len(again.first)]


def _hash_single(sample: object, unknown: list[str]) -> list[bytes]:
    return [hash_sample(sample, unknown)]


def _probe(subject: _Subject, loading: Loading, reseed: _Reseed, seed: int) -> list[bytes]:
    """Returns the digests of a few samples; of fewer where time is over."""
    probes = spread(loading.positions, NUM_PROBES)
    reseed(seed)
    digests: list[bytes] = []
    for position in probes:
        if subject.is_over():
            break
        digests.append(hash_sample(loading.dataset[position], []))
    return digests


def _read(loading: Loading, positions: Sequence[int], unknown: list[str]) -> Iterator[bytes]:
    if loading.tensors is not None:
        return hash_rows(loading.tensors, positions)
    return (hash_sample(loading.dataset[position], unknown) for position in positions)


def spread(positions: Sequence[int], most: int) -> Sequence[int]:
    """Returns evenly spread ones of a sequence of places, all when there are no more.

    Args:
        positions: Places in a data set.
        most: How many at most.
    """
    if len(positions) <= most:
        return positions
    return [positions[place * len(positions) // most] for place in range(most)]


def _conclude(subject: _Subject, says: str, unknown: list[str], digests: dict[str, str], num_samples: int) -> Identity:
    num_read = max(map(int, digests))
    if unknown:
        says += f", which could be identified only in part: {'; '.join(unknown[:3])}"
    is_complete = num_read == num_samples and not unknown
    return {
        "kind": "samples",
        "digest": digests[str(num_read)],
        "says": says if is_complete else f"{says}; pass {subject.argument}= to name it",
        "complete": is_complete,
        "num_samples": num_samples,
        "num_read": num_read,
        "digests": digests,
    }
