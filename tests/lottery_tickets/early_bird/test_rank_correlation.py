"""Rank correlation of magnitudes against scipy, backend against backend, and its laws."""

import math
import subprocess
import sys
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from lottery_tickets._core.selection import patterns
from lottery_tickets._core.weights import Weights
from lottery_tickets.early_bird import rank_correlation, rank_tables, snapshots
from lottery_tickets.early_bird.rank_correlation import RankCorrelation, correlate_ranks, rank_shares
from lottery_tickets.early_bird.snapshots import Backend, kernels_for, take_snapshot
from tests.lottery_tickets.early_bird.magnitudes import BACKENDS, normal, uniform
from tests.strategies import score_lists, score_tensors

Side = Mapping[str, Tensor]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks so small that a few hundred weights make many, and all of them counted."""
    monkeypatch.setattr(patterns, "WEIGHTS_PER_CHUNK", 64)
    monkeypatch.setattr(patterns, "WEIGHTS_PER_COPIED_CHUNK", 32)
    monkeypatch.setattr(rank_correlation, "WEIGHTS_PER_CHUNK", 64)
    for module in (rank_correlation, snapshots):
        monkeypatch.setattr(module, "SMALLEST_TO_COUNT", 0)


def correlate(earlier: Side, later: Side, backend: Backend | None = None) -> RankCorrelation:
    snapshots = [take_snapshot(Weights.from_tensors(weights), backend=backend) for weights in (earlier, later)]
    return correlate_ranks(*snapshots, backend=backend)


def correlate_by_scipy(earlier: Tensor, later: Tensor) -> float | None:
    sides = [side.detach().to(torch.float64).abs().flatten().numpy() for side in (earlier, later)]
    if any(len(np.unique(side)) < 2 for side in sides):
        return None
    return float(stats.spearmanr(*sides).statistic)


def assert_near(found: RankCorrelation, earlier: Side, later: Side, tolerance: float) -> None:
    assert found.layers.keys() == earlier.keys()
    flat = [torch.cat([torch.empty(0), *(side[name].flatten() for name in earlier)]) for side in (earlier, later)]
    assert found.overall == pytest.approx(correlate_by_scipy(*flat), abs=tolerance)
    for name, value in found.layers.items():
        assert value == pytest.approx(correlate_by_scipy(earlier[name], later[name]), abs=tolerance)


@st.composite
def moments(draw: st.DrawFn, dtype: torch.dtype | None = None) -> tuple[Side, Side]:
    """Weights at two moments, with and without ties; of one dtype that is given, or else of any."""
    tensors = draw(score_lists() if dtype is None else st.lists(score_tensors(dtype), max_size=4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    noise = [draw(st.sampled_from([0.0, 0.1, 1.0])) * torch.randn(one.shape, generator=generator) for one in tensors]
    later = [(one.double() + more).to(one.dtype) for one, more in zip(tensors, noise, strict=True)]
    return {str(i): one for i, one in enumerate(tensors)}, {str(i): one for i, one in enumerate(later)}


# -------------------------------------------------------------------------------------------------------- against scipy


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_weights_of_few_bits_are_correlated_exactly(dtype: torch.dtype) -> None:
    @given(sides=moments(dtype))
    @settings(max_examples=60, deadline=None)
    def check(sides: tuple[Side, Side]) -> None:
        # torch has no cat for float8
        plain = [{name: one.float() for name, one in side.items()} for side in sides]
        assert_near(correlate(*sides), plain[0], plain[1], 1e-12)

    check()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_two_million_tied_magnitudes_are_correlated_exactly(dtype: torch.dtype) -> None:
    # torchmetrics 1.9.0 says 0.29 of such bfloat16 magnitudes where scipy says 0.85 (benchmarks/speed/ranking.py).
    earlier, later = normal(2_000_000) * 0.02, normal(2_000_000) * 0.02 + normal(2_000_000, seed=1) * 0.006
    earlier, later = earlier.to(dtype), later.to(dtype)
    assert len(earlier.abs().unique()) < 33_000
    assert_near(correlate({"w": earlier}, {"w": later}), {"w": earlier}, {"w": later}, 1e-12)


CASES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "normal": lambda z, _: 0.02 * z,
    "student_t_3": lambda z, u: 0.02 * z / (u.clamp(1e-4).log().neg() ** 0.5),
    "uniform_in_a_ten_thousandth": lambda z, _: 1 + 1e-4 * z.erf().abs(),
    "constant_with_signs_and_noise": lambda z, u: torch.where(u < 0.5, 0.05, -0.05) * (1 + 1e-5 * z),
    "nine_of_ten_pruned": lambda z, u: torch.where(u < 0.9, 0.0, z),
    "an_outlier": lambda z, _: torch.where(torch.arange(len(z)) == 7, 1e30, 0.02 * z),
    "all_subnormal": lambda z, _: 1e-41 * z,
    "all_orders_of_magnitude": lambda z, u: z.sign() * (200 * u - 100).exp2(),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("noise", [0.1, 1.0])
def test_float32_is_correlated_to_four_digits(name: str, noise: float) -> None:
    z, moved, u = normal(200_000), normal(200_000, seed=1), uniform(200_000, seed=2)
    earlier, later = CASES[name](z, u), CASES[name]((z + noise * moved) / math.hypot(1, noise), u)
    assert_near(correlate({"w": earlier}, {"w": later}), {"w": earlier}, {"w": later}, 1e-5)


@pytest.mark.parametrize(("num_layers", "tolerance"), [(40, 1e-4), (500, 5e-4)])
def test_layers_of_very_different_scales_each_have_codes(num_layers: int, tolerance: float) -> None:
    sizes = [(300, 2_000, 10_000)[i % 3] for i in range(num_layers)]
    scales = [10.0 ** (60 * i / num_layers - 30) for i in range(num_layers)]
    earlier = {str(i): scales[i] * normal(sizes[i], seed=i) for i in range(num_layers)}
    later = {str(i): earlier[str(i)] + 0.2 * scales[i] * normal(sizes[i], seed=-1 - i) for i in range(num_layers)}
    found = correlate(earlier, later)
    assert_near(found, earlier, later, tolerance)
    for i in range(num_layers):
        if sizes[i] > 300:
            assert found.layers[str(i)] == pytest.approx(correlate_by_scipy(earlier[str(i)], later[str(i)]), abs=1e-4)


def test_one_small_layer_beside_large_ones_has_codes() -> None:
    earlier = {"large": normal(1_000_000), "small": 1e-9 * normal(500, seed=1)}
    later = {"large": earlier["large"] * 2, "small": earlier["small"] + 3e-10 * normal(500, seed=2)}
    assert_near(correlate(earlier, later), earlier, later, 1e-5)


def test_a_float64_beyond_float32_is_the_largest() -> None:
    earlier = {"w": normal(1000).double()}
    later = {"w": earlier["w"].clone()}
    later["w"][earlier["w"].abs().argmax()] = -1e300
    assert correlate(earlier, later).overall == 1.0


def test_ranks_that_need_more_than_32_bits_are_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    # As with more than 2^31 weights, but with few bits instead.
    monkeypatch.setattr(rank_tables, "RANK_BITS", 16)
    earlier, later = {"w": normal(300_000)}, {"w": normal(300_000) + 0.3 * normal(300_000, seed=1)}
    assert_near(correlate(earlier, later, "cpu"), earlier, later, 1e-4)
    assert correlate(earlier, later, "cpu") == correlate(earlier, later, "reference")
    assert correlate(earlier, earlier, "cpu").overall == 1.0


def test_a_sum_of_squares_is_exact_however_many_are_tied() -> None:
    counts = np.array([3_000_000_000, 1, 0, 70_000, 5_000_000_000, 12])
    ranks = [2 * sum(counts[:i].tolist()) + int(count) for i, count in enumerate(counts)]
    squares = sum(int(count) * rank**2 for count, rank in zip(counts, ranks, strict=True))
    assert rank_tables.find_moments(counts) == (int(counts.sum()), int(counts.sum()) ** 2, squares)


@pytest.mark.parametrize("backend", BACKENDS)
def test_products_of_the_largest_ranks_are_summed_exactly(backend: Backend) -> None:
    codes, ranks = np.full(1000, 65_535, np.uint16), np.full(65_536, 2**32 - 1, np.uint32)
    assert kernels_for(0, backend).sum_products(codes, codes, ranks, ranks) == 1000 * (2**32 - 1) ** 2


# ----------------------------------------------------------------------------------------------------------------- laws


@given(sides=moments())
@settings(max_examples=100, deadline=None)
def test_backends_find_the_same_bits(sides: tuple[Side, Side]) -> None:
    one, other = (
        [take_snapshot(Weights.from_tensors(side), backend=backend) for side in sides] for backend in BACKENDS
    )
    for ours, theirs in zip(one, other, strict=True):
        assert all(torch.equal(codes, theirs.codes[name]) for name, codes in ours.codes.items())
        shares, their_shares = rank_shares(ours, backend="reference"), rank_shares(theirs, backend="cpu")
        assert all(torch.equal(share, their_shares[name]) for name, share in shares.items())
    found = correlate_ranks(*one, backend="reference")
    assert found == correlate_ranks(*other, backend="cpu")
    assert found == correlate_ranks(*one)  # of ranks that a snapshot has found once


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ranks_that_are_found_once_are_those_of_each_backend(dtype: torch.dtype) -> None:
    earlier = {"a": normal(900_001).to(dtype), "b": normal(77).to(dtype), "c": normal(100_000).to(dtype)}
    later = {name: weight + normal(*weight.shape, seed=1).to(dtype) for name, weight in earlier.items()}
    assert correlate(earlier, later) == correlate(earlier, later, "reference")
    tied = {name: torch.zeros_like(weight) for name, weight in earlier.items()}
    assert correlate(tied, later) == correlate(tied, later, "reference")
    nearly = {name: weight * (torch.arange(weight.numel()) % 7 == 0) for name, weight in earlier.items()}
    assert correlate(nearly, nearly) == correlate(nearly, nearly, "reference")


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_backends_find_the_same_bits_of_many_weights(dtype: torch.dtype) -> None:
    earlier = {"a": normal(2_500_001).to(dtype), "b": normal(77).to(dtype), "c": normal(100_000).to(dtype)}
    later = {name: weight + normal(*weight.shape, seed=1).to(dtype) for name, weight in earlier.items()}
    assert correlate(earlier, later, "reference") == correlate(earlier, later, "cpu")


@pytest.mark.parametrize("backend", [*BACKENDS, None])
def test_chunks_threads_and_sorting_change_nothing(backend: Backend | None, request: pytest.FixtureRequest) -> None:
    drawn: list[tuple[Side, Side, RankCorrelation]] = []

    @given(sides=moments())
    @settings(max_examples=60, deadline=None, database=None)
    def draw(sides: tuple[Side, Side]) -> None:
        drawn.append((*sides, correlate(*sides, backend)))

    draw()
    request.getfixturevalue("small_chunks")
    num_threads = torch.get_num_threads()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        assert all(correlate(earlier, later, backend) == expected for earlier, later, expected in drawn)
    torch.set_num_threads(num_threads)


@given(sides=moments(), seed=st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_order_signs_and_strides_do_not_matter(sides: tuple[Side, Side], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    orders = {name: torch.randperm(one.numel(), generator=generator) for name, one in sides[0].items()}
    signs = {name: torch.rand(one.shape, generator=generator) < 0.5 for name, one in sides[0].items()}

    def change(side: Side) -> Side:
        flipped = {name: torch.where(signs[name], one.double(), -one.double()) for name, one in side.items()}
        return {name: one.flatten()[orders[name]].to(side[name].dtype) for name, one in flipped.items()}

    assert correlate(*sides) == correlate(change(sides[0]), change(sides[1]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("exponent", [-3, 1, 2])
def test_powers_of_two_do_not_matter(dtype: torch.dtype, exponent: int) -> None:
    earlier = {"a": normal(5000).clamp(-8, 8).to(dtype), "b": 3 * normal(70).to(dtype)}
    later = {name: (weight + 0.1 * normal(*weight.shape, seed=1)).to(dtype) for name, weight in earlier.items()}
    # float16 has no room for small ones
    for side in (earlier, later):
        side.update({name: torch.where(one.abs() < 0.01, 0.01, one).to(dtype) for name, one in side.items()})
    scaled = {name: weight * 2.0**exponent for name, weight in later.items()}
    assert correlate(earlier, scaled) == correlate(earlier, later)


def test_monotone_transforms_do_not_matter() -> None:
    earlier, later = {"w": normal(100_000)}, {"w": normal(100_000) + normal(100_000, seed=1)}
    expected = correlate(earlier, later).overall
    for transformed in (later["w"] ** 3, later["w"].abs().exp(), -later["w"].abs().sqrt()):
        assert correlate(earlier, {"w": transformed}).overall == pytest.approx(expected, abs=1e-6)


@given(tensors=score_lists())
@settings(max_examples=60, deadline=None)
def test_what_is_identical_has_correlation_one(tensors: list[Tensor]) -> None:
    weights = {str(i): tensor for i, tensor in enumerate(tensors)}
    found = correlate(weights, weights)
    assert {found.overall, *found.layers.values()} <= {1.0, None}
    for name, weight in weights.items():
        if len(tensors) == 1 and len(weight.double().abs().unique()) > 1:
            assert found.layers[name] == 1.0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [100, 5000])
def test_reversed_ranks_have_correlation_minus_one(backend: Backend, size: int) -> None:
    weight = torch.arange(1.0, size + 1)
    assert correlate({"w": weight}, {"w": weight.flip(0)}, backend).overall == -1.0


def test_a_layer_of_one_magnitude_has_no_correlation() -> None:
    varied, constant = normal(10), torch.full((10,), 0.5) * normal(10).sign()
    assert correlate({"a": varied, "b": varied}, {"a": varied, "b": constant}).layers["b"] is None
    assert correlate({"a": constant}, {"a": varied}) == RankCorrelation(None, {"a": None})
    assert correlate({"a": constant, "b": 2 * constant}, {"a": constant, "b": 2 * constant}).overall == 1.0


@pytest.mark.parametrize("backend", BACKENDS)
def test_independent_weights_are_not_correlated(backend: Backend) -> None:
    earlier, later = normal(100_000), normal(100_000, seed=1)
    assert abs(correlate({"w": earlier}, {"w": later}, backend).overall or 1) < 0.01
    # Two sorted lists are: ranks must stay with their weights.
    assert correlate({"w": earlier.abs().sort().values}, {"w": later.abs().sort().values}).overall == pytest.approx(1)


def test_an_argsort_is_not_a_rank() -> None:
    earlier, later = normal(100_000), normal(100_000) + 0.1 * normal(100_000, seed=1)
    orders = torch.stack([side.abs().argsort().double() for side in (earlier, later)])
    assert abs(float(torch.corrcoef(orders)[0, 1])) < 0.1
    assert (correlate({"w": earlier}, {"w": later}).overall or 0) > 0.97


# ----------------------------------------------------------------------------------------------------- codes and shares


@given(tensor=score_tensors(torch.bfloat16), other=score_tensors(torch.bfloat16))
@settings(max_examples=60, deadline=None)
def test_rank_shares_are_mid_ranks_among_all_weights(tensor: Tensor, other: Tensor) -> None:
    shares = rank_shares(take_snapshot(Weights.from_tensors({"a": tensor, "b": other})))
    flat = torch.cat([tensor.flatten(), other.flatten()]).double().abs().numpy()
    doubled = (2 * stats.rankdata(flat) - 1).astype(np.int64) if flat.size else np.empty(0, np.int64)
    expected = doubled * 65_536 // (2 * max(1, flat.size))
    assert [shares["a"].shape, shares["b"].shape] == [tensor.shape, other.shape]
    assert [share.dtype for share in shares.values()] == [torch.uint16] * 2
    found = np.concatenate([share.flatten().numpy() for share in shares.values()])
    assert found.tolist() == expected.tolist()


# ---------------------------------------------------------------------------------------------------------------- edges


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_and_single_weights_have_no_correlation(backend: Backend) -> None:
    assert correlate({}, {}, backend) == RankCorrelation(None, {})
    weights = {"none": torch.empty(0, 3), "one": torch.tensor(1.5)}
    assert correlate(weights, weights, backend) == RankCorrelation(None, {"none": None, "one": None})
    assert take_snapshot(Weights.from_tensors(weights), backend=backend).codes["one"].shape == ()
    alone = {"none": torch.empty(0), "some": normal(30)}
    assert correlate(alone, alone, backend) == RankCorrelation(1.0, {"none": None, "some": 1.0})


def test_snapshots_of_different_models_are_refused() -> None:
    snapshot = take_snapshot(Weights.from_tensors({"a": torch.ones(2, 3), "b": torch.ones(2)}))
    with pytest.raises(ValueError, match=r"only one of them has 'c' \(1 such in all\); are they of one model"):
        correlate_ranks(
            snapshot,
            take_snapshot(Weights.from_tensors({"a": torch.ones(2, 3), "b": torch.ones(2), "c": torch.ones(2)})),
        )
    with pytest.raises(
        ValueError, match=r"'a' must have one shape in both snapshots, but has \(2, 3\) and then \(3, 2"
    ):
        correlate_ranks(snapshot, take_snapshot(Weights.from_tensors({"a": torch.ones(3, 2), "b": torch.ones(2)})))
    with pytest.raises(TypeError, match="'a' must be of a float dtype"):
        take_snapshot(Weights.from_tensors({"a": torch.ones(2, dtype=torch.int32)}))


def test_the_order_of_names_does_not_matter() -> None:
    earlier, later = {"a": normal(50), "b": normal(60)}, {"b": normal(60, seed=1), "a": normal(50, seed=1)}
    assert_near(correlate(earlier, later), earlier, later, 1e-4)


def test_small_models_do_not_import_numba() -> None:
    code = (
        "import sys, torch; from lottery_tickets.early_bird import rank_correlation as r, snapshots as s;"
        "from lottery_tickets._core.weights import Weights;"
        "weights = Weights.from_tensors({'w': torch.randn(300, 784)});"
        "one = s.take_snapshot(weights); r.correlate_ranks(one, one); r.rank_shares(one);"
        "sys.exit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
