"""Do all kernels agree bit for bit: torch, numpy, numba, and torch on other devices."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Final

import numpy as np
import torch
from torch import Tensor

from lottery_tickets._core.bits import unpack_bits
from lottery_tickets._core.kernels import ranking_reference, selecting_numpy, selecting_reference
from lottery_tickets._core.selection.backends import Backend
from lottery_tickets._core.selection.largest import select_largest
from lottery_tickets._core.selection.patterns import WORDS
from lottery_tickets._core.selection.zeroing import PrunedPlaces
from lottery_tickets._core.weights import Weights
from lottery_tickets.doctor.checking import DoctorError
from lottery_tickets.doctor.kernel_cases import SEED, Case, Outcome, Task, list_cases, list_rankings, list_selections

SEVERAL_CHUNKS: Final = (1 << 22) + 77  # weights: so many are cut, and sampled before they are looked at
BACKENDS: Final[tuple[Backend, ...]] = ("reference", "small", "cpu")
ON_DEVICES: Final[tuple[Backend, ...]] = ("reference",)
ADVICE: Final = (
    "do not trust masks of this installation: remove the compiled loops (folders __pycache__ of lottery_tickets, or "
    "NUMBA_CACHE_DIR), install torch, numpy and numba again, and report what stands below"
)
NO_PLACE_FOR_CACHE: Final = "no locator available"  # numba's words
CACHE_ADVICE: Final = (
    "numba keeps compiled loops beside the package or in a folder of the user's, and may write to neither: name one "
    "that can be written, export NUMBA_CACHE_DIR=/path/to/folder"
)


def list_kernel_checks(device: str) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yields the name of each comparison with what runs it; compiled loops are imported when it is run.

    Args:
        device: Where the weights lie; the reference is on the CPU.
    """
    if device == "cpu":
        yield "numpy: selection", partial(_check_selection, lambda: selecting_numpy, device)
        yield "numpy: zeroing", partial(_check_zeroing, device, compiled=False)
        yield "numba: selection", partial(_check_selection, partial(_import, "selecting_cpu"), device)
        yield "numba: rank correlation", partial(_check_ranking, partial(_import, "ranking_cpu"), device)
        yield "numba: zeroing", partial(_check_zeroing, device, compiled=True)
    else:
        yield f"torch on {device}: selection", partial(_check_selection, lambda: selecting_reference, device)
        yield f"torch on {device}: rank correlation", partial(_check_ranking, lambda: ranking_reference, device)
        yield f"torch on {device}: zeroing", partial(_check_zeroing, device, compiled=False)
    yield f"masks on {device}", partial(_check_masks, device)


def _import(name: str) -> ModuleType:
    try:
        return import_module(f"lottery_tickets._core.kernels.{name}")
    except RuntimeError as error:
        if NO_PLACE_FOR_CACHE in str(error):
            raise DoctorError(str(error), CACHE_ADVICE) from error
        raise


def _check_selection(load: Callable[[], ModuleType], device: str) -> str:
    return _compare_all(load(), selecting_reference, device, WORDS, list_selections)


def _check_ranking(load: Callable[[], ModuleType], device: str) -> str:
    return _compare_all(load(), ranking_reference, device, (torch.float32, torch.bfloat16), list_rankings)


def _compare_all(
    kernels: ModuleType,
    reference: ModuleType,
    device: str,
    dtypes: Iterable[torch.dtype],
    list_tasks: Callable[[Case], Mapping[str, Task]],
) -> str:
    num_compared = 0
    for case in list_cases(dtypes):
        for name, task in list_tasks(case).items():
            _compare(f"{name} of {case.words}", task(kernels, device), task(reference, "cpu"))
            num_compared += 1
    return f"{num_compared:,} results are the reference's, bit for bit"


def _check_zeroing(device: str, *, compiled: bool) -> str:
    """Compares with torch's `where`; what is pruned is weights, NaN, zeros but for the least number, or -0.0."""
    if compiled:
        _import("zeroing_cpu")
    num_compared = 0
    for case in list_cases(WORDS):
        if case.within is None:
            continue
        places, kept = PrunedPlaces(case.within, compiled=compiled), unpack_bits(case.within, case.values.shape)
        spoilt, negative = (torch.where(kept, case.values, number) for number in (torch.nan, -0.0))
        zeroed = torch.where(kept, case.values, 0.0).view(WORDS[case.values.dtype])
        one_left = torch.where((~kept).cumsum(0) == (~kept).sum(), zeroed | ~kept, zeroed).view(case.values.dtype)
        for given in (case.values, spoilt, negative, one_left):
            there = given.clone().to(device)
            found = places.any_nonzero(there)
            places.zero_(there)
            wanted = (bool((given[~kept] != 0).any()), zeroed)
            _compare(f"zeroing of {case.words}", (found, there.cpu().view(zeroed.dtype)), wanted)
            num_compared += 1
    return f"{num_compared:,} results are torch's, bit for bit"


def _check_masks(device: str) -> str:
    """Draws a mask of several chunks, by threads, by each backend of a device, and by sorting."""
    if device == "cpu":
        _import("selecting_cpu")
    generator = torch.Generator().manual_seed(SEED)
    values = torch.randn(SEVERAL_CHUNKS, generator=generator).bfloat16()  # about 2,500 distinct magnitudes
    num_kept = SEVERAL_CHUNKS // 3
    kept = np.zeros(SEVERAL_CHUNKS, np.bool_)
    kept[(-(values.view(torch.int16) & 0x7FFF)).sort(stable=True).indices[:num_kept].numpy()] = True
    wanted = torch.from_numpy(np.packbits(kept, bitorder="little"))
    scores = Weights.from_tensors({"weight": values.to(device)})
    for backend in BACKENDS if device == "cpu" else ON_DEVICES:
        found = select_largest(scores, num_kept, backend=backend)["weight"]
        _compare(f"backend {backend!r}: mask of {SEVERAL_CHUNKS:,} weights", (found,), (wanted,))
    return f"masks of {SEVERAL_CHUNKS:,} weights, many equal, are those that sorting gives"


def _compare(what: str, found: Outcome, wanted: Outcome) -> None:
    for one, other in zip(found, wanted, strict=True):
        first, second = (value.numpy() if isinstance(value, Tensor) else np.asarray(value) for value in (one, other))
        if first.shape != second.shape or not np.array_equal(first, second):
            raise DoctorError(f"{what} differs from the reference", ADVICE)
