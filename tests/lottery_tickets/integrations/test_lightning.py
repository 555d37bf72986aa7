"""The callback for Lightning's Trainer, in trainings on digits."""

import importlib
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lottery_tickets import EarlyBirdWatcher, Probe, hold_mask
from lottery_tickets._core.states import copy_state, hash_state
from lottery_tickets.integrations.watch import Watch
from tests.lottery_tickets.integrations.digits import (
    LARGE_RATE,
    NUM_IMAGES,
    STEPS_PER_EPOCH,
    TINY_RATE,
    Spy,
    assert_saved,
    make_batches,
    make_mask,
    without_times,
)
from tests.models import make_lenet

lightning: Any = pytest.importorskip("lightning.pytorch")

from lottery_tickets.integrations.lightning import EarlyBirdCallback  # noqa: E402 - needs lightning

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),  # lightning on torch's trees
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),  # a hint of lightning's
]


def make_module(library: Any = lightning, rate: float = LARGE_RATE, *, manual: bool = False) -> Any:  # noqa: ANN401 - lightning is imported without its types
    class Classifier(library.LightningModule):  # type: ignore[misc] # as above
        def __init__(self) -> None:
            super().__init__()
            self.net = make_lenet()
            self.automatic_optimization = not manual
            self.losses: list[float] = []

        def forward(self, inputs: Tensor) -> Tensor:
            logits: Tensor = self.net(inputs)
            return logits

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            del batch_idx
            inputs, targets = batch
            loss: Tensor = nn.functional.cross_entropy(self.net(inputs), targets)
            self.losses.append(loss.item())
            if manual:
                optimizer = self.optimizers()
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), rate)

    return Classifier()


def make_trainer(library: Any = lightning, *callbacks: Any, **options: object) -> Any:  # noqa: ANN401 - as above
    settings: dict[str, Any] = {
        "max_steps": 10 * STEPS_PER_EPOCH,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return library.Trainer(callbacks=list(callbacks), **settings | options)


@pytest.mark.parametrize("name", ["lightning.pytorch", "pytorch_lightning"])
def test_a_converged_ticket_stops_training_and_is_saved(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = pytest.importorskip(name)
    module = make_module(library)
    before = hash_state(copy_state(module))
    callback = EarlyBirdCallback(partial(EarlyBirdWatcher, check_steps=10), folder=tmp_path)
    spy = Spy(monkeypatch, Watch)
    trainer = make_trainer(library, callback)
    trainer.fit(module, make_batches())
    steps = trainer.global_step
    assert 30 <= steps < trainer.max_steps
    assert callback.watcher is not None
    # Lightning's own callback for lottery tickets rewinds to trained weights: its copy shares memory with the model.
    assert hash_state(callback.watcher.starting_weights) == before
    assert hash_state(copy_state(module)) != before
    assert_saved(tmp_path, callback.watcher)
    first = callback.watcher.checkpoints[0]
    assert (first["step"], first["epoch"], first["learning_rate"]) == (10, 1.0, LARGE_RATE)
    assert first["start_loss"] == module.losses[0]
    assert [check["loss"] for check in callback.watcher.checkpoints] == module.losses[9::10]
    spy.assert_quiet(num_checks=steps // 10, num_others=steps - steps // 10)


def test_weights_that_hardly_move_are_trained_to_the_end(tmp_path: Path) -> None:
    callback = EarlyBirdCallback(partial(EarlyBirdWatcher, check_steps=10), folder=tmp_path)
    trainer = make_trainer(lightning, callback, max_steps=40)
    trainer.fit(make_module(rate=TINY_RATE), make_batches())
    assert trainer.global_step == 40
    assert callback.watcher is not None
    assert_saved(tmp_path, callback.watcher, verdict="trivially stable")


def test_training_goes_on_without_stop_and_to_the_same_bits() -> None:
    callback = EarlyBirdCallback(partial(EarlyBirdWatcher, check_steps=5), stop=False)
    modules = [make_module(), make_module()]
    for module, watching in zip(modules, ([callback], []), strict=True):
        trainer = make_trainer(lightning, *watching, max_steps=50)
        trainer.fit(module, make_batches())
        assert trainer.global_step == 50
    assert callback.watcher is not None
    assert callback.watcher.converged
    assert len(callback.watcher.checkpoints) == 10
    assert hash_state(copy_state(modules[0])) == hash_state(copy_state(modules[1]))


def test_a_validation_loader_is_the_probe_and_modules_without_forward_need_a_loss(
    caplog: pytest.LogCaptureFixture,
) -> None:
    module = make_module()
    module.validation_step = lambda _batch, _index: None
    callback = EarlyBirdCallback(partial(EarlyBirdWatcher, check_steps=3))
    make_trainer(lightning, callback, max_steps=3, num_sanity_val_steps=0).fit(module, make_batches(), make_batches(50))
    assert callback.watcher is not None
    assert callback.watcher.checkpoints[0]["held_out"] is True
    deaf = make_module()
    type(deaf).forward = nn.Module.forward
    callback = EarlyBirdCallback(partial(EarlyBirdWatcher, check_steps=3))
    with caplog.at_level("INFO"):
        make_trainer(lightning, callback, max_steps=3).fit(deaf, make_batches())
    assert callback.watcher is not None
    assert callback.watcher.checkpoints[0]["held_out"] is None
    assert "learning is not measured, because the data makes no probe" in caplog.text

    def compute(module: nn.Module, batch: list[Tensor]) -> Tensor:
        return nn.functional.cross_entropy(module.get_submodule("net")(batch[0]), batch[1])

    probe = Probe(make_batches(), compute)
    callback = EarlyBirdCallback(partial(EarlyBirdWatcher, check_steps=3), probe=probe)
    make_trainer(lightning, callback, max_steps=3).fit(deaf, make_batches())
    assert callback.watcher is not None
    assert callback.watcher.checkpoints[0]["gap_p"] is not None


def test_accumulated_gradients_and_a_held_mask() -> None:
    """Steps are optimizer steps; a check comes after the last batch of its step, with this batch's loss."""
    module = make_module()
    mask = make_mask(module)
    hold_mask(module, mask)
    callback = EarlyBirdCallback(partial(EarlyBirdWatcher, check_steps=3, target_sparsity=0.75), stop=False)
    trainer = make_trainer(lightning, callback, max_steps=7, accumulate_grad_batches=2)
    trainer.fit(module, make_batches(NUM_IMAGES // (2 * STEPS_PER_EPOCH)))
    assert callback.watcher is not None
    assert [check["step"] for check in callback.watcher.checkpoints] == [3, 6]
    assert [check["epoch"] for check in callback.watcher.checkpoints] == [0.3, 0.6]
    losses = [check["loss"] for check in callback.watcher.checkpoints]
    assert losses == pytest.approx([module.losses[5], module.losses[11]], rel=1e-6)
    ticket = callback.watcher.draw_ticket()
    assert all(not bool((ticket[name] & ~mask[name]).any()) for name in ticket), "what was pruned stays pruned"


def test_manual_optimization_is_watched_too() -> None:
    module = make_module(manual=True)
    callback = EarlyBirdCallback(partial(EarlyBirdWatcher, check_steps=10))
    make_trainer(lightning, callback).fit(module, make_batches())
    assert callback.watcher is not None
    assert callback.watcher.converged
    assert [check["loss"] for check in callback.watcher.checkpoints] == module.losses[9::10]


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")  # the one that saved
def test_a_training_that_resumes_is_watched_on_to_the_same_evidence(tmp_path: Path) -> None:
    callbacks = [EarlyBirdCallback(partial(EarlyBirdWatcher, check_steps=7), stop=False) for _ in range(3)]
    modules = [make_module(), make_module(), make_module()]
    checkpoints = lightning.callbacks.ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=20)
    saving = make_trainer(lightning, callbacks[0], checkpoints, max_steps=40, enable_checkpointing=True)
    saving.fit(modules[0], make_batches())
    with torch.no_grad():
        modules[1].net.output.weight.zero_()  # weights that are not the starting ones
    resumed = make_trainer(lightning, callbacks[1], max_steps=40)
    resumed.fit(modules[1], make_batches(), ckpt_path=str(tmp_path / "step=20.ckpt"), weights_only=True)
    twice = make_trainer(lightning, callbacks[2], max_steps=20)
    twice.fit(modules[2], make_batches())
    twice.fit_loop.epoch_loop.max_steps = 40  # the same trainer goes on, with the same callback
    twice.fit(modules[2], make_batches())
    for callback, module in zip(callbacks, modules, strict=True):
        assert without_times(callback.watcher) == without_times(callbacks[0].watcher)
        assert callback.watcher is not None
        assert hash_state(copy_state(module)) == hash_state(copy_state(modules[0]))
        assert hash_state(callback.watcher.starting_weights) == hash_state(copy_state(make_module()))


def test_resuming_without_a_saved_watch_is_refused(tmp_path: Path) -> None:
    trainer = make_trainer(lightning, max_steps=15)
    trainer.fit(make_module(), make_batches())
    trainer.save_checkpoint(tmp_path / "15.ckpt")
    other = make_trainer(lightning, EarlyBirdCallback(partial(EarlyBirdWatcher, check_steps=10)), max_steps=20)
    with pytest.raises(ValueError, match=r"resumes at step 15 without a watch.*saved with this callback"):
        other.fit(make_module(), make_batches(), ckpt_path=str(tmp_path / "15.ckpt"))


def test_an_interrupted_training_leaves_what_it_found(tmp_path: Path) -> None:
    class Interrupted(lightning.Callback):  # type: ignore[misc] # lightning is imported without its types
        def on_train_batch_end(self, trainer: object, *_: object) -> None:
            if getattr(trainer, "global_step", None) == 15:
                raise RuntimeError("the power is gone")

    callback = EarlyBirdCallback(partial(EarlyBirdWatcher, check_steps=10), folder=tmp_path)
    with pytest.raises(RuntimeError, match="the power is gone"):
        make_trainer(lightning, callback, Interrupted()).fit(make_module(), make_batches())
    assert callback.watcher is not None
    assert_saved(tmp_path, callback.watcher, verdict="still changing")


def test_a_training_that_ends_before_the_first_check_saves_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback = EarlyBirdCallback(partial(EarlyBirdWatcher, check_steps=100), folder=tmp_path)
    make_trainer(lightning, callback, max_steps=5).fit(make_module(), make_batches())
    assert list(tmp_path.iterdir()) == []
    assert "training ended before the first check" in caplog.text


def test_the_older_name_of_the_library_serves_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    library = pytest.importorskip("pytorch_lightning")
    module = importlib.import_module("lottery_tickets.integrations.lightning")
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    try:
        assert issubclass(importlib.reload(module).EarlyBirdCallback, library.Callback)
    finally:
        monkeypatch.undo()
        importlib.reload(module)


def test_what_makes_no_watcher_is_refused() -> None:
    with pytest.raises(TypeError, match="make_watcher must be a function of a model, such as EarlyBirdWatcher, got 10"):
        EarlyBirdCallback(10)  # type: ignore[arg-type]
