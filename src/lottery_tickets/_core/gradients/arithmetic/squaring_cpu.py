"""The numba loops that square products and add the squares up, with no product ever in memory.

Of few terms: a row of products at a time, its factors in registers. Of many: four rows by four columns at a time, each
product a sum over vectors of terms.
"""

from collections.abc import Callable
from typing import Any, Final

import numba
from numba.extending import intrinsic
from numpy.typing import NDArray

FEW: Final = 4  # terms, that stay in registers
SOME: Final = 12
MANY: Final = 16
# Products and sums may be contracted and reordered, as BLAS does; NaN and infinity stay what they are.
FASTMATH: Final = {"contract", "reassoc"}

# Of LLVM, which else takes vectors of 256 bits where there are 512, because they slowed some processors of 2017 down.
WIDEST: Final = '"prefer-vector-width"="512"'

Four = tuple[float, float, float, float]
Factors = tuple[Four, ...]


def _ask_for_wide_vectors(_: Any) -> tuple[Any, Any]:  # noqa: ANN401 - numba's protocol, as below
    """Stands for no code: it tells LLVM about the function that calls it."""

    def change_caller(context: Any, builder: Any, *_: Any) -> Any:  # noqa: ANN401 - as above
        set.add(builder.function.attributes, WIDEST)  # its own `add` knows no attribute of one target
        return context.get_dummy_value()

    return numba.void(), change_caller


prefer_wide_vectors: Final[Any] = intrinsic(_ask_for_wide_vectors)


@numba.njit(inline="always")
def _sum_four(factors: Four, right: NDArray, first: int, column: int) -> float:  # type: ignore[type-arg]  # of any float
    total: float = (
        factors[0] * right[first, column]
        + factors[1] * right[first + 1, column]
        + factors[2] * right[first + 2, column]
        + factors[3] * right[first + 3, column]
    )
    return total


@numba.njit(inline="always")
def _take_one(terms: NDArray, place: int) -> float:  # type: ignore[type-arg]  # of any float
    term: float = terms[place] if place < terms.size else terms.dtype.type(0)
    return term


@numba.njit(inline="always")
def _take_four(terms: NDArray, first: int) -> Four:  # type: ignore[type-arg]  # of any float
    return (
        _take_one(terms, first),
        _take_one(terms, first + 1),
        _take_one(terms, first + 2),
        _take_one(terms, first + 3),
    )


@numba.njit(inline="always")
def _add_rows(  # noqa: PLR0917 - as numba calls it
    left: NDArray,  # type: ignore[type-arg]  # of any float
    right: NDArray,  # type: ignore[type-arg]  # as above
    sums: NDArray,  # type: ignore[type-arg]  # as above
    start: int,
    stop: int,
    take: Callable[[NDArray], Factors],  # type: ignore[type-arg]  # as above
    sum_up: Callable[[Factors, NDArray, int], float],  # type: ignore[type-arg]  # as above
) -> None:
    """Adds squares, two rows at a time, which share loads."""
    even = stop - (stop - start) % 2
    for sample in range(len(left)):
        terms = right[sample]
        for row in range(start, even, 2):
            one, other = take(left[sample, row]), take(left[sample, row + 1])
            total, total_below = sums[row], sums[row + 1]
            for column in range(total.size):
                product, product_below = sum_up(one, terms, column), sum_up(other, terms, column)
                total[column] += product * product
                total_below[column] += product_below * product_below
        for row in range(even, stop):
            own, total = take(left[sample, row]), sums[row]
            for column in range(total.size):
                product = sum_up(own, terms, column)
                total[column] += product * product


@numba.njit(inline="always")
def _take_few(terms: NDArray) -> Factors:  # type: ignore[type-arg]  # of any float
    return (_take_four(terms, 0),)


@numba.njit(inline="always")
def _sum_few(factors: Factors, right: NDArray, column: int) -> float:  # type: ignore[type-arg]  # of any float
    total: float = _sum_four(factors[0], right, 0, column)
    return total


@numba.njit(inline="always")
def _take_some(terms: NDArray) -> Factors:  # type: ignore[type-arg]  # of any float
    return _take_four(terms, 0), _take_four(terms, 4), _take_four(terms, 8)


@numba.njit(inline="always")
def _sum_some(factors: Factors, right: NDArray, column: int) -> float:  # type: ignore[type-arg]  # of any float
    first, second, third = factors
    total: float = (
        _sum_four(first, right, 0, column) + _sum_four(second, right, 4, column) + _sum_four(third, right, 8, column)
    )
    return total


@numba.njit(inline="always")
def _take_many(terms: NDArray) -> Factors:  # type: ignore[type-arg]  # of any float
    return _take_four(terms, 0), _take_four(terms, 4), _take_four(terms, 8), _take_four(terms, 12)


@numba.njit(inline="always")
def _sum_many(factors: Factors, right: NDArray, column: int) -> float:  # type: ignore[type-arg]  # of any float
    first, second, third, fourth = factors
    total: float = (
        _sum_four(first, right, 0, column)
        + _sum_four(second, right, 4, column)
        + _sum_four(third, right, 8, column)
        + _sum_four(fourth, right, 12, column)
    )
    return total


@numba.njit(cache=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def add_squares_of_few(left: NDArray, right: NDArray, sums: NDArray, start: int, stop: int) -> None:  # type: ignore[type-arg]  # of any float
    """Adds to some rows of `sums` the squares of left @ right, sample by sample.

    Args:
        left: Shape (samples, rows, terms), of `FEW` terms or less.
        right: Shape (samples, `FEW`, columns).
        sums: Shape (rows, columns).
        start: The first row.
        stop: That behind the last.
    """
    prefer_wide_vectors()
    _add_rows(left, right, sums, start, stop, _take_few, _sum_few)


@numba.njit(cache=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def add_squares_of_some(left: NDArray, right: NDArray, sums: NDArray, start: int, stop: int) -> None:  # type: ignore[type-arg]  # of any float
    """Adds squares as `add_squares_of_few` does, of products of `SOME` terms."""
    prefer_wide_vectors()
    _add_rows(left, right, sums, start, stop, _take_some, _sum_some)


@numba.njit(cache=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def add_squares_of_many(left: NDArray, right: NDArray, sums: NDArray, start: int, stop: int) -> None:  # type: ignore[type-arg]  # of any float
    """Adds squares as `add_squares_of_few` does, of products of `MANY` terms."""
    prefer_wide_vectors()
    _add_rows(left, right, sums, start, stop, _take_many, _sum_many)


@numba.njit(inline="always")
def _take_lines(matrix: NDArray, first: int, stop: int) -> tuple[NDArray, NDArray, NDArray, NDArray]:  # type: ignore[type-arg]  # of any float
    """Returns four rows, the last one several times where there are fewer."""
    last = stop - 1
    return matrix[first], matrix[min(first + 1, last)], matrix[min(first + 2, last)], matrix[min(first + 3, last)]


@numba.njit(inline="always")
def _add_four(sums: Four, factor: float, numbers: Four) -> Four:
    return (
        sums[0] + factor * numbers[0],
        sums[1] + factor * numbers[1],
        sums[2] + factor * numbers[2],
        sums[3] + factor * numbers[3],
    )


@numba.njit(cache=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def add_squares_of_long(left: NDArray, right: NDArray, sums: NDArray, start: int, stop: int) -> None:  # type: ignore[type-arg]  # of any float
    """Adds to some rows of `sums` the squares of left @ right transposed, sample by sample.

    Args:
        left: Shape (samples, rows, terms).
        right: Shape (samples, columns, terms).
        sums: Shape (rows, columns).
        start: The first row.
        stop: That behind the last.
    """
    prefer_wide_vectors()
    num_columns, zero = sums.shape[1], sums.dtype.type(0)
    nothing = (zero, zero, zero, zero)
    for sample in range(len(left)):
        for row in range(start, stop, 4):
            one, two, three, four = _take_lines(left[sample], row, stop)
            for column in range(0, num_columns, 4):
                first, second, third, fourth = _take_lines(right[sample], column, num_columns)
                sums_of_one = sums_of_two = sums_of_three = sums_of_four = nothing
                for term in range(one.size):
                    numbers = (first[term], second[term], third[term], fourth[term])
                    sums_of_one = _add_four(sums_of_one, one[term], numbers)
                    sums_of_two = _add_four(sums_of_two, two[term], numbers)
                    sums_of_three = _add_four(sums_of_three, three[term], numbers)
                    sums_of_four = _add_four(sums_of_four, four[term], numbers)
                products = (sums_of_one, sums_of_two, sums_of_three, sums_of_four)
                for below in range(min(4, stop - row)):
                    for beside in range(min(4, num_columns - column)):
                        sums[row + below, column + beside] += products[below][beside] ** 2


LOOPS: Final = {FEW: add_squares_of_few, SOME: add_squares_of_some, MANY: add_squares_of_many}
"""Those of few terms, by the most that they know."""
