"""Scopes: exact counts, the groups compared, allocation by ERK and LAMP, N:M."""

from fractions import Fraction

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lottery_tickets._core.bits import count_bits, pack_bits, unpack_bits
from lottery_tickets._core.selection import rows, scopes
from lottery_tickets._core.selection.allocation import allocate_erk
from lottery_tickets._core.selection.scope_names import NAMED_SCOPES, check_sparsity
from lottery_tickets._core.weights import Weights
from lottery_tickets.masks.mask import Mask
from tests.reference import erk_densities, kept_by_rows, kept_by_sorting, kept_in_blocks, lamp_scores
from tests.strategies import SPARSITIES, score_lists

Scores = dict[str, Tensor]


def select_in_scope(
    scores: Scores,
    sparsity: float | None,
    scope: str = "global",
    output_dims: dict[str, tuple[int, ...]] | None = None,
    within: Scores | None = None,
) -> Scores:
    return scopes.select_in_scope(Weights.from_tensors(scores, output_dims), sparsity, scope=scope, within=within)


def named(scores: list[Tensor]) -> Scores:
    return {f"layer{i}": score for i, score in enumerate(scores)}


def unpacked(bits: Scores, scores: Scores) -> Scores:
    return {name: unpack_bits(packed, scores[name].shape) for name, packed in bits.items()}


def num_kept(bits: Scores) -> int:
    return sum(map(count_bits, bits.values()))


def assert_subset(small: Scores, large: Scores) -> None:
    assert all(count_bits(small[name] & ~large[name]) == 0 for name in small)


@pytest.mark.parametrize("scope", ["global", "erk", "lamp"])
@given(scores=score_lists().map(named), sparsity=SPARSITIES)
@settings(max_examples=60, deadline=None)
def test_exactly_the_share_of_all_weights_is_removed(scope: str, scores: Scores, sparsity: float) -> None:
    total = sum(score.numel() for score in scores.values())
    assert num_kept(select_in_scope(scores, sparsity, scope=scope)) == total - round(sparsity * total)


@given(scores=score_lists().map(named), sparsity=SPARSITIES)
@settings(max_examples=60, deadline=None)
def test_global_and_layer_keep_what_a_sort_keeps(scores: Scores, sparsity: float) -> None:
    total = sum(score.numel() for score in scores.values())
    everything = kept_by_sorting(list(scores.values()), total - round(sparsity * total))
    found = unpacked(select_in_scope(scores, sparsity), scores)
    assert all(torch.equal(one, other) for one, other in zip(found.values(), everything, strict=True))
    for name, kept in unpacked(select_in_scope(scores, sparsity, scope="layer"), scores).items():
        size = scores[name].numel()
        [expected] = kept_by_sorting([scores[name]], size - round(sparsity * size))
        assert torch.equal(kept, expected)


@given(scores=score_lists().map(named), sparsity=SPARSITIES, rows_in_a_sort=st.sampled_from([1, 7, 1 << 20]))
@settings(max_examples=80, deadline=None)
def test_rows_keep_what_a_sort_of_each_row_keeps(scores: Scores, sparsity: float, rows_in_a_sort: int) -> None:
    scores = {name: score for name, score in scores.items() if score.ndim > 1}
    for dims in ((0,), (1,), (0, 1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rows, "WEIGHTS_PER_SORT", rows_in_a_sort)
            bits = select_in_scope(scores, sparsity, scope="row", output_dims=dict.fromkeys(scores, dims))
        for name, kept in unpacked(bits, scores).items():
            assert torch.equal(kept, kept_by_rows(scores[name], dims, sparsity))


@given(
    shape=st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 4)),
    n_of_m=st.sampled_from([(2, 4), (1, 2), (3, 4), (1, 5)]),
    output_dim=st.sampled_from([0, 1]),
)
@settings(max_examples=60, deadline=None)
def test_n_of_m_keeps_n_of_each_m_inputs(shape: tuple[int, int, int], n_of_m: tuple[int, int], output_dim: int) -> None:
    n, m = n_of_m
    sizes = list(shape)
    sizes[1 - output_dim] *= m
    score = torch.randint(-3, 4, sizes, generator=torch.Generator().manual_seed(0)).float()
    bits = select_in_scope({"w": score}, None, scope=f"{n}:{m}", output_dims={"w": (output_dim,)})
    assert torch.equal(unpacked(bits, {"w": score})["w"], kept_in_blocks(score, 1 - output_dim, n, m))
    assert num_kept(bits) * m == score.numel() * n


def test_the_published_example_of_erk() -> None:
    # jaxpruner's golden value: layer sparsities 0.0, 0.64, 0.0.
    scores = {"a": torch.randn(2, 4), "b": torch.randn(3, 6, 7), "c": torch.randn(7, 4)}
    bits = select_in_scope(scores, 0.5, scope="erk")
    sparsities = [1 - count_bits(bits[name]) / score.numel() for name, score in scores.items()]
    assert sparsities == pytest.approx([0.0, 0.64, 0.0], abs=0.005)


@given(
    shapes=st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=4), min_size=1, max_size=6),
    density=st.floats(0, 1),
)
@settings(max_examples=150, deadline=None)
def test_erk_is_the_published_loop_to_within_one_weight(shapes: list[list[int]], density: float) -> None:
    by_name = {str(i): tuple(shape) for i, shape in enumerate(shapes)}
    sizes = {name: torch.Size(shape).numel() for name, shape in by_name.items()}
    total = sum(sizes.values())
    kept = round(density * total)
    counts = allocate_erk(by_name, sizes, kept)
    assert sum(counts.values()) == kept
    for name, wanted in erk_densities(by_name, kept / total).items():
        assert 0 <= counts[name] <= sizes[name]
        assert abs(counts[name] - wanted * sizes[name]) <= 1 + 1e-9 * total


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)), min_size=1, max_size=5), st.data())
@settings(max_examples=100, deadline=None)
def test_erk_fills_what_an_earlier_mask_leaves(layers: list[tuple[int, int]], data: st.DataObject) -> None:
    shapes = {str(i): (size,) for i, (_, size) in enumerate(layers)}
    capacities = {str(i): min(capacity, size) for i, (capacity, size) in enumerate(layers)}
    kept = data.draw(st.integers(0, sum(capacities.values())))
    counts = allocate_erk(shapes, capacities, kept)
    assert sum(counts.values()) == kept
    assert all(counts[name] <= capacities[name] for name in counts)
    open_layers = [name for name in counts if counts[name] < capacities[name]]
    shares = [Fraction(counts[name], shapes[name][0]) for name in open_layers]
    assert all(abs(a * shapes[n][0] - b * shapes[n][0]) <= 10 for n in open_layers for a in shares for b in shares)


@given(scores=score_lists().map(named), sparsity=SPARSITIES)
@settings(max_examples=60, deadline=None)
def test_lamp_keeps_the_largest_lamp_scores(scores: Scores, sparsity: float) -> None:
    scores = {name: score for name, score in scores.items() if score.numel() and bool((score.float() != 0).all())}
    lamp = {name: lamp_scores(score) for name, score in scores.items()}
    values = torch.cat([torch.empty(0), *[score.flatten() for score in lamp.values()]]).sort().values
    assume(bool((values.diff() > 1e-9).all()))  # no ties: rounding decides those
    total = sum(score.numel() for score in scores.values())
    expected = kept_by_sorting(list(lamp.values()), total - round(sparsity * total))
    found = unpacked(select_in_scope(scores, sparsity, scope="lamp"), scores)
    assert all(torch.equal(one, other) for one, other in zip(found.values(), expected, strict=True))


def test_lamp_by_hand() -> None:
    # Squares 1, 4, 9 give 1/14, 4/13, 1; squares 16, 25 give 16/41, 1.
    scores = {"a": torch.tensor([1.0, -2.0, 3.0]), "b": torch.tensor([4.0, 5.0])}
    assert [int(b[0]) for b in select_in_scope(scores, 0.4, scope="lamp").values()] == [0b100, 0b11]
    assert [int(b[0]) for b in select_in_scope(scores, 0.2, scope="lamp").values()] == [0b110, 0b11]


def test_lamp_never_empties_a_layer_before_each_has_one() -> None:
    scores = {"tiny": torch.full((10,), 1e-20), "huge": torch.full((90,), 1e20)}
    assert [count_bits(b) for b in select_in_scope(scores, 0.98, scope="lamp").values()] == [1, 1]
    assert [count_bits(b) for b in select_in_scope(scores, 0.98).values()] == [0, 2]


def test_torchao_wanda_compares_over_the_layer_and_we_over_the_row() -> None:
    score = torch.tensor([[1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0]])
    [over_layer] = kept_by_sorting([score], 4)
    assert over_layer.sum(dim=1).tolist() == [0, 4]
    kept = unpacked(select_in_scope({"w": score}, 0.5, scope="row"), {"w": score})["w"]
    assert kept.tolist() == [[False, False, True, True]] * 2


@pytest.mark.parametrize("scope", [*NAMED_SCOPES, "2:4"])
def test_within_gives_subsets_and_counts_over_all_weights(scope: str) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = {"a": torch.randn(6, 8, generator=generator), "b": torch.randn(10, 4, generator=generator).half()}
    previous = {name: pack_bits(torch.ones(score.shape, dtype=torch.bool)) for name, score in scores.items()}
    sparsities = [0.5, 0.75] if scope == "2:4" else [0.1, 0.25, 0.5, 0.75, 0.95, 1.0]
    for sparsity in sparsities:
        used = "1:4" if scope == "2:4" and sparsity == 0.75 else scope
        bits = select_in_scope(scores, sparsity, scope=used, within=previous)
        assert_subset(bits, previous)
        if scope not in {"row", "layer"}:
            assert num_kept(bits) == 88 - round(sparsity * 88)
        previous = bits


@pytest.mark.parametrize("scope", ["global", "layer", "row"])
def test_rising_sparsity_gives_the_mask_of_one_shot(scope: str) -> None:
    scores = {"a": torch.randn(6, 8, generator=torch.Generator().manual_seed(0))}
    first = select_in_scope(scores, 0.25, scope=scope)
    assert torch.equal(
        select_in_scope(scores, 0.75, scope=scope, within=first)["a"], select_in_scope(scores, 0.75, scope=scope)["a"]
    )


def test_what_was_pruned_stays_pruned_however_large_it_becomes() -> None:
    kept = torch.tensor([False, True, True, True])
    score = {"w": torch.tensor([100.0, 1.0, 2.0, 3.0])}
    for scope in NAMED_SCOPES:
        bits = select_in_scope({"w": score["w"].view(1, 4)}, 0.5, scope=scope, within={"w": pack_bits(kept)})
        assert int(bits["w"][0]) == 0b1100


HALF = {"w": pack_bits(torch.arange(8).view(2, 4) < 4)}


@pytest.mark.parametrize(
    ("sparsity", "scope", "within", "error", "message"),
    [
        (-0.1, "global", None, ValueError, r"sparsity must be from 0 \(keep all\) to 1 \(keep none\), got -0.1"),
        (1.1, "row", None, ValueError, "sparsity must be from 0"),
        (float("nan"), "global", None, ValueError, "sparsity must be from 0 .* got nan"),
        (None, "global", None, ValueError, "sparsity must be given for scope 'global', got None"),
        (0.4, "2:4", None, ValueError, "sparsity must be 0.5 for scope '2:4', got 0.4"),
        (0.5, "4:4", None, ValueError, "scope must be one of 'global', .* got '4:4'"),
        (0.5, "0:4", None, ValueError, "scope must be one of 'global', .* got '0:4'"),
        (0.5, "Global", None, ValueError, "scope must be one of 'global', .* got 'Global'"),
        (None, "1:3", None, ValueError, "1:3 must divide the inputs of 'w', but it has 4 of them"),
        (0.25, "global", HALF, ValueError, "sparsity 0.25 keeps 6 of the weights, but `within` has only 4 left"),
        (0.25, "erk", HALF, ValueError, "sparsity 0.25 keeps 6 of the weights"),
        (0.25, "lamp", HALF, ValueError, "sparsity 0.25 keeps 6 of the weights"),
        (0.25, "layer", HALF, ValueError, "sparsity 0.25 keeps 6 of 'w', but `within` has only 4 left"),
        (0.5, "row", HALF, ValueError, "each group of 4 in 'w' must keep 2, but `within` leaves only 0"),
        (0.5, "2:4", HALF, ValueError, "each group of 4 in 'w' must keep 2, but `within` leaves only 0"),
        (0.5, "global", {"v": HALF["w"]}, ValueError, r"same names as the scores, but \['v', 'w'\]"),
    ],
)
def test_bad_arguments_are_refused(
    sparsity: float | None, scope: str, within: Scores | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        select_in_scope({"w": torch.ones(2, 4)}, sparsity, scope=scope, within=within)


@pytest.mark.parametrize("scope", [*NAMED_SCOPES, "2:4"])
def test_what_is_not_finite_is_refused_by_name_in_every_scope(scope: str) -> None:
    scores = {"good": torch.ones(2, 4), "bad": torch.tensor([[1.0, 2.0, 3.0, torch.nan]])}
    with pytest.raises(ValueError, match="'bad' must be finite to be ranked"):
        select_in_scope(scores, 0.5, scope=scope)


def test_the_share_of_n_of_m_is_found() -> None:
    assert check_sparsity(None, "1:4") == 0.75
    assert check_sparsity(1 - 1 / 3, "1:3") == 1 - 1 / 3


def test_layers_that_keep_nothing_are_found_and_empty_ones_are_not() -> None:
    bits = {"gone": torch.zeros(1, dtype=torch.uint8), "empty": torch.empty(0, dtype=torch.uint8), "kept": HALF["w"]}
    assert Mask(bits, {"gone": (2, 2), "empty": (0, 4), "kept": (2, 4)}).collapsed_layers == ["gone"]
