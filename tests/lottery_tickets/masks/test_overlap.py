from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lottery_tickets import (
    Mask,
    compute_overlap_matrix,
    compute_ticket_overlap,
    load_results,
    save_results,
    shuffle_mask,
)
from lottery_tickets._core.bits import count_bits, count_common_bits, pack_bits

Method = Literal["jaccard", "dice", "overlap"]
METHODS: tuple[Method, ...] = ("jaccard", "dice", "overlap")


def make_mask(**layers: list[int]) -> Mask:
    return Mask.from_tensors({name: torch.tensor(values) for name, values in layers.items()})


@st.composite
def mask_pairs(draw: st.DrawFn) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    shapes = draw(st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(1, 9), min_size=1, max_size=3)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    densities = draw(st.tuples(*[st.sampled_from([0.0, 0.1, 0.5, 1.0])] * 2))
    first, second = (
        {name: torch.rand(shape, generator=generator) < density for name, shape in shapes.items()}
        for density in densities
    )
    return first, second


def by_sets(first: dict[str, Tensor], second: dict[str, Tensor], method: Method) -> float:
    """The coefficients as the textbooks write them, on sets of places."""
    a, b = ({(n, i) for n, kept in mask.items() for i in kept.flatten().nonzero().flatten().tolist()}
            for mask in (first, second))  # fmt: skip
    if not a and not b:
        return 1.0
    whole = {"jaccard": len(a | b), "dice": (len(a) + len(b)) / 2, "overlap": min(len(a), len(b))}[method]
    return len(a & b) / whole if whole else 0.0


@given(mask_pairs(), st.sampled_from(METHODS))
def test_coefficients_are_those_of_sets(pair: tuple[dict[str, Tensor], dict[str, Tensor]], method: Method) -> None:
    first, second = pair
    found = compute_ticket_overlap(first, second, method)
    assert float(found) == pytest.approx(by_sets(first, second, method), abs=1e-12)
    for name, layer in found["layer_overlaps"].items():
        assert layer["overlap"] == pytest.approx(by_sets({name: first[name]}, {name: second[name]}, method), abs=1e-12)


@given(mask_pairs(), st.sampled_from(METHODS))
def test_the_order_of_the_masks_does_not_matter(
    pair: tuple[dict[str, Tensor], dict[str, Tensor]], method: Method
) -> None:
    one, other = compute_ticket_overlap(pair[0], pair[1], method), compute_ticket_overlap(pair[1], pair[0], method)
    assert one["overall_overlap"] == other["overall_overlap"]
    assert one["expected_overlap"] == other["expected_overlap"]


@given(mask_pairs(), st.sampled_from(METHODS))
def test_a_mask_overlaps_itself_wholly(pair: tuple[dict[str, Tensor], dict[str, Tensor]], method: Method) -> None:
    found = compute_ticket_overlap(pair[0], pair[0], method)
    assert found["overall_overlap"] == 1
    assert found["adjusted_overlap"] in {1.0, None}


@pytest.mark.parametrize(
    ("first", "second", "overlaps"),
    [
        ([1, 1, 0, 0], [1, 0, 1, 0], {"jaccard": 1 / 3, "dice": 1 / 2, "overlap": 1 / 2}),
        ([1, 1, 1, 0], [1, 0, 0, 0], {"jaccard": 1 / 3, "dice": 1 / 2, "overlap": 1}),
        ([1, 1, 0, 0], [0, 0, 1, 1], {"jaccard": 0, "dice": 0, "overlap": 0}),  # disjoint
        ([0, 0, 0, 0], [0, 0, 0, 0], {"jaccard": 1, "dice": 1, "overlap": 1}),  # both empty
        ([0, 0, 0, 0], [0, 1, 0, 0], {"jaccard": 0, "dice": 0, "overlap": 0}),  # one empty
        ([1, 1, 1, 1], [1, 1, 1, 1], {"jaccard": 1, "dice": 1, "overlap": 1}),  # full
        ([1, 1, 1, 1], [1, 0, 0, 0], {"jaccard": 1 / 4, "dice": 2 / 5, "overlap": 1}),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_hand_made_masks(first: list[int], second: list[int], overlaps: dict[str, float], method: Method) -> None:
    found = compute_ticket_overlap(make_mask(w=first), make_mask(w=second), method)
    assert found["overall_overlap"] == pytest.approx(overlaps[method])


@pytest.mark.parametrize("density", [0.05, 0.3, 0.9])
def test_chance_is_d_over_2_minus_d(density: float) -> None:
    first = Mask.from_tensors({"w": torch.arange(1000) < 1000 * density})
    found = compute_ticket_overlap(first, shuffle_mask(first, 0))
    assert found["expected_overlap"] == pytest.approx(density / (2 - density))


@pytest.mark.parametrize("method", METHODS)
def test_the_expected_overlap_is_what_scattered_masks_have_on_average(method: Method) -> None:
    """Layers of unlike densities: chance keeps the density of each."""
    generator = torch.Generator().manual_seed(0)

    def scatter() -> dict[str, Tensor]:
        return {
            "a": torch.randperm(300, generator=generator) < 270,
            "b": torch.randperm(200, generator=generator) < 20,
        }

    drawn = [compute_ticket_overlap(scatter(), scatter(), method) for _ in range(100)]
    values = np.array([float(overlap) for overlap in drawn])
    assert abs(values.mean() - drawn[0]["expected_overlap"]) < 4 * values.std() / 100**0.5 + 1e-3
    adjusted = np.array([overlap["adjusted_overlap"] for overlap in drawn])
    assert abs(adjusted.mean()) < 4 * adjusted.std() / 100**0.5 + 2e-3
    # Without regard to layers, what is due to their densities would be taken for agreement.
    density = 290 / 500
    assert drawn[0]["expected_overlap"] > 1.1 * density / (2 - density)


def test_agreement_below_chance_is_negative_and_nothing_to_correct_is_none() -> None:
    half = make_mask(w=[1, 1, 0, 0])
    assert compute_ticket_overlap(half, ~half)["adjusted_overlap"] == pytest.approx(-1 / 2)  # (0 - 1/3) / (1 - 1/3)
    full = make_mask(w=[1, 1, 1, 1])
    assert compute_ticket_overlap(full, full)["adjusted_overlap"] is None


def test_it_is_a_dict_that_formats_and_converts_and_is_saved(tmp_path: Any) -> None:  # noqa: ANN401 - a path
    overlap = compute_ticket_overlap(make_mask(w=[1, 1, 0, 0]), make_mask(w=[1, 0, 1, 0]))
    assert isinstance(overlap, dict)
    assert f"{overlap:.2%}" == "33.33%"
    assert f"{overlap:.3f} {overlap}" == f"0.333 {1 / 3}"
    assert float(overlap) == overlap["overall_overlap"]
    assert (overlap["num_both"], overlap["num_kept"], overlap["num_weights"]) == (1, [2, 2], 4)
    save_results(overlap, tmp_path / "overlap.json")
    assert load_results(tmp_path / "overlap.json") == overlap


def test_a_matrix_of_many_tickets() -> None:
    masks = {"a": make_mask(w=[1, 1, 0, 0]), "b": make_mask(w=[1, 0, 1, 0]), "c": make_mask(w=[0, 0, 0, 1])}
    matrix = compute_overlap_matrix(masks, "dice")
    assert matrix["names"] == ["a", "b", "c"]
    assert matrix["overlaps"] == [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]]
    assert matrix["densities"] == [0.5, 0.5, 0.25]
    for i, first in enumerate(masks.values()):
        for j, second in enumerate(masks.values()):
            found = compute_ticket_overlap(first, second, "dice")
            assert matrix["expected"][i][j] == found["expected_overlap"]
            assert matrix["adjusted"][i][j] == found["adjusted_overlap"]
    assert compute_overlap_matrix(list(masks.values()))["names"] == ["0", "1", "2"]


def test_bad_input() -> None:
    mask = make_mask(w=[1, 0])
    with pytest.raises(ValueError, match="method must be one of jaccard, dice, overlap, got 'cosine'"):
        compute_ticket_overlap(mask, mask, "cosine")
    with pytest.raises(
        ValueError, match=r"mask1 and mask2 must cover the same parameters .* differ in v, w; were they"
    ):
        compute_ticket_overlap(mask, make_mask(v=[1, 0]))
    with pytest.raises(ValueError, match="differ in w; were they made for two models"):
        compute_ticket_overlap(mask, make_mask(w=[1, 0, 0]))
    with pytest.raises(TypeError, match="a mask must be a mapping from parameter names to tensors, but got list"):
        compute_ticket_overlap(mask, [1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mask for 'w' must hold only 0 and 1"):
        compute_ticket_overlap(mask, {"w": torch.tensor([0.5, 1])})
    with pytest.raises(ValueError, match="an overlap matrix needs at least one mask, got none"):
        compute_overlap_matrix([])
    with pytest.raises(ValueError, match="0 and 1 must cover the same parameters"):
        compute_overlap_matrix([mask, make_mask(v=[1])])


@given(st.integers(0, 200), st.integers(0, 2**32))
def test_bits_are_counted_in_words_and_what_is_left_over(size: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    first, second = (torch.rand(size, generator=generator) < 0.5 for _ in range(2))
    assert count_bits(pack_bits(first)) == int(first.sum())
    assert count_common_bits(pack_bits(first), pack_bits(second)) == int((first & second).sum())


def test_bits_of_many_chunks_and_of_an_odd_offset() -> None:
    bits = torch.randint(0, 256, (600_005,), dtype=torch.uint8)
    expected = sum(int(value).bit_count() * int(n) for value, n in enumerate(torch.bincount(bits.int(), minlength=256)))
    assert count_bits(bits) == expected
    assert count_common_bits(bits[3:], bits[3:]) == expected - sum(int(b).bit_count() for b in bits[:3])
