"""Safetensors files that are read and written whole."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from lottery_tickets._core.files import write_whole
from lottery_tickets._core.reading import find_format, say_briefly, show_name
from lottery_tickets._core.tensor_files.headers import DTYPES, NAMES, list_in_order, make_header


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file, whole; tensors that share memory are stored apart.

    The bytes are those that safetensors writes; but it copies all tensors first, and a mask may be half of the memory.

    Raises:
        OSError: As `write_whole`.
        ValueError: When a tensor is of a dtype that the format does not have, or has no values.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in NAMES or tensor.is_meta or tensor.layout != torch.strided:
            raise ValueError(
                f"{show_name(name)} must be a dense tensor with values, of a dtype that safetensors has, but is "
                f"{tensor.dtype}, {tensor.layout}, on {tensor.device}"
            )
    described = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}

    def write(aside: Path) -> None:
        with aside.open("wb") as file:
            file.write(make_header(described, dict(metadata)))
            for name in list_in_order(described):
                values = tensors[name].detach().cpu().contiguous().view(-1)
                file.write(values.view(torch.uint8).numpy().data)

    write_whole(path, write)


def read_tensors(path: Path, *, only: str = "") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns the tensors and the metadata of a safetensors file.

    Args:
        path: The file.
        only: The beginning of the names of those that are read. The others are on the meta device, without values, so
            that the file may be larger than the memory: torch maps a whole file or nothing of it.

    Raises:
        OSError: When there is no such file, or it cannot be read.
        ValueError: When it is anything else than a whole safetensors file; the message names it.
    """
    if find_format(path, "a whole safetensors file") != "safetensors":
        raise ValueError(f"{path} must be a whole safetensors file, but is a torch file; name another")
    try:
        with safetensors.safe_open(path, framework="np" if only else "pt") as file:
            read = partial(_read_or_describe, file, only) if only else file.get_tensor
            return {name: read(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118 - not a dict
    # AttributeError: of types that this torch does not have
    except (safetensors.SafetensorError, ValueError, LookupError, RuntimeError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{path} must be a whole safetensors file, but reading it gave: {say_briefly(error)}; was it cut short or "
            "altered?"
        ) from error


def _read_or_describe(file: Any, only: str, name: str) -> Tensor:  # noqa: ANN401 - safetensors names no type
    if name.startswith(only):
        return torch.from_numpy(file.get_tensor(name))
    described = file.get_slice(name)
    return torch.empty(described.get_shape(), dtype=DTYPES[described.get_dtype()], device="meta")
