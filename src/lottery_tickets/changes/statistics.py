"""What changed, in figures: how many weights, by how much, of which exponent, and what bfloat16 would hide of it."""

import re
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, TypedDict, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lottery_tickets._core.bits import pack_bits
from lottery_tickets._core.prunable_weights import Choices
from lottery_tickets._core.weights import READERS, Weight, Weights
from lottery_tickets.changes.differences import WEIGHTS_PER_BLOCK, AnyWeights, is_changed, pair_weights
from lottery_tickets.masks.strata import EXPONENT_BIAS, MANTISSA_BITS, NUM_CODES, find_codes

LARGEST_SHARE: Final = 0.01
OF_ALL_EXPONENTS: Final = 1100  # of float64, in either direction
NUMBER: Final = re.compile(r"(?<=\.)\d+(?=\.)|^\d+(?=\.)")

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class ExponentChanges(TypedDict):
    """Attributes: exponent: of the weights before; num_weights: of this exponent; num_changed: how many changed."""

    exponent: int
    num_weights: int
    num_changed: int


class ChangeFigures(TypedDict):
    """What changed of some weights.

    Attributes:
        num_weights: How many there are.
        num_changed: How many are stored as another number.
        share_changed: Their share of all.
        num_sign_flips: How many went from one side of zero to the other.
        num_hidden: How many changed, but would be equal in bfloat16; None for weights that are stored in 16 bits or
            fewer.
        share_hidden: Their share of those that changed; None where there are none to tell of.
        norm: The square root of the sum of the squared changes.
        largest_share: The share of the squared norm that lies in the largest 1 % of the changes of all weights, those
            that are zero included; to within 1 % of itself. None where nothing changed.
        ulps: How many changed by 2^k up to 2^(k + 1) times the unit in the last place of the weight before, by k.
        sizes: How many changed by 2^k up to 2^(k + 1), by k.
        by_exponent: In ascending order; -127 for zeros and what is below 2^-126.
    """

    num_weights: int
    num_changed: int
    share_changed: float
    num_sign_flips: int
    num_hidden: int | None
    share_hidden: float | None
    norm: float
    largest_share: float | None
    ulps: dict[str, int]
    sizes: dict[str, int]
    by_exponent: list[ExponentChanges]


class ChangeStatistics(TypedDict):
    """What `compute_change_statistics` returns.

    Attributes:
        overall: Of all weights together.
        kinds: By kind of layer: the name without its numbers, such as "model.layers.*.mlp.up_proj.weight".
        layers: By parameter name.
        dtypes: In which weights are stored.
    """

    overall: ChangeFigures
    kinds: dict[str, ChangeFigures]
    layers: dict[str, ChangeFigures]
    dtypes: list[str]


def compute_change_statistics(
    before: AnyWeights, after: AnyWeights, *, include: Choices | None = None, exclude: Choices | None = None
) -> ChangeStatistics:
    """Returns what a training changed: overall, by kind of layer and by layer, from one pass over both.

    A unit in the last place (ulp) is what the dtype resolves at a weight: of a bfloat16 weight from 1 up to 2 it is
    2^-7, of a subnormal one 2^-133. A change towards a smaller power of two can be half of one.

    Args:
        before: A model, a mapping of weights by name such as a state dict, or a `CheckpointWeights`.
        after: Likewise, with the same names, shapes and dtypes.
        include: Replaces the default choice of weights: names, glob patterns or module types.
        exclude: Removes from the choice.

    Raises:
        TypeError: When before or after is of another type.
        ValueError: When names, shapes or dtypes differ, weights are sharded, or a change is NaN or infinite.

    Examples:
        >>> before = {"0.weight": torch.tensor([[1.0, 2.0], [0.0, 4.0]]).bfloat16()}
        >>> after = {"0.weight": torch.tensor([[1.0, 2.0], [0.5, 3.0]]).bfloat16()}
        >>> found = compute_change_statistics(before, after)["overall"]
        >>> found["num_changed"], found["sizes"]
        (2, {'-1': 1, '0': 1})
    """
    return describe_changes(*pair_weights(before, after, include, exclude))[0]


def describe_changes(before: Weights, after: Weights) -> tuple[ChangeStatistics, dict[str, Tensor]]:
    """Returns what changed, in figures and by name as packed bits, from one pass."""
    kinds: defaultdict[str, _Tally] = defaultdict(_Tally)
    overall, layers, bits = _Tally(), {}, {}
    with ThreadPoolExecutor(READERS) as pool:
        counted = pool.map(_count, before.values(), (after[name] for name in before))
        for name, (tally, packed) in zip(before, counted, strict=True):
            layers[name], bits[name] = tally.describe(), packed
            kinds[NUMBER.sub("*", name)].add(tally)
            overall.add(tally)
    return {
        "overall": overall.describe(),
        "kinds": {kind: tally.describe() for kind, tally in kinds.items()},
        "layers": layers,
        "dtypes": sorted({str(weight.dtype).removeprefix("torch.") for weight in before.values()}),
    }, bits


def _zeros(*shape: int) -> Integers:
    return np.zeros(shape, np.int64)


@final
@dataclass
class _Tally:
    """Counts that add up over blocks and layers.

    Attributes:
        num_flips: Changes of sign.
        num_hidden: Changes that bfloat16 would hide.
        num_hideable: Changes of weights that are wider than bfloat16.
        is_wide: Whether there are such weights.
        exponents: By exponent of the weight before: weights, and those that changed.
        ulps: Changes by floor(log2) of their number of ulps.
        sizes: Likewise of their magnitude, which for float64 goes beyond the codes.
        codes: Changes by code of their magnitude, see `find_codes`.
        squares: Sums of their squares, by code.
    """

    num_flips: int = 0
    num_hidden: int = 0
    num_hideable: int = 0
    is_wide: bool = False
    exponents: Integers = field(default_factory=lambda: _zeros(NUM_CODES >> MANTISSA_BITS, 2))
    ulps: Integers = field(default_factory=lambda: _zeros(2 * OF_ALL_EXPONENTS))
    sizes: Integers = field(default_factory=lambda: _zeros(2 * OF_ALL_EXPONENTS))
    codes: Integers = field(default_factory=lambda: _zeros(NUM_CODES))
    squares: Floats = field(default_factory=lambda: np.zeros(NUM_CODES))

    def add(self, other: "_Tally") -> None:
        """Adds the counts of other weights."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) | value if name == "is_wide" else getattr(self, name) + value)

    def describe(self) -> ChangeFigures:
        """Returns the counts in figures."""
        num_weights, num_changed = (int(number) for number in self.exponents.sum(axis=0))
        square = float(self.squares.sum())
        return {
            "num_weights": num_weights,
            "num_changed": num_changed,
            "share_changed": num_changed / max(num_weights, 1),
            "num_sign_flips": self.num_flips,
            "num_hidden": self.num_hidden if self.is_wide else None,
            "share_hidden": self.num_hidden / self.num_hideable if self.num_hideable else None,
            "norm": square**0.5,
            "largest_share": self._sum_largest(max(round(LARGEST_SHARE * num_weights), 1)) / square if square else None,
            "ulps": _list_counts(self.ulps),
            "sizes": _list_counts(self.sizes),
            "by_exponent": [
                {
                    "exponent": int(place) - EXPONENT_BIAS,
                    "num_weights": int(self.exponents[place, 0]),
                    "num_changed": int(self.exponents[place, 1]),
                }
                for place in self.exponents[:, 0].nonzero()[0]
            ],
        }

    def _sum_largest(self, number: int) -> float:
        """Returns the sum of the squares of so many largest changes; each has the mean square of its code."""
        taken = np.diff(np.minimum(np.cumsum(self.codes[::-1]), number), prepend=0)
        return float((self.squares[::-1] * taken / np.maximum(self.codes[::-1], 1)).sum())


def _list_counts(counts: Integers) -> dict[str, int]:
    return {str(place - OF_ALL_EXPONENTS): int(counts[place]) for place in counts.nonzero()[0]}


def _count(before: Weight, after: Weight) -> tuple[_Tally, Tensor]:
    tally, parts = _Tally(), [torch.empty(0, dtype=torch.uint8)]
    tally.is_wide = before.dtype.itemsize > torch.bfloat16.itemsize
    for block in before.cut(WEIGHTS_PER_BLOCK):
        old, new = before.read(*block).cpu(), after.read(*block).cpu()
        changed = is_changed(old, new)
        parts.append(pack_bits(changed))
        _count_block(tally, before.name, changed, old, new)
    return tally, torch.cat(parts)


def _count_block(tally: _Tally, name: str, changed: Tensor, before: Tensor, after: Tensor) -> None:
    exponents = find_codes(before) >> MANTISSA_BITS
    num_exponents = len(tally.exponents)
    places = changed.nonzero().view(-1)
    tally.exponents[:, 0] += np.bincount(exponents, minlength=num_exponents)
    tally.exponents[:, 1] += np.bincount(exponents[places.numpy()], minlength=num_exponents)
    first, second = before[places], after[places]
    if tally.is_wide:
        hidden = first.to(torch.bfloat16) == second.to(torch.bfloat16)
        tally.num_hidden += int(hidden.sum())
        tally.num_hideable += len(hidden)
    dtype = torch.finfo(before.dtype)
    old, new = (values.to(torch.float64).numpy() for values in (first, second))
    delta = np.abs(new - old)
    if not np.isfinite(delta).all():
        raise ValueError(
            f"changes must be finite, but {name!r} has a change to or from NaN or infinity; did it diverge?"
        )
    tally.num_flips += int((np.sign(old) * np.sign(new) < 0).sum())
    powers = np.exp2(np.frexp(old)[1] - 1.0) * (old != 0)  # numpy gives zero the exponent of a half
    tally.ulps += _count_powers(delta / (np.maximum(powers, dtype.smallest_normal) * dtype.eps))
    tally.sizes += _count_powers(delta)
    codes = find_codes(torch.from_numpy(delta))
    tally.codes += np.bincount(codes, minlength=NUM_CODES)
    tally.squares += np.bincount(codes, weights=np.square(delta), minlength=NUM_CODES)


def _count_powers(values: Floats) -> Integers:
    """Returns how many values have each floor(log2)."""
    return np.bincount(np.frexp(values)[1] - 1 + OF_ALL_EXPONENTS, minlength=2 * OF_ALL_EXPONENTS)
