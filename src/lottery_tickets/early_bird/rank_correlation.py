"""Spearman's rank correlation of magnitudes between two moments, by counting: nothing is sorted but tiny layers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lottery_tickets._core.selection.patterns import WEIGHTS_PER_CHUNK, Chunk, map_chunks
from lottery_tickets._core.sharding.together import ALONE, Together
from lottery_tickets.early_bird.rank_tables import Moments, Ranks, RankTable, find_mid_ranks, make_table
from lottery_tickets.early_bird.snapshots import (
    SMALLEST_FOR_CPU_KERNEL,
    SMALLEST_TO_COUNT,
    Backend,
    Codes,
    Kernels,
    Snapshot,
    count_codes,
    cut_codes,
    flatten,
    join,
    kernels_for,
    rank,
)


@dataclass(frozen=True)
class RankCorrelation:
    """How alike the ranks of magnitudes are at two moments, from -1 to 1.

    Args:
        overall: Spearman's rank correlation of all weights together; None where it is undefined: there are no weights,
            or all magnitudes of one moment are tied.
        layers: For each name that of its weights alone.
    """

    overall: float | None
    layers: Mapping[str, float | None]


def correlate_ranks(
    earlier: Snapshot, later: Snapshot, *, by_layer: bool = True, backend: Backend | None = None
) -> RankCorrelation:
    """Returns Spearman's rank correlation of the magnitudes in two snapshots of the same weights, overall and by layer.

    Tied magnitudes share the mean of their ranks. All sums are exact integers and only the last ratio is rounded, so
    chunks, threads and backend do not change a bit. For weights of 16 bits it is what sorting finds. For others, codes
    tie magnitudes that are near to each other: with 500 layers of scales far apart, it is off by less than 1e-4 in
    layers of 4,000 weights and by a few 1e-4 in layers of 300. Among more than 2^31 weights, ranks are rounded down to
    32 bits.

    Args:
        earlier: By `take_snapshot`.
        later: Of the same names and shapes.
        by_layer: Whether to correlate the weights of each layer alone too; else `layers` is empty.
        backend: Which kernels count and sum; None: numba for many weights, of few ranks that a snapshot finds once. The
            result is the same.

    Raises:
        ValueError: When names or shapes differ.

    Examples:
        >>> from lottery_tickets.early_bird.snapshots import take_snapshot
        >>> from lottery_tickets._core.weights import Weights
        >>> earlier, later = torch.tensor([0.1, -0.2, 0.3, 0.4]), torch.tensor([0.1, 0.2, -0.6, 0.5])
        >>> snapshots = [take_snapshot(Weights.from_tensors({"fc.weight": weight})) for weight in (earlier, later)]
        >>> correlate_ranks(*snapshots).overall
        0.8
    """
    _check_alike(earlier, later)
    together = earlier.together
    are_few = sum(codes.numel() for codes in earlier.codes.values()) < SMALLEST_FOR_CPU_KERNEL
    if backend is None and are_few and together is ALONE and list(earlier.codes) == list(later.codes):
        (one, layers), (other, later_layers) = earlier.ranks, later.ranks
        found = {name: _correlate_ranks(layers[name], later_layers[name]) for name in layers} if by_layer else {}
        return RankCorrelation(_correlate_ranks(one, other), found)
    pairs = {name: (codes, flatten(later.codes[name])) for name, codes in earlier.flatten_counted().items()}
    sizes = {name: pair[0].size for name, pair in pairs.items()}
    kernels = kernels_for(sum(sizes.values()), backend)
    num_workers = kernels.num_workers()
    overall = _correlate(pairs, kernels, num_workers, together, tables=(earlier.table, later.table))
    if not by_layer:
        return RankCorrelation(overall, {})
    if together is not ALONE:  # layer after layer, so that all processes send their counts in one order
        found = {
            name: _correlate({name: pairs[name]} if name in pairs else {}, kernels, num_workers, together)
            for name in earlier.codes
        }
        return RankCorrelation(overall, found)
    if sum(size > 0 for size in sizes.values()) == 1:
        return RankCorrelation(overall, {name: overall if size else None for name, size in sizes.items()})

    def correlate_layer(name: str, num_workers: int) -> float | None:
        return _correlate({name: pairs[name]}, kernels, num_workers, together)

    # Large layers one after the other, each by all workers; small ones side by side, one a worker.
    small = [Chunk(name, 0, size) for name, size in sizes.items() if size <= WEIGHTS_PER_CHUNK * num_workers]
    values = map_chunks(lambda layer: correlate_layer(layer.name, 1), small, num_workers)
    found = dict(zip((layer.name for layer in small), values, strict=True))
    found |= {name: correlate_layer(name, num_workers) for name in sizes if name not in found}
    return RankCorrelation(overall, {name: found[name] for name in sizes})


def rank_shares(snapshot: Snapshot, *, backend: Backend | None = None) -> dict[str, Tensor]:
    """Returns the rank of each magnitude among all weights, in 65,536ths, rounded down.

    Tied magnitudes share the mean of their ranks; the least of n has rank 1/2 and the largest n - 1/2, over n.

    Args:
        snapshot: By `take_snapshot`.
        backend: Which kernels count; None: numba for many weights, numpy otherwise. The result is the same.

    Returns:
        For each name uint16 on the CPU, in the weight's shape.

    Examples:
        >>> from lottery_tickets.early_bird.snapshots import take_snapshot
        >>> from lottery_tickets._core.weights import Weights
        >>> snapshot = take_snapshot(Weights.from_tensors({"fc.weight": torch.tensor([0.1, -0.4])}))
        >>> rank_shares(snapshot)["fc.weight"].tolist()
        [16384, 49152]
    """
    flat, counted = {name: flatten(codes) for name, codes in snapshot.codes.items()}, snapshot.flatten_counted()
    kernels = kernels_for(sum(codes.size for codes in flat.values()), backend)
    chunks = cut_codes(flat)
    counts = count_codes(counted, cut_codes(counted), kernels, kernels.num_workers(), snapshot.together)
    # By 15 and not 16, because these ranks are doubled.
    table = ((find_mid_ranks(counts) << 15) // max(1, int(counts.sum()))).astype(np.uint16)
    shares = {name: np.empty(codes.size, np.uint16) for name, codes in flat.items()}

    def look_up(chunk: Chunk) -> None:
        part = slice(chunk.start, chunk.stop)
        # No code is out of range, but by default numpy checks that in a buffer of its own.
        np.take(table, flat[chunk.name][part], out=shares[chunk.name][part], mode="clip")

    map_chunks(look_up, chunks, kernels.num_workers())
    return {name: torch.from_numpy(share).view(snapshot.codes[name].shape) for name, share in shares.items()}


def _check_alike(earlier: Snapshot, later: Snapshot) -> None:
    if earlier.codes.keys() != later.codes.keys():
        different = sorted(earlier.codes.keys() ^ later.codes.keys())
        raise ValueError(
            f"both snapshots must hold the same weights, but only one of them has {different[0]!r} "
            f"({len(different)} such in all); are they of one model?"
        )
    for name, codes in earlier.codes.items():
        if codes.shape != later.codes[name].shape:
            raise ValueError(
                f"{name!r} must have one shape in both snapshots, but has {tuple(codes.shape)} and then "
                f"{tuple(later.codes[name].shape)}; are they of one model?"
            )


def _correlate(
    pairs: Mapping[str, tuple[Codes, Codes]],
    kernels: Kernels,
    num_workers: int,
    together: Together,
    tables: tuple[RankTable, RankTable] | None = None,
) -> float | None:
    """Returns the rank correlation of all weights of the pairs; `tables` of their ranks, where known."""
    sides = [{name: pair[side] for name, pair in pairs.items()} for side in (0, 1)]
    size = sum(codes.size for codes in sides[0].values())
    if size <= WEIGHTS_PER_CHUNK:  # one walk through 65,536 counters, and not one a layer
        sides = [{"all": join(side)} for side in sides]
    if size < SMALLEST_TO_COUNT and together is ALONE:
        return _correlate_ranks(*(rank(side["all"]) for side in sides))
    chunks = cut_codes(sides[0])
    earlier, later = tables or [make_table(count_codes(side, chunks, kernels, num_workers, together)) for side in sides]

    def multiply(chunk: Chunk) -> int:
        one, other = (side[chunk.name][chunk.start : chunk.stop] for side in sides)
        return kernels.sum_products(one, other, earlier.ranks, later.ranks)

    here = sum(map_chunks(multiply, chunks, num_workers))
    products = sum(together.gather(lambda: here))  # Python's integers, which may need more than 64 bits
    return _divide(products, earlier.moments, later.moments)


def _correlate_ranks(earlier: Ranks, later: Ranks) -> float | None:
    products = int(np.einsum("i,i", earlier.values, later.values))  # half of the time of a product of integers by @
    return _divide(products, earlier.moments, later.moments)


def _divide(products: int, earlier: Moments, later: Moments) -> float | None:
    covariance = earlier.size * products - earlier.total * later.total
    variances = [side.size * side.squares - side.total**2 for side in (earlier, later)]
    if not all(variances):
        return None
    # Squared, so that the integers have one ratio, rounded once: at most 1, and 1 where the ranks are identical.
    return math.copysign(math.sqrt(covariance**2 / math.prod(variances)), covariance)
