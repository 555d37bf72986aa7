"""Which hot loops select: numpy or, for many weights, numba on the CPU; torch or, for very many, Triton on a GPU."""

from typing import Final, Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lottery_tickets._core.kernels import selecting_numpy, selecting_reference
from lottery_tickets._core.kernels.selecting_reference import Listed
from lottery_tickets._core.kernels.trusted import SMALLEST_FOR_TRITON, find_trusted, load_loops
from lottery_tickets._core.selection.patterns import Chunk, Magnitudes
from lottery_tickets._core.thresholds import Bracket, Counters
from lottery_tickets._core.weights import READERS

SMALLEST_FOR_CPU_KERNEL: Final = 1 << 20  # elements; below it numpy takes milliseconds and numba need not be imported

Backend = Literal["reference", "small", "cpu", "triton"]


class Kernels(Protocol):
    """The hot loops of one backend; `kernels.selecting_reference` says what they compute."""

    NUM_BINS: int

    def count_patterns(
        self, words: Tensor, within: Tensor | None, bracket: Bracket, bins: Counters, infinity: int
    ) -> tuple[int, bool]:
        """Counts by bit pattern."""

    def classify(  # noqa: PLR0917 - as `selecting_reference.classify`
        self,
        words: Tensor,
        within: Tensor | None,
        bounds: tuple[int, int],
        bits: Tensor,
        listed: Listed,
        infinity: int,
    ) -> tuple[int, int, bool]:
        """Packs what is above a bracket, lists what is in it."""

    def set_bits(self, bits: Tensor, positions: NDArray[np.int32], chosen: NDArray[np.bool_]) -> None:
        """Sets single bits."""

    def pack_above(self, words: Tensor, within: Tensor | None, threshold: int, bits: Tensor) -> int:
        """Compares and packs."""

    def keep_first_equal(self, words: Tensor, within: Tensor | None, threshold: int, quota: int, bits: Tensor) -> None:
        """Resolves ties."""

    def num_workers(self) -> int:
        """Says how many chunks to work on at a time."""


def kernels_for(magnitudes: Magnitudes, backend: Backend | None) -> Kernels:
    """Returns the loops of a backend, or those that suit the weights."""
    if backend is None:
        backend = _choose_backend(magnitudes)
    if backend == "cpu":
        from lottery_tickets._core.kernels import selecting_cpu  # noqa: PLC0415 - numba takes half a second

        return selecting_cpu
    if backend == "triton":
        return cast("Kernels", load_loops("selecting"))
    return selecting_numpy if backend == "small" else selecting_reference


def _choose_backend(magnitudes: Magnitudes) -> Backend:
    # Of all processes that share them, who must count in the same bins.
    num_weights = magnitudes.weights.num_weights
    if magnitudes.is_on_cpu:
        return "cpu" if num_weights >= SMALLEST_FOR_CPU_KERNEL else "small"
    if num_weights < SMALLEST_FOR_TRITON:
        return "reference"
    are_trusted = all(find_trusted("selecting", device, magnitudes.dtype) for device in magnitudes.devices)
    return "triton" if are_trusted else "reference"


def count_workers(magnitudes: Magnitudes, kernels: Kernels) -> int:
    """Returns how many chunks to work on at a time."""
    return kernels.num_workers() if magnitudes.is_in_memory else max(kernels.num_workers(), READERS)


def refuse_not_finite(chunk: Chunk, is_finite: bool) -> None:  # noqa: FBT001 - what is refused
    """Raises a ValueError when a chunk holds NaN or infinity."""
    if not is_finite:
        raise ValueError(
            f"{chunk.name!r} must be finite to be ranked, but holds NaN or infinity; find where it diverged"
        )
