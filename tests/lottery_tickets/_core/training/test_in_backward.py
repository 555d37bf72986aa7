"""Steps inside the backward pass: those of torch's optimizers, one gradient at a time."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from lottery_tickets._core.determinism import derive_seed, seed_everything
from lottery_tickets._core.objective import compute_loss
from lottery_tickets._core.training import in_backward
from lottery_tickets._core.training.light_training import LightTrainer
from lottery_tickets._core.training.settings import TrainerSettings
from tests.lottery_tickets._core.training.light_trainings import (
    LR,
    MODELS,
    OPTIMIZERS,
    assert_same,
    copy_weights,
    each_optimizer,
    make_batches,
    train_pieces,
)
from tests.models import UsedTwice, make_language_model


def train_by_hand(model: nn.Module, batches: list[Any], settings: TrainerSettings) -> None:
    """The plain loop: all gradients at once, torch's own optimizer, L1 by hand."""
    options: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    optimizer: torch.optim.Optimizer = (
        torch.optim.SGD(model.parameters(), momentum=settings.momentum, **options)
        if settings.use_sgd
        else torch.optim.AdamW(model.parameters(), fused=True, **options)
    )
    model.train()
    if isinstance(model, PreTrainedModel):  # its gradients are the same, but summed in another order
        model.activation_checkpointing_enable({"use_reentrant": False})
    for step, batch in enumerate(batches):
        seed_everything(derive_seed(42, "step", step))
        optimizer.zero_grad()
        compute_loss(model, batch).backward()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert isinstance(module.weight.grad, Tensor)
                module.weight.grad += (settings.norm_l1 or 0.0) * module.weight.detach().sign()
        optimizer.step()


# --------------------------------------------------------------------------------------------------------------- steps


@each_optimizer
@pytest.mark.parametrize("kind", MODELS)
def test_steps_equal_those_of_torch_bit_for_bit(kind: str, options: dict[str, Any]) -> None:
    """Over tied embeddings, transposed weights, a weight used twice, dropout, and checkpointing where there is any."""
    settings = TrainerSettings(learning_rate=LR, norm_l1=0.01 if kind == "convolutions" else 0.0, **options)
    model, batches = MODELS[kind](), make_batches(kind)
    by_hand, before = copy.deepcopy(model), copy_weights(model)
    LightTrainer(model, batches, settings).train_epochs(2)
    train_by_hand(by_hand, batches * 2, settings)
    assert_same(model, by_hand)
    assert any(not torch.equal(before[name], p) for name, p in model.named_parameters()), "nothing trained at all"


def test_gradients_live_one_at_a_time() -> None:
    model = make_language_model("tied Llama")
    alive: list[tuple[int, int]] = []

    def record(parameter: Tensor) -> None:
        alive.append((parameter.numel(), sum(p.numel() for p in model.parameters() if p.grad is not None)))

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(record)
    LightTrainer(model, make_batches("tied llama"), TrainerSettings(momentum=0.9)).train_steps(2)
    assert len(alive) == 2 * len(list(model.parameters()))
    assert [own for own, _ in alive] == [total for _, total in alive]


def test_a_weight_that_is_needed_after_its_step_is_an_error() -> None:
    """Here autograd does not know that the first product depends on the weight, and keeps it for later."""

    def read_detached(model: nn.Module, batch: Tensor) -> Tensor:
        weight = next(model.parameters())
        return (batch.clone().requires_grad_() @ weight.detach() @ weight).sum()

    trainer = LightTrainer(nn.Linear(3, 3), [torch.ones(2, 3)], TrainerSettings(), loss_fn=read_detached)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        trainer.train_steps(1)


def test_a_weight_that_would_step_twice_is_an_error() -> None:
    model = UsedTwice()

    def reentrant(model: nn.Module, batch: Any) -> Tensor:  # noqa: ANN401 - any batch
        assert isinstance(model, UsedTwice)
        outputs = batch[0].requires_grad_()
        for _ in range(2):
            outputs = checkpoint(model.inner, outputs, use_reentrant=True)
        return functional.cross_entropy(model.head(outputs), batch[1])

    trainer = LightTrainer(model, make_batches("mlp"), TrainerSettings(), loss_fn=reentrant)
    with pytest.raises(RuntimeError, match="got it twice, as reentrant checkpointing does"):
        trainer.train_steps(1)


# ------------------------------------------------------------------------------------------------------------ rounding


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_small_steps_count_in_bfloat16(momentum: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounded to nearest the weights do not move; rounded at random they move as they should, on average."""
    monkeypatch.setattr(in_backward, "CHUNK", 1000)  # so that there are many
    inputs = torch.ones(1, 100).bfloat16()
    steps = {}
    for is_random in (False, True):
        model = nn.Linear(100, 300, bias=False).bfloat16()
        nn.init.constant_(model.weight, 1.0)
        settings = TrainerSettings(learning_rate=1e-4, momentum=momentum, stochastic_rounding=is_random)
        LightTrainer(model, [inputs], settings, loss_fn=lambda m, x: m(x).sum()).train_epochs(10)
        steps[is_random] = 1 - model.weight.detach().double()
    assert not steps[False].any()
    expected = 1e-3 if not momentum else 1e-4 * sum(2 - 2.0**-k for k in range(10))
    spread = (expected * 2**-8) ** 0.5 / 30_000**0.5  # of a mean of draws from steps of 2^-8
    assert float(steps[True].mean()) == pytest.approx(expected, abs=4 * spread)
    assert bool((steps[True] % 2**-8 == 0).all())


@pytest.mark.parametrize("shape", [(), (7,), (6, 2, 3, 3)])
def test_any_shape_and_layout_is_stepped_in_chunks(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_backward, "CHUNK", 20)
    weight = nn.Parameter(torch.randn(shape).bfloat16())
    if len(shape) == 4:
        weight = nn.Parameter(weight.detach().to(memory_format=torch.channels_last))
    before = weight.detach().double()
    optimizer = in_backward.PartialSGD([weight], learning_rate=1.0, momentum=0.9, stochastic_rounding=True)
    for _ in range(2):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert torch.allclose(weight.detach().double(), before - 1 - 1.9, atol=0.05)


# ------------------------------------------------------------------------------------------------------------- pieces


@pytest.mark.parametrize("name", ["plain", "momentum", "decay", "momentum and decay"])
def test_pieces_are_one_step_to_first_order(name: str) -> None:
    """What they differ in shrinks with the square of the learning rate."""
    errors = [
        float((train_pieces(lr, 5, OPTIMIZERS[name]) - train_pieces(lr, None, OPTIMIZERS[name])).norm())
        for lr in (2e-3, 1e-3)
    ]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)
