"""What two masks share beside four nulls, each finer than the one before: is it more than chance, and how sure is that.

Under a null, each mask keeps its share of each stratum, and which weights of the stratum these are is independent in
both. Weights of a stratum need not be independent of each other: an update may be larger in some rows, columns or
heads. So how far chance carries the count is taken from the masks themselves: each dimension is cut into eight blocks,
in which the excess over chance is summed; one index is one thing wherever a dimension has this size, as the channels of
a transformer are in all its layers.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypedDict, final

import numpy as np
from numpy.typing import NDArray

from lottery_tickets.masks.strata import EXPONENT_BIAS, MANTISSA_BITS, NUM_BLOCKS, Counts, LayerCounts

ERROR_RATE: Final = 0.01  # of each verdict that is not "at chance"
DEGREES_OF_FREEDOM: Final = NUM_BLOCKS - 1
FINEST: Final = "value"

Verdict = Literal["beyond chance", "at chance", "below chance"]
Floats = NDArray[np.float64]


class NullFigures(TypedDict):
    """The weights that two masks both keep, beside those that a null lets expect.

    Attributes:
        expected_both: How many both keep on average.
        ratio: Observed over expected; None where none are expected.
        low: The lower end of the interval of the ratio, which leaves out `error_rate` on each side.
        high: Its upper end.
        p_value: How often independent masks share as many weights or more.
    """

    expected_both: float
    ratio: float | None
    low: float | None
    high: float | None
    p_value: float


class ExponentFigures(TypedDict):
    """The weights of one exponent: of a magnitude from 2^exponent up to twice that.

    Attributes:
        exponent: -127 for zeros and what is below 2^-126.
        num_weights: How many there are.
        num_kept: How many each mask keeps.
        num_both: How many both keep.
        expected_both: How many both keep on average, under the finest null.
    """

    exponent: int
    num_weights: int
    num_kept: list[int]
    num_both: int
    expected_both: float


class GivenFigures(TypedDict):
    """What two masks share, given the weights that they were made of.

    Attributes:
        nulls: By name: "naive", one density over all weights; "layer", one in each layer; "exponent", in each layer one
            for each exponent of the weights; "value", one for each exponent and seven bits of mantissa.
        verdict: On the finest null: "beyond chance", "at chance" or "below chance".
        error_rate: How often independent masks may be said to be beyond chance, and how often below it; docs/changes.md
            has the rates that were measured.
        by_exponent: In ascending order.
    """

    nulls: dict[str, NullFigures]
    verdict: Verdict
    error_rate: float
    by_exponent: list[ExponentFigures]


@final
@dataclass
class _Excess:
    """Sums over layers of what masks share beyond chance.

    Attributes:
        expected: How many weights both keep on average.
        variance: Of that number, were the weights of a stratum independent of each other.
        counted_again: The part of it that lies in more than one family of clusters, once for each further one.
        clusters: By family, the excess and the expected number in each cluster: in which all is summed that may go
            together.
    """

    expected: float = 0.0
    variance: float = 0.0
    counted_again: float = 0.0
    clusters: defaultdict[object, Floats] = field(default_factory=lambda: defaultdict(lambda: np.zeros((2, 1))))

    def add(self, families: Iterable[tuple[object, Counts]], kept: tuple[Floats, Floats] | None = None) -> None:
        """Adds a layer: for each family, counts by cluster, stratum and bits; and shares kept, if not the layer's."""
        for number, (family, counts) in enumerate(families):
            excess, expected, variance = _measure(counts, kept)
            self.clusters[family] = self.clusters[family] + np.stack([excess, expected])
            if number:
                self.counted_again += variance
            else:
                self.expected += float(expected.sum())
                self.variance += variance

    def compare(self, num_both: int, error_rate: float) -> NullFigures:
        """Returns how many weights both keep beside what is expected."""
        if not self.expected:
            return {"expected_both": 0.0, "ratio": None, "low": None, "high": None, "p_value": 1.0}
        ratio = num_both / self.expected
        std = math.sqrt(self._find_variance(ratio)) / self.expected
        reach = std * _find_quantile(error_rate)
        return {
            "expected_both": self.expected,
            "ratio": ratio,
            "low": max(ratio - reach, 0.0),
            "high": ratio + reach,
            "p_value": _find_tail((ratio - 1) / std) if std else float(ratio <= 1),
        }

    def _find_variance(self, ratio: float) -> float:
        """Returns the variance of the number that both keep, at least that of independent weights."""
        total = 0.0
        for excess, expected in self.clusters.values():
            beyond = excess - (ratio - 1) * expected if len(excess) > 1 else excess
            total += float(np.square(beyond).sum()) * NUM_BLOCKS / DEGREES_OF_FREEDOM
        return max(total - self.counted_again, self.variance * max(ratio, 1.0))


def compare_with_nulls(layers: Mapping[str, LayerCounts], error_rate: float) -> tuple[GivenFigures, dict[str, float]]:
    """Returns what two masks share beside the nulls, and by layer how many weights both keep under the finest.

    Args:
        layers: By parameter name.
        error_rate: Of the verdict, on each side; the intervals leave out as much.
    """
    counted = {name: counts for name, counts in layers.items() if len(counts.codes)}
    total = sum((counts.by_code.sum(axis=0) for counts in counted.values()), start=np.zeros(4, np.int64))
    num_both = int(total[3])
    overall = _shares(total[np.newaxis])
    nulls = {name: _Excess() for name in ("naive", "layer", "exponent", FINEST)}
    expected: dict[str, float] = dict.fromkeys(layers, 0.0)
    for name, counts in counted.items():
        exponents = counts.codes >> MANTISSA_BITS
        whole = [(size or name, by_block.sum(axis=1, keepdims=True)) for size, by_block in counts.by_block]
        nulls["naive"].add(whole, overall)
        nulls["layer"].add(whole)
        first = np.unique(exponents, return_index=True)[1]
        nulls["exponent"].add((size or name, np.add.reduceat(by, first, axis=1)) for size, by in counts.by_block)
        before = nulls[FINEST].expected
        nulls[FINEST].add((size or name, by_block) for size, by_block in counts.by_block)
        expected[name] = nulls[FINEST].expected - before
    figures = {name: null.compare(num_both, error_rate) for name, null in nulls.items()}
    return {
        "nulls": figures,
        "verdict": _judge(figures[FINEST]),
        "error_rate": error_rate,
        "by_exponent": _sum_by_exponent(counted.values()),
    }, expected


def _judge(figures: NullFigures) -> Verdict:
    low, high = figures["low"], figures["high"]
    if low is not None and low > 1:
        return "beyond chance"
    return "below chance" if high is not None and high < 1 else "at chance"


def _shares(counts: Counts) -> tuple[Floats, Floats]:
    """Returns the shares of weights that each mask keeps, from counts by bits."""
    num = np.maximum(counts.sum(axis=-1), 1)
    return (counts[..., 1] + counts[..., 3]) / num, (counts[..., 2] + counts[..., 3]) / num


def _measure(counts: Counts, kept: tuple[Floats, Floats] | None) -> tuple[Floats, Floats, float]:
    """Returns by cluster the excess over chance and the number expected, and the variance if weights are independent.

    The excess is the sum of (A - a) * (B - b), where A and B are 1 for a weight that is kept and a and b the shares
    that are kept of its stratum. Over all clusters it is the number that both keep less the number expected; in each,
    what one mask alone keeps there in excess does not count.
    """
    num = counts.sum(axis=0).sum(axis=-1)
    a, b = _shares(counts.sum(axis=0)) if kept is None else kept
    weights = counts.sum(axis=-1)
    first, second, both = (counts[..., place] for place in (1, 2, 3))
    expected = weights * (a * b)
    excess = both - b * (first + both) - a * (second + both) + expected
    variance = num * a * (1 - a) * b * (1 - b) * num / np.maximum(num - 1, 1)
    return excess.sum(axis=1), expected.sum(axis=1), float(variance.sum())


def _sum_by_exponent(layers: Iterable[LayerCounts]) -> list[ExponentFigures]:
    sums: dict[int, Floats] = defaultdict(lambda: np.zeros(5))
    for layer in layers:
        counts = layer.by_code
        a, b = _shares(counts)
        expected = counts.sum(axis=1) * a * b
        exponents, first = np.unique(layer.codes >> MANTISSA_BITS, return_index=True)
        summed = np.add.reduceat(np.column_stack([counts, expected]), first, axis=0)
        for exponent, row in zip(exponents, summed, strict=True):
            sums[int(exponent) - EXPONENT_BIAS] += row
    return [
        {
            "exponent": exponent,
            "num_weights": int(row[:4].sum()),
            "num_kept": [int(row[1] + row[3]), int(row[2] + row[3])],
            "num_both": int(row[3]),
            "expected_both": float(row[4]),
        }
        for exponent, row in sorted(sums.items())
    ]


def _find_tail(t: float) -> float:
    """Returns how often Student's t of 7 degrees of freedom is `t` or more.

    By the finite sum that there is for odd degrees (Abramowitz and Stegun 26.7.3).
    """
    angle = math.atan(t / math.sqrt(DEGREES_OF_FREEDOM))
    cosine, term, total = math.cos(angle), math.cos(angle), 0.0
    for place in range(1, DEGREES_OF_FREEDOM - 1, 2):
        total += term
        term *= cosine**2 * (place + 1) / (place + 2)
    return max(0.5 - (angle + math.sin(angle) * total) / math.pi, 0.0)


def _find_quantile(tail: float) -> float:
    """Returns the t that so large a share lies above, by bisection."""
    low, high = 0.0, 1e6
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _find_tail(middle) > tail else (low, middle)
    return high
