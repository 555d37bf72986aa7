"""Rates are of calls of growing sizes, kept where a plan finds them; a place that cannot be written is a note."""

import math
import time
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from lottery_tickets._core.rates import kept
from lottery_tickets._core.rates.kept import read_rates
from lottery_tickets.doctor import speed
from lottery_tickets.doctor.speed import Call, check_speed, measure_rates


@pytest.mark.usefixtures("_small")
def test_all_kinds_are_measured_and_kept_and_chance_is_as_before() -> None:
    state = torch.get_rng_state()
    finding = check_speed(["cpu"])
    assert torch.equal(torch.get_rng_state(), state)
    assert "cpu: products at float32 " in finding.found
    assert "GFLOP/s, memory at" in finding.found
    assert f"1 threads; kept in {kept.find_place()}" in finding.found
    rates, reason = read_rates()
    assert reason == ""
    points = rates["cpu"].points
    assert set(points) > {"product float32", "product bfloat16", "convolution float32", "memory", "selection", "moving"}
    for name, found in points.items():
        assert len(found) == 2 or name == "calling"
        assert all(math.isfinite(seconds) and seconds > 0 for _, seconds in found)
        assert all(one[0] < other[0] and one[1] <= other[1] for one, other in pairwise(found))


@pytest.mark.usefixtures("_small")
def test_a_place_that_cannot_be_written_is_a_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(kept, "find_place", lambda: tmp_path / "file" / "rates.json")
    finding = check_speed(["cpu"])
    assert not finding.problem
    assert "GFLOP/s" in finding.found
    assert finding.advice.startswith("not kept, so that plans foretell no times: ")
    assert "export XDG_CACHE_HOME" in finding.advice


def test_a_dtype_that_a_device_lacks_and_calls_that_take_too_long_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    points: dict[str, Any] = {}

    def refuse() -> None:
        raise RuntimeError('"addmm_impl_cpu_" not implemented for this dtype')

    speed._take(points, "none", iter([Call(8, 1, refuse)]), "cpu")
    assert points == {}
    calls, clock = count(), count()
    monkeypatch.setattr(time, "process_time", lambda: next(clock) / 10)  # each reading a tenth of a second later
    many = iter([Call(1, 1, lambda: next(calls)), Call(1000, 1, refuse)])
    speed._take(points, "slow", many, "cpu")
    assert [size for size, _ in points["slow"]] == [1]
    monkeypatch.setattr(time, "process_time", lambda: math.nan)
    speed._take(points, "nan", iter([Call(1, 1, lambda: None)]), "cpu")
    assert "nan" not in points


@pytest.mark.usefixtures("_small")
def test_a_clock_that_stands_still_gives_no_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "process_time", lambda: 1.0)
    assert measure_rates("cpu").points == {}
