"""A held mask holds: under every optimizer, in every loop, through copies; and a masked model is the pruned model."""

import copy
import io
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import _global_optimizer_post_hooks, register_optimizer_step_post_hook

from lottery_tickets import Mask, apply_mask, compute_sparsity, hold_mask, remove_mask
from tests.lottery_tickets.masks.half_kept import make_mask, make_model

Maker = Callable[[Any], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Maker] = {
    "sgd momentum decay": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1),
    "sgd nesterov foreach": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, foreach=True),
    "sgd fused": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1, fused=True),
    "adam decay": lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.1),
    "adam foreach amsgrad": lambda p: torch.optim.Adam(p, 0.1, foreach=True, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.1),
    "adamw fused": lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.1, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9, weight_decay=0.1),
    "adamax": lambda p: torch.optim.Adamax(p, 0.1, weight_decay=0.1),
    "rprop": lambda p: torch.optim.Rprop(p, 0.1),
    "nadam": lambda p: torch.optim.NAdam(p, 0.1, weight_decay=0.1),
    "muon": lambda p: torch.optim.Muon([q for q in p if q.dim() == 2], 0.1),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.1, weight_decay=0.1),
    "lbfgs": lambda p: torch.optim.LBFGS(p, 0.1, max_iter=4),
    "lbfgs wolfe": lambda p: torch.optim.LBFGS(p, 1.0, max_iter=4, line_search_fn="strong_wolfe"),
    "noisy": lambda p: _NoisySGD(p, {"lr": 0.1}),
}


class _NoisySGD(torch.optim.Optimizer):
    """Langevin dynamics: it moves weights whose gradient and state are zero."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    buffer = self.state[parameter].setdefault("noise", torch.zeros_like(parameter))
                    buffer.normal_()
                    parameter.add_(parameter.grad + buffer, alpha=-group["lr"])


def train(model: nn.Module, optimizer: torch.optim.Optimizer, num_steps: int = 3) -> None:
    for _ in range(num_steps):
        inputs, targets = torch.randn(8, 1, 8, 8), torch.randint(4, (8,))

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), targets)  # noqa: B023 - as above
            loss.backward()
            return loss

        if isinstance(optimizer, torch.optim.LBFGS):
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()


def find_leaks(model: nn.Module, mask: Mask, optimizer: torch.optim.Optimizer | None = None) -> list[str]:
    """Where a pruned weight, its gradient or its optimizer state is not exactly zero."""
    leaks = []
    for name, parameter in model.named_parameters():
        if name in mask:
            state = dict(optimizer.state.get(parameter, {})) if optimizer is not None else {}
            like = {k: v for k, v in state.items() if isinstance(v, Tensor) and v.shape == parameter.shape}
            for label, tensor in {"weight": parameter, "gradient": parameter.grad, **like}.items():
                if tensor is not None and bool((tensor.detach()[~mask[name]] != 0).any()):
                    leaks.append(f"{name} {label}")
    return leaks


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weights_gradients_and_state_stay_zero_under_every_optimizer(name: str) -> None:
    model = make_model()
    mask = make_mask(model)
    optimizer = OPTIMIZERS[name](model.parameters())
    train(model, optimizer)  # the optimizer has state from before the mask
    hold_mask(model, mask)
    before = [p.detach().clone() for p in model.parameters()]
    for _ in range(3):
        train(model, optimizer, 1)
        assert find_leaks(model, mask, optimizer) == []
    changed = [not torch.equal(b, p) for b, p in zip(before, model.parameters(), strict=True)]
    assert any(changed), "nothing trained at all"


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_lbfgs_history_is_zero_at_pruned_places(search: str | None) -> None:
    model = make_model()
    mask = make_mask(model)
    optimizer = torch.optim.LBFGS(model.parameters(), 0.1, max_iter=3, line_search_fn=search)
    train(model, optimizer)
    hold_mask(model, mask)
    train(model, optimizer, 1)
    pruned = torch.cat(
        [(~mask[n] if n in mask else torch.zeros(p.shape).bool()).flatten() for n, p in model.named_parameters()]
    )
    state = optimizer.state[next(iter(model.parameters()))]
    vectors = [state["d"], state["prev_flat_grad"], *state["old_dirs"], *state["old_stps"]]
    assert vectors
    assert all(not bool((vector[pruned] != 0).any()) for vector in vectors)


def test_training_equals_training_with_the_mask_applied_by_hand() -> None:
    """Holding changes nothing but the pruned weights: the survivors follow the hand-written loop bit for bit."""
    model = make_model()
    mask = make_mask(model)
    by_hand = copy.deepcopy(model)
    optimizers = [torch.optim.AdamW(m.parameters(), 0.01, weight_decay=0.1) for m in (model, by_hand)]
    hold_mask(model, mask)
    apply_mask(by_hand, mask)
    for step in range(5):
        for m, optimizer in zip((model, by_hand), optimizers, strict=True):
            torch.manual_seed(step)
            loss = nn.functional.cross_entropy(m(torch.randn(8, 1, 8, 8)), torch.randint(4, (8,)))
            optimizer.zero_grad()
            loss.backward()
            if m is by_hand:
                for name, parameter in m.named_parameters():
                    if name in mask and parameter.grad is not None:
                        parameter.grad.mul_(mask[name])
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), by_hand.parameters(), strict=True))


def test_gradients_set_by_hand_do_not_come_through() -> None:
    model = nn.Linear(4, 4)
    mask = Mask.from_tensors({"weight": torch.eye(4)})
    hold_mask(model, mask)
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert find_leaks(model, mask, optimizer) == []


@pytest.mark.parametrize("name", ["sgd momentum decay", "adamw", "adamw fused"])
def test_what_comes_from_outside_between_steps_does_not_stay(name: str) -> None:
    """Gradients written by hand, and optimizer state loaded from a dense training, after many clean steps."""
    model = make_model()
    mask = make_mask(model)
    optimizer = OPTIMIZERS[name](model.parameters())
    train(model, optimizer)
    dense_state = copy.deepcopy(optimizer.state_dict())
    hold_mask(model, mask)
    train(model, optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert find_leaks(model, mask, optimizer) == []
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.grad.fill_(1)
    optimizer.step()
    assert find_leaks(model, mask, optimizer) == []
    optimizer.load_state_dict(dense_state)
    train(model, optimizer, 1)
    assert find_leaks(model, mask, optimizer) == []


def test_gradient_accumulation_and_clipping_see_masked_gradients() -> None:
    model = make_model()
    mask = make_mask(model)
    hold_mask(model, mask)
    for _ in range(3):
        model(torch.randn(2, 1, 8, 8)).sum().backward()
    assert find_leaks(model, mask) == []


def test_amp_with_a_scaler_that_meets_infinities() -> None:
    model = make_model()
    mask = make_mask(model)
    hold_mask(model, mask)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120)  # the first steps overflow and are skipped
    for _ in range(4):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(torch.randn(2, 1, 8, 8)).square().sum() * 1e6
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        assert find_leaks(model, mask, optimizer) == []


@pytest.mark.parametrize("compile_first", [True, False])
def test_compiled_models_are_held(compile_first: bool) -> None:
    model = make_model()
    mask = make_mask(model)
    compiled: nn.Module = torch.compile(model, backend="aot_eager")  # type: ignore[assignment]
    hold_mask(compiled if compile_first else model, mask)
    optimizer = torch.optim.AdamW(compiled.parameters(), 0.1)
    train(compiled, optimizer)
    assert find_leaks(model, mask, optimizer) == []


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_is_held_too_and_by_itself(copier: Callable[[nn.Module], nn.Module]) -> None:
    """torch.nn.utils.prune: deepcopy fails after a backward pass. Here it works, and the copy keeps its mask."""
    model = make_model()
    mask = make_mask(model)
    hold_mask(model, mask)
    train(model, torch.optim.SGD(model.parameters(), 0.1))
    copied = copier(model)
    remove_mask(model)
    train(copied, optimizer := torch.optim.AdamW(copied.parameters(), 0.1))
    assert find_leaks(copied, mask, optimizer) == []
    train(model, torch.optim.SGD(model.parameters(), 0.1))
    assert find_leaks(model, mask)


@pytest.mark.parametrize("assign", [True, False])
def test_loading_dense_weights_into_a_held_model_prunes_them(assign: bool) -> None:
    model, other = make_model(), make_model()
    mask = make_mask(model)
    names = list(model.state_dict())
    hold_mask(model, mask)
    assert list(model.state_dict()) == names
    model.load_state_dict(other.state_dict(), assign=assign)
    assert find_leaks(model, mask) == []
    train(model, optimizer := torch.optim.SGD(model.parameters(), 0.1))
    assert find_leaks(model, mask, optimizer) == []


def test_remove_mask_lets_weights_move_and_leaves_no_hook() -> None:
    model = make_model()
    mask = make_mask(model)
    hold_mask(model, mask)
    remove_mask(model)
    assert find_leaks(model, mask) == []
    train(model, torch.optim.SGD(model.parameters(), 0.1))
    assert find_leaks(model, mask)
    assert not model._load_state_dict_post_hooks
    remove_mask(model)


def test_a_dropped_model_is_freed_and_models_share_one_optimizer_hook() -> None:
    models = [make_model() for _ in range(3)]
    for model in models:
        hold_mask(model, make_mask(model))
    num_hooks, freed = len(_global_optimizer_post_hooks), weakref.ref(models[0])
    models.clear()
    del model
    assert freed() is None
    hold_mask(make_model(), make_mask(make_model()))
    assert len(_global_optimizer_post_hooks) == num_hooks


def test_a_held_model_that_is_collected_in_the_middle_of_a_step_breaks_none() -> None:
    """Each held model had a hook of its own, whose removal changed what torch was iterating over."""
    held, other = [make_model()], make_model()
    handle = register_optimizer_step_post_hook(lambda *_: held.clear())
    hold_mask(held[0], make_mask(held[0]))
    try:
        train(other, torch.optim.SGD(other.parameters(), 0.1), 1)
    finally:
        handle.remove()
    assert not held


def test_a_new_mask_replaces_the_old() -> None:
    model = make_model()
    first, second = make_mask(model), make_mask(model)
    hold_mask(model, first)
    hold_mask(model, second)
    train(model, torch.optim.SGD(model.parameters(), 0.1))
    assert find_leaks(model, second) == []
    assert find_leaks(model, first)


def test_frozen_and_tied_and_odd_parameters() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    model[1].weight = model[0].weight
    model[0].weight.requires_grad_(False)
    mask = Mask.from_tensors({"0.weight": torch.rand(6, 6) < 0.5})
    hold_mask(model, mask)
    model[0].weight.requires_grad_()
    optimizer = torch.optim.AdamW(model.parameters(), 0.1)
    for _ in range(3):
        model(torch.randn(3, 6)).sum().backward()
        optimizer.step()
        assert find_leaks(model, mask, optimizer) == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("size", [7, 200])  # below and above the size from which the compiled kernel works
def test_zeroing_gives_exact_zero_whatever_was_there(dtype: torch.dtype, size: int) -> None:
    model = nn.Linear(size, size, bias=False).to(dtype)
    kept = torch.rand(size, size) < 0.5
    with torch.no_grad():
        model.weight.copy_(torch.where(kept, 1.0, float("nan")))
        model.weight[~kept & (torch.rand(size, size) < 0.5)] = float("-inf")
    apply_mask(model, {"weight": kept})
    assert torch.equal(model.weight.detach(), kept.to(dtype))
    assert not bool(torch.signbit(model.weight).any())


def test_the_pytorch_peer_leaves_weights_stale_and_ours_does_not() -> None:
    """torch.nn.utils.prune: `weight` is stale after step() and `weight_orig` drifts at masked places under decay."""
    model = nn.Linear(8, 8)
    mask = Mask.from_tensors({"weight": torch.rand(8, 8) < 0.5})
    hold_mask(model, mask)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.5)
    model(torch.randn(4, 8)).sum().backward()
    optimizer.step()
    assert "weight" in dict(model.named_parameters())
    assert int((model.weight == 0).sum()) == int((~mask["weight"]).sum())


def test_masks_of_other_models_are_refused() -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(ValueError, match=r"mask for 'weight' has shape \(3, 2\), but the parameter has shape \(2, 3\)"):
        hold_mask(model, {"weight": torch.ones(3, 2)})
    with pytest.raises(ValueError, match=r"mask names 'fc\.weight', but the model has no such parameter"):
        apply_mask(model, {"fc.weight": torch.ones(3, 2)})
    with pytest.raises(ValueError, match="must hold only 0 and 1"):
        apply_mask(model, {"weight": torch.full((2, 3), 0.5)})
    with pytest.raises(TypeError, match="must be a mapping"):
        hold_mask(model, torch.ones(2, 3))  # type: ignore[arg-type]


def test_a_held_model_saves_and_loads_whole() -> None:
    model = nn.Linear(4, 4)
    mask = Mask.from_tensors({"weight": torch.eye(4)})
    hold_mask(model, mask)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    plain = nn.Linear(4, 4)
    plain.load_state_dict(torch.load(file, weights_only=True))
    assert compute_sparsity(plain) == 0.75
