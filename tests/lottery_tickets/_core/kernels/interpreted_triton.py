"""The loops in Triton against the reference, in Triton's interpreter: `test_interpreted.py` runs this."""

from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from triton.runtime.interpreter import InterpreterBuilder

from lottery_tickets._core.bits import num_bytes, pack_bits, unpack_bits
from lottery_tickets._core.kernels import (
    blocks_triton,
    ranking_reference,
    ranking_triton,
    selecting_reference,
    selecting_triton,
    zeroing_triton,
)
from lottery_tickets._core.kernels.cases import find_infinity
from lottery_tickets._core.kernels.comparing import compare_triton
from lottery_tickets._core.kernels.selecting_reference import Listed
from lottery_tickets._core.kernels.trusted import Family, find_trusted
from lottery_tickets._core.selection import largest, one_pass, patterns, zeroing
from lottery_tickets._core.selection.largest import select_largest
from lottery_tickets._core.selection.patterns import WORDS
from lottery_tickets._core.selection.zeroing import PrunedPlaces, zero_pruned_
from lottery_tickets._core.thresholds import Bracket
from lottery_tickets._core.weights import Weights
from lottery_tickets.early_bird.rank_correlation import correlate_ranks, rank_shares
from lottery_tickets.early_bird.snapshots import take_snapshot
from tests.reference import kept_by_sorting
from tests.strategies import score_lists

SMALL_BLOCK = 32  # so that few weights make many blocks
SIZES = st.one_of(st.integers(0, 9), st.integers(0, 200), st.sampled_from([31, 32, 33, 63, 64, 65, 128]))


@pytest.fixture(autouse=True, scope="module")
def _small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        for module in (blocks_triton, selecting_triton):
            patched.setattr(module, "BLOCK", SMALL_BLOCK)
        yield


@st.composite
def bit_patterns(draw: st.DrawFn, dtype: torch.dtype | None = None) -> tuple[torch.dtype, Tensor]:
    """Floats of any bits, NaN and infinity too, as integers: all different, or a few of them many times."""
    dtype = draw(st.sampled_from(list(WORDS))) if dtype is None else dtype
    info = torch.iinfo(WORDS[dtype])
    size, seed = draw(SIZES), draw(st.integers(0, 2**32))
    generator = torch.Generator().manual_seed(seed)
    any_bits = torch.randint(info.min, info.max, (size,), generator=generator, dtype=WORDS[dtype])
    if draw(st.booleans()):
        return dtype, any_bits
    levels = torch.tensor([0, info.min, 1, find_infinity(dtype) - 1, 7, find_infinity(dtype), -1], dtype=WORDS[dtype])
    num_levels = draw(st.integers(1, len(levels)))
    return dtype, levels[torch.randint(num_levels, (size,), generator=generator)]


@st.composite
def eligible_bits(draw: st.DrawFn, size: int) -> Tensor | None:
    if draw(st.booleans()):
        return None
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    return pack_bits(torch.rand(size, generator=generator) < draw(st.sampled_from([0.0, 0.5, 1.0])))


def draw_pattern(data: st.DataObject, words: Tensor, infinity: int) -> int:
    """Draws one of the patterns, or any other."""
    held = [pattern for pattern in (words & torch.iinfo(words.dtype).max).tolist() if pattern <= infinity]
    return data.draw(st.sampled_from(held) | st.integers(0, infinity) if held else st.integers(0, infinity))


@given(given_words=bit_patterns(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_patterns_are_counted_as_by_the_reference(given_words: tuple[torch.dtype, Tensor], data: st.DataObject) -> None:
    dtype, words = given_words
    infinity = find_infinity(dtype)
    lo, hi = sorted(draw_pattern(data, words, infinity) for _ in range(2))
    bracket = Bracket(lo, hi, max(0, (hi - lo).bit_length() - data.draw(st.integers(1, 9))))
    within = data.draw(eligible_bits(len(words)))
    found = []
    for loops in (selecting_reference, selecting_triton):
        bins = np.arange(bracket.num_bins, dtype=data.draw(st.sampled_from([np.int32, np.int64])))
        found.append((*loops.count_patterns(words, within, bracket, bins, infinity), bins.tolist()))
    assert found[0] == found[1]


@given(given_words=bit_patterns(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_weights_are_classified_as_by_the_reference(
    given_words: tuple[torch.dtype, Tensor], data: st.DataObject
) -> None:
    dtype, words = given_words
    infinity = find_infinity(dtype)
    lo, hi = sorted(draw_pattern(data, words, infinity) for _ in range(2))
    within, room = data.draw(eligible_bits(len(words))), data.draw(st.integers(0, len(words)))
    found = []
    for loops in (selecting_reference, selecting_triton):
        bits = torch.full((num_bytes(len(words)),), 255, dtype=torch.uint8)
        listed = Listed(np.zeros(room, np.int32), np.zeros(room, words.numpy().dtype))
        told = loops.classify(words, within, (lo, hi), bits, listed, infinity)
        found.append((told, bits.tolist(), listed.positions.tolist(), listed.patterns.tolist()))
    assert found[0] == found[1]


@given(given_words=bit_patterns(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_weights_are_packed_and_equal_ones_kept_as_by_the_reference(
    given_words: tuple[torch.dtype, Tensor], data: st.DataObject
) -> None:
    dtype, words = given_words
    threshold = data.draw(st.just(-1) | st.just(draw_pattern(data, words, find_infinity(dtype))))
    within, quota = data.draw(eligible_bits(len(words))), data.draw(st.integers(1, len(words) + 2))
    found = []
    for loops in (selecting_reference, selecting_triton):
        bits = torch.full((num_bytes(len(words)),), 255, dtype=torch.uint8)
        num_equal = loops.pack_above(words, within, threshold, bits)
        above = bits.tolist()
        loops.keep_first_equal(words, within, threshold, quota, bits)
        found.append((num_equal, above, bits.tolist()))
    assert found[0] == found[1]


@pytest.mark.parametrize("dtype", WORDS)
@pytest.mark.parametrize("quota", [1, 20, 32, 33, 64, 70, 110])
def test_equal_weights_of_many_blocks_are_kept_in_order(dtype: torch.dtype, quota: int) -> None:
    words = torch.zeros(4 * SMALL_BLOCK + 3, dtype=WORDS[dtype])
    words[::6], words[5::7] = 9, torch.iinfo(words.dtype).min  # the latter are zeros of the other sign
    bits = torch.zeros(2, num_bytes(len(words)), dtype=torch.uint8)
    for loops, packed in zip((selecting_reference, selecting_triton), bits, strict=True):
        loops.keep_first_equal(words, None, 0, quota, packed)
    assert torch.equal(*bits)


@given(given_words=bit_patterns(torch.float32), share=st.integers(1, 1 << 30), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_codes_are_made_as_by_the_reference(given_words: tuple[torch.dtype, Tensor], share: int, seed: int) -> None:
    words = given_words[1]
    table = np.random.default_rng(seed).integers(0, 1 << 32, 1 << 16, dtype=np.uint32)
    table = (table & np.uint32(0xFFFF0000)) | (table % np.uint32(0xFFFF)).astype(np.uint32) % (
        np.uint32(0x10000) - (table >> np.uint32(16))
    )  # a bin's last code is at most 65,535
    halves = words.view(torch.int16)
    found = []
    for loops in (ranking_reference, ranking_triton):
        bins, codes, signless = np.ones(1 << 16, np.int64), torch.zeros_like(words).short(), torch.zeros_like(halves)
        loops.count_bins(words, share, bins)
        loops.encode(words, table, codes)
        largest = loops.clear_signs(halves, signless) if len(halves) else 0
        found.append(
            (bins.nonzero()[0].tolist(), int(bins @ np.arange(1 << 16)), codes.tolist(), largest, signless.tolist())
        )
    assert found[0] == found[1]


@given(size=st.integers(1, 200), seed=st.integers(0, 1000), largest=st.sampled_from([1, 1000, 2**32 - 1]))
@settings(max_examples=40, deadline=None)
def test_codes_are_counted_and_ranks_multiplied_as_by_the_reference(size: int, seed: int, largest: int) -> None:
    generator = np.random.default_rng(seed)
    codes = [generator.integers(0, 1 << 16, size, dtype=np.uint16) for _ in range(2)]
    ranks = [generator.integers(0, largest, 1 << 16, dtype=np.uint32, endpoint=True) for _ in range(2)]
    found = []
    for loops in (ranking_reference, ranking_triton):
        counts = np.ones(1 << 16, np.uint32)
        loops.count_codes(codes[0], counts)
        found.append((counts.tolist(), loops.sum_products(*codes, *ranks)))
    assert found[0] == found[1]
    assert found[1][1] == sum(int(ranks[0][one]) * int(ranks[1][other]) for one, other in zip(*codes, strict=True))


@given(given_words=bit_patterns(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_what_is_pruned_becomes_zero_and_nothing_else_changes(
    given_words: tuple[torch.dtype, Tensor], data: st.DataObject
) -> None:
    dtype, words = given_words
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    kept = torch.rand(words.shape, generator=generator) < data.draw(st.sampled_from([0.0, 0.5, 1.0]))
    wanted = torch.where(kept, words, 0)
    values = words.clone().view(dtype)
    assert zeroing_triton.any_pruned_word(values.view(words.dtype), pack_bits(kept)) == bool((values[~kept] != 0).any())
    zeroing_triton.zero_pruned_words(values.view(words.dtype), pack_bits(kept))
    assert torch.equal(values.view(words.dtype), wanted)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of a few blocks, so that a few hundred elements make many; and a sample guesses the bracket of them."""
    for module in (blocks_triton, selecting_triton):
        monkeypatch.setattr(module, "BLOCK", 256)
    monkeypatch.setattr(selecting_triton, "NUM_BINS", 1 << 9)
    monkeypatch.setattr(patterns, "WEIGHTS_PER_CHUNK", 640)
    monkeypatch.setattr(patterns, "WEIGHTS_PER_COPIED_CHUNK", 480)
    monkeypatch.setattr(largest, "SMALLEST_TO_SAMPLE", 1)
    monkeypatch.setattr(one_pass, "NUM_SAMPLED", 20)


@pytest.mark.usefixtures("small_chunks")
def test_masks_are_those_of_a_stable_sort() -> None:
    @given(scores=score_lists(), data=st.data())
    @settings(max_examples=15, deadline=None)
    def check(scores: list[Tensor], data: st.DataObject) -> None:
        generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
        eligible = [torch.rand(score.shape, generator=generator) < 0.6 for score in scores]
        num_kept = data.draw(st.integers(0, sum(int(one.sum()) for one in eligible)))
        weights = Weights.from_tensors({str(place): score for place, score in enumerate(scores)})
        within = {str(place): pack_bits(one) for place, one in enumerate(eligible)}
        bits = select_largest(weights, num_kept, within=within, backend="triton").values()
        found = [unpack_bits(packed, score.shape) for packed, score in zip(bits, scores, strict=True)]
        wanted = kept_by_sorting(scores, num_kept, eligible)
        assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))

    check()


@pytest.fixture
def whole_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (blocks_triton, selecting_triton):
        monkeypatch.setattr(module, "BLOCK", 4096)


@pytest.mark.usefixtures("whole_blocks")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_snapshots_and_correlations_are_those_of_the_reference(dtype: torch.dtype) -> None:
    sides = [
        {"a": torch.randn(97, 50).to(dtype).T, "none": torch.zeros(0, dtype=dtype), "b": torch.randn(33).to(dtype)}
        for _ in range(2)
    ]
    found: list[list[Any]] = []
    for backend in ("reference", "triton"):
        snapshots = [take_snapshot(Weights.from_tensors(side), backend=backend) for side in sides]
        codes = [snapshot.codes[name].tolist() for snapshot in snapshots for name in snapshot.codes]
        shares = {name: share.tolist() for name, share in rank_shares(snapshots[0], backend=backend).items()}
        found.append([codes, shares, correlate_ranks(*snapshots, backend=backend)])
    assert found[0] == found[1]


@pytest.mark.usefixtures("whole_blocks")
def test_a_mask_is_held_by_loops_that_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU; here the loops for the CPU are taken away, and Triton's must do all."""
    monkeypatch.setattr(zeroing, "_see_words", lambda _: None)
    monkeypatch.setattr(zeroing, "SMALLEST_FOR_TRITON", 1)
    values = torch.randn(7, 45).half()
    kept = torch.rand(7, 45) < 0.5
    bits, wanted = pack_bits(kept), torch.where(kept, values, 0)
    assert find_trusted("zeroing", values.device, values.dtype) is zeroing_triton
    zero, any_nonzero = Mock(wraps=zeroing_triton.zero_pruned_words), Mock(wraps=zeroing_triton.any_pruned_word)
    monkeypatch.setattr(zeroing_triton, "zero_pruned_words", zero)
    monkeypatch.setattr(zeroing_triton, "any_pruned_word", any_nonzero)
    places = PrunedPlaces(bits, compiled=False, unpacked=False)
    first, second, third = values.clone(), values.clone(), values.clone().T
    assert places.any_nonzero(first)
    places.zero_(first)
    assert not places.any_nonzero(first)
    zero_pruned_(second, bits)
    zero_pruned_(third, pack_bits(kept.T))  # not contiguous: plain torch
    assert (zero.call_count, any_nonzero.call_count) == (2, 2)
    assert torch.equal(first, wanted)
    assert torch.equal(second, wanted)
    assert torch.equal(third.T, wanted)


@pytest.mark.usefixtures("whole_blocks")
@pytest.mark.parametrize("family", ["selecting", "ranking", "zeroing"])
def test_whole_blocks_agree_and_what_does_not_agree_is_not_trusted(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compare_triton(family, "cpu", sizes=(4097,)) >= 16
    find_trusted.cache_clear()
    assert find_trusted(family, torch.device("cpu"), torch.bfloat16) is not None
    find_trusted.cache_clear()
    monkeypatch.setattr(blocks_triton, "BLOCK", 2048)  # which misses
    monkeypatch.setattr(blocks_triton, "count_blocks", lambda _: 1)
    for module in (selecting_triton, ranking_triton, zeroing_triton):
        monkeypatch.setattr(module, "count_blocks", lambda _: 1)
    with pytest.warns(RuntimeWarning, match="differs from the reference; plain torch is used, which takes longer"):
        assert find_trusted(family, torch.device("cpu"), torch.bfloat16) is None
    assert find_trusted(family, torch.device("cpu"), torch.bfloat16) is None  # without a second warning
    find_trusted.cache_clear()


def test_weights_beyond_the_reach_of_32_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """One program runs, told that it is the one in which such weights lie; memory that nobody touches costs nothing."""
    monkeypatch.setattr(blocks_triton, "BLOCK", 1 << 12)
    beyond = 1 << 31
    monkeypatch.setattr(blocks_triton, "count_blocks", lambda _: 1)
    monkeypatch.setattr(zeroing_triton, "count_blocks", lambda _: (beyond >> 12) + 1)
    original = InterpreterBuilder.create_get_program_id

    def see_another(self: Any, axis: int) -> Any:  # noqa: ANN401 - Triton's
        number = original(self, axis)
        number.data = np.full_like(number.data, beyond >> 12)
        return number

    monkeypatch.setattr(InterpreterBuilder, "create_get_program_id", see_another)
    words = torch.empty(beyond + 20, dtype=torch.int8)
    bits = torch.empty(num_bytes(beyond + 20), dtype=torch.uint8)
    words[beyond:], bits[beyond // 8 :] = 5, 0b0101
    zeroing_triton.zero_pruned_words(words, bits)
    assert words[beyond:].tolist() == [5, 0, 5, 0, 0, 0, 0, 0] * 2 + [5, 0, 5, 0]
