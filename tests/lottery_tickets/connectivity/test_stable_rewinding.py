"""Bisection finds the earliest stable step, says where instability rises, and goes on after a kill."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lottery_tickets import (
    compute_linear_connectivity,
    compute_stable_rewinding_epoch,
    find_stable_rewinding_step,
)
from tests.lottery_tickets.connectivity.networks import Model, describe_everything, make_loader, make_network, train


@given(st.integers(0, 400), st.integers(-1, 400), st.floats(0.001, 0.9))
def test_bisection_finds_the_earliest_stable_step(last: int, earliest: int, threshold: float) -> None:
    """Of any instability that falls; -1 stands for none."""
    calls: list[int] = []

    def measure(step: int) -> float:
        calls.append(step)
        return threshold * (0.5 if 0 <= earliest <= step else 1 + 1 / (1 + step))

    found = find_stable_rewinding_step(measure, last, threshold=threshold)
    assert found["step"] == (earliest if 0 <= earliest <= last else None)
    assert len(calls) == len(set(calls)) == found["num_evaluations"] <= math.ceil(math.log2(last + 1)) + 2
    assert list(found["evaluations"]) == sorted(calls)
    assert found["rises"] == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_whatever_instability_does_the_step_found_is_stable_and_rises_are_told(values: list[float]) -> None:
    found = find_stable_rewinding_step(values.__getitem__, len(values) - 1, threshold=0.3)
    step, looked_at = found["step"], found["evaluations"]
    assert all(values[k] == value for k, value in looked_at.items())
    if step is None:
        assert values[-1] >= 0.3
    else:
        assert values[step] < 0.3
        assert step == 0 or values[max(k for k in looked_at if k < step)] >= 0.3
    in_order = list(looked_at.values())
    assert bool(found["rises"]) is (in_order != sorted(in_order, key=lambda value: -(value or 0)))


def test_a_step_without_a_finite_instability_is_unstable() -> None:
    found = find_stable_rewinding_step(lambda step: math.nan if step < 3 else 0.0, 8)
    assert found["step"] == 3
    assert found["evaluations"][0] is None


def test_a_search_that_was_killed_goes_on(tmp_path: Path) -> None:
    path, calls = tmp_path / "search.json", []

    def measure(step: int) -> float:
        calls.append(step)
        if len(calls) == 4:
            raise KeyboardInterrupt("killed")
        return 1 / (1 + step)

    with pytest.raises(KeyboardInterrupt, match="killed"):
        find_stable_rewinding_step(measure, 200, path=path, subject={"name": ("a",)})
    found = find_stable_rewinding_step(measure, 200, path=path, subject={"name": ("a",)})
    assert found == find_stable_rewinding_step(lambda step: 1 / (1 + step), 200)
    assert len(calls) == found["num_evaluations"] + 1  # the one that was killed
    with pytest.raises(ValueError, match="must be continued with what it was begun with"):
        find_stable_rewinding_step(measure, 200, path=path, subject={"name": "b"})
    path.write_text("[]")
    with pytest.raises(ValueError, match="must be ours and carry its hash"):
        find_stable_rewinding_step(measure, 200, path=path)
    path.write_text('{"evaluations": {')
    with pytest.raises(ValueError, match="must be a whole JSON file"):
        find_stable_rewinding_step(measure, 200, path=path)


def test_wrong_searches_are_refused() -> None:
    with pytest.raises(ValueError, match="last_step must be an integer of at least 0, got -1"):
        find_stable_rewinding_step(lambda _: 0.0, -1)
    with pytest.raises(TypeError, match=r"last_step must be an integer of at least 0, got 1\.5"):
        find_stable_rewinding_step(lambda _: 0.0, 1.5)  # type: ignore[arg-type] # wrong on purpose
    with pytest.raises(TypeError, match="measure_instability must return a number, but returned None for step 4"):
        find_stable_rewinding_step(lambda _: None, 4)  # type: ignore[arg-type,return-value] # wrong on purpose
    with pytest.raises(TypeError, match="measure_instability must be a function"):
        find_stable_rewinding_step(0.5, 4)  # type: ignore[arg-type] # wrong on purpose
    with pytest.raises(ValueError, match="threshold must be from 0 to 1"):
        find_stable_rewinding_step(lambda _: 0.0, 4, threshold=-1)


def test_the_search_trains_and_resumes(tmp_path: Path) -> None:
    model, loader = make_network(), make_loader(3)
    before = describe_everything(model, loader)
    options: dict[str, Any] = {"num_epochs": 4, "num_points": 5, "num_replicates": 2}
    options |= {"path": tmp_path / "search.json", "trainer_id": "mine"}
    found = compute_stable_rewinding_epoch(model, loader, train, threshold=0.0, **options)
    assert found["step"] is None  # nothing is below 0
    for epoch, value in found["evaluations"].items():
        by_hand = compute_linear_connectivity(
            model, loader, trainer_fn=train, rewind_epoch=epoch, num_epochs=4, num_points=5, num_replicates=2
        )
        assert by_hand["instability"] == value
    assert describe_everything(model, loader) == before

    def never(model: Model, dataloader: Iterable[Any], *, epochs: int) -> None:
        raise AssertionError(model, dataloader, epochs)

    assert compute_stable_rewinding_epoch(model, loader, never, threshold=0.0, **options) == found
    for changes in ({"trainer_id": "another"}, {"metric": lambda *_: 0.5}):
        with pytest.raises(ValueError, match="must be continued with what it was begun with"):
            compute_stable_rewinding_epoch(model, loader, train, **{**options, **changes})
    with pytest.raises(ValueError, match="must be continued with what it was begun with"):
        compute_stable_rewinding_epoch(model, [(x + 1, y) for x, y in make_loader(3)], train, **options)
    with pytest.raises(ValueError, match="must be continued with what it was begun with"):
        compute_stable_rewinding_epoch(make_network(1), loader, train, **options)
    with pytest.raises(ValueError, match="last_epoch must be less than num_epochs, 4, got 4"):
        compute_stable_rewinding_epoch(model, loader, train, num_epochs=4, last_epoch=4)

    def loss_fn(inner: Model, batch: Mapping[int, Tensor]) -> Tensor:
        loss: Tensor = inner(batch[0]).pow(2).mean()
        return loss

    with pytest.raises(ValueError, match="the search needs an accuracy"):
        compute_stable_rewinding_epoch(model, loader, train, num_epochs=1, loss_fn=loss_fn)
