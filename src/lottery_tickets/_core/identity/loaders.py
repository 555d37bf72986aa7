"""Which samples a DataLoader draws from its data set, and what is known of them without reading them."""

import hashlib
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    default_collate,
    default_convert,
)

from lottery_tickets._core.batches.samples import map_leaves
from lottery_tickets._core.identity.bytecode import find_usage_of_method
from lottery_tickets._core.identity.values import Encoder

_FACTS: Final = (bool, int, float, str, bytes, type(None), PurePath)


class Loading(NamedTuple):
    """The samples of an epoch, by their places in a data set.

    Attributes:
        dataset: Gives a sample for a place.
        tensors: The same samples as rows; None when they have to be asked for one by one.
        positions: The places that an epoch may draw, in ascending order.
        facts: A digest of what else decides what is drawn; empty for the usual.
        unknown: What could not be identified of that.
    """

    dataset: Any
    tensors: tuple[Tensor, ...] | None
    positions: Sequence[int]
    facts: bytes
    unknown: list[str]


def find_loading(loader: DataLoader[Any]) -> Loading:
    """Returns what a DataLoader over a data set of known length draws.

    Samplers that draw each sample once count by the samples; of any other one its class and its attributes count, and
    so does the code of a `collate_fn` that is not torch's.
    """
    dataset, sampler, others = loader.dataset, loader.sampler, list[Any]()
    if type(loader.batch_sampler) is BatchSampler:
        sampler = loader.batch_sampler.sampler
    elif loader.batch_sampler is not None:
        others.append(loader.batch_sampler)
    positions: Sequence[int] = range(len(dataset))  # type: ignore[arg-type] # the caller has looked
    if isinstance(sampler, SubsetRandomSampler):
        positions = sorted(map(int, sampler.indices))
    elif not _draws_each_once(sampler, len(positions)):
        others.append(sampler)
    hashed = hashlib.sha256()
    encoder = Encoder(hashed.update)
    encoder.see(dataset)
    for other in others:
        encoder.encode(type(other))
        left_out = ("generator", "epoch", "data_source", "dataset")  # where a sampler is, and what it draws from
        encoder.encode_parts({name: value for name, value in vars(other).items() if name not in left_out})
    is_usual = loader.collate_fn is default_collate or loader.collate_fn is default_convert
    if not is_usual:
        encoder.encode(loader.collate_fn)
    facts = hashed.digest() if others or not is_usual else b""
    return Loading(dataset, _find_tensors(dataset), positions, facts, encoder.unknown)


def describe_dataset(dataset: object, num_samples: int) -> str:
    """Returns a digest of what is known of a data set whose samples cannot be read twice: type, length, attributes.

    Args:
        dataset: Of its attributes count tensors, arrays, paths, texts and numbers, and lists of them.
        num_samples: Its length.
    """
    changed = find_usage_of_method(type(dataset), getattr(type(dataset), "__getitem__", None)).changed_attributes
    hashed = hashlib.sha256()
    encoder = Encoder(hashed.update)
    encoder.encode([type(dataset), num_samples])
    encoder.encode_parts(
        {
            name: value
            for name, value in getattr(dataset, "__dict__", {}).items()
            if name not in changed and _is_fact(value)
        }
    )
    return hashed.hexdigest()


def describe_structure(batch: object) -> str:
    """Returns a digest of the names, dtypes and numbers of dimensions of what is in a batch."""

    def describe(leaf: object) -> object:
        return [leaf.dtype, leaf.ndim] if isinstance(leaf, Tensor | np.ndarray) else type(leaf).__qualname__

    hashed = hashlib.sha256()
    Encoder(hashed.update).encode(map_leaves(batch, describe))
    return hashed.hexdigest()


def _draws_each_once(sampler: object, num_samples: int) -> bool:
    if type(sampler) is SequentialSampler:
        return True
    if type(sampler) is DistributedSampler:  # by its processes together, however many they are
        return torch.distributed.is_initialized() and not sampler.drop_last
    if not isinstance(sampler, RandomSampler) or type(sampler) is not RandomSampler:
        return False
    return not sampler.replacement and sampler.num_samples == num_samples


def _find_tensors(dataset: object) -> tuple[Tensor, ...] | None:
    """Returns the tensors whose rows a data set gives, where it does nothing else."""
    return tuple(dataset.tensors) if type(dataset) is TensorDataset else None


def _is_fact(value: object) -> bool:
    if isinstance(value, Tensor | np.ndarray):
        return True
    if isinstance(value, tuple | list):
        return all(isinstance(part, _FACTS) for part in value)
    return isinstance(value, _FACTS)
