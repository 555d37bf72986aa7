"""The watcher in loops of one's own, and the package without the libraries that it integrates with."""

import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn

from lottery_tickets import hold_mask
from lottery_tickets._core.states import copy_state, hash_state
from lottery_tickets.early_bird.watcher import EarlyBirdWatcher
from tests.lottery_tickets.early_bird.digits import make_held_out
from tests.lottery_tickets.integrations.digits import (
    LARGE_RATE,
    TINY_RATE,
    Spy,
    assert_saved,
    assert_watching_changes_no_bit,
    make_batches,
    make_mask,
    without_times,
)
from tests.models import load_digits, make_lenet


def train(
    model: nn.Module, watcher: EarlyBirdWatcher | None = None, *, rate: float = LARGE_RATE, max_steps: int = 60
) -> int:
    """Trains until the watcher would stop; returns the steps."""
    optimizer = torch.optim.SGD(model.parameters(), rate)
    batches = make_batches()
    step = 0
    while True:
        for inputs, targets in batches:
            loss = nn.functional.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if watcher is not None:
                epoch = step / len(batches)
                watcher.observe(model, step, epoch=epoch, loss=loss.item(), learning_rate=rate)
            if step == max_steps or (watcher is not None and watcher.should_stop):
                return step


def test_a_converged_ticket_stops_training_and_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_lenet()
    before = hash_state(copy_state(model))
    watcher = EarlyBirdWatcher(model, check_steps=10, probe=make_held_out())
    spy = Spy(monkeypatch, EarlyBirdWatcher)
    steps = train(model, watcher)
    assert steps < 60
    assert hash_state(watcher.starting_weights) == before
    watcher.save(tmp_path)
    assert_saved(tmp_path, watcher)
    assert [check["epoch"] for check in watcher.checkpoints] == [number + 1 for number in range(steps // 10)]
    spy.assert_quiet(num_checks=steps // 10, num_others=steps - steps // 10)


def test_weights_that_hardly_move_are_trained_to_the_end(tmp_path: Path) -> None:
    model = make_lenet()
    watcher = EarlyBirdWatcher(model, check_steps=10)
    assert train(model, watcher, rate=TINY_RATE, max_steps=40) == 40
    watcher.save(tmp_path)
    assert_saved(tmp_path, watcher, verdict="trivially stable")


def test_watching_changes_no_bit() -> None:
    assert_watching_changes_no_bit(train)


def test_a_held_mask_bounds_the_ticket() -> None:
    model = make_lenet()
    mask = make_mask(model)
    hold_mask(model, mask)
    watcher = EarlyBirdWatcher(model, check_steps=10, target_sparsity=0.75, probe=make_held_out())
    train(model, watcher)
    assert watcher.converged
    ticket = watcher.draw_ticket()
    assert all(not bool((ticket[name] & ~mask[name]).any()) for name in ticket)


@pytest.mark.parametrize("compile_first", [True, False])
def test_compiled_models_are_watched(compile_first: bool) -> None:
    models = [make_lenet(), make_lenet()]
    compiled: nn.Module = torch.compile(models[0], backend="eager")  # type: ignore[assignment]
    watchers = [
        EarlyBirdWatcher(compiled if compile_first else models[0], check_steps=5, probe=make_held_out())
        for _ in range(1)
    ]
    watchers.append(EarlyBirdWatcher(models[1], check_steps=5, probe=make_held_out()))
    train(compiled, watchers[0], max_steps=10)
    train(models[1], watchers[1], max_steps=10)
    assert without_times(watchers[0]) == without_times(watchers[1])
    assert watchers[0].starting_weights.keys() == models[0].state_dict().keys()


def test_a_step_that_is_seen_several_times_is_checked_once() -> None:
    """As in a loop that calls after each batch while gradients accumulate."""
    model = make_lenet()
    watcher = EarlyBirdWatcher(model, check_steps=2)
    made = [watcher.observe(model, step) is not None for step in (0, 0, 1, 1, 2, 2, 3, 3, 5, 5)]
    assert made == [False, False, False, False, True, False, False, False, True, False]  # 4 was passed over


def test_a_loss_that_is_not_detached_keeps_no_graph_alive() -> None:
    """The first loss is kept for the whole training; its graph would keep the first batch's activations."""
    model = make_lenet()
    watcher = EarlyBirdWatcher(model, check_steps=2)
    for step in (1, 2):
        activations = model(load_digits().data.train_inputs[:4])
        alive = weakref.ref(activations)
        watcher.observe(model, step, loss=activations.square().mean())
        del activations
        assert alive() is None
    assert watcher.checkpoints[0]["start_loss"] is not None


def test_the_package_needs_none_of_the_libraries() -> None:
    check = (
        "import sys\n"
        "for name in ('transformers', 'lightning', 'pytorch_lightning', 'accelerate'): sys.modules[name] = None\n"
        "import lottery_tickets.integrations, lottery_tickets.integrations.watch\n"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
