"""Weights of a framed model, read from a checkpoint's files where they are needed and let go after."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from lottery_tickets._core.reading import list_names
from lottery_tickets._core.selection.zeroing import zero_pruned_
from lottery_tickets._core.tensor_files.headers import Entry
from lottery_tickets._core.tensor_files.shards import BYTES_PER_BLOCK, Shard, StoredWeight
from lottery_tickets._core.weights import READERS
from lottery_tickets.workloads.conversion import find_parts

Place = tuple[Shard, Entry]


@final
@dataclass(frozen=True)
class Slot:
    """A tensor of a framed model, by all its names: tied ones have several.

    Attributes:
        names: In the model.
        frame: The tensor on the meta device, which stands there while nothing is loaded.
        homes: The modules that have it, and under which attribute.
        places: Under which names files hold it: each time those of the tensors that it consists of, mostly one.
    """

    names: tuple[str, ...]
    frame: Tensor
    homes: tuple[tuple[nn.Module, str], ...]
    places: tuple[tuple[str, ...], ...]

    def put(self, tensor: Tensor) -> None:
        """Makes a tensor what all modules that have this one read."""
        is_parameter = isinstance(self.frame, nn.Parameter)
        if is_parameter and not isinstance(tensor, nn.Parameter):
            # As in memory: where a weight requires a gradient, torch multiplies in another order, also under no_grad.
            tensor = nn.Parameter(tensor, requires_grad=self.frame.requires_grad)
        for module, key in self.homes:
            slots: dict[str, Any] = module._parameters if is_parameter else module._buffers  # noqa: SLF001 - register_parameter would take any
            slots[key] = tensor


def find_slots(model: Any, stored: Mapping[str, Entry]) -> list[Slot]:  # noqa: ANN401 - of transformers
    """Returns the tensors of a framed model that files must hold, with where they are.

    Args:
        model: With parameters on the meta device.
        stored: What the files hold.

    Raises:
        ValueError: When some are missing, or have other shapes.
    """
    parts = find_parts(model, stored)
    found: dict[int, tuple[Tensor, list[tuple[str, nn.Module, str]]]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for tensors in (module._parameters, module._buffers):  # noqa: SLF001 - as `named_parameters` looks
            for key, tensor in tensors.items():
                if tensor is not None and tensor.is_meta:
                    found.setdefault(id(tensor), (tensor, []))[1].append((f"{path}.{key}".lstrip("."), module, key))
    slots = []
    for frame, homes in found.values():
        names = tuple(name for name, *_ in homes)
        places = tuple(dict.fromkeys(parts[name] for name in names if name in parts))
        slots.append(Slot(names, frame, tuple((module, key) for _, module, key in homes), places))
    _check_slots(type(model).__name__, slots, stored)
    return slots


def _check_slots(kind: str, slots: Iterable[Slot], stored: Mapping[str, Entry]) -> None:
    if missing := [slot.names[0] for slot in slots if not slot.places]:
        raise ValueError(
            f"the checkpoint must hold all weights of {kind} by its names, but lacks {len(missing)} "
            f"({list_names(missing)}); are files and configuration of one model? What transformers makes of others as "
            "it loads, but by putting them one behind the other, cannot be streamed: load the model"
        )
    for slot in slots:
        for place in (places[0] for places in slot.places if len(places) == 1):
            if stored[place].shape != slot.frame.shape:
                raise ValueError(
                    f"{place!r} must have the shape {tuple(slot.frame.shape)} that the configuration says, but has "
                    f"{tuple(stored[place].shape)}; are configuration and weights of one model?"
                )


@final
class Loader:
    """Reads tensors of a checkpoint into slots of a framed model.

    Args:
        entries: Where each tensor lies, by its name in the files.
        bits: By name in the files the packed bits of what is kept; the rest is read as zero.
        device: Where to.
    """

    def __init__(self, entries: Mapping[str, Place], bits: Mapping[str, Tensor], device: torch.device) -> None:
        self._entries = entries
        self._bits = bits
        self._device = device

    def load(self, slots: Iterable[Slot]) -> None:
        """Puts tensors into their slots, several blocks at a time.

        Raises:
            OSError: When a file cannot be read.
            ValueError: When a file has changed since it was opened, or tied weights differ.
        """
        wanted = list(slots)
        values = [torch.empty(slot.frame.shape, dtype=slot.frame.dtype) for slot in wanted]
        with ThreadPoolExecutor(READERS) as pool:
            jobs = [
                (weights, value.view(-1), block)
                for weights, value in zip(map(self._find, wanted), values, strict=True)
                for block in weights[0].cut(BYTES_PER_BLOCK // weights[0].dtype.itemsize)
            ]
            for _ in pool.map(_read, *zip(*jobs, strict=True)) if jobs else ():
                pass
        for slot, value in zip(wanted, values, strict=True):
            self._prune(slot, value.view(-1))
            slot.put(value.to(self._device))

    def _find(self, slot: Slot) -> list[StoredWeight]:
        """Returns where a tensor lies, as often as it is stored."""
        return [
            StoredWeight(", ".join(places), [self._entries[place] for place in places], shape=slot.frame.shape)
            for places in slot.places
        ]

    def _prune(self, slot: Slot, value: Tensor) -> None:
        for places in slot.places:
            start = 0
            for place in places:
                stop = start + self._entries[place][1].size
                if place in self._bits:
                    zero_pruned_(value[start:stop], self._bits[place])
                start = stop


def _read(weights: Sequence[StoredWeight], value: Tensor, block: tuple[int, int]) -> None:
    """Reads one block of a tensor, and of those that it is tied to."""
    read = weights[0].read(*block)
    for other in weights[1:]:
        if not torch.equal(read, other.read(*block)):
            raise ValueError(
                f"{weights[0].name!r} and {other.name!r} must be equal, because the configuration ties them, but "
                "differ; say tie_word_embeddings false in config.json, if they are two weights"
            )
    value[slice(*block)].copy_(read)


def let_go(slots: Iterable[Slot]) -> None:
    """Takes loaded tensors out of their slots."""
    for slot in slots:
        slot.put(slot.frame)
