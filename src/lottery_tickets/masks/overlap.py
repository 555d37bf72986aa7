"""How much of one ticket is in another: Jaccard, Dice and overlap coefficients, by layer and overall, beside chance."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Final, NotRequired, TypedDict, final

from torch import Tensor, nn

from lottery_tickets._core.notebooks import Results, render_table
from lottery_tickets._core.records import recorded
from lottery_tickets._core.weights import WeightSource
from lottery_tickets.masks.common_weights import Overlap, overlay
from lottery_tickets.masks.fitting import find_masked_weights
from lottery_tickets.masks.mask import Mask, as_mask
from lottery_tickets.masks.nulls import ERROR_RATE, GivenFigures, compare_with_nulls
from lottery_tickets.masks.strata import count_strata

# From the numbers of weights kept by both, by the first and by the second mask to numerator and denominator.
Sides = Callable[[float, float, float], tuple[float, float]]
COEFFICIENTS: Final[Mapping[str, Sides]] = {
    "jaccard": lambda both, first, second: (both, first + second - both),
    "dice": lambda both, first, second: (2 * both, first + second),
    "overlap": lambda both, first, second: (both, min(first, second)),
}

OVERALL: Final = {"overlap": "overall", "expected": "expected", "adjusted": "adjusted"}


class OverlapFigures(TypedDict):
    """The overlap of two masks over some weights.

    Attributes:
        overlap: The coefficient, from 0 (nothing in common) to 1.
        expected: What two independent masks have, of the same densities in each layer, or in each stratum of the
            weights that are given.
        adjusted: (overlap - expected) / (1 - expected): 1 for equal masks, 0 for chance, negative below chance; None
            where chance alone gives 1, as for masks that keep everything.
        num_both: Weights that both keep.
        num_kept: Weights that each keeps.
        num_weights: Weights there are.
    """

    overlap: float
    expected: float
    adjusted: float | None
    num_both: int
    num_kept: list[int]
    num_weights: int


@final
class TicketOverlap(Results):
    """What `compute_ticket_overlap` returns: a dict, whose `float()` and `format()` are the overall overlap."""

    def __float__(self) -> float:
        return float(self["overall_overlap"])

    def __format__(self, format_spec: str) -> str:
        return format(float(self), format_spec)

    def _repr_html_(self) -> str:
        rows = (
            (name, *(_show_share(layer[key]) for key in ("overlap", "expected", "adjusted")))
            for name, layer in {"all": _sum_to_layer(self), **self["layer_overlaps"]}.items()
        )
        headings = ("layer", f"{self['method']} overlap", "by chance", "beyond chance")
        return render_table(f"Overlap of two tickets: {self:.2%}", headings, rows, 1 + len(self["layer_overlaps"]))


def _sum_to_layer(overlap: Mapping[str, Any]) -> dict[str, Any]:
    return {key: overlap[f"{name}_overlap"] for key, name in OVERALL.items()}


def _show_share(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"


class PairFigures(GivenFigures):
    """What two of many masks share, given the weights that they were made of; see `GivenFigures`.

    Attributes:
        first: The name of one mask.
        second: That of the other.
    """

    first: str
    second: str


class OverlapMatrix(TypedDict):
    """What `compute_overlap_matrix` returns; row i, column j is about masks i and j.

    Attributes:
        names: Of the masks.
        method: The coefficient.
        overlaps: The coefficient; 1 on the diagonal.
        expected: What independent masks of the same layer densities have.
        adjusted: The overlap beyond chance, None where chance alone gives 1.
        densities: Of each mask.
        layer_sparsities: Of each mask, by layer.
        pairs: With `given`, what each pair shares beside the nulls, with verdicts whose error rate is that of all pairs
            together.
    """

    names: list[str]
    method: str
    overlaps: list[list[float]]
    expected: list[list[float]]
    adjusted: list[list[float | None]]
    densities: list[float]
    layer_sparsities: list[dict[str, float]]
    pairs: NotRequired[list[PairFigures]]


@recorded("overlap")
def compute_ticket_overlap(
    mask1: Mapping[str, Tensor],
    mask2: Mapping[str, Tensor],
    method: str = "jaccard",
    *,
    given: nn.Module | Mapping[str, Tensor] | WeightSource | None = None,
    error_rate: float = ERROR_RATE,
    path: str | Path | None = None,  # noqa: ARG001 - @recorded writes there
) -> TicketOverlap:
    """Returns how much two masks have in common, by layer and overall, beside what chance gives.

    With A and B the kept weights: Jaccard |A & B| / |A | B|, Dice 2 |A & B| / (|A| + |B|), overlap |A & B| / min(|A|,
    |B|). Overall figures are of all weights together, not means over layers. Two masks that keep nothing are equal and
    have 1; with one of them empty the overlap is 0.

    Chance keeps each mask's density in each layer and scatters it: two independent masks share k1 * k2 / n of a layer's
    n weights on average, so two masks of density d have a Jaccard overlap of d / (2 - d). The expected overlap is the
    coefficient at that average, which for Dice and overlap is its exact mean (for Jaccard up to a term that vanishes
    with the number of weights). No paper defines the overlap of tickets; these are ours.

    Which weights a training can change at all, as they are stored, depends on the weights: a small update is lost where
    a large weight is rounded. So masks of changes share far more than that by chance. With `given`, the weights before,
    chance keeps each mask's density in each stratum: a layer, an exponent, a value to seven bits of mantissa, which is
    all that bfloat16 has. The verdict then says whether masks share more than independent ones; weights of one stratum
    may depend on each other by rows and columns (see docs/changes.md for what it holds against, measured).

    Time and memory: one pass over the packed bits, no tensor is unpacked; with `given` one pass over the weights, in
    blocks.

    Args:
        mask1: By parameter name, True where a weight is kept.
        mask2: The same parameters.
        method: "jaccard", "dice" or "overlap".
        given: The weights that the masks were made of: a model, a mapping by name, or a `CheckpointWeights`.
        error_rate: How often independent masks may be said to be beyond chance, and how often below it, in (0, 0.5).
        path: A JSON file that the results also go to, or a folder for it; see `save_results`.

    Returns:
        `overall_overlap`, `expected_overlap`, `adjusted_overlap` (None where chance alone gives 1), `layer_overlaps`
        (by parameter name `OverlapFigures`), `method`, and of all weights `num_both`, `num_kept`, `num_weights`; with
        `given` also `given`, its `GivenFigures`, and what is expected is that of its finest null.
        `float(result)` and `f"{result:.2%}"` give the overall overlap.

    Raises:
        TypeError: When a mask is not a mapping of tensors.
        ValueError: When the masks cover different parameters, the method is unknown, the error rate out of range, or
            `given` lacks a weight, has it in another shape or has only a shard of it.

    Examples:
        >>> import torch
        >>> first = {"weight": torch.tensor([True, True, False, False])}
        >>> second = {"weight": torch.tensor([True, False, True, False])}
        >>> overlap = compute_ticket_overlap(first, second)
        >>> f"{overlap:.2%}", overlap["expected_overlap"], overlap["adjusted_overlap"]
        ('33.33%', 0.333..., 0.0)
    """
    sides = _find_coefficient(method)
    first, second = as_mask(mask1), as_mask(mask2)
    layers = _overlay(first, second, ("mask1", "mask2"))
    expected = {name: layer.expected_both for name, layer in layers.items()}
    found: dict[str, Any] = {}
    if given is not None:
        found["given"], expected = _compare_given(first, second, given, _check_error_rate(error_rate))
    overall = _sum_up(layers.values(), sides, sum(expected.values()))
    return TicketOverlap(
        overall_overlap=overall["overlap"],
        expected_overlap=overall["expected"],
        adjusted_overlap=overall["adjusted"],
        layer_overlaps={name: _sum_up([layer], sides, expected[name]) for name, layer in layers.items()},
        method=method,
        **{name: overall[name] for name in ("num_both", "num_kept", "num_weights")},
        **found,
    )


@recorded("overlap-matrix")
def compute_overlap_matrix(
    masks: Mapping[str, Mapping[str, Tensor]] | Sequence[Mapping[str, Tensor]],
    method: str = "jaccard",
    *,
    given: nn.Module | Mapping[str, Tensor] | WeightSource | None = None,
    error_rate: float = ERROR_RATE,
    path: str | Path | None = None,  # noqa: ARG001 - @recorded writes there
) -> OverlapMatrix:
    """Returns the overlap of each pair of many masks, beside what chance gives.

    Args:
        masks: By name, or in a list, whose masks are called "0", "1" and so on.
        method: As in `compute_ticket_overlap`.
        given: As in `compute_ticket_overlap`; the weights are read once for each pair.
        error_rate: Of all verdicts together: how often one of them is beyond chance where all masks are independent.
        path: A JSON file that the results also go to, or a folder for it; see `save_results`.

    Raises:
        TypeError: When a mask is not a mapping of tensors.
        ValueError: When there is no mask, or as `compute_ticket_overlap`.

    Examples:
        >>> import torch
        >>> ticket = {"weight": torch.tensor([True, False])}
        >>> compute_overlap_matrix({"a": ticket, "b": ticket})["overlaps"]
        [[1.0, 1.0], [1.0, 1.0]]
    """
    sides = _find_coefficient(method)
    by_name = masks if isinstance(masks, Mapping) else {str(place): mask for place, mask in enumerate(masks)}
    named: dict[str, Mask] = {name: as_mask(mask) for name, mask in by_name.items()}
    if not named:
        raise ValueError("an overlap matrix needs at least one mask, got none; pass them by name or in a list")
    rate = _check_error_rate(error_rate) / max(len(named) * (len(named) - 1) // 2, 1)  # Bonferroni
    pairs: list[PairFigures] = []
    cells: dict[tuple[str, str], OverlapFigures] = {}
    for first, second in [*((name, name) for name in named), *combinations(named, 2)]:
        layers = _overlay(named[first], named[second], (first, second))
        chance = sum(layer.expected_both for layer in layers.values())
        if given is not None and first != second:
            figures, expected = _compare_given(named[first], named[second], given, rate)
            chance = sum(expected.values())
            pairs.append({"first": first, "second": second, **figures})
        cells[first, second] = cells[second, first] = _sum_up(layers.values(), sides, chance)
    matrix: OverlapMatrix = {
        "names": list(named),
        "method": method,
        "overlaps": [[cells[a, b]["overlap"] for b in named] for a in named],
        "expected": [[cells[a, b]["expected"] for b in named] for a in named],
        "adjusted": [[cells[a, b]["adjusted"] for b in named] for a in named],
        "densities": [mask.density for mask in named.values()],
        "layer_sparsities": [mask.layer_sparsity() for mask in named.values()],
    }
    return matrix if given is None else {**matrix, "pairs": pairs}


def _compare_given(
    first: Mask, second: Mask, given: nn.Module | Mapping[str, Tensor] | WeightSource, error_rate: float
) -> tuple[GivenFigures, dict[str, float]]:
    """Returns what masks share beside the nulls, and by layer how many weights both keep under the finest."""
    weights = find_masked_weights(given, first)
    return compare_with_nulls(count_strata(weights, first.bits, second.bits), error_rate)


def _check_error_rate(error_rate: object) -> float:
    if isinstance(error_rate, bool) or not isinstance(error_rate, float) or not 0 < error_rate < 0.5:  # noqa: PLR2004 - a coin errs as often
        raise ValueError(f"error_rate must be between 0 and 0.5, got {error_rate!r}")
    return error_rate


def _find_coefficient(method: object) -> Sides:
    if not isinstance(method, str) or method not in COEFFICIENTS:
        raise ValueError(f"method must be one of {', '.join(COEFFICIENTS)}, got {method!r}")
    return COEFFICIENTS[method]


def _overlay(first: Mask, second: Mask, names: tuple[str, str]) -> dict[str, Overlap]:
    if dict(first.shapes) != dict(second.shapes):
        odd = sorted(n for n in first.keys() | second.keys() if first.shapes.get(n) != second.shapes.get(n))
        raise ValueError(
            f"{names[0]} and {names[1]} must cover the same parameters in the same shapes, but differ in "
            f"{', '.join(odd)}; were they made for two models?"
        )
    sizes = {name: shape.numel() for name, shape in first.shapes.items()}
    shards = first.shards or second.shards
    return overlay(first.bits_for(shards), second.bits_for(shards), sizes, shards)


def _sum_up(layers: Iterable[Overlap], sides: Sides, chance: float) -> OverlapFigures:
    counted = list(layers)
    first, second = (sum(layer.num_kept[side] for layer in counted) for side in (0, 1))
    both = sum(layer.num_both for layer in counted)
    overlap = _divide(*sides(both, first, second), are_empty=not first and not second)
    expected = _divide(*sides(chance, first, second), are_empty=not first and not second)
    return {
        "overlap": overlap,
        "expected": expected,
        "adjusted": (overlap - expected) / (1 - expected) if expected < 1 else None,
        "num_both": both,
        "num_kept": [first, second],
        "num_weights": sum(layer.num_weights for layer in counted),
    }


def _divide(part: float, whole: float, *, are_empty: bool) -> float:
    if are_empty:
        return 1.0
    return part / whole if whole else 0.0
