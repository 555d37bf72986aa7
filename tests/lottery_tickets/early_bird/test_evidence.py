"""What a check compares, against the obvious way to compute it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lottery_tickets import Mask, shuffle_mask
from lottery_tickets._core.weights import Weights
from lottery_tickets.early_bird import evidence
from lottery_tickets.early_bird.check_times import CheckTimes
from lottery_tickets.early_bird.evidence import Evidence
from lottery_tickets.early_bird.snapshots import take_snapshot
from lottery_tickets.masks.common_weights import measure_distance, overlay


def test_distances_and_chance() -> None:
    masks = [Mask.from_tensors({"a": torch.rand(40, 50) < 0.3, "b": torch.rand(37) < 0.9}) for _ in range(2)]
    sizes = {"a": 2000, "b": 37}
    found = measure_distance(overlay(masks[0].bits, masks[1].bits, sizes).values())
    different = sum(int((masks[0][name] != masks[1][name]).sum()) for name in sizes)
    assert found.raw == different / 2037
    shuffled = [
        measure_distance(overlay(masks[0].bits, shuffle_mask(masks[1], seed).bits, sizes).values())
        for seed in range(60)
    ]
    assert {one.chance for one in shuffled} == {found.chance}
    assert sum(one.raw for one in shuffled) / 60 == pytest.approx(found.chance, rel=0.01)
    same = measure_distance(overlay(masks[0].bits, masks[0].bits, sizes).values())
    assert (same.raw, same.corrected) == (0.0, 0.0)
    full = Mask.from_tensors({"a": torch.ones(3)})
    assert measure_distance(overlay(full.bits, full.bits, {"a": 3}).values()).corrected == 0.0


def test_ranks_of_the_start_are_the_same_kept_or_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    start = Weights.from_tensors({"a": torch.randn(60, 90), "b": torch.randn(7)})
    now = start.with_values({name: weight.tensor + 0.3 * torch.randn(weight.shape) for name, weight in start.items()})
    found = []
    for few in (5407, 5406):
        monkeypatch.setattr(evidence, "FEW", few)
        watched = Evidence(start, sparsity=0.5, scope="global", queue_length=3)
        found.append([watched.add(weights, start, take_snapshot(weights)) for weights in (now, start)])
        assert (watched._start_snapshot is None) == (few == 5406)
    assert found[0] == found[1]
    first, second = found[0]
    assert first["correlation"] == first["start_correlation"] == second["correlation"]
    assert 0.8 < first["correlation"] < 0.99
    assert second["start_correlation"] == 1


@given(st.integers(0, 10_000), st.sampled_from([1, 7, 100]))
def test_checks_come_every_so_many_steps(step: int, every: int) -> None:
    found = CheckTimes(every).after(step)
    assert found is not None
    assert found % every == 0
    assert step < found <= step + every


def test_checks_spaced_by_the_logarithm() -> None:
    times, step, found = CheckTimes("log"), 0, []
    while step < 100:
        step = times.after(step) or 0
        found.append(step)
    assert found == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128]
    assert all((CheckTimes("log").after(step) or 0) in found for step in range(128))
    assert [CheckTimes([9, 3, 3]).after(step) for step in (0, 3, 9)] == [3, 9, None]
    with pytest.raises(ValueError, match="at least one step, got none"):
        CheckTimes([])
