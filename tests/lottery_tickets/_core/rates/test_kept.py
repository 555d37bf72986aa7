"""Rates are kept whole, and used only where they were measured: on this machine, version and number of threads."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lottery_tickets._core.rates import kept
from lottery_tickets._core.rates.kept import DeviceRates, NoRateError, read_rates, write_rates
from lottery_tickets._core.rates.work import Operation, Work

FIND_PLACE = kept.find_place  # which a fixture of all tests replaces
RATES = {"cpu": DeviceRates("cpu", {"product float32": [(100, 1e-6), (10_000, 1e-4)], "memory": [(1, 0.5)]})}


def foretell(size: int) -> float:
    return RATES["cpu"].foretell(Work({Operation("product", "float32", size): 1.0}))


def test_calls_take_what_calls_of_their_size_take() -> None:
    assert foretell(100) == pytest.approx(1e-6)
    assert foretell(1) == pytest.approx(1e-6)
    assert foretell(1000) == pytest.approx(1e-5)  # half way in logarithms
    assert foretell(10_000) == pytest.approx(1e-4)
    assert foretell(30_000) == pytest.approx(3e-4)
    two = Work({Operation("product", "float32", 100): 3.0, Operation("memory", "", 1): 1.0})
    assert RATES["cpu"].foretell(two) == pytest.approx(0.5 + 3e-6)
    calling = DeviceRates("", {**RATES["cpu"].points, "calling": [(10, 2.0)]})
    assert calling.foretell(two) == pytest.approx(0.5 + 3e-6 + 4 * 0.2)
    with pytest.raises(NoRateError, match="no rate of a product in float16"):
        RATES["cpu"].foretell(Work({Operation("product", "float16", 1): 1.0}))


def test_what_was_kept_is_read_here_and_now() -> None:
    assert read_rates() == ({}, "not measured: run lottery-tickets doctor")
    place = write_rates(RATES)
    assert read_rates() == (RATES, "")
    assert [path.name for path in place.parent.iterdir()] == ["rates.json"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("host", "elsewhere"), ("processor", "Z80"), ("vectors", "none"), ("torch", "1.0"), ("threads", 99)],
)
def test_rates_of_another_machine_are_not_used(name: str, value: Any) -> None:  # noqa: ANN401 - of JSON
    place = write_rates(RATES)
    content = json.loads(place.read_text(encoding="utf-8"))
    content["machine"][name] = value
    place.write_text(json.dumps(content), encoding="utf-8")
    rates, reason = read_rates()
    assert rates == {}
    assert reason.startswith(f"measured with {name} {value}, but this is ")
    assert reason.endswith("run lottery-tickets doctor again")


def test_threads_that_change_make_rates_another_machine_s(three_threads: None) -> None:  # noqa: ARG001 - a fixture
    write_rates(RATES)
    assert read_rates() == (RATES, "")
    torch.set_num_threads(1)
    assert read_rates()[1].startswith("measured with threads 3, but this is 1")


@pytest.mark.parametrize(
    "points",
    [
        [[1, float("nan")]], [[1, float("inf")]], [[1, 0.0]], [[1, -1.0]], [[0, 1.0]], [[1, 1.0], [1, 2.0]],
        [[2, 1.0], [1, 2.0]], [[1, 2.0, 3.0]], [[1]], [], [["1", 1.0]], [1], "much", None,
    ],
)  # fmt: skip
def test_numbers_that_are_no_rates_are_not_used(points: Any) -> None:  # noqa: ANN401 - of JSON
    place = write_rates(RATES)
    content = json.loads(place.read_text(encoding="utf-8"))
    content["devices"]["cpu"]["points"]["memory"] = points
    place.write_text(json.dumps(content), encoding="utf-8")
    rates, reason = read_rates()
    assert rates == {}
    assert reason.startswith("what was measured cannot be read")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', "\x00\xff", '{"format": "lottery-tickets rates 1"}'])
def test_a_garbled_file_is_said_and_not_used(text: str) -> None:
    place = write_rates(RATES)
    place.write_text(text, encoding="latin-1")
    rates, reason = read_rates()
    assert rates == {}
    assert reason.startswith("what was measured cannot be read")
    assert "run lottery-tickets doctor again" in reason


def test_the_place_is_the_user_s_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert FIND_PLACE() == tmp_path / "lottery-tickets" / "rates.json"
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    for given in ("", "relative/folder"):  # which the specification says to ignore
        monkeypatch.setenv("XDG_CACHE_HOME", given)
        assert FIND_PLACE() == tmp_path / "home" / ".cache" / "lottery-tickets" / "rates.json"

    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    with pytest.raises(FileNotFoundError, match="the user has no home folder"):
        FIND_PLACE()
    monkeypatch.setattr(kept, "find_place", FIND_PLACE)
    assert "the user has no home folder" in read_rates()[1]
