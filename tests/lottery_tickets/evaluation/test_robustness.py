import copy
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lottery_tickets import apply_mask, compute_pruning_robustness, create_magnitude_mask, load_results, save_results
from lottery_tickets._core.selection import largest
from lottery_tickets._core.selection.largest import Ranking, select_largest
from lottery_tickets._core.weights import Weights
from lottery_tickets.evaluation.robustness import SPARSITY_LEVELS, RobustnessPoint, _draw_random, _sum_up
from tests.models import make_convolutions, make_language_model, make_mlp


def make_batch(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return torch.randn(40, 5, dtype=torch.float64).to(dtype), torch.randint(3, (40,))


def plainly(model: nn.Module, batch: tuple[Tensor, Tensor], sparsity: float, scope: str) -> tuple[float, float]:
    """Loss and accuracy of a copy of the model with its weights zeroed."""
    pruned = copy.deepcopy(model).eval()
    apply_mask(pruned, create_magnitude_mask(model, sparsity, scope=scope))
    with torch.no_grad():
        logits = pruned(batch[0])
    return float(nn.functional.cross_entropy(logits, batch[1])), float((logits.argmax(1) == batch[1]).double().mean())


@pytest.mark.filterwarnings("ignore:layer collapse")
@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("make", [make_mlp, make_convolutions])
def test_magnitude_curve_equals_copies_that_are_pruned(make: Any, scope: Any) -> None:  # noqa: ANN401 - parametrised
    model = make()
    batch = make_batch() if make is make_mlp else (torch.randn(20, 2, 4, 4).double(), torch.randint(3, (20,)))
    found = compute_pruning_robustness(model, batch, scope=scope, curves=["magnitude"])
    for point in found["sparsity_curves"]["magnitude"]:
        loss, accuracy = plainly(model, batch, point["sparsity"], scope)
        assert point["loss"] == pytest.approx(loss, rel=1e-12)
        assert point["accuracy"] == accuracy


def test_levels_are_exact_nested_and_reproducible() -> None:
    model, batch = make_mlp(), make_batch()
    found = compute_pruning_robustness(model, batch, return_masks=True, seed=3)
    masks = found["masks"]
    assert masks is not None
    for curve, several in masks.items():
        assert [mask.provenance["sparsity"] for mask in several] == list(SPARSITY_LEVELS)
        assert all(sparser.is_subset(denser) for denser, sparser in pairwise(several)), curve
    for level, mask in zip(SPARSITY_LEVELS, masks["magnitude"], strict=True):
        assert mask.num_weights - mask.num_kept == round(level * mask.num_weights)
    for level, mask in zip(SPARSITY_LEVELS, masks["random"], strict=True):
        for name, shape in mask.shapes.items():
            assert int((~mask[name]).sum()) == round(level * shape.numel())
    again = compute_pruning_robustness(model, batch, return_masks=True, seed=3)
    assert again["sparsity_curves"] == found["sparsity_curves"]
    other = compute_pruning_robustness(model, batch, return_masks=True, seed=4)
    assert other["masks"] is not None
    assert other["masks"]["magnitude"] == masks["magnitude"]
    assert other["masks"]["random"] != masks["random"]


def test_random_masks_are_uniform_over_places() -> None:
    model = nn.Linear(40, 1, bias=False)
    counts = torch.zeros(1, 40)
    for seed in range(100):
        found = compute_pruning_robustness(
            model, (torch.randn(2, 40), torch.zeros(2, dtype=torch.int64)), [0.75], curves=["random"], seed=seed,
            return_masks=True,
        )  # fmt: skip
        assert found["masks"] is not None
        counts += found["masks"]["random"][0]["weight"]
    assert counts.sum() == 100 * 10
    assert float(((counts - 25) / math.sqrt(100 * 0.25 * 0.75)).square().mean()) < 2  # 1 on average


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_ranking_draws_what_the_selector_draws(dtype: torch.dtype) -> None:
    drawn = {"a": torch.randn(50, dtype=torch.float64), "b": torch.randn(3, 40, dtype=torch.float64)}
    scores = Weights.from_tensors({name: score.to(dtype) for name, score in drawn.items()})
    ranking = Ranking(scores)
    for num_kept in (0, 1, 17, 80, 81, 169, 170):
        expected = select_largest(scores, num_kept)
        assert all(torch.equal(bits, expected[name]) for name, bits in ranking.keep(num_kept).items())


@given(st.integers(0, 200), st.integers(0, 2**31), st.integers(0, 2**31))
def test_a_guess_right_or_wrong_never_changes_a_ranking(num_kept: int, first: int, second: int) -> None:
    drawn = torch.randn(120, generator=torch.Generator().manual_seed(first))
    scores = Weights.from_tensors({"drawn": drawn, "zero": torch.zeros(80)})
    least, greatest = sorted(min(end, 0x7F7FFFFF) for end in (first, second))
    expected = Ranking(scores).keep(num_kept)
    found = Ranking(scores).keep(num_kept, (least, greatest))
    assert all(torch.equal(bits, expected[name]) for name, bits in found.items())


@pytest.mark.parametrize("size", [1, 2, 100, 10_000])
def test_the_guess_of_random_scores_is_a_pass_saved(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []

    def count(*arguments: Any) -> Any:  # noqa: ANN401 - handed on
        passes.append(arguments[2])
        return count_pass(*arguments)

    count_pass = largest._count_pass
    monkeypatch.setattr(largest, "_count_pass", count)
    for seed in range(10):
        _draw_random(Weights.from_tensors({"w": torch.empty(size)}), seed, 0.5)
    assert len(passes) <= 25  # two each for float32 without a guess or with a wide one, and few are wrong
    if size == 10_000:
        assert all(bracket.hi - bracket.lo < 2**27 for bracket in passes[:10])


def test_weights_are_counted_once_for_all_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []

    def count(magnitudes: Any, kernels: Any, bracket: Any) -> Any:  # noqa: ANN401 - handed on
        passes.append(bracket)
        return count_pass(magnitudes, kernels, bracket)

    count_pass = largest._count_pass
    monkeypatch.setattr(largest, "_count_pass", count)
    ranking = Ranking(Weights.from_tensors({"w": torch.randn(1000)}))
    for num_kept in (500, 500, 499, 100):
        ranking.keep(num_kept)
    assert len(passes) == len(set(passes))  # of which one is over all weights


def test_layers_of_one_shape_get_random_masks_of_their_own() -> None:
    model = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 20))
    batch = (torch.randn(4, 20), torch.randint(20, (4,)))
    found = compute_pruning_robustness(model, batch, [0.5], curves=["random"], return_masks=True)
    assert found["masks"] is not None
    [mask] = found["masks"]["random"]
    assert not torch.equal(mask["0.weight"], mask["1.weight"])


def test_levels_may_be_an_array_or_a_tensor() -> None:
    model, batch = make_mlp(), make_batch()
    expected = compute_pruning_robustness(model, batch, [0.0, 0.5, 1.0])
    for levels in (np.linspace(0, 1, 3), torch.linspace(0, 1, 3), (1, 0, 0.5, 0.5)):
        assert compute_pruning_robustness(model, batch, levels) == expected  # type: ignore[arg-type]


def test_full_sparsity_and_none() -> None:
    model, batch = make_mlp(), make_batch()
    found = compute_pruning_robustness(model, batch, [1.0, 0.0], scope="layer")
    first, last = found["sparsity_curves"]["magnitude"]
    assert (first["sparsity"], first["loss"], first["retention"]) == (0.0, found["baseline_loss"], 1.0)
    assert last["sparsity"] == 1.0
    assert found["sparsity_curves"]["random"] == found["sparsity_curves"]["magnitude"]
    assert found["robustness_metrics"]["winning_ticket_score"] == 0.0


def points(*pairs: tuple[float, float | None]) -> list[RobustnessPoint]:
    point: RobustnessPoint = {
        "sparsity": 0.0, "actual_sparsity": 0.0, "layer_sparsities": {}, "loss": 1.0, "accuracy": None,
        "perplexity": None, "retention": None,
    }  # fmt: skip
    return [{**point, "sparsity": s, "actual_sparsity": s, "retention": r} for s, r in pairs]


def test_the_three_figures_on_hand_made_curves() -> None:
    curves = {"magnitude": points((0.5, 1.0), (1.0, 0.0)), "random": points((0.5, 0.0), (1.0, 0.0))}
    metrics = _sum_up(curves, 0.05, 0.5)
    # Gaps 0, 1, 0 at sparsity 0, 0.5 and 1: two triangles.
    assert metrics == {"winning_ticket_score": 0.5, "optimal_sparsity": 0.5, "critical_sparsity": 0.75}
    better = {"magnitude": points((0.5, 1.3), (1.0, 1.2)), "random": points((0.5, 1.1), (1.0, 0.0))}
    metrics = _sum_up(better, 0.05, 0.5)
    assert metrics["winning_ticket_score"] == pytest.approx(0.25)  # what is better than the baseline counts as all
    assert (metrics["optimal_sparsity"], metrics["critical_sparsity"]) == (1.0, None)
    # A level that recovers does not count for the optimum: every level before it must hold.
    assert _sum_up({"magnitude": points((0.2, 0.9), (0.4, 1.0))}, 0.05, 0.5)["optimal_sparsity"] == 0.0
    assert _sum_up({"magnitude": points((0.2, 0.96), (0.4, 0.95))}, 0.05, 0.5)["optimal_sparsity"] == 0.4
    assert _sum_up({"magnitude": points((0.2, None))}, 0.05, 0.5) == {
        "winning_ticket_score": None,
        "optimal_sparsity": 0.0,
        "critical_sparsity": None,
    }


def test_a_crossing_is_where_the_line_between_two_levels_crosses() -> None:
    metrics = _sum_up({"magnitude": points((0.4, 0.8), (0.6, 0.2), (0.8, 0.7))}, 0.05, 0.5)
    assert metrics["critical_sparsity"] == pytest.approx(0.5)
    touching = {"magnitude": points((0.4, 0.5), (0.6, 0.5), (0.8, 0.3))}
    assert _sum_up(touching, 0.05, 0.5)["critical_sparsity"] == pytest.approx(0.6)  # at 0.5 it is not below it yet
    assert _sum_up({"magnitude": points((0.4, 0.25))}, 0.05, 0.5)["critical_sparsity"] == pytest.approx(
        0.4 * 0.5 / 0.75
    )


def test_language_models_are_measured_by_perplexity() -> None:
    model = make_language_model("Llama").float()
    found = compute_pruning_robustness(model, {"input_ids": torch.randint(23, (4, 8))}, [0.5, 0.9])
    assert found["metric"] == "perplexity"
    point = found["sparsity_curves"]["magnitude"][0]
    assert point["loss"] is not None
    assert point["retention"] == pytest.approx(math.exp(found["baseline_loss"] - point["loss"]))


def test_a_loss_that_is_not_finite_is_none_and_retains_nothing() -> None:
    def loss_fn(model: nn.Module, _batch: object) -> Tensor:
        kept: Tensor = (model.get_parameter("weight") != 0).double().mean()
        return 1 / (kept > 0.5).double()

    found = compute_pruning_robustness(nn.Linear(8, 8).double(), None, [0.25, 0.75], loss_fn=loss_fn)
    good, bad = found["sparsity_curves"]["magnitude"]
    assert (good["loss"], good["retention"]) == (1.0, 1.0)
    assert (bad["loss"], bad["retention"]) == (None, 0.0)


def test_a_metric_of_the_callers() -> None:
    def count(model: nn.Module, batches: Any) -> float:  # noqa: ANN401 - the batch in a list
        assert len(batches) == 1
        return float((model.get_parameter("weight") + 0 != 0).sum())

    found = compute_pruning_robustness(
        nn.Linear(10, 10), (torch.randn(2, 10), torch.randint(10, (2,))), [0.3], metric=count
    )
    assert found["metric"] == "count"
    assert found["sparsity_curves"]["magnitude"][0]["retention"] == pytest.approx(0.7)


def test_results_are_saved_with_their_masks(tmp_path: Any) -> None:  # noqa: ANN401 - a path
    found = compute_pruning_robustness(make_mlp(), make_batch(), [0.5], return_masks=True)
    save_results(found, tmp_path / "robustness.json")
    assert load_results(tmp_path / "robustness.json") == found


def test_bad_input() -> None:
    model, batch = make_mlp(), make_batch()
    refused: tuple[Any, ...] = ([], "abc", 0.5)
    for levels in refused:
        with pytest.raises(ValueError, match="sparsity_levels must be a list of at least one number"):
            compute_pruning_robustness(model, batch, levels)
    with pytest.raises(ValueError, match=r"sparsity must be from 0 \(keep all\) to 1"):
        compute_pruning_robustness(model, batch, [0.5, 1.5])
    with pytest.raises(ValueError, match="scope must be 'global' or 'layer', whose masks are nested, got 'erk'"):
        compute_pruning_robustness(model, batch, scope="erk")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="curves must be some of"):
        compute_pruning_robustness(model, batch, curves=["fisher"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"tolerance must lie in \[0, 1\], got 2"):
        compute_pruning_robustness(model, batch, tolerance=2)
    with pytest.raises(ValueError, match="metric must be one of auto, accuracy, perplexity, loss or a function"):
        compute_pruning_robustness(model, batch, metric="f1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a batch must be a dict"):
        compute_pruning_robustness(model, 3)
    with torch.no_grad():
        model.get_parameter("0.bias").fill_(torch.nan)
    with pytest.raises(ValueError, match="the unpruned model's loss must be finite"):
        compute_pruning_robustness(model, batch)
    with torch.no_grad():
        model.get_parameter("0.weight")[0, 0] = torch.inf
        model.get_parameter("0.bias").zero_()
    with pytest.raises(ValueError, match="must be finite"):
        compute_pruning_robustness(model, batch)
