"""Do kernels give the bits of the plain reference on the CPU: of selection, of rank correlation, of zeroing."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Final

import numpy as np
import torch
from torch import Tensor

from lottery_tickets._core.bits import unpack_bits
from lottery_tickets._core.kernels import ranking_reference, selecting_reference
from lottery_tickets._core.kernels.cases import (
    SIZES,
    Case,
    Outcome,
    Task,
    list_cases,
    list_rankings,
    list_selections,
)
from lottery_tickets._core.kernels.trusted import Family, load_loops
from lottery_tickets._core.selection.patterns import WORDS

RANKED: Final = (torch.float32, torch.bfloat16)


class DifferenceError(Exception):
    """A kernel that does not give the bits of the reference."""


def compare_selecting(
    kernels: ModuleType, device: str, dtypes: Iterable[torch.dtype] = tuple(WORDS), sizes: Sequence[int] = SIZES
) -> int:
    """Returns how many results of the loops of selection are the reference's.

    Args:
        kernels: The loops.
        device: Where they are given their weights; the reference is on the CPU.
        dtypes: Of the weights.
        sizes: How many weights.

    Raises:
        DifferenceError: When a result is not.
    """
    return _compare_all(kernels, selecting_reference, device, list_cases(dtypes, sizes), list_selections)


def compare_ranking(
    kernels: ModuleType, device: str, dtypes: Iterable[torch.dtype] = RANKED, sizes: Sequence[int] = SIZES
) -> int:
    """Returns how many results of the loops of rank correlation are the reference's; see `compare_selecting`."""
    return _compare_all(kernels, ranking_reference, device, list_cases(dtypes, sizes), list_rankings)


def compare_zeroing(
    zero_: Callable[[Tensor, Tensor], object],
    any_nonzero: Callable[[Tensor, Tensor], bool],
    device: str,
    dtypes: Iterable[torch.dtype] = tuple(WORDS),
    sizes: Sequence[int] = SIZES,
) -> int:
    """Returns how many results of zeroing are those of torch's `where`.

    What is pruned is weights, NaN, zeros but for the least number, or -0.0.

    Args:
        zero_: Zeroes what is pruned of a tensor, by packed bits on the CPU.
        any_nonzero: Returns whether something that is pruned is not zero.
        device: Where the tensors are.
        dtypes: Of the weights.
        sizes: How many weights.

    Raises:
        DifferenceError: When a result is not.
    """
    num_compared = 0
    for case in list_cases(dtypes, sizes):
        if case.within is None:
            continue
        kept = unpack_bits(case.within, case.values.shape)
        spoilt, negative = (torch.where(kept, case.values, number) for number in (torch.nan, -0.0))
        zeroed = torch.where(kept, case.values, 0.0).view(WORDS[case.values.dtype])
        one_left = torch.where((~kept).cumsum(0) == (~kept).sum(), zeroed | ~kept, zeroed).view(case.values.dtype)
        for given in (case.values, spoilt, negative, one_left):
            there = given.clone().to(device)
            found = any_nonzero(there, case.within)
            zero_(there, case.within)
            wanted = (bool((given[~kept] != 0).any()), zeroed)
            _compare(f"zeroing of {case.words}", (found, there.cpu().view(zeroed.dtype)), wanted)
            num_compared += 1
    return num_compared


def compare_triton(
    family: Family, device: str, dtypes: Iterable[torch.dtype] | None = None, sizes: Sequence[int] = SIZES
) -> int:
    """Returns how many results of the loops in Triton are the reference's, all of them.

    Args:
        family: Of which the loops are.
        device: Where they work.
        dtypes: Of the weights; None: all that these loops are for.
        sizes: How many weights.

    Raises:
        DifferenceError: When a result is not.
    """
    loops = load_loops(family)
    if family == "selecting":
        return compare_selecting(loops, device, dtypes or WORDS, sizes)
    if family == "ranking":
        return compare_ranking(loops, device, dtypes or RANKED, sizes)

    def zero_(tensor: Tensor, bits: Tensor) -> None:
        loops.zero_pruned_words(tensor.view(WORDS[tensor.dtype]), bits.to(tensor.device))

    def any_nonzero(tensor: Tensor, bits: Tensor) -> bool:
        found: bool = loops.any_pruned_word(tensor.view(WORDS[tensor.dtype]), bits.to(tensor.device))
        return found

    return compare_zeroing(zero_, any_nonzero, device, dtypes or WORDS, sizes)


def _compare(what: str, found: Outcome, wanted: Outcome) -> None:
    """Raises a DifferenceError when not all of what is found equals what is wanted; returns nothing."""
    for one, other in zip(found, wanted, strict=True):
        first, second = (value.numpy() if isinstance(value, Tensor) else np.asarray(value) for value in (one, other))
        if first.shape != second.shape or not np.array_equal(first, second):
            raise DifferenceError(f"{what} differs from the reference")


def _compare_all(
    kernels: ModuleType,
    reference: ModuleType,
    device: str,
    cases: Iterable[Case],
    list_tasks: Callable[[Case], Mapping[str, Task]],
) -> int:
    num_compared = 0
    for case in cases:
        for name, task in list_tasks(case).items():
            _compare(f"{name} of {case.words}", task(kernels, device), task(reference, "cpu"))
            num_compared += 1
    return num_compared
