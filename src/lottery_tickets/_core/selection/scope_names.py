"""The names of scopes and the sparsities that go with them; needs no torch, so that options are checked without it."""

import math
import re
from numbers import Real
from typing import Final

NAMED_SCOPES: Final = ("global", "layer", "row", "erk", "lamp")
N_OF_M: Final = re.compile(r"(\d+):(\d+)")


def parse_n_of_m(scope: str) -> tuple[int, int] | None:
    """Returns (N, M) for a scope such as "2:4", None for a named one.

    Raises:
        ValueError: When the scope is neither a named one nor N:M with 0 < N < M.
    """
    if scope in NAMED_SCOPES:
        return None
    match = N_OF_M.fullmatch(str(scope))
    n, m = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 0 < n < m:
        names = ", ".join(repr(name) for name in NAMED_SCOPES)
        raise ValueError(f"scope must be one of {names}, or 'N:M' with 0 < N < M such as '2:4', got {scope!r}")
    return n, m


def check_sparsity(sparsity: object, scope: str) -> float:
    """Returns the share that is removed, which N:M fixes by itself.

    Raises:
        TypeError: When it is not a number.
        ValueError: When it is out of [0, 1], or is not the share of N:M.
    """
    n_of_m = parse_n_of_m(scope)
    if sparsity is None:
        if n_of_m is None:
            raise ValueError(f"sparsity must be given for scope {scope!r}, got None; only N:M has one by itself")
        return 1 - n_of_m[0] / n_of_m[1]
    if isinstance(sparsity, bool) or not isinstance(sparsity, Real):
        raise TypeError(f"sparsity must be a number from 0 to 1, got {sparsity!r}")
    value = float(sparsity)
    if not 0 <= value <= 1:
        raise ValueError(f"sparsity must be from 0 (keep all) to 1 (keep none), got {sparsity}")
    if n_of_m is not None and not math.isclose(value, 1 - n_of_m[0] / n_of_m[1], abs_tol=1e-12):
        share = 1 - n_of_m[0] / n_of_m[1]
        raise ValueError(f"sparsity must be {share:g} for scope {scope!r}, got {sparsity}; pass that or None")
    return value
