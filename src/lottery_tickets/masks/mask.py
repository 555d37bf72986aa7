"""`Mask`: which weights are kept, one bit a weight, in memory and on disk."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self, final

import torch
from torch import Tensor

from lottery_tickets._core.bits import count_bits, num_bytes, pack_bits, unpack_bits
from lottery_tickets._core.encoding import MASK_KEY, Place, encode
from lottery_tickets._core.notebooks import render_table
from lottery_tickets._core.reading import say_briefly
from lottery_tickets._core.sharding.dtensors import see_local, wrap
from lottery_tickets._core.sharding.shards import Shards, find_shards
from lottery_tickets._core.sharding.together import ALONE
from lottery_tickets._core.tensor_files.whole import read_tensors, write_tensors
from lottery_tickets.masks.checked import checked_binary, checked_bits, checked_shape, checked_tensor, invert
from lottery_tickets.masks.mask_file import (
    FORMAT,
    METADATA_KEY,
    TICKET_PREFIX,
    digest,
    is_ticket,
    make_label,
    read_label,
)


@final
class Mask(Mapping[str, Tensor]):
    """Which weights of a model are kept (True) and which are pruned (False), by parameter name.

    A `Mapping[str, Tensor]`: asking for a name unpacks that one boolean tensor, on the CPU. What is stored is one bit a
    weight: 1 where it is kept, in C order, little bit order, 0 in the padding.

    The mask of a model that is sharded over processes (DTensor) has in each process the bits of what lies there. Its
    counts are of all processes, and asking for a name gives a DTensor. What makes a mask of it or compares, saves or
    gathers it is called by all of them; what only asks it for figures is not.

    Args:
        bits: For each parameter name, a 1-D uint8 tensor of ceil(n / 8) bytes.
        shapes: For each name, the shape of the parameter; of a sharded one, of what lies here.
        provenance: How the mask was made; JSON-able, kept on disk, ignored by comparisons.
        shards: Where the bits lie in a sharded model; None for all others.

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
        shards: Shards | None = None,
    ) -> None:
        if bits.keys() != shapes.keys():
            odd = sorted(bits.keys() ^ shapes.keys())
            message = f"bits and shapes of a mask must have the same names, but {odd} stand on one side only"
            raise ValueError(message)
        self._local_shapes = {name: checked_shape(name, shape) for name, shape in shapes.items()}
        self._bits = {name: checked_bits(name, bits[name], shape) for name, shape in self._local_shapes.items()}
        self._shards = shards
        self._shapes = self._local_shapes if shards is None else shards.part(self._bits).shapes
        self.provenance: dict[str, Any] = dict(provenance or {})
        self._counts: dict[str, int] = {}  # filled when they are asked for
        if shards is not None:  # then asking must need no other process
            self._counts = shards.count({name: count_bits(packed) for name, packed in self._bits.items()})

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], provenance: Mapping[str, Any] | None = None) -> Self:
        """Returns the mask that a mapping of boolean or 0/1 tensors describes.

        Args:
            tensors: For each parameter name a tensor of its shape, any dtype, holding only 0 and 1; DTensors for a
                sharded model.
            provenance: How the mask was made.

        Raises:
            TypeError: When the mapping holds something other than tensors.
            ValueError: When a tensor holds other values than 0 and 1.
        """
        local = {name: see_local(checked_tensor(name, tensor)) for name, tensor in tensors.items()}
        shards = find_shards(tensors)

        def pack() -> dict[str, Tensor]:
            return {name: pack_bits(checked_binary(name, tensor)) for name, tensor in local.items()}

        bits = pack() if shards is None else shards.together.agree(pack)
        return cls(bits, {name: tuple(tensor.shape) for name, tensor in local.items()}, provenance, shards)

    @classmethod
    def keeping_all(cls, shapes: Mapping[str, tuple[int, ...]]) -> Self:
        """Returns the mask that prunes nothing of parameters of these shapes."""
        sizes = {name: torch.Size(shape).numel() for name, shape in shapes.items()}
        none = {name: torch.zeros(num_bytes(size), dtype=torch.uint8) for name, size in sizes.items()}
        return cls({name: invert(bits, sizes[name]) for name, bits in none.items()}, shapes)

    @property
    def bits(self) -> Mapping[str, Tensor]:
        """The packed bits by name: 1-D uint8 CPU tensors of ceil(n / 8) bytes. Not to be written to."""
        return self._bits

    @property
    def shapes(self) -> Mapping[str, torch.Size]:
        """The shapes by name, over all processes."""
        return self._shapes

    @property
    def local_shapes(self) -> Mapping[str, torch.Size]:
        """The shapes by name of what `bits` has: of a sharded mask, of what lies in this process."""
        return self._local_shapes

    @property
    def shards(self) -> Shards | None:
        """Where the bits lie in a sharded model; None for all others."""
        return self._shards

    def __getitem__(self, name: str) -> Tensor:
        kept = unpack_bits(self._bits[name], self._local_shapes[name])
        return kept if self._shards is None else wrap(kept, self._shards.pieces[name])

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
        return sum(self.count_kept().values())

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
        return self.to_label()["sha256"]

    def count_kept(self) -> dict[str, int]:
        """Returns how many weights of each parameter are kept, over all processes."""
        if not self._counts:  # counted once, because bits are not written to
            self._counts = {name: count_bits(bits) for name, bits in self._bits.items()}
        return self._counts

    def layer_sparsity(self) -> dict[str, float]:
        """Returns the fraction removed from each parameter, by name."""
        sizes = {name: shape.numel() for name, shape in self._shapes.items()}
        return {name: 1 - kept / sizes[name] if sizes[name] else 0.0 for name, kept in self.count_kept().items()}

    @property
    def collapsed_layers(self) -> list[str]:
        """The names of the parameters that have weights but keep none, so that nothing passes them."""
        return [name for name, kept in self.count_kept().items() if self._shapes[name].numel() and not kept]

    def is_subset(self, other: Mapping[str, Tensor]) -> bool:
        """Returns whether every weight kept here is kept in `other` too."""
        return (self & ~as_mask(other)).num_kept == 0

    def __and__(self, other: Mapping[str, Tensor]) -> "Mask":
        bits = self._bits_of(other)
        return self._with_bits({name: mine & bits[name] for name, mine in self._bits.items()})

    def __or__(self, other: Mapping[str, Tensor]) -> "Mask":
        bits = self._bits_of(other)
        return self._with_bits({name: mine | bits[name] for name, mine in self._bits.items()})

    def __invert__(self) -> "Mask":
        shapes = self._local_shapes
        return self._with_bits({name: invert(bits, shapes[name].numel()) for name, bits in self._bits.items()})

    __rand__ = __and__
    __ror__ = __or__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        try:
            mask = as_mask(other)
        except (TypeError, ValueError):  # a mapping that is no mask is a different thing, not an error
            return False
        if self._shapes != dict(mask.shapes):
            return False
        bits = mask.bits_for(self._shards)
        differ = {name: int(not torch.equal(mine, bits[name])) for name, mine in self._bits.items()}
        return not any((differ if self._shards is None else self._shards.count(differ)).values())

    __hash__ = None  # type: ignore[assignment] # equal by content, like a dict

    def __repr__(self) -> str:
        counts = f"{self.num_kept:,} of {self.num_weights:,} weights kept, sparsity {self.sparsity:.4f}"
        return f"Mask({len(self)} parameters, {counts})"

    def _repr_html_(self) -> str:
        kept, sparsities = self.count_kept(), self.layer_sparsity()
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

        The file appears whole or not at all. Of a sharded mask the first process writes what `gather` gives.

        Args:
            path: Where to; an existing file is replaced.
        """
        whole = self.gather()

        def write() -> None:
            # One key only: safetensors writes several in no fixed order, and equal masks must give equal bytes.
            write_tensors(Path(path), whole.bits, {METADATA_KEY: json.dumps(whole.to_label())})

        (ALONE if self._shards is None else self._shards.together).let_first(write)

    def to_label(self) -> dict[str, str]:
        """Returns what a file says of the bits in it: shapes, provenance and a digest of all three."""
        return make_label(self.gather().bits, self._shapes, self.provenance)

    def gather(self) -> "Mask":
        """Returns the mask with all bits in each process; a mask that is not sharded as it is."""
        return self if self._shards is None else Mask(self.bits_for(None), self._shapes, self.provenance)

    def placed(self, shards: Shards | None) -> "Mask":
        """Returns the mask with the bits of what lies here of a model, see `bits_for`."""
        bits = self.bits_for(shards)
        if bits is self._bits:
            return self
        shapes = {name: self._shapes[name] if shards is None else shards.pieces[name].shape for name in bits}
        return Mask(bits, shapes, self.provenance, shards)

    def bits_for(self, shards: Shards | None) -> Mapping[str, Tensor]:
        """Returns the packed bits of what lies here of a model.

        Args:
            shards: Where the elements of the model's weights lie, of all that this mask has; None where they all do.
        """
        if self._shards is shards or (shards and self._shards and self._shards.is_as(shards.part(self._bits))):
            return self._bits
        bits: dict[str, Tensor] = {}
        for name, packed in self._bits.items():
            kept = unpack_bits(packed, self._local_shapes[name])
            whole = kept if self._shards is None else self._shards.gather(name, kept)
            bits[name] = pack_bits(whole if shards is None else shards.pieces[name].cut(whole))
        return bits

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
            label, content, bits = read_label(bits, metadata)
            mask = cls(bits, {name: tuple(shape) for name, shape in content["shapes"].items()}, content["provenance"])
            whole = label["format"] == FORMAT and label["sha256"] == digest(label["content"], mask.bits)
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
        if self._shards is not None:
            raise TypeError(
                "the mask of a sharded model cannot be pickled, because each process has a part of it; pickle "
                "mask.gather(), or save dict(mask) by torch.distributed.checkpoint"
            )
        shapes = {name: tuple(shape) for name, shape in self._shapes.items()}
        return {"bits": self._bits, "shapes": shapes, "provenance": self.provenance}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["bits"], state["shapes"], state["provenance"])

    def _with_bits(self, bits: Mapping[str, Tensor]) -> "Mask":
        return Mask(bits, self._local_shapes, shards=self._shards)

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
        return mask.bits_for(self._shards)


# Lets torch.load(weights_only=True) build a Mask; __setstate__ checks what the file says.
torch.serialization.add_safe_globals([Mask])


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


@encode.register
def _(mask: Mask, place: Place) -> dict[str, Any]:
    # Named by content: a save that is cut off cannot leave older results pointing at newer masks.
    name = f"{place.stem}.{mask.digest[:16]}.mask.safetensors"
    place.files[name] = mask.save
    return {MASK_KEY: name, "sparsity": mask.sparsity}
