"""The benchmark of Fisher's stages times calls by their names within the library: it must find them there."""

import pytest
from benchmarks.speed import fisher_stages
from torch import nn


def build_tiny() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 10))


def test_it_finds_what_it_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fisher_stages, "CASES", {"tiny": (build_tiny, 8)})
    monkeypatch.setattr(fisher_stages, "REPEATS", 1)

    layers, passes = fisher_stages.measure_layers("tiny"), fisher_stages.measure_passes("tiny")

    assert {layer["name"] for layer in layers} == {"0.weight", "3.weight"}
    assert all(0 < layer["alone"] < 1 for layer in layers)
    ours, bare = {"forward", "backward", "again", "around"}, {"bare_forward", "bare_backward", "bare_watched"}
    assert set(passes) == ours | bare
