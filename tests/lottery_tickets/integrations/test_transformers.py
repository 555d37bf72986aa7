"""The callback for transformers' Trainer, in trainings of a tiny Llama."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lottery_tickets import EarlyBirdWatcher, hold_mask
from lottery_tickets._core.states import copy_state, hash_state
from lottery_tickets.integrations.watch import Watch
from lottery_tickets.storage import load_results
from tests.lottery_tickets.integrations.digits import TINY_RATE, Spy, assert_saved, make_mask, without_times
from tests.models import make_language_model

transformers: Any = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from lottery_tickets.integrations.transformers import WATCH_FILE, EarlyBirdCallback  # noqa: E402 - needs transformers

CHECK_STEPS = 10
NUM_STEPS = 150
PATTERNS = [[(start + step * place) % 16 for place in range(8)] for start in range(16) for step in range(1, 9)]
"""Sequences that go on by equal steps: to know the step the network must look back."""


def make_llama() -> nn.Module:
    sizes = {"vocab_size": 16, "num_hidden_layers": 1, "attention_dropout": 0.0}
    return make_language_model("Llama", **sizes, pad_token_id=0)


def make_trainer(path: Path, model: nn.Module, callback: EarlyBirdCallback | None, **arguments: object) -> Any:  # noqa: ANN401 - transformers is imported without its types
    settings: dict[str, Any] = {
        "max_steps": NUM_STEPS,
        "per_device_train_batch_size": 16,
        "learning_rate": 0.03,
        "lr_scheduler_type": "constant",
        "logging_steps": CHECK_STEPS,
        "logging_first_step": True,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "use_cpu": True,
    }
    return transformers.Trainer(
        model,
        transformers.TrainingArguments(str(path), **settings | arguments),
        train_dataset=[{"input_ids": pattern, "labels": pattern} for pattern in PATTERNS],
        callbacks=[] if callback is None else [callback],
    )


def test_a_converged_ticket_stops_training_and_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_llama()
    before = hash_state(copy_state(model))
    callback = EarlyBirdCallback(partial(EarlyBirdWatcher, check_steps=CHECK_STEPS), folder=tmp_path / "bird")
    spy = Spy(monkeypatch, Watch)
    trainer = make_trainer(tmp_path, model, callback)
    trainer.train()
    steps = trainer.state.global_step
    assert 3 * CHECK_STEPS <= steps < NUM_STEPS
    assert callback.watcher is not None
    assert hash_state(callback.watcher.starting_weights) == before
    assert hash_state(copy_state(model)) != before
    assert_saved(tmp_path / "bird", callback.watcher)
    assert [check["step"] for check in callback.watcher.checkpoints] == list(range(CHECK_STEPS, steps + 1, CHECK_STEPS))
    # The loss of the check's own step, as it is logged; the first is that of step 1.
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert [check["loss"] for check in callback.watcher.checkpoints] == logged[1:]
    assert callback.watcher.checkpoints[0]["start_loss"] == logged[0]
    assert callback.watcher.checkpoints[0]["learning_rate"] == 0.03
    assert callback.watcher.checkpoints[0]["epoch"] == CHECK_STEPS * 16 / len(PATTERNS)
    assert callback.watcher.checkpoints[0]["held_out"] is False  # a sample of the training set
    spy.assert_quiet(num_checks=steps // CHECK_STEPS, num_others=steps - steps // CHECK_STEPS)


def test_weights_that_hardly_move_are_trained_to_the_end(tmp_path: Path) -> None:
    callback = EarlyBirdCallback(partial(EarlyBirdWatcher, check_steps=CHECK_STEPS), folder=tmp_path / "bird")
    trainer = make_trainer(tmp_path, make_llama(), callback, learning_rate=TINY_RATE, max_steps=40)
    trainer.train()
    assert trainer.state.global_step == 40
    assert callback.watcher is not None
    assert_saved(tmp_path / "bird", callback.watcher, verdict="trivially stable")


def test_training_goes_on_without_stop_and_to_the_same_bits(tmp_path: Path) -> None:
    callback = EarlyBirdCallback(partial(EarlyBirdWatcher, check_steps=5), stop=False, folder=tmp_path / "bird")
    models = [make_llama(), make_llama()]
    for model, watching in zip(models, (callback, None), strict=True):
        trainer = make_trainer(tmp_path, model, watching, max_steps=120)
        trainer.train()
        assert trainer.state.global_step == 120
    assert callback.watcher is not None
    assert callback.watcher.converged
    assert len(load_results(tmp_path / "bird" / "evidence.json")["checkpoints"]) == 24
    assert hash_state(copy_state(models[0])) == hash_state(copy_state(models[1]))


def test_an_evaluation_set_is_the_probe_where_it_is_known(tmp_path: Path) -> None:
    for given, evaluates in ((PATTERNS[:60], False), (None, True), (None, False)):
        probe = None if given is None else [{"input_ids": torch.tensor(given)}]
        callback = EarlyBirdCallback(partial(EarlyBirdWatcher, check_steps=3), probe=probe)
        trainer = make_trainer(tmp_path, make_llama(), callback, max_steps=3, eval_strategy="no")
        trainer.eval_dataset = [{"input_ids": pattern, "labels": pattern} for pattern in PATTERNS[:40]]
        if evaluates:
            trainer.evaluate()
        trainer.train()
        assert callback.watcher is not None
        found = callback.watcher.describe()["probe"]
        assert found["held_out"] == (given is not None or evaluates)
        assert found["num_samples"] == (60 if given else 40 if evaluates else 128)
        assert found["tells_samples"]
        assert callback.watcher.checkpoints[0]["gap_p"] is not None


def test_accumulated_gradients_and_a_held_mask(tmp_path: Path) -> None:
    model = make_llama()
    mask = make_mask(model)
    hold_mask(model, mask)
    callback = EarlyBirdCallback(partial(EarlyBirdWatcher, check_steps=3, target_sparsity=0.75), stop=False)
    trainer = make_trainer(
        tmp_path, model, callback, max_steps=7, per_device_train_batch_size=4, gradient_accumulation_steps=2
    )
    trainer.train()
    assert callback.watcher is not None
    assert [check["step"] for check in callback.watcher.checkpoints] == [3, 6]
    ticket = callback.watcher.draw_ticket()
    assert all(not bool((ticket[name] & ~mask[name]).any()) for name in ticket), "what was pruned stays pruned"
    assert callback.watcher.checkpoints[-1]["loss"] is not None  # the one logged before


def test_without_logs_the_loss_is_not_known(tmp_path: Path) -> None:
    callback = EarlyBirdCallback(partial(EarlyBirdWatcher, check_steps=3))
    unlogged = {"logging_strategy": "no", "logging_first_step": False}
    make_trainer(tmp_path, make_llama(), callback, max_steps=3, **unlogged).train()
    assert callback.watcher is not None
    assert [check["loss"] for check in callback.watcher.checkpoints] == [None]
    assert callback.watcher.checkpoints[0]["learning_rate"] == 0.03


def test_a_training_that_resumes_is_watched_on_to_the_same_evidence(tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 20, "max_steps": 40}
    # Checked more often than logged: the first check after resuming takes a loss that was logged before.
    callbacks = [EarlyBirdCallback(partial(EarlyBirdWatcher, check_steps=7), stop=False) for _ in range(2)]
    models = [make_llama(), make_llama()]
    make_trainer(tmp_path, models[0], callbacks[0], **saving).train()
    with torch.no_grad():
        models[1].lm_head.weight.zero_()  # type: ignore[operator, union-attr] # weights that are not the starting ones
    make_trainer(tmp_path, models[1], callbacks[1], **saving).train(
        resume_from_checkpoint=str(tmp_path / "checkpoint-20")
    )
    assert without_times(callbacks[1].watcher) == without_times(callbacks[0].watcher)
    assert callbacks[0].watcher is not None
    assert callbacks[1].watcher is not None
    assert hash_state(callbacks[1].watcher.starting_weights) == hash_state(callbacks[0].watcher.starting_weights)
    assert hash_state(copy_state(models[0])) == hash_state(copy_state(models[1]))
    other = EarlyBirdCallback(partial(EarlyBirdWatcher, check_steps=7, target_sparsity=0.9))
    with pytest.raises(ValueError, match="must be watched on with the settings"):
        make_trainer(tmp_path, make_llama(), other, **saving).train(resume_from_checkpoint=True)


def test_resuming_without_a_saved_watch_is_refused(tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 5, "max_steps": 5}
    make_trainer(
        tmp_path, make_llama(), EarlyBirdCallback(partial(EarlyBirdWatcher, check_steps=CHECK_STEPS)), **saving
    ).train()
    (tmp_path / "checkpoint-5" / WATCH_FILE).unlink()
    with pytest.raises(ValueError, match=r"resumes at step 5 without a watch.*saved with this callback"):
        make_trainer(tmp_path, make_llama(), EarlyBirdCallback(), **saving).train(resume_from_checkpoint=True)


def test_only_the_main_process_writes(tmp_path: Path) -> None:
    callback = EarlyBirdCallback(partial(EarlyBirdWatcher, check_steps=3), folder=tmp_path / "bird")
    trainer = make_trainer(tmp_path, make_llama(), callback, max_steps=3)
    trainer.state.is_world_process_zero = False
    trainer.remove_callback(callback)
    watch = callback._watch
    model = make_llama()
    watch.begin(model, 0)
    watch.observe(model, 3, epoch=None, loss=None, optimizer=None)
    callback.on_train_end(trainer.args, trainer.state, trainer.control)
    callback.on_save(trainer.args, trainer.state, trainer.control)
    assert list(tmp_path.glob("**/*")) == []


def test_what_makes_no_watcher_and_models_in_shards_are_refused() -> None:
    with pytest.raises(TypeError, match="make_watcher must be a function of a model, such as EarlyBirdWatcher"):
        EarlyBirdCallback(0.5)  # type: ignore[arg-type]
    model = nn.Linear(2, 2)
    model.weight.ds_id = 0  # type: ignore[attr-defined] # as DeepSpeed marks parameters that it has split
    with pytest.raises(ValueError, match="but is under FullyShardedDataParallel"):
        Watch(EarlyBirdWatcher, None).begin(model, 0)
