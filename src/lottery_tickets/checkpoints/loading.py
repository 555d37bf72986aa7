"""Weights of a framed model, read from a checkpoint's files where they are needed and let go after."""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from lottery_tickets._core.reading import list_names
from lottery_tickets._core.selection.zeroing import zero_pruned_
from lottery_tickets._core.tensor_files.headers import Entry
from lottery_tickets._core.tensor_files.shards import BYTES_PER_BLOCK, Shard
from lottery_tickets._core.weights import READERS

Place = tuple[Shard, Entry]


@final
@dataclass(frozen=True)
class Slot:
    """A tensor of a framed model, by all its names: tied ones have several.

    Attributes:
        names: In the model.
        frame: The tensor on the meta device, which stands there while nothing is loaded.
        homes: The modules that have it, and under which attribute.
        places: Under which names files hold it.
    """

    names: tuple[str, ...]
    frame: Tensor
    homes: tuple[tuple[nn.Module, str], ...]
    places: tuple[str, ...]

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

    A base model's files leave out the prefix that its names have in a model with a head, or have one that it lacks.

    Args:
        model: With parameters on the meta device.
        stored: What the files hold.

    Raises:
        ValueError: When some are missing, or have other shapes.
    """
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    found: dict[int, tuple[Tensor, list[tuple[str, nn.Module, str]]]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for tensors in (module._parameters, module._buffers):  # noqa: SLF001 - as `named_parameters` looks
            for key, tensor in tensors.items():
                if tensor is not None and tensor.is_meta:
                    found.setdefault(id(tensor), (tensor, []))[1].append((f"{path}.{key}".lstrip("."), module, key))
    slots = []
    for frame, homes in found.values():
        names = tuple(name for name, *_ in homes)
        candidates = [other for name in names for other in (name, name.removeprefix(prefix), prefix + name)]
        places = tuple(dict.fromkeys(name for name in candidates if name in stored))
        slots.append(Slot(names, frame, tuple((module, key) for _, module, key in homes), places))
    _check_slots(type(model).__name__, slots, stored)
    return slots


def _check_slots(kind: str, slots: Iterable[Slot], stored: Mapping[str, Entry]) -> None:
    if missing := [slot.names[0] for slot in slots if not slot.places]:
        raise ValueError(
            f"the checkpoint must hold all weights of {kind} by its names, but lacks {len(missing)} "
            f"({list_names(missing)}); are files and configuration of one model? What transformers renames as it "
            "loads, or makes of others (of experts that are stored one by one), cannot be streamed: load the model"
        )
    for slot in slots:
        for place in slot.places:
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
                (slot.places, value.view(-1), block)
                for slot, value in zip(wanted, values, strict=True)
                for block in self._cut(slot.places[0])
            ]
            for _ in pool.map(self._read, *zip(*jobs, strict=True)) if jobs else ():
                pass
        for slot, value in zip(wanted, values, strict=True):
            if (bits := self._find_bits(slot)) is not None:
                zero_pruned_(value.view(-1), bits)
            slot.put(value.to(self._device))

    def _find_bits(self, slot: Slot) -> Tensor | None:
        return next((self._bits[place] for place in slot.places if place in self._bits), None)

    def _cut(self, place: str) -> Iterator[tuple[int, int]]:
        _, entry = self._entries[place]
        size, step = entry.shape.numel(), BYTES_PER_BLOCK // entry.dtype.itemsize
        return ((start, min(start + step, size)) for start in range(0, size, step))

    def _read(self, places: tuple[str, ...], value: Tensor, block: tuple[int, int]) -> None:
        """Reads one block of a tensor, and of those that it is tied to."""
        first, *others = (self._entries[place] for place in places)
        read = first[0].read_elements(first[1], *block)
        for place, (shard, entry) in zip(places[1:], others, strict=True):
            if not torch.equal(read, shard.read_elements(entry, *block)):
                raise ValueError(
                    f"{places[0]!r} and {place!r} must be equal, because the configuration ties them, but differ; say "
                    "tie_word_embeddings false in config.json, if they are two weights"
                )
        value[slice(*block)].copy_(read)


def let_go(slots: Iterable[Slot]) -> None:
    """Takes loaded tensors out of their slots."""
    for slot in slots:
        slot.put(slot.frame)
