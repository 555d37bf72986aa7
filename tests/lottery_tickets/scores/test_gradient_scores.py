"""One battery for every score."""

import copy
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from lottery_tickets import (
    compute_fisher_importance,
    create_importance_mask,
    create_magnitude_mask,
    hold_mask,
)
from lottery_tickets._core.gradients.options import ScoringOptions
from lottery_tickets._core.gradients.stream import find_autocast
from lottery_tickets._core.prunable_weights import find_prunable_weights
from tests.lottery_tickets.scores.battery import RANKS, SCORES, assert_same, batch, make_data, make_mlp
from tests.models import Shared, UsedTwice, make_flat_convolutions

MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": make_mlp,
    "cnn": make_flat_convolutions,
    "tied": partial(UsedTwice, 6, 4),
}


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
            self.layer, self.seen = nn.Linear(6, 4), Counter[str]()  # no number, which is put back after measuring

        def forward(self, inputs: Tensor) -> Tensor:
            self.seen["calls"] += 1
            if self.seen["calls"] > 1:
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
    model, data = make_flat_convolutions(), make_data()
    whole = SCORES[name](model, batch(data, 24))
    for sizes in ((8, 8, 8), (23, 1), (1,) * 24):
        assert_same(SCORES[name](model, batch(data, *sizes)), whole, name)


@pytest.mark.parametrize("name", sorted(SCORES.keys() - {"fisher, sampled"}))  # whose labels are drawn in order
def test_the_order_of_the_samples_does_not_matter(name: str) -> None:
    model, (inputs, targets) = make_flat_convolutions(), make_data()
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
    model, data = make_flat_convolutions(), batch(make_data(), 16, 8)
    first, second = (SCORES[name](model, data) for _ in range(2))
    assert all(torch.equal(second[key], score) for key, score in first.items())


@pytest.mark.parametrize("name", SCORES)
def test_weights_that_are_shared_count_once(name: str) -> None:
    shared, tied, data = Shared(6, 4), UsedTwice(6, 4), batch(make_data(), 16, 8)
    tied.load_state_dict({"inner.weight": shared.first.weight, "inner.bias": shared.first.bias,
                          "head.weight": shared.head.weight, "head.bias": shared.head.bias})  # fmt: skip
    got, wanted = SCORES[name](shared, data), SCORES[name](tied, data)
    assert list(got) == ["first.weight", "head.weight"]
    torch.testing.assert_close(got["first.weight"], wanted["inner.weight"], rtol=1e-5, atol=1e-7)


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
    model, data = make_flat_convolutions(), batch(make_data(), 16, 8)
    assert_same(SCORES[name](model, data, options=ScoringOptions(**options)), SCORES[name](model, data), name)


@pytest.mark.parametrize("empty", [[], [(torch.zeros(0, 6), torch.zeros(0, dtype=torch.long))]])
@pytest.mark.parametrize("name", SCORES)
def test_an_empty_loader_is_an_error(name: str, empty: list[Any]) -> None:
    with pytest.raises(ValueError, match="the dataloader must hold at least one sample, but gave none"):
        SCORES[name](make_mlp(), empty)


@pytest.mark.parametrize("name", SCORES)
def test_include_and_exclude_choose(name: str) -> None:
    model, data = make_flat_convolutions(), batch(make_data(), 16, 8)
    assert list(SCORES[name](model, data, include="1.weight")) == ["1.weight"]
    assert list(SCORES[name](model, data, exclude="1")) == ["6.weight"]
    with pytest.raises(ValueError, match="include must match a parameter, but 'nothing' matches none"):
        SCORES[name](model, data, include="nothing")


@pytest.mark.parametrize("name", SCORES)
def test_a_mapping_of_weights_cannot_be_run(name: str) -> None:
    with pytest.raises(TypeError, match=r"the model must be a torch\.nn\.Module"):
        SCORES[name](make_mlp().state_dict(), batch(make_data(), 24))


# ---------------------------------------------------------------------------------------------------------- bad input


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
