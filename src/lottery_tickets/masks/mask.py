"""`Mask`: which weights are kept, one bit a weight, in memory and on disk."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self, final

import torch
from torch import Tensor

from lottery_tickets._core.bits import count_bits, num_bytes, pack_bits, unpack_bits
from lottery_tickets._core.encoding import MASK_KEY, Place, encode
from lottery_tickets._core.files import parse_json
from lottery_tickets._core.notebooks import render_table
from lottery_tickets._core.reading import Form, check_form, say_briefly
from lottery_tickets._core.tensor_files.whole import read_tensors, write_tensors

FORMAT: Final = "lottery-tickets mask 1"
TICKET_FORMAT: Final = "lottery-tickets ticket 1"  # of a file that holds a mask beside weights; see `tickets`
TICKET_PREFIX: Final = "mask."  # of the names of its bits there
METADATA_KEY: Final = "lottery_tickets"
LABEL_FORM: Final[Form] = {"format": str, "content": str, "sha256": str}
CONTENT_FORM: Final[Form] = {"shapes": {...: list}, "provenance": dict}
MOST_WEIGHTS: Final = 2**63 - 1  # torch counts in 64 bits


@final
class Mask(Mapping[str, Tensor]):
    """Which weights of a model are kept (True) and which are pruned (False), by parameter name.

    A `Mapping[str, Tensor]`: asking for a name unpacks that one boolean tensor, on the CPU. What is stored is one bit a
    weight: 1 where it is kept, in C order, little bit order, 0 in the padding.

    Args:
        bits: For each parameter name, a 1-D uint8 tensor of ceil(n / 8) bytes.
        shapes: For each name, the shape of the parameter.
        provenance: How the mask was made; JSON-able, kept on disk, ignored by comparisons.

    Raises:
        ValueError: When names, shapes, sizes, dtypes or padding bits do not fit.

    Examples:
        >>> mask = Mask.from_tensors({"fc.weight": torch.tensor([[1.0, 0.0], [0.0, 0.0]])})
        >>> mask.sparsity, mask.num_kept, mask["fc.weight"].tolist()
        (0.75, 1, [[True, False], [False, False]])
    """

    def __init__(
        self,
        bits: Mapping[str, Tensor],
        shapes: Mapping[str, tuple[int, ...]],
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        if bits.keys() != shapes.keys():
            odd = sorted(bits.keys() ^ shapes.keys())
            message = f"bits and shapes of a mask must have the same names, but {odd} stand on one side only"
            raise ValueError(message)
        self._shapes = {name: _checked_shape(name, shape) for name, shape in shapes.items()}
        self._bits = {name: _checked_bits(name, bits[name], shape) for name, shape in self._shapes.items()}
        self.provenance: dict[str, Any] = dict(provenance or {})
        self._counts: dict[str, int] = {}  # filled when they are asked for

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], provenance: Mapping[str, Any] | None = None) -> Self:
        """Returns the mask that a mapping of boolean or 0/1 tensors describes.

        Args:
            tensors: For each parameter name a tensor of its shape, any dtype, holding only 0 and 1.
            provenance: How the mask was made.

        Raises:
            TypeError: When the mapping holds something other than tensors.
            ValueError: When a tensor holds other values than 0 and 1.
        """
        bits = {name: pack_bits(_checked_binary(name, tensor)) for name, tensor in tensors.items()}
        return cls(bits, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, provenance)

    @classmethod
    def keeping_all(cls, shapes: Mapping[str, tuple[int, ...]]) -> Self:
        """Returns the mask that prunes nothing of parameters of these shapes."""
        sizes = {name: torch.Size(shape).numel() for name, shape in shapes.items()}
        none = {name: torch.zeros(num_bytes(size), dtype=torch.uint8) for name, size in sizes.items()}
        return cls({name: _invert(bits, sizes[name]) for name, bits in none.items()}, shapes)

    @property
    def bits(self) -> Mapping[str, Tensor]:
        """The packed bits by name: 1-D uint8 CPU tensors of ceil(n / 8) bytes. Not to be written to."""
        return self._bits

    @property
    def shapes(self) -> Mapping[str, torch.Size]:
        """The shapes by name."""
        return self._shapes

    def __getitem__(self, name: str) -> Tensor:
        return unpack_bits(self._bits[name], self._shapes[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    @property
    def num_weights(self) -> int:
        """How many weights the mask speaks of."""
        return sum(shape.numel() for shape in self._shapes.values())

    @property
    def num_kept(self) -> int:
        """How many weights are kept."""
        return sum(self._count_kept().values())

    @property
    def density(self) -> float:
        """The fraction kept, in [0, 1]; 1.0 for a mask over no weights."""
        return self.num_kept / self.num_weights if self.num_weights else 1.0

    @property
    def sparsity(self) -> float:
        """The fraction removed, in [0, 1]; 0.0 for a mask over no weights."""
        return (self.num_weights - self.num_kept) / self.num_weights if self.num_weights else 0.0

    @property
    def nbytes(self) -> int:
        """Bytes of memory the bits take."""
        return sum(bits.numel() for bits in self._bits.values())

    @property
    def digest(self) -> str:
        """The SHA-256, in hexadecimal, of names, shapes, bits and provenance."""
        return _digest(self._content(), self._bits)

    def layer_sparsity(self) -> dict[str, float]:
        """Returns the fraction removed from each parameter, by name."""
        sizes = {name: shape.numel() for name, shape in self._shapes.items()}
        return {name: 1 - kept / sizes[name] if sizes[name] else 0.0 for name, kept in self._count_kept().items()}

    @property
    def collapsed_layers(self) -> list[str]:
        """The names of the parameters that have weights but keep none, so that nothing passes them."""
        return [name for name, kept in self._count_kept().items() if self._shapes[name].numel() and not kept]

    def is_subset(self, other: Mapping[str, Tensor]) -> bool:
        """Returns whether every weight kept here is kept in `other` too."""
        return (self & ~as_mask(other)).num_kept == 0

    def __and__(self, other: Mapping[str, Tensor]) -> "Mask":
        bits = self._bits_of(other)
        return Mask({name: mine & bits[name] for name, mine in self._bits.items()}, self._shapes)

    def __or__(self, other: Mapping[str, Tensor]) -> "Mask":
        bits = self._bits_of(other)
        return Mask({name: mine | bits[name] for name, mine in self._bits.items()}, self._shapes)

    def __invert__(self) -> "Mask":
        return Mask(
            {name: _invert(bits, self._shapes[name].numel()) for name, bits in self._bits.items()}, self._shapes
        )

    __rand__ = __and__
    __ror__ = __or__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        try:
            mask = as_mask(other)
        except (TypeError, ValueError):  # a mapping that is no mask is a different thing, not an error
            return False
        return self._shapes == dict(mask.shapes) and all(
            torch.equal(b, mask.bits[name]) for name, b in self._bits.items()
        )

    __hash__ = None  # type: ignore[assignment] # equal by content, like a dict

    def __repr__(self) -> str:
        counts = f"{self.num_kept:,} of {self.num_weights:,} weights kept, sparsity {self.sparsity:.4f}"
        return f"Mask({len(self)} parameters, {counts})"

    def _repr_html_(self) -> str:
        kept, sparsities = self._count_kept(), self.layer_sparsity()
        rows = (
            (name, "x".join(map(str, shape)), f"{kept[name]:,}", f"{sparsities[name]:.4f}")
            for name, shape in self._shapes.items()
        )
        return render_table(repr(self), ("parameter", "shape", "kept", "sparsity"), rows, len(self))

    def to_results(self) -> dict[str, Any]:
        """Returns what reports tell of the mask, JSON-able: each layer's sparsity, the whole's, how it was made."""
        return {
            "layer_sparsities": self.layer_sparsity(),
            "actual_sparsity": self.sparsity,
            "collapsed_layers": self.collapsed_layers,
            "provenance": {"settings": dict(self.provenance)},
        }

    def save(self, path: str | Path) -> None:
        """Writes the mask as safetensors: packed bits, with shapes, provenance and a digest of all three as metadata.

        The file appears whole or not at all.

        Args:
            path: Where to; an existing file is replaced.
        """
        # One metadata key only: safetensors writes several in no fixed order, and equal masks must give equal bytes.
        write_tensors(Path(path), self._bits, {METADATA_KEY: json.dumps(self.to_label())})

    def to_label(self) -> dict[str, str]:
        """Returns what a file says of the bits in it: shapes, provenance and a digest of all three."""
        return {"format": FORMAT, "content": self._content(), "sha256": self.digest}

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Returns the mask that `save` wrote, or the one in a ticket's file; its weights are not read.

        Raises:
            OSError: When there is no such file, or it cannot be read.
            ValueError: When the file is cut short, altered, or not a mask.
        """
        tensors, metadata = read_tensors(Path(path), only=TICKET_PREFIX)
        if METADATA_KEY not in metadata:
            message = f"{path} must be a mask that Mask.save wrote, but it is some other safetensors file"
            raise ValueError(message)
        if not is_ticket(metadata):
            tensors = read_tensors(Path(path))[0]
        return cls.from_file(path, tensors, metadata)

    @classmethod
    def from_file(cls, path: str | Path, bits: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Self:
        """Returns the mask that the content of a file describes, a mask's or a ticket's.

        Args:
            path: Of the file, for errors.
            bits: Its tensors.
            metadata: With our key.

        Raises:
            ValueError: When they do not fit.
        """
        try:
            label = parse_json(metadata[METADATA_KEY])
            check_form(label, {"format": str, ...: object}, "its label")
            if label["format"] == TICKET_FORMAT:
                check_form(label, {"mask": dict, ...: object}, "its label")
                label = label["mask"]
                bits = {n.removeprefix(TICKET_PREFIX): t for n, t in bits.items() if n.startswith(TICKET_PREFIX)}
            check_form(label, LABEL_FORM, "its label")
            content = parse_json(label["content"])
            check_form(content, CONTENT_FORM, "its content")
            mask = cls(bits, {name: tuple(shape) for name, shape in content["shapes"].items()}, content["provenance"])
            whole = label["format"] == FORMAT and label["sha256"] == _digest(label["content"], mask.bits)
        except ValueError as error:
            message = f"{path} must hold a mask, but its content does not fit: {say_briefly(error)}; was it altered?"
            raise ValueError(message) from error
        if not whole:
            message = (
                f"{path} must match the format ({FORMAT!r}) and the digest it carries, but does not; was it altered?"
            )
            raise ValueError(message)
        return mask

    def __getstate__(self) -> dict[str, Any]:
        shapes = {name: tuple(shape) for name, shape in self._shapes.items()}
        return {"bits": self._bits, "shapes": shapes, "provenance": self.provenance}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["bits"], state["shapes"], state["provenance"])

    def _count_kept(self) -> dict[str, int]:
        """Returns how many weights of each parameter are kept; counted once, because bits are not written to."""
        if not self._counts:
            self._counts = {name: count_bits(bits) for name, bits in self._bits.items()}
        return self._counts

    def _content(self) -> str:
        return json.dumps({"shapes": self._shapes, "provenance": self.provenance}, allow_nan=False)

    def _bits_of(self, other: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        mask = as_mask(other)
        if self._shapes != mask.shapes:
            odd = sorted(
                name for name in self._shapes.keys() | mask.keys() if self._shapes.get(name) != mask.shapes.get(name)
            )
            message = (
                f"two masks must cover the same parameters, but they differ in {odd}; were they made for two models?"
            )
            raise ValueError(message)
        return mask.bits


# Lets torch.load(weights_only=True) build a Mask; __setstate__ checks what the file says.
torch.serialization.add_safe_globals([Mask])


def is_ticket(metadata: Mapping[str, str]) -> bool:
    """Returns whether the metadata of a safetensors file are a ticket's, as far as its label says."""
    try:
        return bool(parse_json(metadata[METADATA_KEY])["format"] == TICKET_FORMAT)
    except (KeyError, TypeError, ValueError):
        return False


def as_mask(mask: object) -> Mask:
    """Returns a mapping of 0/1 tensors as a `Mask`; a `Mask` comes back as it is.

    Raises:
        TypeError: When it is not a mapping of tensors.
        ValueError: When a tensor holds other values than 0 and 1.
    """
    if isinstance(mask, Mask):
        return mask
    if not isinstance(mask, Mapping):
        message = f"a mask must be a mapping from parameter names to tensors, but got {type(mask).__name__}"
        raise TypeError(message)
    return Mask.from_tensors(mask)


def _checked_shape(name: str, shape: Sequence[int]) -> torch.Size:
    """Returns a shape that a tensor can have: torch.Size itself takes negative sizes, and products beyond 64 bits."""
    sizes: list[Any] = list(shape)  # of whatever a file says
    is_possible = all(isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in sizes)
    if not is_possible or max([math.prod(sizes), *sizes]) > MOST_WEIGHTS:
        message = (
            f"the shape of {name!r} must be of integers from 0 on, for at most {MOST_WEIGHTS} weights, but got {sizes}"
        )
        raise ValueError(message)
    return torch.Size(sizes)


def _checked_bits(name: str, bits: Tensor, shape: torch.Size) -> Tensor:
    size = shape.numel()
    if bits.dtype != torch.uint8 or bits.shape != (num_bytes(size),):
        message = (
            f"the bits of {name!r} must be {num_bytes(size)} bytes of uint8 for shape {tuple(shape)}, "
            f"but got {bits.dtype} of shape {tuple(bits.shape)}"
        )
        raise ValueError(message)
    if size % 8 and int(bits[-1]) >> size % 8:
        message = (
            f"the padding bits of {name!r} must be zero, but the last byte is {int(bits[-1]):#04x}; was it altered?"
        )
        raise ValueError(message)
    return bits.cpu()


def _checked_binary(name: str, tensor: object) -> Tensor:
    if not isinstance(tensor, Tensor):
        message = f"a mask must map names to tensors, but {name!r} is a {type(tensor).__name__}"
        raise TypeError(message)
    if tensor.dtype != torch.bool and not bool(((tensor == 0) | (tensor == 1)).all()):
        raise ValueError(
            f"mask for {name!r} must hold only 0 and 1, but holds other values; compare with a threshold first"
        )
    return tensor != 0


def _invert(bits: Tensor, size: int) -> Tensor:
    inverted = ~bits
    if size % 8:
        inverted[-1] &= (1 << size % 8) - 1
    return inverted


def _digest(content: str, bits: Mapping[str, Tensor]) -> str:
    hashed = hashlib.sha256(content.encode())
    for packed in bits.values():
        hashed.update(packed.numpy().data)
    return hashed.hexdigest()


@encode.register
def _(mask: Mask, place: Place) -> dict[str, Any]:
    # Named by content: a save that is cut off cannot leave older results pointing at newer masks.
    name = f"{place.stem}.{mask.digest[:16]}.mask.safetensors"
    place.files[name] = mask.save
    return {MASK_KEY: name, "sparsity": mask.sparsity}
