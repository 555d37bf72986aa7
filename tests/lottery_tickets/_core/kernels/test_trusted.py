"""The loops in Triton compile, and are used where they stood a trial; of their bits see `test_interpreted.py`."""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lottery_tickets._core.kernels import comparing, ranking_reference, selecting_reference, trusted
from lottery_tickets._core.kernels.selecting_reference import Listed
from lottery_tickets._core.kernels.trusted import can_run_on, find_trusted
from lottery_tickets._core.selection import backends
from lottery_tickets._core.selection.backends import _choose_backend
from lottery_tickets._core.selection.patterns import Magnitudes
from lottery_tickets._core.thresholds import Bracket
from lottery_tickets._core.weights import Weights
from lottery_tickets.early_bird import snapshots
from lottery_tickets.early_bird.snapshots import _choose_backend as choose_for_snapshots

BLOCK, OPTIONS = 4096, {"enable_fp_fusion": False}  # as `blocks_triton` has them, which cannot be imported everywhere


class Compiler:
    """Compiles for an H100 what would be launched; a GPU is not needed for that."""

    def __init__(self) -> None:
        self.compiled: dict[tuple[str, ...], str] = {}

    def __call__(self, kernel: Any, words: Tensor, *arguments: Any, **constants: int) -> None:  # noqa: ANN401 - Triton's
        from triton import compile as compile_kernel  # noqa: PLC0415 - may not be there
        from triton.backends.compiler import GPUTarget  # noqa: PLC0415 - as above
        from triton.compiler import ASTSource  # noqa: PLC0415 - as above

        given = dict(zip(kernel.arg_names, (words, *arguments), strict=False)) | constants | {"block": BLOCK}
        fixed = {name: value for name, value in given.items() if value is None or name in {*constants, "block"}}
        types = {name: "constexpr" if name in fixed else find_type(value) for name, value in given.items()}
        # As Triton finds it of tensors of torch's, and of a chunk.
        aligned = {(place,): [["tt.divisibility", 16]] for place, name in enumerate(given) if types[name][0] == "*"}
        source = ASTSource(fn=kernel, signature=types, constexprs=fixed, attrs=aligned)
        asm = compile_kernel(source, target=GPUTarget("cuda", 90, 32), options=OPTIONS).asm
        assert asm["cubin"]
        self.compiled[kernel.fn.__name__, *types.values()] = asm["ptx"]


def find_type(value: Tensor | int) -> str:
    if isinstance(value, Tensor):
        return "*" + str(value.dtype).removeprefix("torch.").replace("uint", "u").replace("int", "i")
    return "i32" if -(1 << 31) <= value < 1 << 31 else "i64"


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed: `pip install triton`, of 700 MB")
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="Triton interprets, and compiles nothing")
def test_all_kernels_compile_for_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    loops = {family: trusted.load_loops(family) for family in ("selecting", "ranking", "zeroing")}
    compiler = Compiler()
    for module in loops.values():
        monkeypatch.setattr(module, "launch", compiler)
    monkeypatch.setattr(loops["ranking"], "is_compiled", lambda: False)  # which would take codes to a GPU
    monkeypatch.setattr(torch, "empty", torch.zeros)  # what no kernel writes
    codes, ranks = np.zeros(16, np.uint16), np.zeros(1 << 16, np.uint32)
    listed = Listed(np.zeros(16, np.int32), np.zeros(16, np.int64))
    for dtype in (torch.int16, torch.int32, torch.int64):
        words, bits = torch.zeros(16, dtype=dtype), torch.zeros(2, dtype=torch.uint8)
        for within in (None, bits):
            loops["selecting"].count_words(words, within, Bracket(0, 7), 9)
            loops["selecting"].classify(words, within, (0, 7), bits, listed, 9)
        loops["zeroing"].zero_pruned_words(words, bits)
        loops["zeroing"].any_pruned_word(words, bits)
    loops["ranking"].encode(torch.zeros(16, dtype=torch.int32), ranks, torch.zeros(16, dtype=torch.int16))
    loops["ranking"].clear_signs(torch.zeros(16, dtype=torch.int16), torch.zeros(16, dtype=torch.int16))
    loops["ranking"].sum_products(codes, codes, ranks, ranks)
    assert len(compiler.compiled) == 3 * (2 + 2 + 1 + 2) + 3


class Loops:
    """Loops that give a wrong count."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - a function
        reference = getattr(selecting_reference, name)
        return reference if name != "pack_above" else lambda *given: reference(*given) + 1


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Takes the CPU for a GPU with Triton."""
    monkeypatch.setattr(trusted, "can_run_on", lambda _: True)
    find_trusted.cache_clear()
    yield
    find_trusted.cache_clear()


@pytest.mark.usefixtures("on_a_gpu")
def test_loops_that_differ_or_do_not_run_are_warned_of_and_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu")
    monkeypatch.setattr(comparing, "load_loops", lambda _: Loops())
    with pytest.warns(
        RuntimeWarning, match=r"selecting torch.bfloat16 ended with DifferenceError: pack_above of 9,001"
    ):
        assert find_trusted("selecting", device, torch.bfloat16) is None
    assert find_trusted("selecting", device, torch.bfloat16) is None  # is said once

    def fail(_: str) -> None:
        raise ImportError("no C compiler")

    monkeypatch.setattr(comparing, "load_loops", fail)
    with pytest.warns(RuntimeWarning, match="ImportError: no C compiler; plain torch is used, which takes longer"):
        assert find_trusted("selecting", device, torch.float32) is None


@pytest.mark.usefixtures("on_a_gpu")
def test_loops_that_agree_are_used_for_many_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """A subclass tells that weights lie elsewhere; the reference stands for Triton's loops."""
    monkeypatch.setattr(
        comparing, "load_loops", lambda family: {"selecting": selecting_reference}.get(family, ranking_reference)
    )
    monkeypatch.setattr(trusted, "load_loops", lambda family: family)
    monkeypatch.setattr(Magnitudes, "is_on_cpu", False)
    magnitudes = Magnitudes(Weights.from_tensors({"a": torch.ones(3), "b": torch.ones(4, dtype=torch.float64)}))
    assert _choose_backend(magnitudes) == choose_for_snapshots(magnitudes) == "reference"
    monkeypatch.setattr(backends, "SMALLEST_FOR_TRITON", 7)
    monkeypatch.setattr(snapshots, "SMALLEST_FOR_TRITON", 7)
    assert _choose_backend(magnitudes) == choose_for_snapshots(magnitudes) == "triton"
    find_trusted.cache_clear()
    monkeypatch.setattr(trusted, "can_run_on", lambda _: False)
    assert _choose_backend(magnitudes) == choose_for_snapshots(magnitudes) == "reference"


def test_triton_runs_on_a_gpu_or_where_it_is_to_interpret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(trusted, "find_spec", lambda _: True)
    assert can_run_on(torch.device("cuda", 1))
    assert not can_run_on(torch.device("cpu"))
    assert not can_run_on(torch.device("mps"))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert can_run_on(torch.device("cpu"))
    monkeypatch.setattr(trusted, "find_spec", lambda _: None)
    assert not can_run_on(torch.device("cpu"))
    assert not can_run_on(torch.device("cuda"))
