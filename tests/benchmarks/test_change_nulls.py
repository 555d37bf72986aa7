"""The simulation behind docs/changes.md simulates what it says."""

from functools import partial

import numpy as np
import pytest
import torch
from benchmarks.changes.nulls import draw_hidden, draw_pair, draw_scaled, judge, measure, plant
from benchmarks.changes.updates import UPDATES, draw_update


@pytest.mark.parametrize("world", UPDATES)
def test_updates_have_their_size_and_know_nothing_of_each_other(world: str) -> None:
    generator = np.random.default_rng(0)
    first, second = (
        np.concatenate([delta.ravel() for delta in draw_update(world, generator, 2.0).values()]) for _ in range(2)
    )
    assert np.median(np.abs(first)) == pytest.approx(2 * 0.6745)
    assert abs(np.corrcoef(np.sign(first), np.sign(second))[0, 1]) < 0.05


def test_a_channel_has_one_scale_in_all_layers() -> None:
    drawn = {
        name: np.log(np.abs(delta)) for name, delta in draw_update("channels", np.random.default_rng(0), 1).items()
    }
    by_channel = [drawn["0.up.weight"].mean(0), drawn["0.down.weight"].mean(1)]
    assert np.corrcoef(by_channel)[0, 1] > 0.95


def test_structure_is_found_and_none_is_not() -> None:
    generator = np.random.default_rng(0)
    assert judge(draw_scaled("normal", 0.1, partial(plant, 100.0), generator))["value beyond"]
    assert judge(draw_hidden(0.1, generator))["value beyond"]
    row = measure(partial(draw_pair, "normal", torch.bfloat16, 0.1, {}), [0], 5)
    assert (row["num"], row["value beyond"]["num"], row["naive beyond"]["num"]) == (5, 0, 5)
