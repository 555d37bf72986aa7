"""How many weights each layer keeps, where the scope decides that by more than one comparison of magnitudes."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lottery_tickets._core.bits import count_bits, unpack_bits
from lottery_tickets._core.selection.largest import select_largest
from lottery_tickets._core.weights import Weight, Weights


def allocate_erk(shapes: Mapping[str, tuple[int, ...]], capacities: Mapping[str, int], num_kept: int) -> dict[str, int]:
    """Returns how many weights each layer keeps at a density proportional to sum(shape) / prod(shape).

    A layer whose share exceeds its capacity keeps its capacity, and the rest is shared anew. Fractions are rounded by
    the largest remainder (the earlier layer where equal), so the total is exact. Erdős-Rényi-Kernel, Evci et al.,
    arXiv:1911.11134.

    Args:
        shapes: Of each layer.
        capacities: How many weights a layer can keep at most.
        num_kept: How many all layers together keep, at most the sum of the capacities.

    Examples:
        >>> shapes = {"a": (2, 4), "b": (3, 6, 7), "c": (7, 4)}
        >>> allocate_erk(shapes, {"a": 8, "b": 126, "c": 28}, 81)
        {'a': 8, 'b': 45, 'c': 28}
    """
    # A layer keeps epsilon * sum(shape) weights, as the product is its size. A 0-D weight counts as of shape (1,).
    parts = {name: sum(shape) or 1 for name, shape in shapes.items() if capacities[name]}
    counts = dict.fromkeys(shapes, 0)
    rest = num_kept
    # In integers, so that rounding decides nothing.
    while full := [name for name, part in parts.items() if rest * part >= capacities[name] * sum(parts.values())]:
        for name in full:
            counts[name] = capacities[name]
            rest -= capacities[name]
            del parts[name]
    total = sum(parts.values())
    for name, part in parts.items():
        counts[name] = rest * part // total
    by_remainder = sorted(parts, key=lambda name: -(rest * parts[name] % total))
    for name in by_remainder[: rest - sum(counts[name] for name in parts)]:
        counts[name] += 1
    return counts


def allocate_lamp(scores: Weights, within: Mapping[str, Tensor] | None, num_kept: int) -> dict[str, int]:
    """Returns how many weights each layer keeps when LAMP scores are compared over all layers, `num_kept` in all.

    The LAMP score grows with the magnitude inside a layer, so the counts decide everything. Memory: 8 bytes a weight.
    Lee et al., arXiv:2010.07611.

    Args:
        scores: Finite.
        within: For each name the packed bits of the eligible ones.
        num_kept: The total, at most the number of eligible weights.

    Examples:
        >>> allocate_lamp(Weights.from_tensors({"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([0.1, 0.1])}), None, 3)
        {'a': 1, 'b': 2}
    """
    lamp = {name: _lamp_scores(score, None if within is None else within[name]) for name, score in scores.items()}
    bits = select_largest(Weights.from_tensors(lamp), num_kept)
    return {name: count_bits(packed) for name, packed in bits.items()}


def _lamp_scores(score: Weight, within: Tensor | None) -> Tensor:
    """Returns the LAMP scores of a layer, ascending: each square over the sum of itself and all greater ones."""
    values = score.read(0, score.size)
    eligible = values if within is None else values[unpack_bits(within, values.shape).to(values.device)]
    magnitudes = eligible.to("cpu", torch.float64).abs().sort().values
    if len(magnitudes) == 0 or magnitudes[-1] == 0:
        return torch.zeros_like(magnitudes)
    # Over the largest, so that no square overflows; the scores are ratios and stay the same.
    squares = (magnitudes / magnitudes[-1]).square_()
    return squares / squares.flip(0).cumsum(0).flip(0)
