"""The watcher in a training of Accelerate's."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import nn

from lottery_tickets import hold_mask
from lottery_tickets._core.states import copy_state, hash_state
from lottery_tickets.early_bird.watcher import EarlyBirdWatcher
from tests.lottery_tickets.early_bird.digits import make_held_out
from tests.lottery_tickets.integrations.digits import (
    LARGE_RATE,
    NUM_IMAGES,
    STEPS_PER_EPOCH,
    TINY_RATE,
    Spy,
    assert_watching_changes_no_bit,
    make_batches,
    make_mask,
    without_times,
)
from tests.models import make_lenet

accelerate: Any = pytest.importorskip("accelerate")


@pytest.fixture(autouse=True)
def _fresh_accelerate() -> Iterator[None]:
    """Accelerate has one state a process: a first Accelerator, such as a transformers.Trainer's, decides for all."""
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    yield
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


def train(
    model: nn.Module,
    watcher: EarlyBirdWatcher | None = None,
    *,
    rate: float = LARGE_RATE,
    max_steps: int = 60,
    num_accumulated: int = 1,
    unwrapped: bool = False,
    options: Mapping[str, str] | None = None,
) -> int:
    """Trains as Accelerate's documentation does, watching after each optimizer step; returns the steps."""
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=num_accumulated, **(options or {}))
    optimizer = torch.optim.SGD(model.parameters(), rate)
    batches = make_batches(NUM_IMAGES // STEPS_PER_EPOCH // num_accumulated)
    prepared, optimizer, batches = accelerator.prepare(model, optimizer, batches)
    step: int = 0
    while step < max_steps:
        for inputs, targets in batches:
            with accelerator.accumulate(prepared):
                loss = nn.functional.cross_entropy(prepared(inputs), targets)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
            step += int(accelerator.sync_gradients)
            if watcher is not None:
                watched = accelerator.unwrap_model(prepared) if unwrapped else prepared
                watcher.observe(watched, step, loss=loss.item(), learning_rate=optimizer.param_groups[0]["lr"])
            if step == max_steps or (watcher is not None and watcher.should_stop):
                return step
    return step


def test_a_converged_ticket_stops_training(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_lenet()
    before = hash_state(copy_state(model))
    watcher = EarlyBirdWatcher(model, check_steps=10, probe=make_held_out())
    spy = Spy(monkeypatch, EarlyBirdWatcher)
    steps = train(model, watcher)
    assert steps < 60
    assert watcher.converged
    assert hash_state(watcher.starting_weights) == before
    spy.assert_quiet(num_checks=steps // 10, num_others=steps - steps // 10)


def test_weights_that_hardly_move_are_trained_to_the_end() -> None:
    model = make_lenet()
    watcher = EarlyBirdWatcher(model, check_steps=10)
    assert train(model, watcher, rate=TINY_RATE, max_steps=40) == 40
    assert watcher.verdict == "trivially stable"


def test_watching_changes_no_bit() -> None:
    assert_watching_changes_no_bit(train)


def test_accumulated_gradients_give_one_check_a_step() -> None:
    model = make_lenet()
    mask = make_mask(model)
    hold_mask(model, mask)
    watcher = EarlyBirdWatcher(model, check_steps=3, target_sparsity=0.75)
    train(model, watcher, max_steps=7, num_accumulated=2)
    assert [check["step"] for check in watcher.checkpoints] == [3, 6]
    ticket = watcher.draw_ticket()
    assert all(not bool((ticket[name] & ~mask[name]).any()) for name in ticket), "what was pruned stays pruned"


@pytest.mark.parametrize("options", [{"dynamo_backend": "eager"}, {"mixed_precision": "bf16"}, {}])
@pytest.mark.parametrize("unwrapped", [True, False])
def test_prepared_models_are_the_model(options: dict[str, str], unwrapped: bool) -> None:
    """Compiled, under autocast or plain, wrapped or not: what is seen are the weights of the model."""
    models = [make_lenet(), make_lenet()]
    watchers = [EarlyBirdWatcher(model, check_steps=5) for model in models]
    train(models[0], watchers[0], max_steps=10, unwrapped=unwrapped, options=options)
    train(models[1], watchers[1], max_steps=10)
    assert [check["step"] for check in watchers[0].checkpoints] == [5, 10]
    assert watchers[0].draw_ticket().keys() == watchers[1].draw_ticket().keys()
    if "mixed_precision" not in options:
        assert without_times(watchers[0]) == without_times(watchers[1])
