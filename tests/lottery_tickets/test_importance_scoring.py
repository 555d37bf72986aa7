"""What each score must mean, hybrids, masks of scores, and arguments that are refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lottery_tickets import (
    ScoringOptions,
    compute_fisher_importance,
    compute_gradient_importance,
    compute_hybrid_importance,
    compute_magnitude_importance,
    compute_taylor_importance,
    create_importance_mask,
    create_magnitude_mask,
)
from tests.lottery_tickets.scores.battery import SCORES, batch, gradients_of, make_data, make_mlp
from tests.models import make_flat_convolutions, make_language_model

# ------------------------------------------------------------------------------------------------ what each must mean


FORMULAS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "fisher": lambda g, _: g.square().mean(0),
    "saliency": lambda g, w: 0.5 * g.square().mean(0) * w**2,
    "gradient": lambda g, _: g.abs().mean(0),
    "gradient of the mean": lambda g, _: g.mean(0).abs(),
    "taylor": lambda g, w: (g * w).abs().mean(0),
    "taylor, squared": lambda g, w: (g * w).square().mean(0),
    "taylor, units": lambda g, w: (g * w).flatten(2).sum(2).square().mean(0).view(-1, *[1] * (w.ndim - 1)).expand_as(w),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_formulas_on_single_samples(name: str) -> None:
    model, data = make_flat_convolutions().double(), make_data(dtype=torch.float64)
    scores = SCORES[name](model, batch(data, 16, 8))
    for key, gradients in gradients_of(model, data).items():
        wanted = FORMULAS[name](gradients, model.get_parameter(key)).detach().float()
        torch.testing.assert_close(scores[key], wanted, rtol=1e-6, atol=0)


def test_fisher_is_not_the_square_of_a_batch_mean_and_not_the_last_sample() -> None:
    """Published "Fisher" scores square the batch's mean gradient; Torch-Pruning's Hessian keeps the last sample."""
    model, data = make_mlp().double(), make_data(64, torch.float64)
    fisher = compute_fisher_importance(model, [data])["0.weight"].double().flatten()
    gradients = gradients_of(model, data)["0.weight"].flatten(1)
    for wrong in (gradients.mean(0).square(), gradients[-1].square()):
        assert float((fisher - wrong).norm() / fisher.norm()) > 0.3
    right = gradients.square().mean(0)
    assert float((fisher - right).norm() / right.norm()) < 1e-6


def test_the_rank_of_a_batch_means_square_falls_with_the_batch() -> None:
    """The trap of the literature, measured: the larger the batch, the less its squared mean says about F."""
    torch.manual_seed(0)
    model, data = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 4)).double(), make_data(512, torch.float64)
    gradients = gradients_of(model, data)["0.weight"].flatten(1)
    ours = [compute_fisher_importance(model, batch(data, *[size] * (512 // size)))["0.weight"].flatten()
            for size in (4, 16, 64)]  # fmt: skip
    true_ranks = gradients.square().mean(0).argsort().argsort().double()
    wrong = []
    for size, fisher in zip((4, 16, 64), ours, strict=True):
        squares = gradients.view(512 // size, size, -1).mean(1).square().mean(0)
        wrong.append(float(torch.corrcoef(torch.stack([squares.argsort().argsort().double(), true_ranks]))[0, 1]))
        assert float(torch.corrcoef(torch.stack([fisher.argsort().argsort().double(), true_ranks]))[0, 1]) > 0.9999
    assert wrong[0] > wrong[1] > wrong[2]


def test_a_language_models_sample_is_a_sequence_and_its_loss_the_mean_over_its_tokens() -> None:
    model = make_language_model("Llama").eval()
    tokens = torch.randint(23, (3, 7))
    labels = tokens.clone()
    labels[0, 3:] = -100
    fisher = compute_fisher_importance(model, [{"input_ids": tokens, "labels": labels}])
    assert fisher.report["computed"] == "whole batches"
    assert not any("embed" in name or "lm_head" in name or "norm" in name for name in fisher)
    name = "model.layers.0.mlp.up_proj.weight"
    squares = torch.zeros_like(fisher[name])
    for i in range(3):
        logits = model(tokens[i : i + 1]).logits[0, :-1]
        loss = functional.cross_entropy(logits, labels[i, 1:])
        squares += torch.autograd.grad(loss, model.get_parameter(name))[0].square() / 3
    torch.testing.assert_close(fisher[name], squares, rtol=1e-4, atol=1e-10)
    unlabelled = compute_fisher_importance(model, [{"input_ids": tokens}])  # labels default to the tokens
    assert not torch.allclose(unlabelled[name], fisher[name])


def test_sums_are_float32_however_low_the_model() -> None:
    """A bf16 sum loses terms below 1/512 of it: 10,000 equal terms would give a fraction of their sum."""
    model = nn.Linear(1, 2, bias=False).bfloat16()
    nn.init.zeros_(model.weight)
    inputs = torch.full((10_000, 1), 2.0**-8, dtype=torch.bfloat16)
    fisher = compute_fisher_importance(model, [(inputs, torch.zeros(10_000, dtype=torch.long))], 10_000)
    torch.testing.assert_close(fisher["weight"], torch.full((2, 1), (0.5 * 2.0**-8) ** 2), rtol=1e-3, atol=0)


# ------------------------------------------------------------------------------------------------------ hybrid, masks


@pytest.mark.filterwarnings("ignore:layer collapse")  # of so small a network, with some weights
def test_hybrid_of_one_score_ranks_as_the_score() -> None:
    model, data = make_flat_convolutions(), batch(make_data(), 24)
    taylor = compute_taylor_importance(model, data)
    for scope in ("global", "layer", "row"):
        hybrid = compute_hybrid_importance(model, data, {"taylor": 3.0}, rank_within=scope)
        assert all(float(score.min()) >= 0 and float(score.max()) <= 1 for score in hybrid.values())
        assert create_importance_mask(hybrid, 0.7, scope=scope) == create_importance_mask(taylor, 0.7, scope=scope)


def test_hybrid_does_not_depend_on_units() -> None:
    """Scores of different units cannot be added: scaling the loss scales F a millionfold and must change nothing."""
    model, data = make_mlp(), batch(make_data(), 24)
    weights = {"magnitude": 1.0, "fisher": 1.0}
    plain = compute_hybrid_importance(model, data, weights)
    scaled = compute_hybrid_importance(
        model, data, weights, loss_fn=lambda m, b: 1000 * functional.cross_entropy(m(b[0]), b[1])
    )
    for name, score in plain.items():
        torch.testing.assert_close(scaled[name], score, rtol=0, atol=0)
    assert create_importance_mask(plain, 0.5) == create_importance_mask(scaled, 0.5)


def test_scores_from_the_same_sums_do_not_disturb_each_other() -> None:
    model, data = make_mlp(), batch(make_data(), 24)
    for pair in (("fisher", "saliency"), ("taylor", "gradient")):
        for names in (pair, pair[::-1]):
            both = compute_hybrid_importance(model, data, dict.fromkeys(names, 1.0))
            alone = [compute_hybrid_importance(model, data, {name: 1.0}) for name in names]
            for name, score in both.items():
                torch.testing.assert_close(score, (alone[0][name] + alone[1][name]) / 2)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            {"magnitud": 1.0},
            "weights must name scores of fisher, gradient, magnitude, saliency, taylor, got 'magnitud'",
        ),
        ({"magnitude": -1.0}, "the weight of 'magnitude' must be a number of at least 0, got -1.0"),
        ({"magnitude": float("nan")}, "the weight of 'magnitude' must be a number of at least 0, got nan"),
        ({"magnitude": 0.0}, "at least one weight must be above 0"),
        ({}, "at least one weight must be above 0"),
    ],
)
def test_hybrid_refuses_bad_weights(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compute_hybrid_importance(make_mlp(), batch(make_data(), 24), weights)


def test_signed_scores_keep_the_largest_with_their_sign() -> None:
    scores = {"a": torch.tensor([[-3.0, 0.0, -1e-30, 1e-30]]), "b": torch.tensor([[2.0, -0.0, -5.0, 1.0]])}
    mask = create_importance_mask(scores, 0.5)
    assert mask["a"].tolist() == [[False, True, False, True]]  # -0.0 and 0.0 are one number: the earlier one stays
    assert mask["b"].tolist() == [[True, False, False, True]]
    flat = torch.randn(1000)
    kept = create_importance_mask({"w": flat.view(10, 100)}, 0.7)["w"].flatten()
    assert float(flat[kept].min()) > float(flat[~kept].max())
    assert int(kept.sum()) == 300


def test_masks_of_importance_use_the_one_selector() -> None:
    model = make_mlp()
    magnitudes = compute_magnitude_importance(model)
    for scope in ("global", "layer", "row", "erk", "lamp", "1:2"):
        assert create_importance_mask(magnitudes, 0.5, scope=scope) == create_magnitude_mask(model, 0.5, scope=scope)
    first = create_importance_mask(magnitudes, 0.5)
    second = create_importance_mask(magnitudes, 0.75, within=first)
    assert (first & second) == second
    assert second.provenance["score"] == "|w|"


def test_rows_are_outputs_also_where_outputs_come_last() -> None:
    from transformers.pytorch_utils import Conv1D  # noqa: PLC0415 - slow, and for this test only

    model = nn.Sequential(Conv1D(6, 4), nn.Linear(6, 4))  # type: ignore[no-untyped-call]  # transformers has none
    magnitudes = compute_magnitude_importance(model, include=[Conv1D])
    name = "0.weight"
    assert magnitudes[name].shape == (4, 6)
    assert create_importance_mask(magnitudes, 0.5, scope="row")[name].sum(0).tolist() == [2] * 6


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 0}, "num_samples must be an integer of at least 1, or 'auto', got 0"),
        ({"num_samples": "auto"}, r"say which with options=ScoringOptions\(target_sparsity=\.\.\.\)"),
        ({"chunk_size": 0}, "chunk_size must be an integer of at least 1, or None, got 0"),
        ({"gradient_clip": 0.0}, "gradient_clip must be above 0, or None, got 0.0"),
        ({"gradient_clip": float("nan")}, "gradient_clip must be above 0, or None, got nan"),
        ({"kind": "true"}, "kind must be one of 'empirical', 'sampled', 'exact', got 'true'"),
        ({"kind": "exact", "gradient_clip": 1.0}, "kind 'exact' has neither standard_errors nor gradient_clip"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compute_fisher_importance(make_mlp(), batch(make_data(), 24), **arguments)


@pytest.mark.parametrize("arguments", [{"num_samples": 2.5}, {"num_samples": True}, {"chunk_size": "1"}])
def test_arguments_of_a_wrong_type_are_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="must be an integer of at least 1"):
        compute_fisher_importance(make_mlp(), batch(make_data(), 24), **arguments)


def test_unknown_arguments_and_loaders_are_named() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'offlaod'"):
        compute_fisher_importance(make_mlp(), batch(make_data(), 24), offlaod="cpu")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="the dataloader must give batches when it is iterated, got int"):
        compute_fisher_importance(make_mlp(), 5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_sparsity": 1.5}, "sparsity must be from 0"),
        ({"offload": "disk"}, "offload must be None or 'cpu', got 'disk'"),
        ({"tolerance": -0.1}, "tolerance must be from 0 to 1, got -0.1"),
        ({"nonfinite_limit": float("nan")}, "nonfinite_limit must be from 0 to 1, got nan"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScoringOptions(**options)


def test_options_are_given_whole_or_one_by_one() -> None:
    model, data = make_mlp(), batch(make_data(), 24)
    whole = compute_fisher_importance(model, data, options=ScoringOptions(gradient_clip=0.1))
    single = compute_fisher_importance(model, data, gradient_clip=0.1)
    assert all(torch.equal(whole[name], single[name]) for name in single)
    with pytest.raises(TypeError, match="gradient_clip must not be given beside options; put it into options"):
        compute_fisher_importance(model, data, gradient_clip=0.1, options=ScoringOptions(chunk_size=5))
    with pytest.raises(TypeError, match=r"options must be a ScoringOptions, got \{'chunk_size': 5\}"):
        compute_fisher_importance(model, data, options={"chunk_size": 5})  # type: ignore[arg-type] # refused


def test_unknown_ways_are_named() -> None:
    data = batch(make_data(), 24)
    with pytest.raises(ValueError, match="average must be one of 'magnitudes', 'gradients', got 'mean'"):
        compute_gradient_importance(make_mlp(), data, average="mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="granularity and norm must be one of"):
        compute_taylor_importance(make_mlp(), data, norm="cubed")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="scope must be 'global', 'layer' or 'row' for ranks, got 'erk'"):
        compute_hybrid_importance(make_mlp(), data, rank_within="erk")  # type: ignore[arg-type]


def test_bad_scores_are_named() -> None:
    for bad in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="'w'"):
            create_importance_mask({"w": torch.tensor([[1.0, bad]])}, 0.5)
        with pytest.raises(ValueError, match="scores must be finite, but 'w' has NaN or infinity"):
            create_importance_mask({"w": torch.tensor([[-1.0, bad]])}, 0.5)
    with pytest.raises(TypeError, match=r"must be a float tensor, got torch\.int64"):
        create_importance_mask({"w": torch.tensor([[1, 2]])}, 0.5)
    with pytest.raises(ValueError, match="must hold the scores of at least one weight"):
        create_importance_mask({}, 0.5)
    with pytest.raises(TypeError, match="importance must map parameter names to scores, got list"):
        create_importance_mask([], 0.5)  # type: ignore[arg-type]


def test_weights_the_loss_does_not_see_are_named() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(6, 4), nn.Linear(6, 4)

        def forward(self, inputs: Tensor) -> Tensor:
            logits: Tensor = self.used(inputs)
            return logits

    data = batch(make_data(), 24)
    scores = compute_fisher_importance(Unused(), data)
    assert float(scores["unused.weight"].max()) == 0 < float(scores["used.weight"].max())
    with pytest.raises(ValueError, match=r"the loss must depend on a chosen weight, .* unused\.weight"):
        compute_fisher_importance(Unused(), data, include="unused")


def test_kinds_that_need_a_cross_entropy_say_so() -> None:
    def own(model: nn.Module, batch: Any) -> Tensor:  # noqa: ANN401 - any batch
        loss: Tensor = (model(batch[0]) ** 2).mean()
        return loss

    with pytest.raises(ValueError, match="labels 'sampled' need a loss that torch's cross_entropy returns"):
        compute_fisher_importance(make_mlp(), batch(make_data(), 24), kind="sampled", loss_fn=own)
