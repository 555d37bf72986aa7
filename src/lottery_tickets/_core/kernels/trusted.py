"""Which loops in Triton are used: those that are there, and that give the reference's bits on the device at hand."""

import os
import warnings
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Final, Literal

import torch

Family = Literal["selecting", "ranking", "zeroing"]

SIZE_TRIED: Final = 9001  # weights: two blocks of Triton's and a tail
# Weights in all: torch alone takes 50 ms for a mask of so many (of a billion 0.2 s, H200), and loops that are compiled
# and tried first must earn that.
SMALLEST_FOR_TRITON: Final = 1 << 28


def can_run_on(device: torch.device) -> bool:
    """Returns whether Triton is installed and reaches a device: a GPU, or any where its interpreter is asked for."""
    is_reached = device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"
    return is_reached and find_spec("triton") is not None


def load_loops(family: Family) -> ModuleType:
    """Returns the loops in Triton, whatever they give."""
    return import_module(f"lottery_tickets._core.kernels.{family}_triton")


@cache
def find_trusted(family: Family, device: torch.device, dtype: torch.dtype) -> ModuleType | None:
    """Returns the loops in Triton for weights of a dtype on a device; None where plain torch is to be used.

    Before they are first used, loops must give the reference's bits there. Where they do not, or do not run, there is a
    warning: plain torch finds the same, and takes longer.

    Args:
        family: Of which the loops are.
        device: Where the weights are.
        dtype: In which they are read: one that `patterns.WORDS` has.
    """
    if not can_run_on(device):
        return None
    try:
        from lottery_tickets._core.kernels.comparing import compare_triton  # noqa: PLC0415 - where there is no Triton, none

        with torch.device("cpu"):  # whatever the default device of this thread
            compare_triton(family, str(device), [dtype], [SIZE_TRIED])
    except Exception as error:  # noqa: BLE001 - a compiler, a driver, a device: anything comes, and none must end a run
        warnings.warn(
            f"Triton's loops must give the bits of plain torch to be used on {device}, but {family} {dtype} ended with "
            f"{type(error).__name__}: {error}; plain torch is used, which takes longer, and `lottery-tickets doctor` "
            "says what is wrong",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return load_loops(family)
