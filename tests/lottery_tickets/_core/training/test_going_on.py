"""The light trainer goes on after a stop to the same bits, and refuses what is not its own."""

import copy
import io
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, TensorDataset

from lottery_tickets._core.objective import compute_loss
from lottery_tickets._core.training.light_training import LightTrainer
from lottery_tickets._core.training.settings import TrainerSettings
from tests.data import make_data
from tests.lottery_tickets._core.training.light_trainings import (
    LR,
    OPTIMIZERS,
    assert_same,
    copy_weights,
    each_optimizer,
    make_batches,
)
from tests.models import make_dropout_mlp, make_mlp


class Eager:
    """Draws the order when an epoch starts, not when its first batch is asked for."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.data = make_data(dtype)

    def __iter__(self) -> Iterator[Any]:
        order = torch.randperm(12)
        return iter([(self.data[0][chosen], self.data[1][chosen]) for chosen in order.split(3)])


def make_loader(dtype: torch.dtype, kind: str = "shuffling") -> Iterable[Any]:
    if kind == "eager":
        return Eager(dtype)
    generator = torch.Generator().manual_seed(7) if kind == "own generator" else None
    return DataLoader(TensorDataset(*make_data(dtype)), batch_size=3, shuffle=True, generator=generator)


def save_and_load(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


@each_optimizer
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("first", "kind"), [(2, "shuffling"), (4, "shuffling"), (6, "own generator"), (8, "own generator"), (7, "eager")]
)
def test_going_on_is_bit_identical(dtype: torch.dtype, first: int, options: dict[str, Any], kind: str) -> None:
    """In the middle of an epoch of four batches and at its end, with shuffling, dropout and stochastic rounding."""
    settings = TrainerSettings(learning_rate=0.01, max_batch_size=2, **options)
    straight = make_dropout_mlp(dtype)
    LightTrainer(straight, make_loader(dtype, kind), settings).train_steps(9)
    stopped = make_dropout_mlp(dtype)
    trainer = LightTrainer(stopped, make_loader(dtype, kind), settings)
    trainer.train_steps(first)
    state, weights = save_and_load(trainer.state()), copy_weights(stopped)
    trainer.train_steps(9 - first)  # goes on itself
    assert_same(stopped, straight)
    resumed = make_dropout_mlp(dtype)
    resumed.load_state_dict(weights)
    torch.manual_seed(99)  # has no say
    other = LightTrainer(resumed, make_loader(dtype, kind), settings)
    other.load_state(state)
    assert other.num_steps == first
    report = other.train_steps(9 - first)
    assert_same(resumed, straight)
    assert (report["num_steps"], report["num_batches"], report["num_epochs"]) == (9, 9 - first, 2)


@pytest.mark.parametrize("name", ["momentum", "adamw"])
def test_a_state_does_not_change_later(name: str) -> None:
    settings = TrainerSettings(learning_rate=LR, **OPTIMIZERS[name])
    trainer = LightTrainer(make_mlp(torch.float32), make_batches("mlp"), settings)
    trainer.train_steps(1)
    state = trainer.state()
    copied = copy.deepcopy(state)
    trainer.train_steps(2)
    pairs = zip(tree_leaves(copied), tree_leaves(state), strict=True)
    assert all(torch.equal(*pair) if isinstance(pair[0], Tensor) else pair[0] == pair[1] for pair in pairs)


def test_the_order_is_shuffled_anew_each_epoch_and_a_function_of_the_seed() -> None:
    orders: list[list[float]] = []
    for seed in (0, 0, 1):
        seen: list[float] = []

        def record(model: nn.Module, batch: list[Tensor]) -> Tensor:
            seen.extend(batch[0].tolist())  # noqa: B023 - called here
            loss: Tensor = model(batch[0][:, None]).mean()
            return loss

        loader = DataLoader(TensorDataset(torch.arange(8.0)), batch_size=2, shuffle=True)
        LightTrainer(nn.Linear(1, 1), loader, TrainerSettings(), seed=seed, loss_fn=record).train_epochs(2)
        assert sorted(seen[:8]) == sorted(seen[8:]) == list(range(8))
        assert seen[:8] != seen[8:]
        orders.append(seen)
    assert orders[0] == orders[1] != orders[2]


def test_an_interrupted_batch_is_done_again() -> None:
    straight, interrupted = make_dropout_mlp(torch.float32), make_dropout_mlp(torch.float32)
    LightTrainer(straight, make_loader(torch.float32), TrainerSettings(learning_rate=LR)).train_steps(4)
    is_armed = True

    def fail_once(model: nn.Module, batch: Any) -> Tensor:  # noqa: ANN401 - any batch
        nonlocal is_armed
        if trainer.num_steps == 2 and is_armed:
            is_armed = False
            raise KeyboardInterrupt("once")
        return compute_loss(model, batch)

    settings = TrainerSettings(learning_rate=LR)
    trainer = LightTrainer(interrupted, make_loader(torch.float32), settings, loss_fn=fail_once)
    with pytest.raises(KeyboardInterrupt, match="once"):
        trainer.train_steps(4)
    trainer.train_steps(2)
    assert_same(interrupted, straight)


def test_epochs_and_steps() -> None:
    trainer = LightTrainer(make_mlp(torch.float32), make_batches("mlp"), TrainerSettings())
    assert trainer.train_epochs(2)["num_batches"] == 6
    assert (trainer.num_steps, trainer.num_epochs) == (6, 2)
    assert trainer.train_steps(2)["num_batches"] == 2
    assert trainer.train_epochs(1)["num_batches"] == 1, "the rest of the epoch"
    assert trainer.train_steps(3)["num_batches"] == 3
    assert (trainer.num_steps, trainer.num_epochs) == (12, 3), "the end of the fourth has not been seen"
    assert trainer.train_epochs(1)["num_batches"] == 3, "a whole one, as nothing was left of the fourth"
    assert (trainer.num_steps, trainer.num_epochs) == (15, 5)


@pytest.mark.parametrize(
    ("settings", "seed", "match"),
    [
        (TrainerSettings(), 1, r"\(saved, own\) are {'seed': \(42, 1\)}"),
        (TrainerSettings(use_sgd=False), 42, "use_sgd"),
        (TrainerSettings(learning_rate=1.0), 42, "learning_rate"),
    ],
)
def test_a_state_of_other_settings_is_an_error(settings: TrainerSettings, seed: int, match: str) -> None:
    state = LightTrainer(make_mlp(torch.float32), make_batches("mlp"), TrainerSettings()).state()
    other = LightTrainer(make_mlp(torch.float32), make_batches("mlp"), settings, seed=seed)
    with pytest.raises(ValueError, match=match):
        other.load_state(state)


def sum_parameters(model: nn.Module, _: object) -> Tensor:
    return torch.stack([parameter.sum() for parameter in model.parameters()]).sum()


def test_a_state_of_other_data_or_of_another_model_is_an_error() -> None:
    settings = TrainerSettings(momentum=0.9)
    trainer = LightTrainer(make_mlp(torch.float32), make_batches("mlp"), settings, loss_fn=sum_parameters)
    trainer.train_steps(2)
    state = trainer.state()
    with pytest.raises(ValueError, match=r"momentum of '0\.weight' has shape .* but the model has shape"):
        LightTrainer(nn.Sequential(nn.Linear(2, 2)), [1], settings, loss_fn=sum_parameters).load_state(state)
    with pytest.raises(ValueError, match=r"momentum of '2\.weight' .* but the model has no such trainable parameter"):
        LightTrainer(make_mlp(torch.float32)[:2], [1], settings, loss_fn=sum_parameters).load_state(state)
    other_loader = LightTrainer(
        make_mlp(torch.float32), make_loader(torch.float32, "own generator"), settings, loss_fn=sum_parameters
    )
    with pytest.raises(ValueError, match=r"must have 0 generators of its own, .* but has 1"):
        other_loader.load_state(state)
    short = LightTrainer(make_mlp(torch.float32), make_batches("mlp")[:1], settings, loss_fn=sum_parameters)
    short.load_state(state)
    with pytest.raises(ValueError, match="must give the 2 batches that were done of this epoch, but gave 1"):
        short.train_steps(1)
