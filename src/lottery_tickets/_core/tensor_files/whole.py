"""Safetensors files that are read and written whole."""

import contextlib
from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, final

import safetensors
import torch
from torch import Tensor

from lottery_tickets._core.files import writing_file
from lottery_tickets._core.reading import find_format, say_briefly, show_name
from lottery_tickets._core.sharding.shards import find_shards, see_whole
from lottery_tickets._core.sharding.together import ALONE, Together
from lottery_tickets._core.tensor_files.headers import DTYPES, NAMES, list_in_order, make_header


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], together: Together | None = None
) -> None:
    """Writes a safetensors file, whole; tensors that share memory are stored apart.

    The bytes are those that safetensors writes; but it copies all tensors first, and a mask may be half of the memory.
    Of processes that share the tensors the first one writes, and one tensor after the other is gathered for it.

    Args:
        path: Of the file.
        tensors: By name.
        metadata: Texts by name.
        together: The processes that call this; those that share the tensors when None.

    Raises:
        OSError: As `writing_file`.
        ValueError: When a tensor is of a dtype that the format does not have, or has no values.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in NAMES or tensor.is_meta or tensor.layout != torch.strided:
            raise ValueError(
                f"{show_name(name)} must be a dense tensor with values, of a dtype that safetensors has, but is "
                f"{tensor.dtype}, {tensor.layout}, on {tensor.device}"
            )
    described = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    if together is None:
        shards = find_shards(tensors)
        together = ALONE if shards is None else shards.together
    see = see_whole(tensors)
    with together.led(lambda: writing_file(path)) as aside:
        together.let_first(partial(_append, aside, make_header(described, dict(metadata))))
        for name in list_in_order(described):
            together.let_first(partial(_append_tensor, aside, see(name)))


def _append(path: Path, content: Any) -> None:  # noqa: ANN401 - bytes, or what lends them
    with path.open("ab") as file:
        file.write(content)


def _append_tensor(path: Path, tensor: Tensor) -> None:
    _append(path, tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)


@final
class TensorFile:
    """A safetensors file, opened when it is first asked.

    Args:
        path: The file.
        only: The beginning of the names of those tensors that are read. The others are given on the meta device,
            without values, so that the file may be larger than the memory: torch maps a whole file or nothing of it.

    Raises:
        OSError: Whatever is asked, when there is no such file, or it cannot be read.
        ValueError: When it is anything else than a whole safetensors file; the message names it.
    """

    def __init__(self, path: Path, *, only: str = "") -> None:
        self.path = path
        self._only = only

    @cached_property
    def names(self) -> list[str]:
        """Of its tensors."""
        file = self._file
        with self._explained():
            return list(file.keys())

    @cached_property
    def metadata(self) -> dict[str, str]:
        """Texts by name."""
        file = self._file
        with self._explained():
            return dict(file.metadata() or {})

    def read(self, name: str) -> Tensor:
        """Returns one of its tensors."""
        file = self._file
        with self._explained():
            if not self._only:
                tensor: Tensor = file.get_tensor(name)
                return tensor
            if name.startswith(self._only):
                return torch.from_numpy(file.get_tensor(name))
            described = file.get_slice(name)
            return torch.empty(described.get_shape(), dtype=DTYPES[described.get_dtype()], device="meta")

    @cached_property
    def _file(self) -> Any:  # noqa: ANN401 - safetensors names no type
        if find_format(self.path, "a whole safetensors file") != "safetensors":
            raise ValueError(f"{self.path} must be a whole safetensors file, but is a torch file; name another")
        with self._explained():
            return safetensors.safe_open(self.path, framework="np" if self._only else "pt")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        # AttributeError: of types that this torch does not have
        except (safetensors.SafetensorError, ValueError, LookupError, RuntimeError, AttributeError, TypeError) as error:
            raise ValueError(
                f"{self.path} must be a whole safetensors file, but reading it gave: {say_briefly(error)}; was it cut "
                "short or altered?"
            ) from error


def read_tensors(path: Path, *, only: str = "") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns the tensors and the metadata of a safetensors file, see `TensorFile`.

    Raises:
        OSError: When there is no such file, or it cannot be read.
        ValueError: When it is anything else than a whole safetensors file; the message names it.
    """
    file = TensorFile(path, only=only)
    return {name: file.read(name) for name in file.names}, file.metadata
