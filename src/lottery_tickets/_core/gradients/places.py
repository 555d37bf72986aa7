"""Where a weight that a call has used lies in its parameter: all of it, one expert of many, a third of a projection."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Final, NamedTuple

from torch import Tensor

PART: Final = "_lottery_part"  # attribute of a weight handed to the model, and of its views and casts


class Part(NamedTuple):
    """A weight or a view of one, without values, in the layout of its parameter whatever the cast."""

    name: str
    view: Tensor


def get_part(tensor: object) -> Part | None:
    """Returns which weight a tensor is or is a view of, None for others."""
    return getattr(tensor, PART, None)


class Place(NamedTuple):
    """A parameter or a part of it, as a strided view; a tuple, because it is a key at every use of a weight.

    Attributes:
        name: Of the parameter.
        offset: Of the first element, counted from the parameter's first.
        shape: Of the part; (1,) for a number.
        stride: Of the part, in elements.
    """

    name: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def end(self) -> int:
        """Returns the offset after the last element."""
        return self.offset + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True)) + 1

    def of(self, tensor: Tensor) -> Tensor:
        """Returns this part of a tensor that is laid out as the parameter."""
        return tensor.as_strided(self.shape, self.stride, tensor.storage_offset() + self.offset)


def find_place(name: str, parameter: Tensor, part: Tensor) -> Place:
    """Returns the place of a view of a parameter."""
    offset = int(part.storage_offset()) - int(parameter.storage_offset())
    return Place(name, offset, tuple(part.shape) or (1,), tuple(part.stride()) or (1,))


def find_overlap(places: Iterable[Place]) -> str | None:
    """Returns the name of a parameter of which two places may share elements, None when all are apart."""
    ordered = sorted(places, key=lambda place: (place.name, place.offset))
    for place, following in pairwise(ordered):
        if place.name == following.name and following.offset < place.end:
            return place.name
    return None
