"""SHiRA adapters train what a mask keeps and nothing else, with the real library where it is."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lottery_tickets import compute_change_mask
from lottery_tickets.integrations.peft import make_shira_mask_fn

RANK = 2


def make_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 20), nn.Tanh(), nn.Linear(20, 12))


def make_scores(model: nn.Module) -> dict[str, Tensor]:
    return {name: torch.randn(value.shape) for name, value in model.state_dict().items() if name.endswith("weight")}


def test_the_largest_of_what_the_mask_keeps_are_trained() -> None:
    model = make_model()
    scores = make_scores(model)
    mask = {name: torch.rand(score.shape) < 0.6 for name, score in scores.items()}
    chosen = make_shira_mask_fn(model, mask, scores)(model[0], RANK, random_seed=None)
    assert chosen.dtype == model[0].weight.dtype
    sizes = torch.where(mask["0.weight"], scores["0.weight"].abs(), 0.0).flatten()
    expected = torch.zeros(240).index_fill(0, sizes.argsort(descending=True)[: RANK * 32], 1.0)
    assert torch.equal(chosen.flatten(), expected)
    exact = make_shira_mask_fn(model, {"0.weight": chosen})
    assert torch.equal(exact(model[0], RANK), chosen)


def test_what_does_not_fit_is_said() -> None:
    model = make_model()
    mask_fn = make_shira_mask_fn(model, {"0.weight": torch.ones(20, 12)})
    with pytest.raises(ValueError, match=r"trains 64 weights of '0.weight', but the mask keeps 240; give scores"):
        mask_fn(model[0], RANK)
    with pytest.raises(ValueError, match=r"trains 320 .* keeps 240; take a smaller rank"):
        mask_fn(model[0], 10)
    with pytest.raises(ValueError, match=r"but has no such; was it made for another model"):
        mask_fn(model[2], RANK)
    with pytest.raises(ValueError, match="but has no such"):
        mask_fn(nn.Linear(12, 20), RANK)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled")  # PEFT says nothing of them
def test_the_adapters_of_the_real_library_change_these_weights_alone() -> None:
    peft: Any = pytest.importorskip("peft", reason="peft is not installed")
    model = make_model()
    scores, before = make_scores(model), {name: value.clone() for name, value in model.state_dict().items()}
    mask_fn = make_shira_mask_fn(model, {name: torch.ones_like(score) for name, score in scores.items()}, scores)
    expected = {f"{name}.weight": mask_fn(model.get_submodule(name), RANK) for name in ("0", "2")}
    with pytest.warns(UserWarning, match="supply your own masking function"):
        config = peft.ShiraConfig(r=RANK, mask_type="chosen", target_modules=["0", "2"])
    config.mask_fn = mask_fn
    adapted = peft.get_peft_model(model, config)
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    assert sum(parameter.numel() for parameter in trained) == RANK * (32 + 32)
    optimizer = torch.optim.Adam(trained, lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        inputs = torch.randn(64, 12)
        (adapted(inputs) - inputs).square().mean().backward()
        optimizer.step()
    after = adapted.merge_and_unload().state_dict()
    changed = compute_change_mask(before, {name: after[name] for name in before})
    assert {name: changed[name].float().tolist() for name in changed} == {n: m.tolist() for n, m in expected.items()}
