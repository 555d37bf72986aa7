"""Schedules count survivors exactly: the papers' densities, and a target that is met to the weight."""

import re
from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lottery_tickets import PruningSchedule
from lottery_tickets.experiments.schedules import LayerGroup

LENET = {"hidden_1.weight": 784 * 300, "hidden_2.weight": 300 * 100, "output.weight": 100 * 10}
LENET_RATES = (("output.*", 0.1), ("*", 0.2))
SIZES = st.dictionaries(
    st.sampled_from(["a.weight", "b.weight", "c.weight", "out.weight"]), st.integers(0, 5000), min_size=1
)
RATES = st.floats(0.01, 0.95)


def count(schedule: PruningSchedule, sizes: dict[str, int], level: int) -> int:
    return sum(schedule.count_kept(sizes, level).values())


def test_densities_of_the_lenet_experiment() -> None:
    """Frankle & Carbin 1803.03635, figure 3 and on: 51.3, 41.1, 21.1, 7.0, 3.6 and 1.9 % of the weights remain."""
    schedule = PruningSchedule(LENET_RATES, "layer")
    total = sum(LENET.values())
    remaining = {level: 100 * count(schedule, LENET, level) / total for level in (0, 1, 3, 4, 7, 12, 15, 18)}
    published = {0: 100, 1: 80.0, 3: 51.3, 4: 41.1, 7: 21.1, 12: 7.0, 15: 3.6, 18: 1.9}
    assert {level: round(percent, 1) for level, percent in remaining.items()} == published


def test_counts_by_hand() -> None:
    schedule = PruningSchedule((("out.*", 0.1), ("*", 0.2)), "layer")
    counts = schedule.count_kept({"a.weight": 101, "out.weight": 33}, 2)
    # 101 - round(20.2) = 81, 81 - round(16.2) = 65; 33 - round(3.3) = 30, 30 - 3 = 27
    assert {group.names: kept for group, kept in counts.items()} == {("a.weight",): 65, ("out.weight",): 27}


def test_the_first_pattern_decides() -> None:
    schedule = PruningSchedule((("a.*", 0.5), ("*.weight", 0.1), ("*", 0.9)))
    groups = schedule.find_groups(["b.weight", "a.weight", "c.weight", "d.bias"])
    assert groups == [
        LayerGroup(("b.weight", "c.weight"), 0.1),
        LayerGroup(("a.weight",), 0.5),
        LayerGroup(("d.bias",), 0.9),
    ]


def test_scopes_group_by_rate_or_by_layer() -> None:
    names = ["a", "b", "c"]
    assert PruningSchedule(scope="global").find_groups(names) == [LayerGroup(("a", "b", "c"), 0.2)]
    assert PruningSchedule(scope="layer").find_groups(names) == [LayerGroup((name,), 0.2) for name in names]


def test_a_layer_without_a_pattern_is_an_error() -> None:
    message = "every layer must match a pattern of prune_rates, but 'b' matches none; end them with ('*', rate)"
    with pytest.raises(ValueError, match=re.escape(message)):
        PruningSchedule((("a", 0.2),)).find_groups(["a", "b"])


@given(SIZES, RATES, RATES, st.sampled_from(["global", "layer"]), st.integers(0, 8))
def test_every_group_loses_its_share_of_the_survivors(
    sizes: dict[str, int], rate: float, output_rate: float, scope: str, level: int
) -> None:
    schedule = PruningSchedule((("out.*", output_rate), ("*", rate)), scope)  # type: ignore[arg-type] # one of two literals
    before, after = schedule.count_kept(sizes, level), schedule.count_kept(sizes, level + 1)
    assert before.keys() == after.keys()
    for group, kept in before.items():
        assert group.prune_rate == (output_rate if "out.weight" in group.names else rate)
        assert kept - after[group] == round(group.prune_rate * kept)
    assert sorted(name for group in before for name in group.names) == sorted(sizes)
    assert count(schedule, sizes, 0) == sum(sizes.values())


@given(SIZES, RATES, RATES, st.sampled_from(["global", "layer"]), st.floats(0, 0.99))
def test_the_target_is_met_to_the_weight(
    sizes: dict[str, int], rate: float, output_rate: float, scope: str, target: float
) -> None:
    assume(min(rate, output_rate) * min(sizes.values()) > 1)
    rates = (("out.*", output_rate), ("*", rate))
    schedule = PruningSchedule(rates, scope, target)  # type: ignore[arg-type] # one of two literals
    free = PruningSchedule(rates, scope)  # type: ignore[arg-type] # one of two literals
    total = sum(sizes.values())
    goal = total - round(target * total)
    try:
        last = schedule.find_last_level(sizes)
    except ValueError:  # a layer of few weights may stop losing any: round(0.02 * 20) = 0
        assert count(free, sizes, 999) > goal
        return
    assert count(schedule, sizes, last) == goal
    assert count(schedule, sizes, last + 3) == goal, "the target is the end"
    for level in range(last):
        assert schedule.count_kept(sizes, level) == free.count_kept(sizes, level), "before the end the rates decide"
    if last:
        assert count(schedule, sizes, last - 1) > goal
        before, after = schedule.count_kept(sizes, last - 1), schedule.count_kept(sizes, last)
        planned = free.count_kept(sizes, last)
        assert all(planned[group] <= after[group] <= before[group] for group in after)


def test_the_last_round_prunes_each_group_by_the_same_part_of_its_share() -> None:
    schedule = PruningSchedule((("out.*", 0.1), ("*", 0.2)), "layer", 0.1)
    counts = schedule.count_kept({"a.weight": 1000, "out.weight": 1000}, 1)
    # 200 and 100 would go, but only 200 of the 300 may: two thirds of each, 133 and 67
    assert list(counts.values()) == [867, 933]


@pytest.mark.parametrize(
    ("rates", "target"),
    [((("*", 0.0),), 0.5), ((("a", 0.5), ("*", 0.0)), 0.9), ((("*", 0.1),), 0.99), ((("*", 1e-9),), 0.1)],
)
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_a_target_that_is_never_reached_is_an_error(
    rates: tuple[tuple[str, float], ...], target: float, scope: str
) -> None:
    schedule = PruningSchedule(rates, scope, target)  # type: ignore[arg-type] # one of two literals
    with pytest.raises(ValueError, match=rf"never reach sparsity {target}; raise a rate"):
        schedule.find_last_level({f"{name}{i}": 4 for name in "ab" for i in range(30)} | {"a": 4})


def test_without_a_target_there_is_no_last_level() -> None:
    with pytest.raises(ValueError, match="must have a target_sparsity to have a last level"):
        PruningSchedule().find_last_level({"a": 10})


def test_no_weights_are_at_their_target_at_once() -> None:
    assert PruningSchedule(target_sparsity=0.9).find_last_level({}) == 0
    assert PruningSchedule(target_sparsity=0.9).find_last_level({"a": 0}) == 0
    assert PruningSchedule(target_sparsity=0.0).find_last_level({"a": 10}) == 0


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "rate of one": (lambda: PruningSchedule((("*", 1.0),)), r"prune rate of '\*' must lie in \[0, 1\), but got 1.0"),
    "negative rate": (lambda: PruningSchedule((("a", -0.1),)), r"prune rate of 'a' must lie in \[0, 1\), but got -0.1"),
    "NaN rate": (lambda: PruningSchedule((("a", float("nan")),)), "prune rate of 'a' must lie .* got nan"),
    "target of one": (lambda: PruningSchedule(target_sparsity=1.0), r"must lie in \[0, 1\), but got 1.0"),
    "negative target": (lambda: PruningSchedule(target_sparsity=-0.5), r"must lie in \[0, 1\), but got -0.5"),
    "NaN target": (lambda: PruningSchedule(target_sparsity=float("nan")), r"must lie in \[0, 1\), but got nan"),
    "scope": (lambda: PruningSchedule(scope="row"), "must be 'global' or 'layer', but got 'row'"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_settings_are_refused(case: str) -> None:
    make, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        make()
