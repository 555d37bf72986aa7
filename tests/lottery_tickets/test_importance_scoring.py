"""One battery for every score, then what each of them must mean."""

import copy
import pickle
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import lottery_tickets
from lottery_tickets import (
    Importance,
    compute_fisher_importance,
    compute_gradient_importance,
    compute_hybrid_importance,
    compute_magnitude_importance,
    compute_taylor_importance,
    create_importance_mask,
    create_magnitude_mask,
    hold_mask,
)
from lottery_tickets._core.prunable_weights import find_prunable_weights
from lottery_tickets.scores.gradient_scores import find_autocast

Score = Callable[..., Importance]

# Every score of the package that looks at data, by what it is called with.
SCORES: dict[str, Score] = {
    "fisher": compute_fisher_importance,
    "saliency": partial(compute_fisher_importance, saliency=True),
    "fisher, sampled": partial(compute_fisher_importance, kind="sampled"),
    "fisher, exact": partial(compute_fisher_importance, kind="exact"),
    "gradient": compute_gradient_importance,
    "gradient of the mean": partial(compute_gradient_importance, average="gradients"),
    "taylor": compute_taylor_importance,
    "taylor, squared": partial(compute_taylor_importance, norm="squared"),
    "taylor, units": partial(compute_taylor_importance, granularity="unit", norm="squared"),
    "hybrid": compute_hybrid_importance,
    "hybrid by layer": partial(compute_hybrid_importance, weights={"saliency": 2, "taylor": 1}, rank_within="layer"),
}
for published in ("snip", "grasp", "wanda"):
    SCORES[published] = getattr(lottery_tickets, f"compute_{published}_importance")
RANKS = {name for name in SCORES if name.startswith("hybrid")}  # ranks are exact up to ties, which rounding breaks


class Tied(nn.Module):
    """A layer that is called twice, and one more."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.head = nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = torch.tanh(self.shared(torch.tanh(self.shared(inputs))))
        logits: Tensor = self.head(hidden)
        return logits


def make_mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 4))


def make_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2, padding=1), nn.BatchNorm2d(4), nn.Tanh(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip


MODELS: dict[str, Callable[[], nn.Module]] = {"mlp": make_mlp, "cnn": make_cnn, "tied": Tied}


def make_data(num_samples: int = 24, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    return torch.randn(num_samples, 6, dtype=dtype), torch.randint(4, (num_samples,))


def batch(data: tuple[Tensor, Tensor], *sizes: int) -> list[tuple[Tensor, Tensor]]:
    inputs, targets = data
    return list(zip(inputs.split(list(sizes)), targets.split(list(sizes)), strict=True))


def assert_same(got: Importance, wanted: Importance, name: str, rtol: float = 1e-4) -> None:
    """Checks scores for equality to float32 rounding of sums in another order."""
    assert got.keys() == wanted.keys()
    for key, score in wanted.items():
        atol = 0.05 if name in RANKS else rtol * float(score.abs().max())
        torch.testing.assert_close(got[key], score, rtol=rtol, atol=atol)


@pytest.mark.parametrize("model_name", MODELS)
@pytest.mark.parametrize("name", SCORES)
def test_shapes_names_and_kind(name: str, model_name: str) -> None:
    model = MODELS[model_name]()
    scores = SCORES[name](model, batch(make_data(), 16, 8))
    weights = {n: p for n, p in model.named_parameters() if p.ndim > 1}
    assert isinstance(scores, dict)
    assert {key: score.shape for key, score in scores.items()} == {key: p.shape for key, p in weights.items()}
    for score in scores.values():
        assert score.dtype == torch.float32
        assert bool(score.isfinite().all())
        assert score.is_contiguous()
        assert not score.requires_grad
    assert any(bool((score != 0).any()) for score in scores.values())
    assert scores.report["score"]
    mask = create_importance_mask(scores, 0.5, scope="layer")
    assert mask.num_kept == sum(p.numel() - round(p.numel() / 2) for p in weights.values())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("model_name", MODELS)
@pytest.mark.parametrize("name", SCORES)
def test_the_model_comes_back_bit_for_bit(name: str, model_name: str, training: bool) -> None:
    model = MODELS[model_name]().train(training)
    data = batch(make_data(), 16, 8)
    functional.cross_entropy(model(data[0][0]), data[0][1]).backward()  # gradients that must stay as they are
    hold_mask(model, create_magnitude_mask(model, 0.5, scope="layer"))  # and hooks
    before, gradients = copy.deepcopy(model.state_dict()), {n: p.grad for n, p in model.named_parameters()}
    values = {n: None if g is None else g.clone() for n, g in gradients.items()}
    flags = [module.training for module in model.modules()]
    random_state = torch.get_rng_state()
    SCORES[name](model, data)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    for key, parameter in model.named_parameters():
        assert parameter.grad is gradients[key]
        assert values[key] is None or torch.equal(parameter.grad, values[key])  # type: ignore[arg-type]
        assert parameter.requires_grad
    assert [module.training for module in model.modules()] == flags
    assert torch.equal(torch.get_rng_state(), random_state)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    optimizer.step()  # the mask is still held
    assert all(bool((p == 0).sum() >= p.numel() // 4) for p in model.parameters() if p.ndim > 1)


@pytest.mark.parametrize("name", SCORES)
def test_the_model_comes_back_after_an_error_in_it(name: str) -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.calls = nn.Linear(6, 4), 0

        def forward(self, inputs: Tensor) -> Tensor:
            self.calls += 1
            if self.calls > 1:
                raise RuntimeError("it broke")
            logits: Tensor = self.layer(inputs)
            return logits

    model = Failing().train()
    weight, data = model.layer.weight, batch(make_data(), 16, 8)
    bits = weight.detach().clone()
    with pytest.raises(RuntimeError, match="it broke"):
        SCORES[name](model, data)
    assert model.layer.weight is weight
    assert torch.equal(weight, bits)
    assert weight.grad is None
    assert model.training
    assert model.layer.training


@pytest.mark.parametrize("name", SCORES)
def test_batches_may_be_cut_anywhere(name: str) -> None:
    model, data = make_cnn(), make_data()
    whole = SCORES[name](model, batch(data, 24))
    for sizes in ((8, 8, 8), (23, 1), (1,) * 24):
        assert_same(SCORES[name](model, batch(data, *sizes)), whole, name)


@pytest.mark.parametrize("name", sorted(SCORES.keys() - {"fisher, sampled"}))  # whose labels are drawn in order
def test_the_order_of_the_samples_does_not_matter(name: str) -> None:
    model, (inputs, targets) = make_cnn(), make_data()
    order = torch.randperm(24)
    whole = SCORES[name](model, batch((inputs, targets), 16, 8))
    assert_same(SCORES[name](model, batch((inputs[order], targets[order]), 16, 8)), whole, name)


@pytest.mark.parametrize("name", SCORES)
def test_num_samples_takes_the_first(name: str) -> None:
    model, (inputs, targets) = make_mlp(), make_data()
    first = SCORES[name](model, [(inputs[:10], targets[:10])])
    assert_same(SCORES[name](model, batch((inputs, targets), 16, 8), num_samples=10), first, name, rtol=1e-5)


@pytest.mark.parametrize("name", SCORES)
def test_frozen_parameters_are_scored_and_stay_frozen(name: str) -> None:
    model, data = make_mlp(), batch(make_data(), 24)
    wanted = SCORES[name](model, data)
    model.requires_grad_(requires_grad=False)
    assert_same(SCORES[name](model, data), wanted, name)
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", SCORES)
def test_a_second_call_gives_the_same_bits(name: str) -> None:
    model, data = make_cnn(), batch(make_data(), 16, 8)
    first, second = (SCORES[name](model, data) for _ in range(2))
    assert all(torch.equal(second[key], score) for key, score in first.items())


@pytest.mark.parametrize("name", SCORES)
def test_weights_that_are_shared_count_once(name: str) -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 4)
            self.second.weight, self.second.bias = self.first.weight, self.first.bias

        def forward(self, inputs: Tensor) -> Tensor:
            hidden = torch.tanh(self.second(torch.tanh(self.first(inputs))))
            logits: Tensor = self.head(hidden)
            return logits

    shared, tied, data = Shared(), Tied(), batch(make_data(), 16, 8)
    tied.load_state_dict({"shared.weight": shared.first.weight, "shared.bias": shared.first.bias,
                          "head.weight": shared.head.weight, "head.bias": shared.head.bias})  # fmt: skip
    got, wanted = SCORES[name](shared, data), SCORES[name](tied, data)
    assert list(got) == ["first.weight", "head.weight"]
    torch.testing.assert_close(got["first.weight"], wanted["shared.weight"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", sorted(SCORES.keys() - RANKS - {"fisher, sampled"}))  # labels differ by rounding
def test_a_bf16_model_is_near_its_float32_reference(name: str) -> None:
    torch.manual_seed(3)
    low = make_mlp().bfloat16()
    high, (inputs, targets) = copy.deepcopy(low).float(), make_data(200, torch.bfloat16)
    got = SCORES[name](low, [(inputs, targets)])
    wanted = SCORES[name](high, [(inputs.float(), targets)])
    for key, score in wanted.items():
        assert got[key].dtype == torch.float32
        assert float((got[key] - score).norm() / score.norm()) < 0.05, key  # bf16 keeps 8 bits, 0.4 %, at each step


@pytest.mark.parametrize("name", sorted(SCORES.keys() - {"wanda", "grasp"}))
@pytest.mark.parametrize("options", [{"chunk_size": 1}, {"chunk_size": 10**9}, {"offload": "cpu"}], ids=str)
def test_less_memory_never_changes_a_score(name: str, options: dict[str, Any]) -> None:
    model, data = make_cnn(), batch(make_data(), 16, 8)
    assert_same(SCORES[name](model, data, **options), SCORES[name](model, data), name)


@pytest.mark.parametrize("empty", [[], [(torch.zeros(0, 6), torch.zeros(0, dtype=torch.long))]])
@pytest.mark.parametrize("name", SCORES)
def test_an_empty_loader_is_an_error(name: str, empty: list[Any]) -> None:
    with pytest.raises(ValueError, match="the dataloader must hold at least one sample, but gave none"):
        SCORES[name](make_mlp(), empty)


@pytest.mark.parametrize("name", SCORES)
def test_include_and_exclude_choose(name: str) -> None:
    model, data = make_cnn(), batch(make_data(), 16, 8)
    assert list(SCORES[name](model, data, include="1.weight")) == ["1.weight"]
    assert list(SCORES[name](model, data, exclude="1")) == ["6.weight"]
    with pytest.raises(ValueError, match="include must match a parameter, but 'nothing' matches none"):
        SCORES[name](model, data, include="nothing")


@pytest.mark.parametrize("name", SCORES)
def test_a_mapping_of_weights_cannot_be_run(name: str) -> None:
    with pytest.raises(TypeError, match=r"the model must be a torch\.nn\.Module"):
        SCORES[name](make_mlp().state_dict(), batch(make_data(), 24))


# ------------------------------------------------------------------------------------------------ what each must mean


def gradients_of(model: nn.Module, data: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Returns each sample's gradient of each weight, the samples first."""
    model.eval()
    rows: dict[str, list[Tensor]] = {}
    for inputs, target in zip(data[0].split(1), data[1].split(1), strict=True):
        loss = functional.cross_entropy(model(inputs), target)
        weights = {name: p for name, p in model.named_parameters() if p.ndim > 1}
        for name, gradient in zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True):
            rows.setdefault(name, []).append(gradient)
    return {name: torch.stack(gradients) for name, gradients in rows.items()}


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
    model, data = make_cnn().double(), make_data(dtype=torch.float64)
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
    import transformers  # noqa: PLC0415 - slow, and for this test only

    config = transformers.LlamaConfig(vocab_size=20, hidden_size=8, intermediate_size=12, num_hidden_layers=1,
                                      num_attention_heads=2, num_key_value_heads=1)  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    tokens = torch.randint(20, (3, 7))
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


def test_standard_errors_shrink_with_the_root_of_the_samples() -> None:
    torch.manual_seed(0)
    model, (inputs, targets) = make_mlp(), make_data(4000)
    few = compute_fisher_importance(model, [(inputs[:1000], targets[:1000])], standard_errors=True)
    many = compute_fisher_importance(model, [(inputs, targets)], 4000, standard_errors=True)
    assert few.standard_errors is not None
    assert many.standard_errors is not None
    for name, errors in few.standard_errors.items():
        ratio = float(errors.mean() / many.standard_errors[name].mean())
        assert 1.7 < ratio < 2.3, name  # 2, but for the noise of the errors themselves
        assert float(((few[name] - many[name]).abs() < 3 * errors).float().mean()) > 0.95
    assert compute_fisher_importance(model, [(inputs, targets)], 100).standard_errors is None


def test_auto_doubles_until_the_ranking_has_settled() -> None:
    torch.manual_seed(0)
    model, (inputs, targets) = make_mlp(), make_data(5000)
    data = batch((inputs, targets), *[50] * 100)
    loose = compute_fisher_importance(model, data, "auto", target_sparsity=0.5, tolerance=0.2)
    tight = compute_fisher_importance(model, data, "auto", target_sparsity=0.5, tolerance=0.04)
    assert loose.report["settled"] is True
    assert [look["num_samples"] for look in tight.report["settling"]] == [128 * 2**i for i in range(
        len(tight.report["settling"]))]  # fmt: skip
    assert loose.report["num_samples"] < tight.report["num_samples"]
    assert tight.report["settling"][-1]["changed"] <= 0.04
    never = compute_fisher_importance(model, data[:3], "auto", target_sparsity=0.5, tolerance=0.0)
    assert never.report["settled"] is False
    assert never.report["num_samples"] == 150


def test_the_change_by_a_doubling_estimates_the_error_that_is_left() -> None:
    """What the stopping rule rests on: mask(n) against mask(2n) differs as mask(2n) differs from the truth."""
    torch.manual_seed(0)
    model, data = nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 4)), make_data(60_000)
    truth = create_importance_mask(compute_fisher_importance(model, [data], 60_000), 0.5)
    changed, wrong = [], []
    for start in range(0, 30_000, 500):
        masks = [create_importance_mask(compute_fisher_importance(
            model, [(data[0][start : start + n], data[1][start : start + n])]), 0.5) for n in (250, 500)]  # fmt: skip
        changed.append(1 - (masks[0] & masks[1]).num_kept / truth.num_kept)
        wrong.append(1 - (masks[1] & truth).num_kept / truth.num_kept)
    assert sum(changed) / sum(wrong) == pytest.approx(1, abs=0.25)


# ------------------------------------------------------------------------------------------------------ hybrid, masks


def test_hybrid_of_one_score_ranks_as_the_score() -> None:
    model, data = make_cnn(), batch(make_data(), 24)
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


def test_the_result_survives_copies_and_pickles() -> None:
    scores = compute_fisher_importance(make_mlp(), batch(make_data(), 24), standard_errors=True)
    for twin in (copy.deepcopy(scores), pickle.loads(pickle.dumps(scores))):
        assert isinstance(twin, Importance)
        assert twin.report == scores.report
        assert twin.output_dims == scores.output_dims
        assert all(torch.equal(twin[name], score) for name, score in scores.items())


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 0}, "num_samples must be an integer of at least 1, or 'auto', got 0"),
        ({"num_samples": "auto"}, "say which with target_sparsity="),
        ({"num_samples": "auto", "target_sparsity": 1.5}, "sparsity must be from 0"),
        ({"chunk_size": 0}, "chunk_size must be an integer of at least 1, or None, got 0"),
        ({"gradient_clip": 0.0}, "gradient_clip must be a positive number or None, got 0.0"),
        ({"gradient_clip": float("nan")}, "gradient_clip must be a positive number or None, got nan"),
        ({"offload": "disk"}, "offload must be None or 'cpu', got 'disk'"),
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
    with pytest.raises(TypeError, match=r"arguments of a score must be among chunk_size, .*, got offlaod"):
        compute_fisher_importance(make_mlp(), batch(make_data(), 24), offlaod="cpu")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="the dataloader must give batches when it is iterated, got int"):
        compute_fisher_importance(make_mlp(), 5)  # type: ignore[arg-type]


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


def test_batches_of_any_shape_reach_the_caller(recwarn: pytest.WarningsRecorder) -> None:
    class Loader(Iterable[Any]):
        def __iter__(self) -> Any:  # noqa: ANN401 - a generator
            yield {"x": torch.randn(5, 6), "y": (torch.randint(4, (5,)), "name")}

    scores = compute_fisher_importance(
        make_mlp(), Loader(), loss_fn=lambda m, b: functional.cross_entropy(m(b["x"]), b["y"][0])
    )
    assert scores.report["num_samples"] == 5
    assert not recwarn.list


def test_mixed_precision_is_for_gpus() -> None:
    weights = find_prunable_weights(make_mlp())
    assert find_autocast(weights) is None
    report = compute_fisher_importance(make_mlp(), batch(make_data(), 24)).report
    assert report["precision"] == "float32"
    assert report["mode"] == "evaluation: no dropout, batch norm with its running statistics"
