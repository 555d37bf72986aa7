"""Figures of changes, by hand and against numpy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lottery_tickets import CheckpointWeights, compute_change_statistics
from lottery_tickets.storage import save_weights

SUBNORMAL = 2.0**-133


def test_ulps_of_bfloat16_are_those_of_the_exponent() -> None:
    before = torch.tensor([[1.0, 2.0, 1.99, 1.0, 0.0, SUBNORMAL, 1.0, -1.0]]).bfloat16()
    after = torch.tensor([[1 + 2.0**-7, 2 + 2.0**-6, 2.0, 1 - 2.0**-8, SUBNORMAL, 5 * SUBNORMAL, 1.0, 1.0]]).bfloat16()
    found = compute_change_statistics({"a.weight": before}, {"a.weight": after})["overall"]
    # One ulp four times, half of one below a power of two, four of the smallest, and a sign: 2 / 2^-7.
    assert found["ulps"] == {"-1": 1, "0": 4, "2": 1, "8": 1}
    assert found["sizes"] == {"-133": 1, "-131": 1, "-8": 1, "-7": 2, "-6": 1, "1": 1}
    assert (found["num_weights"], found["num_changed"], found["num_sign_flips"]) == (8, 7, 1)
    assert (found["num_hidden"], found["share_hidden"]) == (None, None)
    assert found["by_exponent"] == [
        {"exponent": -127, "num_weights": 2, "num_changed": 2},
        {"exponent": 0, "num_weights": 5, "num_changed": 4},
        {"exponent": 1, "num_weights": 1, "num_changed": 1},
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_figures_are_those_of_numpy(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lottery_tickets.changes.statistics.WEIGHTS_PER_BLOCK", 1024)
    before = torch.randn(120, 70, dtype=dtype)
    after = before + 3e-3 * torch.randn(120, 70, dtype=dtype) * (torch.rand(120, 70) < 0.5)
    found = compute_change_statistics({"a.weight": before}, {"a.weight": after})["overall"]
    old, new = before.double().numpy().ravel(), after.double().numpy().ravel()
    delta = np.abs(new - old)
    assert found["num_changed"] == np.count_nonzero(delta)
    assert found["num_sign_flips"] == np.count_nonzero(old * new < 0)
    hidden = ((before != after) & (before.bfloat16() == after.bfloat16())).sum().item()
    assert (found["num_hidden"], found["share_hidden"]) == (hidden, hidden / found["num_changed"])
    assert found["norm"] == pytest.approx(np.linalg.norm(delta), rel=1e-12)
    largest = np.sort(delta)[::-1][:84]
    assert found["largest_share"] == pytest.approx(np.square(largest).sum() / np.square(delta).sum(), rel=0.01)
    powers, counts = np.unique(np.floor(np.log2(delta[delta > 0])), return_counts=True)
    assert found["sizes"] == {str(int(p)): c for p, c in zip(powers, counts.tolist(), strict=True)}
    spacing = np.spacing(np.abs(before.numpy().ravel()[delta > 0])).astype(float)
    powers, counts = np.unique(np.floor(np.log2(delta[delta > 0] / spacing)), return_counts=True)
    assert found["ulps"] == {str(int(p)): c for p, c in zip(powers, counts.tolist(), strict=True)}


def test_layers_of_a_kind_are_summed_and_files_give_the_same(tmp_path: Path) -> None:
    before = {f"layers.{n}.{kind}.weight": torch.randn(20, 9) for n in (0, 1, 10) for kind in ("up", "down")}
    after = {name: w + 1e-8 * torch.randn(w.shape) * (n % 3) for n, (name, w) in enumerate(before.items())}
    found = compute_change_statistics(before, after)
    assert set(found["kinds"]) == {"layers.*.up.weight", "layers.*.down.weight"}
    figures: dict[str, Any] = dict(found["overall"])
    for key in ("num_weights", "num_changed", "num_hidden", "num_sign_flips"):
        for parts in (found["layers"], found["kinds"]):
            assert figures[key] == sum(dict[str, Any](part)[key] for part in parts.values())
    assert found["overall"]["norm"] == pytest.approx(
        sum(layer["norm"] ** 2 for layer in found["layers"].values()) ** 0.5
    )
    for name, state in (("before", before), ("after", after)):
        save_weights(state, tmp_path / name / "model.safetensors")
    stored = [CheckpointWeights(tmp_path / name) for name in ("before", "after")]
    assert compute_change_statistics(*stored)["overall"] == found["overall"]


def test_nothing_and_everything() -> None:
    weights = {"a.weight": torch.randn(8, 8)}
    found = compute_change_statistics(weights, weights)["overall"]
    assert (found["num_changed"], found["share_hidden"], found["largest_share"], found["ulps"]) == (0, None, None, {})
    found = compute_change_statistics(weights, {"a.weight": -weights["a.weight"]})["overall"]
    assert (found["share_changed"], found["num_sign_flips"], found["num_hidden"]) == (1.0, 64, 0)


def test_weights_that_diverged_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be finite, but 'a.weight' has a change to or from NaN"):
        compute_change_statistics({"a.weight": torch.ones(2, 2)}, {"a.weight": torch.full((2, 2), torch.nan)})
