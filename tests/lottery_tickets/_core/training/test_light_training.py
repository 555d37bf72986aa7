"""The light trainer: what it watches, counts and leaves as it was."""

import copy
import itertools
import json
import logging
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lottery_tickets import Mask, hold_mask, record_movement
from lottery_tickets._core.determinism import seed_everything
from lottery_tickets._core.objective import compute_loss
from lottery_tickets._core.training.light_training import LightTrainer
from lottery_tickets._core.training.settings import TrainerSettings
from lottery_tickets._core.training.steps_done import telling_steps_to
from tests.data import make_data, split
from tests.lottery_tickets._core.training.light_trainings import (
    LR,
    assert_same,
    copy_weights,
    each_optimizer,
    make_batches,
)
from tests.models import make_language_model, make_mlp

# --------------------------------------------------------------------------------------------------------------- steps


def test_checkpointing_is_used_and_changes_last_bits_at_most() -> None:
    weights, calls = [], []
    for is_on in (True, False):
        model = make_language_model("tied Llama")
        model.get_submodule("model.layers.0.mlp").register_forward_pre_hook(lambda *_: calls.append(is_on))  # noqa: B023 - called here
        settings = TrainerSettings(learning_rate=LR, activation_checkpointing=is_on)
        LightTrainer(model, make_batches("tied llama"), settings).train_epochs(1)
        weights.append(model)
    pairs = zip(weights[0].parameters(), weights[1].parameters(), strict=True)
    assert all(torch.allclose(one, other, atol=1e-7) for one, other in pairs)
    assert (calls.count(True), calls.count(False)) == (6, 3)  # forward once more in the backward pass


@each_optimizer
def test_no_gradient_and_no_hook_is_left_even_after_an_exception(options: dict[str, Any]) -> None:
    model = make_mlp(torch.float32)
    compute_loss(model, make_batches("mlp")[0]).backward()  # what was there before has no say
    num_calls = 0

    def fail_in_backward(model: nn.Module, batch: Any) -> Tensor:  # noqa: ANN401 - any batch
        nonlocal num_calls
        num_calls += 1
        loss = compute_loss(model, batch)
        if num_calls == 3:
            model.get_parameter("0.weight").register_hook(interrupt)
        return loss

    def interrupt(_: Tensor) -> None:
        raise KeyboardInterrupt("amid a step")

    trainer = LightTrainer(model, make_batches("mlp"), TrainerSettings(**options), loss_fn=fail_in_backward)
    trainer.train_steps(2)
    assert [p.grad for p in model.parameters()] == [None] * 6
    with pytest.raises(KeyboardInterrupt, match="amid a step"):
        trainer.train_steps(2)
    assert [p.grad for p in model.parameters()] == [None] * 6
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())
    assert trainer.num_steps == 2


def test_gradients_from_before_have_no_say() -> None:
    model, other = make_mlp(torch.float32), make_mlp(torch.float32)
    compute_loss(model, make_batches("mlp")[2]).backward()
    for trained in (model, other):
        LightTrainer(trained, make_batches("mlp"), TrainerSettings(learning_rate=LR)).train_steps(2)
    assert_same(model, other)


# ------------------------------------------------------------------------------------------- what else watches weights


@each_optimizer
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_held_mask_holds(options: dict[str, Any], dtype: torch.dtype) -> None:
    model = make_mlp(dtype)
    mask = Mask.from_tensors({n: torch.rand(p.shape) < 0.5 for n, p in model.named_parameters() if p.dim() > 1})
    hold_mask(model, mask)
    before = copy_weights(model)
    batches = split(make_data(dtype), 4)
    trainer = LightTrainer(model, batches, TrainerSettings(learning_rate=LR, max_batch_size=3, **options))
    trainer.train_epochs(2)
    for name, kept in mask.items():
        weight = model.get_parameter(name)
        assert bool((weight[~kept] == 0).all())
        assert not torch.equal(weight[kept], before[name][kept])
    states = trainer.state()["optimizer"]
    if "momentum" in options:
        assert all(bool((states[name][~kept] == 0).all()) for name, kept in mask.items())


def test_movement_is_recorded() -> None:
    model, batches = make_mlp(torch.float32), make_batches("mlp")
    twin = copy.deepcopy(model)
    with record_movement(model) as movement:
        LightTrainer(model, batches, TrainerSettings(learning_rate=LR)).train_epochs(1)
    optimizer = torch.optim.SGD(twin.parameters(), LR)
    with record_movement(twin) as expected:
        for batch in batches:
            optimizer.zero_grad()
            compute_loss(twin, batch).backward()
            optimizer.step()
    scores = expected.importance()
    assert all(torch.equal(score, scores[name]) for name, score in movement.importance().items())


@each_optimizer
def test_frozen_parameters_stay(options: dict[str, Any]) -> None:
    model = make_mlp(torch.float32)
    model.get_parameter("2.weight").requires_grad = False
    before = copy_weights(model)
    LightTrainer(model, make_batches("mlp"), TrainerSettings(learning_rate=LR, **options)).train_epochs(1)
    unmoved = [name for name, p in model.named_parameters() if torch.equal(p, before[name])]
    assert unmoved == ["2.weight"]


def test_parameters_can_be_frozen_between_stretches() -> None:
    model = make_mlp(torch.float32)
    trainer = LightTrainer(model, make_batches("mlp"), TrainerSettings(learning_rate=LR))
    trainer.train_steps(1)
    before = copy_weights(model)
    model.get_parameter("2.weight").requires_grad = False
    trainer.train_steps(1)
    assert [name for name, p in model.named_parameters() if torch.equal(p, before[name])] == ["2.weight"]


# ------------------------------------------------------------------------------------------------------------- pieces


def test_every_sample_is_seen_once() -> None:
    seen: list[list[int]] = []

    def record(model: nn.Module, batch: dict[str, Any]) -> Tensor:
        seen.append(batch["x"][0].flatten().long().tolist())
        assert batch["scale"] == 2.0
        assert batch["table"].shape == (3, 3)
        assert batch["mask"] is None
        loss: Tensor = model(batch["x"][0]).mean()
        return loss

    numbers = torch.arange(11.0)[:, None]
    batch = {"x": (numbers, numbers), "scale": 2.0, "table": torch.ones(3, 3), "mask": None}
    settings = TrainerSettings(learning_rate=1e-6, max_batch_size=4)
    model = nn.Linear(1, 1)
    with torch.no_grad():
        expected = float(model(numbers).mean())
    report = LightTrainer(model, [batch], settings, loss_fn=record).train_epochs(1)
    assert [len(piece) for piece in seen] == [3, 4, 4]
    assert list(itertools.chain(*seen)) == list(range(11))
    assert (report["num_batches"], report["num_samples"], report["num_steps"]) == (1, 11, 1)
    assert report["mean_loss"] == pytest.approx(expected, abs=1e-3)


# ---------------------------------------------------------------------------------------------------- losses and limits


def make_losses(values: list[float]) -> tuple[nn.Module, list[Tensor], Callable[[nn.Module, Tensor], Tensor]]:
    return (
        nn.Linear(1, 1, bias=False),
        [torch.tensor([value]) for value in values],
        lambda m, x: (m(x[:, None]) * 0 + x).mean(),
    )


@each_optimizer
def test_losses_that_are_not_finite_are_counted_and_skipped(options: dict[str, Any]) -> None:
    values = [float("nan"), 2.0, 4.0, float("inf"), 6.0]
    model, batches, loss_fn = make_losses(values)
    settings = TrainerSettings(nonfinite_limit=0.1, max_batch_size=1, **options)
    trainer = LightTrainer(model, batches, settings, loss_fn=loss_fn)
    report = trainer.train_epochs(1)
    assert report == {
        "num_batches": 5,
        "num_samples": 5,
        "num_steps": 5,
        "num_epochs": 1,
        "mean_loss": 4.0,
        "first_loss": None,
        "num_nonfinite_losses": 2,
        "learning_rate": 1e-4,
    }
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert bool(torch.isfinite(next(model.parameters())).all())


@pytest.mark.parametrize(("num_bad", "limit"), [(2, 0.1), (1, 0.0), (5, 0.4)])
def test_too_many_are_an_error(num_bad: int, limit: float) -> None:
    model, batches, loss_fn = make_losses([1.0] * (10 - num_bad) + [float("nan")] * num_bad + [1.0] * 90)
    trainer = LightTrainer(model, batches, TrainerSettings(nonfinite_limit=limit), loss_fn=loss_fn)
    with pytest.raises(ValueError, match=rf"at most {limit:.0%} .* but {num_bad} of 10 are; lower the learning rate"):
        trainer.train_epochs(1)
    at_limit = TrainerSettings(nonfinite_limit=num_bad / 10)
    assert LightTrainer(model, batches, at_limit, loss_fn=loss_fn).train_epochs(1)["num_nonfinite_losses"] == num_bad


def test_a_stretch_without_a_finite_loss_is_an_error() -> None:
    model, batches, loss_fn = make_losses([float("nan")] * 3)
    trainer = LightTrainer(model, batches, TrainerSettings(nonfinite_limit=1.0), loss_fn=loss_fn)
    with pytest.raises(ValueError, match="3 of 3 are"):
        trainer.train_epochs(1)


# -------------------------------------------------------------------------------------------------- the caller's things


@each_optimizer
def test_modes_checkpointing_and_generators_come_back(options: dict[str, Any]) -> None:
    model = make_language_model("tied Llama")
    model.eval()
    model.get_submodule("model.layers.1").train()
    modes = {name: module.training for name, module in model.named_modules()}
    seed_everything(3)
    expected = (torch.rand(1), np.random.rand(), random.random())  # noqa: NPY002, S311 - the global ones
    seen: list[bool] = []

    def record(model: nn.Module, batch: Any) -> Tensor:  # noqa: ANN401 - any batch
        seen.extend(module.training for module in model.modules())
        seen.append(bool(model.is_activation_checkpointing))
        if len(seen) > 3 * len(modes):
            raise KeyboardInterrupt("stop")
        return compute_loss(model, batch)

    trainer = LightTrainer(model, make_batches("tied llama"), TrainerSettings(**options), loss_fn=record)
    for stretch in range(2):
        seed_everything(3)
        if stretch:
            with pytest.raises(KeyboardInterrupt, match="stop"):
                trainer.train_steps(3)
        else:
            trainer.train_steps(1)
        assert (torch.rand(1), np.random.rand(), random.random()) == expected  # noqa: NPY002, S311 - as above
        assert {name: module.training for name, module in model.named_modules()} == modes
        assert not model.is_activation_checkpointing
    assert all(seen)


def test_checkpointing_that_was_on_stays_on() -> None:
    model: Any = make_language_model("tied Llama")
    model.activation_checkpointing_enable({"use_reentrant": False})
    LightTrainer(model, make_batches("tied llama"), TrainerSettings()).train_steps(1)
    assert model.is_activation_checkpointing is True


def test_the_older_names_of_checkpointing_are_known() -> None:
    class Older(nn.Linear):
        supports_gradient_checkpointing = True
        is_gradient_checkpointing = False
        calls: list[Any]

        def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any]) -> None:
            self.calls = [gradient_checkpointing_kwargs]

        def gradient_checkpointing_disable(self) -> None:
            self.calls.append("off")

    model = Older(5, 3)
    LightTrainer(model, make_batches("mlp"), TrainerSettings()).train_steps(1)
    assert model.calls == [{"use_reentrant": False}, "off"]


def test_what_cannot_be_trained_on_is_an_error() -> None:
    batches = make_batches("mlp")
    with pytest.raises(TypeError, match="must start anew each epoch, but a list_iterator is used up after one"):
        LightTrainer(make_mlp(torch.float32), iter(batches), TrainerSettings())
    with pytest.raises(ValueError, match="at least one batch each epoch, but gave none"):
        LightTrainer(make_mlp(torch.float32), [], TrainerSettings()).train_epochs(1)

    class Once:
        left = batches

        def __iter__(self) -> Iterator[Any]:
            while self.left:
                yield self.left[0]
                self.left = self.left[1:]

    with pytest.raises(ValueError, match="at least one batch each epoch, but gave none"):
        LightTrainer(make_mlp(torch.float32), Once(), TrainerSettings()).train_epochs(2)
    with pytest.raises(ValueError, match="norm_l1 must be 0 for a model without batch-norm weights"):
        LightTrainer(make_mlp(torch.float32), batches, TrainerSettings(norm_l1=0.1))
    with pytest.raises(ValueError, match="none requires a gradient"):
        LightTrainer(make_mlp(torch.float32).requires_grad_(requires_grad=False), batches, TrainerSettings())
    with pytest.raises(ValueError, match="num_steps must be an integer of at least 1, got 0"):
        LightTrainer(make_mlp(torch.float32), batches, TrainerSettings()).train_steps(0)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"learning_rate": -0.1}, "learning_rate must be at least 0, got -0.1"),
        ({"learning_rate": float("nan")}, "learning_rate must be at least 0, got nan"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"momentum": 0.9, "use_sgd": False}, "momentum must be 0 for AdamW"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0"),
        ({"norm_l1": -1.0}, "norm_l1 must be at least 0"),
        ({"nonfinite_limit": 1.5}, r"nonfinite_limit must be in \[0, 1\]"),
        ({"max_batch_size": 0}, "max_batch_size must be an integer of at least 1 or None, got 0"),
    ],
)
def test_settings_out_of_range_are_errors(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        TrainerSettings(**options)


def test_what_is_used_is_said(caplog: pytest.LogCaptureFixture) -> None:
    settings = TrainerSettings(momentum=0.9, weight_decay=0.1, max_batch_size=2)
    told: list[int] = []
    with caplog.at_level(logging.INFO):
        trainer = LightTrainer(make_language_model("tied Llama").bfloat16(), make_batches("tied llama"), settings)
        with telling_steps_to(told.append):
            trainer.train_epochs(1)
    assert trainer.describe() == (
        "SGD inside the backward pass, lr 0.0001, momentum 0.9, weight decay 0.1, stochastic rounding in bfloat16, "
        "activation checkpointing, at most 2 samples at once"
    )
    assert trainer.describe() in caplog.messages[0]
    assert "step 3: trained on 3 batches, mean loss 3." in caplog.messages[-1]
    assert "0 skipped" in caplog.messages[-1]
    assert told == [1, 1, 1]
    assert LightTrainer(make_mlp(torch.float32), [1], TrainerSettings(use_sgd=False)).describe() == (
        "AdamW with 32-bit state, lr 0.0001"
    )
