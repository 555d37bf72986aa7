"""Overlaps given the weights: against loops, and against independent updates that fool coarser nulls."""

import math
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from lottery_tickets import CheckpointWeights, compute_change_mask, compute_overlap_matrix, compute_ticket_overlap
from lottery_tickets.masks.nulls import _find_quantile, _find_tail
from lottery_tickets.storage import save_weights

Masks = tuple[dict[str, Tensor], dict[str, Tensor]]
SHAPES = {"a.weight": (24, 17), "b.weight": (9, 8, 3, 3), "c.weight": (5, 3), "d.weight": (11,), "e.weight": (0, 4)}


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    """Verdicts are wrong at their rate; here the same one is drawn each time."""
    torch.manual_seed(0)


def make_masks(shapes: dict[str, tuple[int, ...]], density: float = 0.3) -> Masks:
    first, second = ({name: torch.rand(shape) < density for name, shape in shapes.items()} for _ in range(2))
    return first, second


def compare(masks: Masks, weights: Any, **options: Any) -> dict[str, Any]:  # noqa: ANN401 - figures
    found: dict[str, Any] = compute_ticket_overlap(*masks, given=weights, **options)["given"]
    return found


def code_of(value: float) -> int:
    """The magnitude's first 16 bits as a float32."""
    return (int(torch.tensor(value).view(torch.int32)) >> 16) & 0x7FFF


STRATA: dict[str, Callable[[str, float], object]] = {
    "naive": lambda _name, _value: 0,
    "layer": lambda name, _value: name,
    "exponent": lambda name, value: (name, code_of(value) >> 7),
    "value": lambda name, value: (name, code_of(value)),
}


def compute_by_loops(masks: Masks, weights: dict[str, Tensor], null: str) -> dict[str, float]:
    """The number expected, the ratio and its standard deviation, as the definition says them."""
    places = [(name, place) for name in weights for place in np.ndindex(*weights[name].shape)]
    strata = {(name, place): STRATA[null](name, float(weights[name][place])) for name, place in places}
    totals: dict[object, list[float]] = defaultdict(lambda: [0, 0, 0])
    for name, place in places:
        for number, value in enumerate((1.0, float(masks[0][name][place]), float(masks[1][name][place]))):
            totals[strata[name, place]][number] += value
    observed = expected = independent = again = 0.0
    clusters: dict[tuple[object, int], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for name, place in places:
        num, *kept = totals[strata[name, place]]
        a, b = (total / num for total in kept)
        first, second = float(masks[0][name][place]), float(masks[1][name][place])
        sizes = weights[name].shape
        blocks = [(size, place[dim] * 8 // size) for dim, size in enumerate(sizes) if size >= 8]
        own: list[tuple[object, int]] = [*blocks] or [(name, 0)]
        for cluster in own:
            clusters[cluster][0] += (first - a) * (second - b)
            clusters[cluster][1] += a * b * bool(blocks)
        variance = a * (1 - a) * b * (1 - b) * num / max(num - 1, 1)
        observed, expected, independent = observed + first * second, expected + a * b, independent + variance
        again += variance * (max(len(blocks), 1) - 1)
    ratio = observed / expected
    spread = sum((excess - (ratio - 1) * chance) ** 2 for excess, chance in clusters.values()) * 8 / 7 - again
    std = math.sqrt(max(spread, independent * max(ratio, 1))) / expected
    return {"expected": expected, "ratio": ratio, "std": std, "independent": math.sqrt(independent) / expected}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("null", list(STRATA))
def test_figures_are_those_of_the_definition(dtype: torch.dtype, null: str) -> None:
    values = torch.tensor([0.0, 0.25, -0.3, 0.5, 0.6, 1.0], dtype=dtype)
    weights = {name: values[torch.randint(6, shape)] for name, shape in SHAPES.items()}
    masks = make_masks(SHAPES)
    for mask, rows in zip(masks, (slice(0, 12), slice(6, 18)), strict=True):
        mask["a.weight"][rows] = False
    by_hand, figures = compute_by_loops(masks, weights, null), compare(masks, weights, error_rate=0.025)["nulls"][null]
    assert figures["expected_both"] == pytest.approx(by_hand["expected"])
    assert figures["ratio"] == pytest.approx(by_hand["ratio"])
    reach = by_hand["std"] * stats.t.isf(0.025, 7)
    close = 1e-3 if null == "naive" else 1e-9  # there, degrees of freedom are counted by layer
    assert figures["low"] == pytest.approx(max(by_hand["ratio"] - reach, 0), rel=close)
    assert figures["high"] == pytest.approx(by_hand["ratio"] + reach, rel=close)
    assert figures["p_value"] == pytest.approx(stats.t.sf((by_hand["ratio"] - 1) / by_hand["std"], 7), rel=10 * close)
    assert by_hand["std"] > 1.05 * by_hand["independent"]


def test_tails_are_those_of_students_t() -> None:
    for t in (-3.0, 0.0, 0.5, 2.998, 12.0):
        assert _find_tail(t) == pytest.approx(stats.t.sf(t, 7), rel=1e-9)
    for tail in (0.4, 0.05, 0.01, 1e-5):
        assert _find_quantile(tail) == pytest.approx(stats.t.isf(tail, 7), rel=1e-9)


# ------------------------------------------------------------------------------------------- what fools coarser nulls


def update(
    weights: dict[str, Tensor], size: float, scale: Callable[[Tensor], Tensor] | None = None
) -> dict[str, Tensor]:
    """Returns weights after an update of independent normal numbers, stored as before."""
    moved = {}
    for name, weight in weights.items():
        delta = size * torch.randn(weight.shape, dtype=torch.float64)
        moved[name] = (weight.double() + (delta if scale is None else scale(delta))).to(weight.dtype)
    return moved


def make_weights(
    dtype: torch.dtype = torch.bfloat16, num: int = 2, shape: tuple[int, int] = (192, 160)
) -> dict[str, Tensor]:
    return {f"{n}.weight": (0.02 * torch.randn(shape)).to(dtype) for n in range(num)}


def change_twice(weights: dict[str, Tensor], size: float, **options: Any) -> Masks:  # noqa: ANN401 - of a mask
    first, second = (dict(compute_change_mask(weights, update(weights, size), **options)) for _ in range(2))
    return first, second


def test_independent_updates_of_bfloat16_are_at_chance_and_naive_chance_is_wrong() -> None:
    weights = make_weights(num=4, shape=(256, 256))
    figures = compare(change_twice(weights, 3e-6), weights)
    ratios = {name: null["ratio"] for name, null in figures["nulls"].items()}
    assert ratios["naive"] > 10 < ratios["layer"]
    assert ratios["value"] == pytest.approx(1, abs=0.05)
    assert (figures["verdict"], figures["error_rate"]) == ("at chance", 0.01)


def test_structure_that_both_share_is_beyond_chance() -> None:
    weights = make_weights()
    first, second = change_twice(weights, 2e-5)
    planted = {name: torch.rand(w.shape) < 0.02 for name, w in weights.items()}
    figures = compare(({n: first[n] | planted[n] for n in first}, {n: second[n] | planted[n] for n in first}), weights)
    assert figures["verdict"] == "beyond chance"
    assert figures["nulls"]["value"]["low"] > 1


def test_masks_that_avoid_each_other_are_below_chance() -> None:
    weights = make_weights()
    first, second = make_masks({name: tuple(w.shape) for name, w in weights.items()})
    assert (
        compare((first, {name: kept & ~first[name] for name, kept in second.items()}), weights)["verdict"]
        == "below chance"
    )


def test_powers_of_two_change_more_easily_and_do_not_fool_the_finest_null() -> None:
    """Below a power of two numbers are twice as dense, so half as large a step downwards is stored."""
    weights = {"a.weight": (torch.rand(256, 512) + 1).bfloat16()}
    weights["a.weight"][torch.rand(256, 512) < 0.2] = 1.0
    nulls = compare(change_twice(weights, 2e-3), weights)["nulls"]
    assert nulls["exponent"]["low"] > 1.1
    assert nulls["value"]["low"] < 1 < nulls["value"]["high"]


def test_relative_changes_depend_on_the_mantissa_and_do_not_fool_the_finest_null() -> None:
    weights = make_weights(torch.float32, num=1, shape=(512, 512))
    nulls = compare(change_twice(weights, 1e-4, by="relative", sparsity=0.9), weights)["nulls"]
    assert nulls["exponent"]["low"] > 1.005
    assert nulls["value"]["low"] < 1 < nulls["value"]["high"]


def test_heads_of_their_own_scale_do_not_fool_the_variance() -> None:
    """Eight heads, whose updates are larger or smaller in each run anew."""
    weights, verdicts, zs = make_weights(shape=(128, 64)), [], []
    for _ in range(20):
        masks = []
        for _run in range(2):
            heads = torch.randn(8, 1, dtype=torch.float64).mul(1.5).exp().repeat_interleave(16, 0)
            masks.append(dict(compute_change_mask(weights, update(weights, 1e-5, heads.mul))))
        figures = compare((masks[0], masks[1]), weights)
        verdicts.append(figures["verdict"])
        counts = [(x["num_weights"], *x["num_kept"]) for x in figures["by_exponent"]]
        spread = math.sqrt(sum(n * (a / n) * (1 - a / n) * (b / n) * (1 - b / n) for n, a, b in counts))
        expected = figures["nulls"]["value"]["expected_both"]
        zs.append((figures["nulls"]["value"]["ratio"] - 1) * expected / spread)
    assert verdicts.count("beyond chance") <= 1
    assert sum(z > 2.33 for z in zs) > 2  # as if weights were independent, these would be found beyond chance


# ------------------------------------------------------------------------------------------------------ edges and files


def test_nothing_and_everything_are_at_chance() -> None:
    weights = make_weights(num=1)
    none = {name: torch.zeros(w.shape, dtype=torch.bool) for name, w in weights.items()}
    every = {name: ~mask for name, mask in none.items()}
    for masks, ratio in (((none, none), None), ((none, every), None), ((every, every), 1.0)):
        figures = compare(masks, weights)
        assert (figures["verdict"], figures["nulls"]["value"]["ratio"]) == ("at chance", ratio)


def test_figures_by_exponent_add_up() -> None:
    weights = make_weights() | {"zeros.weight": torch.zeros(8, 8, dtype=torch.bfloat16)}
    masks = make_masks({name: tuple(w.shape) for name, w in weights.items()})
    found = compute_ticket_overlap(*masks, given=weights)
    rows = found["given"]["by_exponent"]
    assert sum(row["num_weights"] for row in rows) == found["num_weights"]
    assert [sum(row["num_kept"][side] for row in rows) for side in (0, 1)] == found["num_kept"]
    assert sum(row["num_both"] for row in rows) == found["num_both"]
    expected = found["given"]["nulls"]["value"]["expected_both"]
    assert sum(row["expected_both"] for row in rows) == pytest.approx(expected)
    assert rows[0]["exponent"] == -127
    assert all(a["exponent"] < b["exponent"] for a, b in pairwise(rows))
    first, second = found["num_kept"]
    assert found["expected_overlap"] == pytest.approx(expected / (first + second - expected))


def test_files_give_what_memory_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = make_weights()
    save_weights(weights, tmp_path / "model.safetensors")
    masks = make_masks({name: tuple(w.shape) for name, w in weights.items()})
    whole = compare(masks, weights)
    monkeypatch.setattr("lottery_tickets.masks.strata.WEIGHTS_PER_BLOCK", 1000)
    assert compare(masks, CheckpointWeights(tmp_path / "model.safetensors")) == whole


def test_the_verdicts_of_all_pairs_share_the_error_rate() -> None:
    weights = make_weights(num=1)
    masks = {name: make_masks({"0.weight": (192, 160)})[0] for name in "abc"}
    found = compute_overlap_matrix(masks, given=weights, error_rate=0.03)
    assert [(pair["first"], pair["second"]) for pair in found["pairs"]] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [pair["error_rate"] for pair in found["pairs"]] == [0.01] * 3
    single = compute_ticket_overlap(masks["a"], masks["c"], given=weights)
    assert found["pairs"][1]["nulls"] == single["given"]["nulls"]
    assert found["expected"][0][2] == single["expected_overlap"]


def test_other_weights_are_refused() -> None:
    weights = make_weights(num=1)
    masks = make_masks({"0.weight": (192, 160)})
    with pytest.raises(ValueError, match=r"must have the weights of the mask, but does not: .*'0.weight'"):
        compare(masks, {"1.weight": weights["0.weight"]})
    with pytest.raises(ValueError, match=r"in the mask's shape \(192, 160\), but has \(160, 192\)"):
        compare(masks, {"0.weight": weights["0.weight"].T})
    with pytest.raises(ValueError, match=r"error_rate must be between 0 and 0\.5, got 0.5"):
        compare(masks, weights, error_rate=0.5)
