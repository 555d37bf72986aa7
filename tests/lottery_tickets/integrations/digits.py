"""A small classification of digits to train in any library, and what is asked of whoever watches it."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

from lottery_tickets import Mask
from lottery_tickets._core.states import copy_state, hash_state
from lottery_tickets.early_bird.watcher import EarlyBirdWatcher
from lottery_tickets.storage import load_results
from tests.lottery_tickets.early_bird.digits import make_held_out
from tests.models import load_digits, make_lenet

NUM_IMAGES = 600
STEPS_PER_EPOCH = 10
LARGE_RATE, TINY_RATE = 0.3, 1e-6

Batches = DataLoader[tuple[Tensor, ...]]


def make_batches(batch_size: int = NUM_IMAGES // STEPS_PER_EPOCH) -> Batches:
    """Returns batches in the same order each epoch."""
    data = load_digits().data
    return DataLoader(TensorDataset(data.train_inputs[:NUM_IMAGES], data.train_targets[:NUM_IMAGES]), batch_size)


def make_mask(model: nn.Module) -> Mask:
    """Returns a mask that keeps half of each matrix."""
    generator = torch.Generator().manual_seed(1)
    kept = {n: torch.rand(p.shape, generator=generator) < 0.5 for n, p in model.named_parameters() if p.dim() > 1}
    return Mask.from_tensors(kept)


def without_times(watcher: EarlyBirdWatcher | None) -> list[dict[str, Any]]:
    """Returns all that the checks of a watcher saw, but for how long they took."""
    assert watcher is not None
    return [{name: value for name, value in check.items() if name != "seconds"} for check in watcher.checkpoints]


class _Operations(TorchDispatchMode):
    """Records each operation on a tensor."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch's
        self.names: list[str] = []

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: Iterable[object] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        del types
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


class Spy:
    """Sees each call of a class's `observe`: whether it checked, and which operations on tensors it ran."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, watched: type) -> None:
        self.num_checks = 0
        self.quiet: list[list[str]] = []
        observe: Callable[..., object] = watched.observe  # type: ignore[attr-defined]
        check: Callable[..., object] = EarlyBirdWatcher.check

        def spied_observe(*args: object, **kwargs: object) -> object:
            before = self.num_checks
            with _Operations() as operations:
                result = observe(*args, **kwargs)
            if self.num_checks == before:
                self.quiet.append(operations.names)
            else:
                assert operations.names, "a check reads the weights"
            return result

        def spied_check(*args: object, **kwargs: object) -> object:
            self.num_checks += 1
            return check(*args, **kwargs)

        monkeypatch.setattr(watched, "observe", spied_observe)
        monkeypatch.setattr(EarlyBirdWatcher, "check", spied_check)

    def assert_quiet(self, *, num_checks: int, num_others: int) -> None:
        assert (self.num_checks, len(self.quiet)) == (num_checks, num_others)
        assert [names for names in self.quiet if names] == []


def assert_saved(folder: Path, watcher: EarlyBirdWatcher, *, verdict: str = "converged") -> None:
    """Asserts that ticket and evidence are whole, and say what the watcher does, with losses and learning rates."""
    evidence = load_results(folder / "evidence.json")
    ticket = Mask.load(folder / "ticket.safetensors")
    assert evidence["verdict"] == watcher.verdict == verdict
    assert ticket.digest == watcher.draw_ticket().digest == evidence["final_mask"].digest
    assert ticket.sparsity == pytest.approx(0.5, abs=1e-4)
    assert evidence["checkpoints"] == watcher.checkpoints
    assert all(check["learning_rate"] > 0 for check in watcher.checkpoints if check["learning_rate"] is not None)
    last = watcher.checkpoints[-1]
    assert last["learning_rate"] is not None
    assert last["loss"] is not None
    assert last["start_loss"] is not None
    if verdict == "converged":
        assert last["loss"] < last["start_loss"]


def assert_watching_changes_no_bit(train: Callable[..., int]) -> None:
    """Asserts that a training ends alike, watched or not; `train(model, watcher, max_steps=)` returns its steps."""
    models = [make_lenet(), make_lenet()]
    steps = train(models[0], EarlyBirdWatcher(models[0], check_steps=5, probe=make_held_out()))
    train(models[1], max_steps=steps)
    assert hash_state(copy_state(models[0])) == hash_state(copy_state(models[1]))
