"""The selector against a sort, backend against backend, and its laws."""

import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils import prune

from lottery_tickets._core.bits import count_bits, pack_bits, unpack_bits
from lottery_tickets._core.selection import largest, one_pass, patterns
from lottery_tickets._core.selection.backends import Backend, kernels_for
from lottery_tickets._core.weights import Weights, slice_flat
from tests.reference import kept_by_sorting
from tests.strategies import score_lists

BACKENDS: tuple[Backend, ...] = ("reference", "small", "cpu")


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks so small that a few hundred elements make many; and a sample guesses the bracket of them."""
    monkeypatch.setattr(patterns, "WEIGHTS_PER_CHUNK", 64)
    monkeypatch.setattr(patterns, "WEIGHTS_PER_COPIED_CHUNK", 32)
    monkeypatch.setattr(largest, "SMALLEST_TO_SAMPLE", 1)
    monkeypatch.setattr(one_pass, "NUM_SAMPLED", 20)


def select_largest(
    scores: Sequence[Tensor], num_kept: int, within: Sequence[Tensor] | None = None, backend: Backend | None = None
) -> list[Tensor]:
    """Returns what the selector keeps of scores that are called "0", "1" and so on."""
    weights = Weights.from_tensors({str(place): score for place, score in enumerate(scores)})
    eligible = None if within is None else {str(place): bits for place, bits in enumerate(within)}
    bits = largest.select_largest(weights, num_kept, within=eligible, backend=backend)
    assert list(bits) == list(weights)
    return list(bits.values())


def unpacked(bits: Sequence[Tensor], scores: Sequence[Tensor]) -> list[Tensor]:
    return [unpack_bits(packed, score.shape) for packed, score in zip(bits, scores, strict=True)]


def assert_same(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    assert len(found) == len(expected)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
@given(scores=score_lists(), data=st.data())
@settings(max_examples=150, deadline=None)
def test_every_backend_keeps_what_a_stable_sort_keeps(
    backend: Backend, scores: list[Tensor], data: st.DataObject
) -> None:
    num_kept = data.draw(st.integers(0, sum(score.numel() for score in scores)))
    found = select_largest(scores, num_kept, backend=backend)
    assert_same(unpacked(found, scores), kept_by_sorting(scores, num_kept))
    assert sum(map(count_bits, found)) == num_kept  # padding bits are zero


@pytest.mark.usefixtures("small_chunks", "three_threads")
@pytest.mark.parametrize("backend", BACKENDS)
def test_chunks_a_sample_and_an_earlier_mask_change_nothing(backend: Backend) -> None:
    @given(scores=score_lists(), data=st.data())
    @settings(max_examples=150, deadline=None)
    def check(scores: list[Tensor], data: st.DataObject) -> None:
        generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
        eligible = [torch.rand(score.shape, generator=generator) < 0.6 for score in scores]
        num_kept = data.draw(st.integers(0, sum(int(one.sum()) for one in eligible)))
        found = select_largest(scores, num_kept, within=[pack_bits(one) for one in eligible], backend=backend)
        assert_same(unpacked(found, scores), kept_by_sorting(scores, num_kept, eligible))

    check()


@pytest.mark.parametrize("smallest_to_sample", [1, 1 << 40])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1024, 4095, 4096, 5001])
def test_whole_blocks_and_what_is_left_over_are_selected_alike(
    monkeypatch: pytest.MonkeyPatch, size: int, dtype: torch.dtype, smallest_to_sample: int
) -> None:
    monkeypatch.setattr(largest, "SMALLEST_TO_SAMPLE", smallest_to_sample)
    generator = torch.Generator().manual_seed(size)
    scores = [(torch.randn(size, generator=generator) * 50).round().to(dtype) / 8]  # many are equal
    eligible = [torch.rand(size, generator=generator) < 0.7]
    for backend in BACKENDS:
        for num_kept in (1, size // 3, size // 2 + 1):
            within = select_largest(scores, num_kept, within=[pack_bits(eligible[0])], backend=backend)
            assert_same(unpacked(within, scores), kept_by_sorting(scores, num_kept, eligible))
            found = select_largest(scores, num_kept, backend=backend)
            assert_same(unpacked(found, scores), kept_by_sorting(scores, num_kept))


@given(scores=score_lists(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_sparser_is_a_subset(scores: list[Tensor], data: st.DataObject) -> None:
    more = data.draw(st.integers(0, sum(score.numel() for score in scores)))
    fewer = data.draw(st.integers(0, more))
    large, small = select_largest(scores, more), select_largest(scores, fewer)
    assert all(int((one & ~other).sum()) == 0 for one, other in zip(small, large, strict=True))
    assert_same(select_largest(scores, fewer, within=large), small)


@given(scores=score_lists(), exponent=st.integers(-2, 2), data=st.data())
@settings(max_examples=60, deadline=None)
def test_scale_and_sign_do_not_matter(scores: list[Tensor], exponent: int, data: st.DataObject) -> None:
    num_kept = data.draw(st.integers(0, sum(score.numel() for score in scores)))
    scaled = [score.to(torch.float64) * -(2.0**exponent) for score in scores]
    assert_same(select_largest(scaled, num_kept), select_largest(scores, num_kept))


@given(seed=st.integers(0, 1000), num_kept=st.integers(0, 97))
@settings(max_examples=40, deadline=None)
def test_permuting_weights_without_ties_permutes_the_mask(seed: int, num_kept: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    score = torch.randn(97, generator=generator)
    assume(len(score.abs().unique()) == 97)
    order = torch.randperm(97, generator=generator)
    [bits], [permuted] = select_largest([score], num_kept), select_largest([score[order]], num_kept)
    assert torch.equal(unpack_bits(bits, [97])[order], unpack_bits(permuted, [97]))


@given(scores=score_lists(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_sharding_a_tensor_changes_nothing(scores: list[Tensor], data: st.DataObject) -> None:
    assume(scores and scores[0].ndim and len(scores[0]) > 1)
    cut = data.draw(st.integers(0, len(scores[0])))
    num_kept = data.draw(st.integers(0, sum(score.numel() for score in scores)))
    shards = [scores[0][:cut], scores[0][cut:], *scores[1:]]
    first, second, *rest = unpacked(select_largest(shards, num_kept), shards)
    assert_same([torch.cat([first, second]), *rest], unpacked(select_largest(scores, num_kept), scores))


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_magnitudes_are_kept_in_order_of_position(backend: Backend) -> None:
    # jaxpruner's rule: jax.lax.top_k of the flattened scores keeps the lower index of equal ones.
    scores = [torch.tensor([0.0, -1.0]), torch.tensor([[1.0, -1.0], [2.0, 1.0]])]
    assert [b.tolist() for b in select_largest(scores, 3, backend=backend)] == [[0b10], [0b0101]]
    assert [b.tolist() for b in select_largest(scores, 1, backend=backend)] == [[0], [0b0100]]


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_tensors_are_selected_exactly(backend: Backend, dtype: torch.dtype) -> None:
    # Above the size from which a sample guesses the bracket, over several chunks, with sizes that are no multiple of 8.
    generator = torch.Generator().manual_seed(0)
    scores = [torch.randn(n, generator=generator).to(dtype) for n in (1_500_003, 7, 700_001)]
    num_kept = 220_001
    expected = kept_by_sorting(scores, num_kept)
    assert_same(unpacked(select_largest(scores, num_kept, backend=backend), scores), expected)


def test_a_wrong_guess_costs_a_pass_and_not_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(largest, "SMALLEST_TO_SAMPLE", 1)
    scores = [torch.randn(5000, generator=torch.Generator().manual_seed(1))]
    for guess in ((0, 0), (0, 10), (2_000_000_000, 2_100_000_000), (1, 2_139_095_039)):
        monkeypatch.setattr(largest, "guess_bracket", lambda *_, guess=guess: guess)
        for backend in BACKENDS:
            assert_same(unpacked(select_largest(scores, 777, backend=backend), scores), kept_by_sorting(scores, 777))


@pytest.mark.parametrize("backend", BACKENDS)
@given(scores=score_lists(), data=st.data())
@settings(max_examples=100, deadline=None)
def test_any_guess_keeps_what_a_stable_sort_keeps(backend: Backend, scores: list[Tensor], data: st.DataObject) -> None:
    num_kept = data.draw(st.integers(0, sum(score.numel() for score in scores)))
    weights = Weights.from_tensors({str(place): score for place, score in enumerate(scores)})
    magnitudes = patterns.Magnitudes(weights)
    assume(magnitudes.num_eligible > 0)
    guess = sorted(data.draw(st.tuples(*[st.integers(0, magnitudes.infinity - 1)] * 2)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one_pass, "LARGEST_SHARE", data.draw(st.sampled_from([1, 16])))
        patch.setattr(patterns, "WEIGHTS_PER_CHUNK", 64)
        kernels, bounds = kernels_for(magnitudes, backend), (guess[0], guess[1])
        side, bits = None, {}
        try:
            bits = one_pass.select_in_one_pass(magnitudes, kernels, num_kept, bounds)
        except one_pass.MissedError as missed:
            side = missed.side
        words = [magnitudes.words(chunk) for chunk in magnitudes.chunks()]
    if side is None:
        assert_same(unpacked(list(bits.values()), scores), kept_by_sorting(scores, num_kept))
    elif side:
        num_above = sum(int(((word & torch.iinfo(word.dtype).max) > guess[1]).sum()) for word in words)
        assert (side > 0) == (num_above > num_kept)


def test_a_guess_that_lists_too_many_is_given_up() -> None:
    magnitudes = patterns.Magnitudes(Weights.from_tensors({"w": torch.ones(1000)}))
    kernels, everything = kernels_for(magnitudes, "cpu"), (0, magnitudes.infinity - 1)
    with pytest.raises(one_pass.MissedError, match="not where a sample of the weights suggests"):
        one_pass.select_in_one_pass(magnitudes, kernels, 500, everything)


def test_bfloat16_has_few_magnitudes_and_the_count_is_still_exact() -> None:
    # 16.8 M bf16 weights have about 2,500 distinct magnitudes; here 300,000. Comparing with the k-th misses the count.
    weight = (torch.randn(300_000, generator=torch.Generator().manual_seed(0)) * 0.02).bfloat16()
    num_kept = 30_000
    threshold = weight.float().abs().sort(descending=True).values[num_kept - 1]
    assert len(weight.abs().unique()) < 3000
    assert int((weight.abs() >= threshold).sum()) != num_kept
    assert int((weight.abs() > threshold).sum()) != num_kept
    assert sum(map(count_bits, select_largest([weight], num_kept))) == num_kept


def test_open_lth_keeps_nothing_of_equal_weights_and_we_keep_the_count() -> None:
    weight = torch.full((10, 10), 0.25)
    assert not bool((weight > weight.flatten().sort().values[20]).any())  # its comparison
    assert count_bits(select_largest([weight], 80)[0]) == 80


def test_open_lth_prunes_one_too_many_and_we_do_not() -> None:
    weight = torch.arange(1.0, 101.0)
    threshold = weight.sort().values[20]  # 20 are to be pruned; it compares with the 21st by >
    assert int((weight > threshold).sum()) == 79
    assert count_bits(select_largest([weight], 80)[0]) == 80


def test_one_outlier_does_no_harm() -> None:
    # A histogram of fixed width over [min, max]: with one outlier of 50, asking for 0.9 gave 0.000001.
    weight = torch.randn(100_000, generator=torch.Generator().manual_seed(0)) * 0.02
    weight[123] = 50.0
    width = 50.0 / 1000
    assert float((weight.abs() < width).float().mean()) > 0.95  # nearly all weights fall in one bin
    [bits] = select_largest([weight], 10_000)
    assert count_bits(bits) == 10_000
    assert bool(unpack_bits(bits, [100_000])[123])


def test_extremes_of_the_float_range_are_ranked() -> None:
    finite = torch.finfo(torch.float64)
    score = torch.tensor([0.0, -0.0, 5e-324, -finite.max, finite.tiny], dtype=torch.float64)
    expected = [0b01000, 0b11000, 0b11100, 0b11101, 0b11111]
    assert [int(select_largest([score], k)[0]) for k in range(1, 6)] == expected


def test_torch_prune_agrees_where_there_are_no_ties() -> None:
    layers = [torch.nn.Linear(40, 30), torch.nn.Linear(30, 20)]
    values = torch.randperm(1800, generator=torch.Generator().manual_seed(0)) - 900.25
    weights = [part.view(layer.weight.shape) for part, layer in zip(values.split([1200, 600]), layers, strict=True)]
    for layer, weight in zip(layers, weights, strict=True):
        layer.weight = torch.nn.Parameter(weight)
    prune.global_unstructured([(layer, "weight") for layer in layers], pruning_method=prune.L1Unstructured, amount=1234)
    masks = [layer.get_buffer("weight_mask").bool() for layer in layers]
    assert_same(unpacked(select_largest(weights, 1800 - 1234), weights), masks)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("num_kept", [0, 2, 4])
def test_what_is_not_finite_is_refused_by_name(backend: Backend, value: float, num_kept: int) -> None:
    scores = [torch.ones(2), torch.tensor([1.0, value])]
    with pytest.raises(ValueError, match="'1' must be finite to be ranked, but holds NaN or infinity"):
        select_largest(scores, num_kept, backend=backend)


@pytest.mark.usefixtures("three_threads")
def test_what_is_not_finite_is_refused_from_threads_too() -> None:
    score = torch.ones(3_000_000)
    score[2_999_999] = torch.nan
    with pytest.raises(ValueError, match="'0' must be finite"):
        select_largest([score], 5, backend="cpu")


@pytest.mark.parametrize(
    ("scores", "num_kept", "within", "error", "message"),
    [
        ([torch.ones(3)], 4, None, ValueError, "num_kept must be from 0 to the 3 eligible elements, got 4"),
        ([torch.ones(3)], -1, None, ValueError, "num_kept must be from 0 to the 3 eligible elements, got -1"),
        (
            [torch.ones(3)],
            3,
            [pack_bits(torch.tensor([True, False, True]))],
            ValueError,
            "the 2 eligible elements, got 3",
        ),
        ([torch.ones(3)], 1, [], ValueError, "`within` must have the same names as the scores"),
        ([torch.ones(9)], 1, [torch.zeros(1, dtype=torch.uint8)], ValueError, "must be 2 bytes of packed bits"),
        ([torch.ones(3)], 1, [torch.ones(1)], ValueError, "must be 1 bytes of packed bits, got torch.float32"),
        ([torch.ones(3, dtype=torch.int64)], 1, None, TypeError, "'0' must be of a float dtype"),
        ([torch.ones(3, dtype=torch.complex64)], 1, None, TypeError, "'0' must be of a float dtype"),
    ],
)
def test_bad_arguments_are_refused(
    scores: list[Tensor], num_kept: int, within: list[Tensor] | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        select_largest(scores, num_kept, within=within)


def test_nothing_is_selected_from_nothing() -> None:
    assert select_largest([], 0) == []
    assert [bits.shape for bits in select_largest([torch.empty(0, 3), torch.tensor(1.0)], 1)] == [(0,), (1,)]


def test_the_scores_stay_as_they_are_and_their_gradient_does_not_matter() -> None:
    score = torch.randn(100, requires_grad=True)
    before = score.detach().clone()
    select_largest([score], 10)
    assert torch.equal(score, before)
    assert score.grad is None


@given(seed=st.integers(0, 100), data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_slice_of_a_strided_tensor_is_what_flattening_gives(seed: int, data: st.DataObject) -> None:
    generator = np.random.default_rng(seed)
    tensor = torch.from_numpy(generator.normal(size=(7, 5, 9))).permute(*generator.permutation(3).tolist())
    start = data.draw(st.integers(0, tensor.numel()))
    stop = data.draw(st.integers(start, tensor.numel()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patterns, "WEIGHTS_PER_COPIED_CHUNK", data.draw(st.sampled_from([4, 20, 1000])))
        if start < stop:
            assert torch.equal(slice_flat(tensor, start, stop), tensor.flatten()[start:stop])


def test_small_models_do_not_import_numba() -> None:
    code = (
        "import sys, torch; from lottery_tickets._core.selection.largest import select_largest;"
        "from lottery_tickets._core.weights import Weights;"
        "select_largest(Weights.from_tensors({'w': torch.randn(300, 784)}), 100); sys.exit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
