"""The loops in Triton on a GPU beside those of plain torch: the same bits or not, seconds, and bytes read a second.

A section of `python -m benchmarks.speed.gpu`. The floor of each is to read the words once, as `amax` does.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from lottery_tickets._core.bits import num_bytes, pack_bits, unpack_bits
from lottery_tickets._core.kernels import ranking_cpu, ranking_reference, selecting_reference
from lottery_tickets._core.kernels.cases import find_infinity
from lottery_tickets._core.kernels.comparing import compare_triton
from lottery_tickets._core.kernels.selecting_reference import Listed
from lottery_tickets._core.kernels.trusted import can_run_on, load_loops
from lottery_tickets._core.selection.backends import Backend
from lottery_tickets._core.selection.largest import select_largest
from lottery_tickets._core.selection.patterns import WORDS
from lottery_tickets._core.thresholds import Bracket
from lottery_tickets._core.weights import Weights

SEED: Final = 0
NUM_WORDS: Final = 1 << 25  # a chunk, as masks are selected in
NUM_TENSORS: Final = 16
NUM_BINS_BITS: Final = 16
SHARE_INSIDE: Final = 0.005  # of the weights, within the bracket that a sample of a million gives
Calls = dict[str, Callable[[], object]]
TakeTurns = Callable[[Mapping[str, Callable[[], object]], int], dict[str, dict[str, float]]]


def measure_kernels(device: torch.device, take_turns: TakeTurns, *, is_tiny: bool) -> dict[str, Any]:
    """Returns for each loop and dtype how long plain torch and Triton take, and for each family whether bits agree.

    Args:
        device: Where.
        take_turns: Returns the least and the median seconds of calls.
        is_tiny: Whether to try the code only.
    """
    with_triton = can_run_on(device)
    found: dict[str, Any] = {
        family: compare_triton(family, str(device)) if with_triton else "no Triton"
        for family in ("selecting", "ranking", "zeroing")
    }
    size = 1 << 13 if is_tiny else NUM_WORDS
    for dtype in (torch.float32, torch.bfloat16):
        generator = torch.Generator(device).manual_seed(SEED)
        values = torch.randn(size, generator=generator, device=device, dtype=dtype)
        words = values.view(WORDS[dtype])
        calls: Calls = {"read": words.amax}
        loops = {"torch": selecting_reference} | ({"triton": load_loops("selecting")} if with_triton else {})
        for name, kernels in loops.items():
            calls |= {f"{what}, {name}": call for what, call in list_selecting(words, dtype, kernels).items()}
        calls |= list_zeroing(words, with_triton=with_triton) | list_ranking(words, dtype, with_triton=with_triton)
        found[f"loops, {dtype}"] = describe(take_turns(calls, 5), words.nbytes)
        found[f"masks, {dtype}"] = measure_masks(values, take_turns, with_triton=with_triton)
    return found


def describe(seconds: dict[str, dict[str, float]], num_bytes_read: int) -> dict[str, Any]:
    """Returns beside the seconds of each call the bytes of words a second, and its time over one read."""
    read = seconds["read"]["median"]
    return {
        name: {**times, "gb_a_second": num_bytes_read / times["median"] / 1e9, "over_read": times["median"] / read}
        for name, times in seconds.items()
    }


def list_selecting(words: Tensor, dtype: torch.dtype, kernels: Any) -> Calls:  # noqa: ANN401 - a module
    """Returns what is called of the loops of selection."""
    infinity, size = find_infinity(dtype), words.numel()
    patterns = (words & torch.iinfo(words.dtype).max).cpu().numpy()
    lo, middle, hi = (int(at) for at in np.quantile(patterns, [0.5 - SHARE_INSIDE / 2, 0.5, 0.5 + SHARE_INSIDE / 2]))
    bits, room = torch.empty(num_bytes(size), dtype=torch.uint8), size // 16
    listed = Listed(np.empty(room, np.int32), np.empty(room, patterns.dtype))
    shift = max(0, infinity.bit_length() - NUM_BINS_BITS)
    bracket = Bracket(0, infinity - 1, shift)
    bins = np.zeros(bracket.num_bins, np.int64)
    return {
        "count": lambda: kernels.count_patterns(words, None, bracket, bins, infinity),
        "classify": lambda: kernels.classify(words, None, (lo, hi), bits, listed, infinity),
        "pack": lambda: kernels.pack_above(words, None, middle, bits),
        "keep equal": lambda: kernels.keep_first_equal(words, None, middle, 1, bits),
    }


def list_zeroing(words: Tensor, *, with_triton: bool) -> Calls:
    """Returns what is called to zero half of the words: by bytes as holding keeps them, and by bits as it does not."""
    kept = torch.randint(2, words.shape, generator=torch.Generator().manual_seed(SEED)).bool()
    bits, target = pack_bits(kept).to(words.device), words.clone()
    pruned = ~kept.to(words.device)
    calls: Calls = {
        "zero by bytes, torch": lambda: target.masked_fill_(pruned, 0),
        "zero by bits, torch": lambda: target.masked_fill_(~unpack_bits(bits, target.shape), 0),
    }
    if with_triton:
        calls["zero by bits, triton"] = lambda: load_loops("zeroing").zero_pruned_words(target, bits)
    return calls


def list_ranking(words: Tensor, dtype: torch.dtype, *, with_triton: bool) -> Calls:
    """Returns what is called to code weights, and to multiply ranks of codes that lie on the CPU."""
    codes = torch.empty(words.numel(), dtype=torch.int16)
    ranking_reference.clear_signs(words.view(torch.int16)[: words.numel()], codes)
    held, ranks = codes.numpy().view(np.uint16), np.arange(1 << 16, dtype=np.uint32)
    table = np.arange(1 << 16, dtype=np.uint32) << np.uint32(16)
    given: tuple[Any, ...] = (codes,) if dtype == torch.bfloat16 else (table, codes)
    calls: Calls = {}
    loops = {"torch": ranking_reference, "numba": ranking_cpu} | (
        {"triton": load_loops("ranking")} if with_triton else {}
    )
    for name, kernels in loops.items():
        calls[f"multiply ranks, {name}"] = partial(kernels.sum_products, held, held, ranks, ranks)
        if name != "numba":
            code = kernels.clear_signs if dtype == torch.bfloat16 else kernels.encode
            calls[f"code, {name}"] = partial(code, words, *given)
    return calls


def measure_masks(values: Tensor, take_turns: TakeTurns, *, with_triton: bool) -> dict[str, Any]:
    """Returns how long an exact mask of many tensors takes by each backend, and in how many bytes they differ."""
    scores = Weights.from_tensors({str(place): values.roll(place) for place in range(NUM_TENSORS)})
    backends: tuple[Backend, ...] = ("reference", "triton") if with_triton else ("reference",)
    masks = [select_largest(scores, scores.num_weights // 2, backend=backend) for backend in backends]
    calls: Calls = {"read": lambda: [weight.read(0, weight.size).amax() for weight in scores.values()]}
    for backend in backends:
        calls[f"mask, {backend}"] = partial(select_largest, scores, scores.num_weights // 2, backend=backend)
    return {
        "num_weights": scores.num_weights,
        "different_bytes": sum(int((masks[0][name] != masks[-1][name]).sum()) for name in scores),
        **describe(take_turns(calls, 5), values.nbytes * NUM_TENSORS),
    }
