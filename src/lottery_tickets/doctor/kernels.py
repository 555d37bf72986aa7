"""Do all kernels agree bit for bit: torch, numpy, numba, and torch and Triton on other devices."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Final

import numpy as np
import torch
from torch import Tensor

from lottery_tickets._core.kernels import ranking_reference, selecting_numpy, selecting_reference
from lottery_tickets._core.kernels.cases import SEED
from lottery_tickets._core.kernels.comparing import (
    DifferenceError,
    compare_ranking,
    compare_selecting,
    compare_triton,
    compare_zeroing,
)
from lottery_tickets._core.kernels.trusted import can_run_on
from lottery_tickets._core.selection.backends import Backend
from lottery_tickets._core.selection.largest import select_largest
from lottery_tickets._core.selection.zeroing import PrunedPlaces
from lottery_tickets._core.weights import Weights
from lottery_tickets.doctor.checking import DoctorError, Finding

SEVERAL_CHUNKS: Final = (1 << 22) + 77  # weights: so many are cut, and sampled before they are looked at
BACKENDS: Final[tuple[Backend, ...]] = ("reference", "small", "cpu")
ON_DEVICES: Final[tuple[Backend, ...]] = ("reference",)
ADVICE: Final = (
    "do not trust masks of this installation: remove the compiled loops (folders __pycache__ of lottery_tickets, or "
    "NUMBA_CACHE_DIR), install torch, numpy and numba again, and report what stands below"
)
NO_PLACE_FOR_CACHE: Final = "no locator available"  # numba's words
NO_TRITON: Final = "plain torch works on weights of any number"
TRITON_ADVICE: Final = f"these loops are not used, {NO_TRITON}; report what stands below"
CACHE_ADVICE: Final = (
    "numba keeps compiled loops beside the package or in a folder of the user's, and may write to neither: name one "
    "that can be written, export NUMBA_CACHE_DIR=/path/to/folder"
)


def list_kernel_checks(device: str) -> Iterator[tuple[str, Callable[[], Finding | str]]]:
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
    yield f"masks on {device}", partial(_check_masks, device, BACKENDS if device == "cpu" else ON_DEVICES)
    if can_run_on(torch.device(device)):
        yield f"triton on {device}: selection", partial(_check_triton, partial(compare_triton, "selecting", device))
        yield (
            f"triton on {device}: rank correlation",
            partial(_check_triton, partial(compare_triton, "ranking", device)),
        )
        yield f"triton on {device}: zeroing", partial(_check_triton, partial(compare_triton, "zeroing", device))
    elif device != "cpu":
        yield f"triton on {device}", lambda: f"not installed: {NO_TRITON}"


def _import(name: str) -> ModuleType:
    try:
        return import_module(f"lottery_tickets._core.kernels.{name}")
    except RuntimeError as error:
        if NO_PLACE_FOR_CACHE in str(error):
            raise DoctorError(str(error), CACHE_ADVICE) from error
        raise


def _check_selection(load: Callable[[], ModuleType], device: str) -> str:
    return _count(partial(compare_selecting, load(), device))


def _check_ranking(load: Callable[[], ModuleType], device: str) -> str:
    return _count(partial(compare_ranking, load(), device))


def _check_zeroing(device: str, *, compiled: bool) -> str:
    if compiled:
        _import("zeroing_cpu")

    def zero_(tensor: Tensor, bits: Tensor) -> None:
        PrunedPlaces(bits, compiled=compiled).zero_(tensor)

    def any_nonzero(tensor: Tensor, bits: Tensor) -> bool:
        return PrunedPlaces(bits, compiled=compiled).any_nonzero(tensor)

    return _count(partial(compare_zeroing, zero_, any_nonzero, device))


def _check_triton(compare: Callable[[], int]) -> Finding | str:
    try:
        return f"{_count(compare)}; used where weights are many"
    except DoctorError as error:
        raise DoctorError(str(error), TRITON_ADVICE) from error
    except Exception as error:  # noqa: BLE001 - without a compiler, on an old device: that keeps no mask from being right
        return Finding("", f"does not run: {NO_TRITON}", advice=f"{type(error).__name__}: {error}")


def _count(compare: Callable[[], int]) -> str:
    try:
        return f"{compare():,} results are the reference's, bit for bit"
    except DifferenceError as error:
        raise DoctorError(str(error), ADVICE) from error


def _check_masks(device: str, backends: Iterable[Backend]) -> str:
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
    for backend in backends:
        found = select_largest(scores, num_kept, backend=backend)["weight"]
        if not torch.equal(found, wanted):
            words = f"backend {backend!r}: mask of {SEVERAL_CHUNKS:,} weights differs from the reference"
            raise DoctorError(words, ADVICE)
    return f"masks of {SEVERAL_CHUNKS:,} weights, many equal, are those that sorting gives"
