"""What kernels are asked when they are compared: sizes with tails, ties, signs, extreme numbers, NaN."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lottery_tickets._core.bits import num_bytes
from lottery_tickets._core.kernels.selecting_reference import Listed
from lottery_tickets._core.selection.patterns import WORDS
from lottery_tickets._core.thresholds import Bracket

# With and without a tail, of 8 weights a byte, 64 lanes, numba's blocks of 1,024 and Triton's of 4,096; several blocks.
SIZES: Final = (1, 7, 8, 63, 64, 65, 1000, 1023, 1024, 1025, 3107, 4095, 4096, 4097, 9001)
NUM_LEVELS: Final = 40  # distinct magnitudes, so that many are equal
MOST_BINS: Final = 1 << 12
NUM_CODES: Final = 1 << 16
SEED: Final = 7
Outcome = tuple[Any, ...]
Task = Callable[[ModuleType, str], Outcome]  # by whom, and on which device


class Case(NamedTuple):
    """Weights that kernels are asked about.

    Attributes:
        words: What they are.
        values: 1-D, of a float dtype, on the CPU.
        within: Packed bits of those that are eligible; None: all are.
    """

    words: str
    values: Tensor
    within: Tensor | None

    def patterns(self) -> Tensor:
        """Returns the integers that sort like the magnitudes, in order."""
        words = self.values.view(WORDS[self.values.dtype])
        return (words & torch.iinfo(words.dtype).max).sort().values


def list_cases(dtypes: Iterable[torch.dtype], sizes: Sequence[int] = SIZES) -> Iterator[Case]:
    """Yields for each dtype weights of each size, all of them eligible and half of them.

    Args:
        dtypes: Of floats.
        sizes: How many weights.
    """
    generator = torch.Generator().manual_seed(SEED)
    for dtype in dtypes:
        info = torch.finfo(dtype)
        levels = torch.randn(NUM_LEVELS, generator=generator).to(dtype)
        # Zeros of either sign, a number below the normal ones, the largest there are.
        levels[:5] = torch.tensor([0.0, -0.0, -info.smallest_normal / 2, info.max, -info.max], dtype=dtype)
        for size in sizes:
            values = levels[torch.randint(NUM_LEVELS, (size,), generator=generator)]
            flags = torch.randint(2, (size,), generator=generator).numpy()
            words = f"{size:,} weights of {str(dtype).removeprefix('torch.')}"
            yield Case(words, values, None)
            within = torch.from_numpy(np.packbits(flags.astype(np.bool_), bitorder="little"))
            yield Case(f"half of {words} eligible", values, within)


def list_selections(case: Case) -> Mapping[str, Task]:
    """Returns by name what the loops of selection are asked about some weights."""
    patterns, spoilt = case.patterns(), case._replace(values=case.values.clone())
    spoilt.values[-1] = torch.nan
    size = len(patterns)
    low, middle, high = (int(patterns[place]) for place in (size // 4, size // 2, size - 1 - size // 5))
    below_infinity = find_infinity(case.values.dtype) - 1
    return {
        "count_patterns": partial(_count, case, (low, high)),
        "count_patterns of all": partial(_count, case, (0, below_infinity)),
        "count_patterns with NaN": partial(_count, spoilt, (low, high)),
        "classify": partial(_classify, case, (low, high)),
        "classify with NaN": partial(_classify, spoilt, (low, high)),
        "pack_above": partial(_pack, case, middle),
        "pack_above of all": partial(_pack, case, -1),
        "keep_first_equal": partial(_keep_equal, case, middle),
        "set_bits": partial(_set_bits, case),
    }


def list_rankings(case: Case) -> Mapping[str, Task]:
    """Returns by name what the loops of rank correlation are asked about some weights."""
    of_codes: dict[str, Task] = {
        "count_codes": partial(_count_codes, case),
        "sum_products": partial(_sum_products, case, 1),
        "sum_products of large ranks": partial(_sum_products, case, 65_535),
    }
    if case.values.dtype == torch.float32:
        return {"count_bins": partial(_count_bins, case), "encode": partial(_encode, case), **of_codes}
    return {"clear_signs": partial(_clear_signs, case), **of_codes}


def find_infinity(dtype: torch.dtype) -> int:
    """Returns the pattern of infinity."""
    return int(torch.tensor(torch.inf, dtype=dtype).view(WORDS[dtype]))


def _see_words(case: Case, device: str) -> Tensor:
    return case.values.view(WORDS[case.values.dtype]).to(device)


def _count(case: Case, bounds: tuple[int, int], kernels: ModuleType, device: str) -> Outcome:
    shift = max(0, (bounds[1] - bounds[0]).bit_length() - MOST_BINS.bit_length() + 1)
    bracket = Bracket(*bounds, shift)
    bins = np.ones(bracket.num_bins, np.int64)
    infinity = find_infinity(case.values.dtype)
    return (*kernels.count_patterns(_see_words(case, device), case.within, bracket, bins, infinity), bins)


def _classify(case: Case, bounds: tuple[int, int], kernels: ModuleType, device: str) -> Outcome:
    words = _see_words(case, device)
    room = len(words) // 3 + 1  # fewer than there are, for some
    listed = Listed(np.zeros(room, np.int32), np.zeros(room, torch.empty(0, dtype=words.dtype).numpy().dtype))
    bits = torch.zeros(num_bytes(len(words)), dtype=torch.uint8)
    found = kernels.classify(words, case.within, bounds, bits, listed, find_infinity(case.values.dtype))
    return (*found, bits, *(values[: found[1]] for values in listed))


def _pack(case: Case, threshold: int, kernels: ModuleType, device: str) -> Outcome:
    bits = torch.zeros(num_bytes(len(case.values)), dtype=torch.uint8)
    return kernels.pack_above(_see_words(case, device), case.within, threshold, bits), bits


def _keep_equal(case: Case, threshold: int, kernels: ModuleType, device: str) -> Outcome:
    words, bits = _see_words(case, device), torch.zeros(num_bytes(len(case.values)), dtype=torch.uint8)
    kernels.keep_first_equal(words, case.within, threshold, max(1, len(words) // 100), bits)
    return (bits,)


def _set_bits(case: Case, kernels: ModuleType, _device: str) -> Outcome:
    bits = torch.zeros(num_bytes(len(case.values)), dtype=torch.uint8)
    positions = np.arange(0, len(case.values), 3, dtype=np.int32)
    kernels.set_bits(bits, positions, positions % 2 == 0)
    return (bits,)


def _count_bins(case: Case, kernels: ModuleType, device: str) -> Outcome:
    bins = np.ones(NUM_CODES, np.int64)
    kernels.count_bins(_see_words(case, device), 12_345, bins)
    return (bins,)


def _encode(case: Case, kernels: ModuleType, device: str) -> Outcome:
    first, width = np.arange(NUM_CODES, dtype=np.uint32), np.arange(NUM_CODES, dtype=np.uint32) % 977
    codes = torch.zeros(len(case.values), dtype=torch.int16)
    kernels.encode(_see_words(case, device), (first // 2 << np.uint32(16)) | width, codes)
    return (codes,)


def _clear_signs(case: Case, kernels: ModuleType, device: str) -> Outcome:
    codes = torch.zeros(len(case.values), dtype=torch.int16)
    return kernels.clear_signs(_see_words(case, device), codes), codes


def _count_codes(case: Case, kernels: ModuleType, _device: str) -> Outcome:
    counts = np.ones(NUM_CODES, np.uint32)
    kernels.count_codes(_make_codes(case, 0), counts)
    return (counts,)


def _sum_products(case: Case, scale: int, kernels: ModuleType, _device: str) -> Outcome:
    ranks = np.arange(NUM_CODES, dtype=np.uint32) * np.uint32(scale)  # up to 2^32, whose products need 64 bits each
    return (kernels.sum_products(_make_codes(case, 0), _make_codes(case, 1), ranks, ranks[::-1].copy()),)


def _make_codes(case: Case, shift: int) -> Any:  # noqa: ANN401 - an array of uint16
    """Returns codes, other ones for another shift."""
    # Of any dtype the upper half of the bits, which vary.
    patterns = case.values.float().view(torch.int32).numpy().view(np.uint32)
    return np.roll((patterns >> np.uint32(16)).astype(np.uint16), shift)
