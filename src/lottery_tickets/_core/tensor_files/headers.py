"""The header of a safetensors file: which tensor lies where. The format is 8 bytes of length, JSON, then all values."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import safetensors
import torch

from lottery_tickets._core.files import parse_json
from lottery_tickets._core.reading import check_file, find_format, say_briefly, show_name

LENGTH_BYTES: Final = 8
ALIGNMENT: Final = 8  # of the values, so that a view of them needs no copy
METADATA: Final = "__metadata__"
GGUF: Final = b"GGUF"
DTYPES: Final = {  # as the headers of safetensors name them
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2": torch.float8_e5m2, "F8_E5M2FNUZ": torch.float8_e5m2fnuz, "BOOL": torch.bool,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8,
}  # fmt: skip
ORDER: Final = (  # in which safetensors lays tensors, by dtype
    torch.uint64, torch.int64, torch.float64, torch.complex64, torch.float32, torch.uint32, torch.int32,
    torch.bfloat16, torch.float16, torch.uint16, torch.int16, torch.float8_e5m2fnuz, torch.float8_e4m3fnuz,
    torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.uint8, torch.bool,
)  # fmt: skip
NAMES: Final = {dtype: name for name, dtype in DTYPES.items()}


@final
@dataclass(frozen=True)
class Entry:
    """Where a tensor lies.

    Attributes:
        dtype: Of its elements.
        shape: Of the tensor.
        start: The byte of the file at which it begins.
    """

    dtype: torch.dtype
    shape: torch.Size
    start: int

    @property
    def size(self) -> int:
        """How many elements it has."""
        return self.shape.numel()

    @property
    def num_bytes(self) -> int:
        """How many bytes it takes."""
        return self.size * self.dtype.itemsize

    @property
    def stop(self) -> int:
        """The byte of the file behind it."""
        return self.start + self.num_bytes

    @property
    def is_aligned(self) -> bool:
        """Whether it lies where elements of its dtype may lie in memory; all that safetensors writes does."""
        return self.start % self.dtype.itemsize == 0


@final
@dataclass(frozen=True)
class Header:
    """What a safetensors file says of itself.

    Attributes:
        entries: By name, in the order in which the tensors lie.
        metadata: Texts by name.
        start: The byte at which the first tensor begins; what lies before is the header.
    """

    entries: dict[str, Entry]
    metadata: dict[str, str]
    start: int

    @property
    def stop(self) -> int:
        """The byte behind the last tensor, which is how long the file is."""
        return max((entry.stop for entry in self.entries.values()), default=self.start)


def read_header(path: Path) -> Header:
    """Returns the header of a file; nothing else of it is read.

    Raises:
        OSError: When there is no such file, or it cannot be read.
        ValueError: When it is anything else than a whole safetensors file; the message names it.
    """
    _refuse_others(path)
    try:
        with safetensors.safe_open(path, framework="np"):  # checks it: no gaps, nothing twice, nothing beyond the end
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(LENGTH_BYTES), "little")
            content = parse_json(file.read(length).decode())
        metadata = dict(content.pop(METADATA, None) or {})
        start = LENGTH_BYTES + length
        entries = {name: _read_entry(name, said, start) for name, said in content.items()}
    except (safetensors.SafetensorError, ValueError, LookupError, RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} must be a whole safetensors file, but reading it gave: {say_briefly(error)}; was it cut short or "
            "altered?"
        ) from error
    return Header(dict(sorted(entries.items(), key=lambda item: item[1].start)), metadata, start)


def make_header(tensors: dict[str, tuple[torch.dtype, torch.Size]], metadata: dict[str, str]) -> bytes:
    """Returns the header of a file of such tensors, with its length before it, byte for byte as safetensors makes it.

    Args:
        tensors: By name dtype and shape; they lie by size of their elements, the largest first, then by name.
        metadata: Texts by name.
    """
    content: dict[str, Any] = {METADATA: metadata} if metadata else {}
    place = 0
    for name in list_in_order(tensors):
        dtype, shape = tensors[name]
        stop = place + shape.numel() * dtype.itemsize
        content[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [place, stop]}
        place = stop
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def list_in_order(tensors: dict[str, tuple[torch.dtype, torch.Size]]) -> list[str]:
    """Returns the names of tensors in the order in which safetensors lays them."""
    ranks = {dtype: rank for rank, dtype in enumerate(ORDER)}
    return sorted(tensors, key=lambda name: (ranks[tensors[name][0]], name))


def _read_entry(name: str, said: dict[str, Any], start: int) -> Entry:
    if said["dtype"] not in DTYPES:
        raise ValueError(f"{show_name(name)} is of type {said['dtype']}, which torch does not have")
    return Entry(DTYPES[said["dtype"]], torch.Size(said["shape"]), start + said["data_offsets"][0])


def _refuse_others(path: Path) -> None:
    """Raises where a file is of another format."""
    check_file(path, "a safetensors file")
    with path.open("rb") as file:
        head = file.read(len(GGUF))
    if head == GGUF:
        raise ValueError(
            f"{path} must be a safetensors file, but is a GGUF file, whose weights are quantised; take the checkpoint "
            "that it was made of"
        )
    if find_format(path, "a safetensors file") == "torch":
        raise ValueError(
            f"{path} must be a safetensors file, but is a torch file, which is a program to be run and has to be read "
            "whole; load it and save its tensors by save_weights or save_pretrained"
        )
