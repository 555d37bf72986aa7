"""A kernel that is wrong anywhere is found, whichever it is."""

from collections.abc import Callable
from itertools import count
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lottery_tickets._core.kernels import (
    comparing,
    ranking_cpu,
    ranking_reference,
    selecting_cpu,
    selecting_numpy,
    selecting_reference,
    zeroing_cpu,
)
from lottery_tickets._core.selection import zeroing
from lottery_tickets.doctor import kernels
from lottery_tickets.doctor.checking import Finding, examine
from lottery_tickets.doctor.kernels import list_kernel_checks


def check(name: str, device: str = "cpu") -> Finding:
    return examine(name, dict(list_kernel_checks(device))[name])


@pytest.mark.parametrize("name", [name for name, _ in list_kernel_checks("cpu")])
def test_what_is_right_is_found_to_be_right(name: str) -> None:
    finding = check(name)
    assert not finding.problem
    assert finding.found


def off_by_one(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function whose first result, if a number, is one more."""

    def wrong(*arguments: Any) -> Any:  # noqa: ANN401 - of any kernel
        found = function(*arguments)
        return (found[0] + 1, *found[1:]) if isinstance(found, tuple) else found + 1

    return wrong


def spoil_last(function: Callable[..., Any], place: int) -> Callable[..., Any]:
    """Returns a function that afterwards changes the lowest bit of the last element of one of its arguments."""

    def wrong(*arguments: Any) -> Any:  # noqa: ANN401 - of any kernel
        found = function(*arguments)
        arguments[place].reshape(-1)[-1] ^= 1
        return found

    return wrong


WRONG_RESULTS: list[tuple[str, ModuleType, str]] = [
    ("numpy: selection", selecting_numpy, "count_patterns"),
    ("numpy: selection", selecting_numpy, "classify"),
    ("numpy: selection", selecting_numpy, "pack_above"),
    ("numba: selection", selecting_cpu, "count_patterns"),
    ("numba: selection", selecting_cpu, "classify"),
    ("numba: selection", selecting_cpu, "pack_above"),
    ("numba: selection", selecting_cpu, "_count"),
    ("numba: rank correlation", ranking_cpu, "clear_signs"),
    ("numba: rank correlation", ranking_cpu, "sum_products"),
]
WRONG_WRITES: list[tuple[str, ModuleType, str, int]] = [
    ("numpy: selection", selecting_numpy, "count_patterns", 3),
    ("numpy: selection", selecting_numpy, "classify", 3),
    ("numpy: selection", selecting_numpy, "set_bits", 0),
    ("numpy: selection", selecting_numpy, "pack_above", 3),
    ("numpy: selection", selecting_numpy, "keep_first_equal", 4),
    ("numba: selection", selecting_cpu, "count_patterns", 3),
    ("numba: selection", selecting_cpu, "classify", 3),
    ("numba: selection", selecting_cpu, "set_bits", 0),
    ("numba: selection", selecting_cpu, "pack_above", 3),
    ("numba: selection", selecting_cpu, "keep_first_equal", 4),
    ("numba: rank correlation", ranking_cpu, "count_bins", 2),
    ("numba: rank correlation", ranking_cpu, "encode", 2),
    ("numba: rank correlation", ranking_cpu, "clear_signs", 1),
    ("numba: rank correlation", ranking_cpu, "count_codes", 1),
]


@pytest.mark.parametrize(("name", "module", "function"), WRONG_RESULTS)
def test_a_kernel_that_returns_something_else_is_found(
    name: str, module: ModuleType, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, function, off_by_one(getattr(module, function)))
    assert "differs from the reference" in check(name).problem


@pytest.mark.parametrize(("name", "module", "function", "place"), WRONG_WRITES)
def test_a_kernel_that_writes_something_else_is_found(
    name: str, module: ModuleType, function: str, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, function, spoil_last(getattr(module, function), place))
    finding = check(name)
    assert function.removeprefix("_") in finding.problem
    assert "differs from the reference" in finding.problem
    assert "do not trust masks" in finding.advice


@pytest.mark.parametrize("name", ["zero_pruned_words", "any_pruned_word"])
def test_a_kernel_that_zeroes_something_else_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    zero, any_nonzero = zeroing_cpu.zero_pruned_words, zeroing_cpu.any_pruned_word
    wrong = {
        "zero_pruned_words": (lambda words, bits: zero(words[:-1], bits), any_nonzero),  # a tail is forgotten
        "any_pruned_word": (zero, lambda words, bits: any_nonzero(words & ~1, bits)),  # the least number passes
    }[name]
    monkeypatch.setattr(zeroing, "_load_kernels", lambda: wrong)
    assert "zeroing of" in check("numba: zeroing").problem


def test_ties_that_go_elsewhere_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which the count of the kept does not show."""

    def keep_last_equal(*arguments: Any) -> None:  # noqa: ANN401 - of any kernel
        words, within, threshold, quota, bits = arguments
        flipped = torch.zeros_like(bits)
        eligible = (
            None if within is None else torch.from_numpy(np.packbits(_unpack(within, words)[::-1], bitorder="little"))
        )
        selecting_reference.keep_first_equal(words.flip(0), eligible, threshold, quota, flipped)
        bits |= torch.from_numpy(np.packbits(_unpack(flipped, words)[::-1], bitorder="little"))

    monkeypatch.setattr(selecting_numpy, "keep_first_equal", keep_last_equal)
    assert "keep_first_equal" in check("numpy: selection").problem


def _unpack(bits: torch.Tensor, words: torch.Tensor) -> Any:  # noqa: ANN401 - an array
    return np.unpackbits(bits.numpy(), count=len(words), bitorder="little")


def test_a_reference_that_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selecting_reference, "pack_above", off_by_one(selecting_reference.pack_above))
    assert "pack_above" in check("numpy: selection").problem
    wrong = spoil_last(selecting_reference.set_bits, 0)
    monkeypatch.setattr(selecting_reference, "set_bits", wrong)
    assert "backend 'reference'" in check("masks on cpu").problem


def test_no_folder_for_compiled_loops_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise RuntimeError(f"cannot cache function '_count': no locator available for file {name!r}")

    monkeypatch.setattr(kernels, "import_module", refuse)
    for name in ("numba: selection", "numba: rank correlation", "numba: zeroing", "masks on cpu"):
        finding = check(name)
        assert "no locator available" in finding.problem
        assert "export NUMBA_CACHE_DIR" in finding.advice


def test_another_device_is_compared_with_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without one the CPU by its number stands for it, and is asked before the reference is."""
    checks = dict(list_kernel_checks("cpu:0"))
    assert all(not examine(name, look).problem for name, look in checks.items())
    calls, reference = count(), ranking_reference.encode

    def wrong_there(words: torch.Tensor, table: Any, codes: torch.Tensor) -> None:  # noqa: ANN401 - an array
        reference(words, table, codes)
        codes[-1] ^= next(calls) % 2 == 0

    monkeypatch.setattr(ranking_reference, "encode", wrong_there)
    assert "encode" in examine("", checks["torch on cpu:0: rank correlation"]).problem


def test_loops_in_triton_are_compared_where_they_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference stands for them; that they do not run is no problem, because then they are not used."""
    assert check("triton on cpu:0", "cpu:0").found == "not installed: plain torch works on weights of any number"
    names = [f"triton on cpu:0: {what}" for what in ("selection", "rank correlation")]
    loops = {"selecting": selecting_reference, "ranking": ranking_reference}
    monkeypatch.setattr(kernels, "can_run_on", lambda _: True)
    monkeypatch.setattr(comparing, "load_loops", loops.__getitem__)
    assert all("bit for bit; used where weights are many" in check(name, "cpu:0").found for name in names)
    for name, (family, module) in zip(names, loops.items(), strict=True):
        wrong = {"selecting": "pack_above", "ranking": "sum_products"}[family]
        spoilt = SimpleNamespace(**vars(module) | {wrong: off_by_one(getattr(module, wrong))})
        monkeypatch.setitem(loops, family, spoilt)
        finding = check(name, "cpu:0")
        assert wrong in finding.problem
        assert "these loops are not used" in finding.advice

    def fail(_: str) -> None:
        raise ImportError("no C compiler")

    monkeypatch.setattr(comparing, "load_loops", fail)
    finding = check("triton on cpu:0: zeroing", "cpu:0")
    assert (finding.problem, finding.advice) == ("", "ImportError: no C compiler")
    assert finding.found == "does not run: plain torch works on weights of any number"
