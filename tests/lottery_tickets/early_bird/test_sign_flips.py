"""The test of signs against all signs there are, and against scipy's."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lottery_tickets.early_bird import sign_flips
from lottery_tickets.early_bird.sign_flips import compare_signs

DIFFERENCES = st.lists(st.integers(-4, 4).map(lambda n: n * n * n), min_size=1, max_size=6)


def count_signs(values: list[int]) -> list[float]:
    """Returns p for each way to give the values signs, the slow way: by going through all of them."""
    sizes = [abs(value) for value in values if value]
    ranks = stats.rankdata(sizes)
    sums = [sum(r for r, keep in zip(ranks, kept, strict=True) if keep) for kept in _list_ways(len(sizes))]
    return [sum(other >= own for other in sums) / len(sums) for own in sums]


def _list_ways(num: int) -> list[tuple[bool, ...]]:
    return list(itertools.product((False, True), repeat=num))


@given(DIFFERENCES)
def test_p_is_the_share_of_signs_that_do_as_well(values: list[int]) -> None:
    sizes = [abs(value) for value in values if value]
    for kept, wanted in zip(_list_ways(len(sizes)), count_signs(values), strict=True):
        signed = [size if keep else -size for size, keep in zip(sizes, kept, strict=True)]
        found = compare_signs(torch.tensor([*signed, 0, 0], dtype=torch.float32)) if sizes else None
        assert found is None or found.p == pytest.approx(wanted, rel=1e-12)


@given(DIFFERENCES, st.floats(0.001, 0.5))
def test_fair_signs_are_found_no_more_often_than_the_level_says(values: list[int], level: float) -> None:
    """Whatever the sizes: this is what makes an error rate one."""
    sizes = [abs(value) for value in values if value]
    ways = _list_ways(len(sizes))
    found = [compare_signs(torch.tensor([s if k else -s for s, k in zip(sizes, kept, strict=True)])) for kept in ways]
    assert sum(one.p <= level for one in found) <= level * len(ways)


def test_it_agrees_with_scipy_and_a_far_one_counts_as_the_largest_only() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(40, generator=generator, dtype=torch.float64) + 0.3
    wanted = stats.wilcoxon(values.numpy(), alternative="greater", method="exact").pvalue
    assert compare_signs(values).p == pytest.approx(float(wanted), rel=1e-9)
    values[values.argmax()] = torch.inf
    assert compare_signs(values).p == pytest.approx(float(wanted), rel=1e-9)
    assert compare_signs(torch.tensor([torch.nan, 0.0])) == compare_signs(torch.zeros(3))
    assert compare_signs(torch.zeros(3)).p == 1


def test_many_are_approximated_well_into_the_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    for shift in (0.05, 0.2, 0.35):
        values = torch.randn(sign_flips.MOST_EXACT + 20, generator=generator) + shift
        near = compare_signs(values).p
        with monkeypatch.context() as patched:
            patched.setattr(sign_flips, "MOST_EXACT", len(values))
            exact = compare_signs(values).p
        assert 0.97 * exact <= near <= 2 * exact  # too large in the tail: on the safe side
