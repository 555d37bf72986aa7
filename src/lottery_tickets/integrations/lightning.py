"""Watching a training of Lightning's `Trainer` for an early-bird ticket.

```text
from lottery_tickets.integrations.lightning import EarlyBirdCallback

make_watcher = partial(EarlyBirdWatcher, check_steps=50)
trainer = lightning.Trainer(max_epochs=20, callbacks=[EarlyBirdCallback(make_watcher, folder="bird")])
trainer.fit(module, dataloader)
use_ticket(model, "bird/ticket.safetensors")  # theta_0 and the mask, to be trained
```
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsFloat, cast, final

from torch import Tensor

from lottery_tickets._core.checks import needing_extra
from lottery_tickets.early_bird.probe import Probe
from lottery_tickets.early_bird.watcher import EarlyBirdWatcher
from lottery_tickets.integrations.watch import MakeWatcher, SavedWatch, Watch

with needing_extra("lightning"):
    try:
        from lightning.pytorch import Callback, LightningModule, Trainer
    except ModuleNotFoundError:  # the same library under its older name
        from pytorch_lightning import Callback, LightningModule, Trainer  # type: ignore[assignment]


@final
class EarlyBirdCallback(Callback):
    """Watches the training of a Lightning `Trainer`; only reads the weights, and can stop it.

    Names in masks and evidence are those of the `LightningModule`'s parameters. Steps are optimizer steps, as
    `trainer.global_step` counts them: with accumulated gradients there is one check a step, after its last batch. The
    loss is that of this batch, as `training_step` returned it, and in the first process; the loss of the first batch
    stands for that at the start. The learning rate is that of the first optimizer after the step.

    **Probe.** Learning is measured on samples of the validation loader, else of the training loader, as `compute_loss`
    drives a model: batches are pairs of inputs and class indices, and the module's `forward` gives logits. Steps of the
    module are not called, because they log and may train. For any other module give the loss:
    `probe=Probe(loader, loss_fn=lambda module, batch: ...)`.

    **Several processes.** Under data parallelism each has the same weights and watches for itself. The losses of their
    batches differ, so training stops when all agree; the first one writes. Models under `fully_shard` or tensor
    parallelism (`ModelParallelStrategy`) are watched by all together, without a folder; learning is measured only on a
    `probe` that is given, the same in each process, and no training that resumes is watched on. Those of `FSDPStrategy`
    and DeepSpeed's third stage are refused.

    **Resuming.** Checkpoints that Lightning saves hold what the watch needs: the starting weights, ranks and masks, all
    checks; `fit(..., ckpt_path=)` goes on from it to the same verdicts.

    Args:
        make_watcher: Called with the model when training begins; `partial(EarlyBirdWatcher, check_steps=50)` for
            options of your own.
        stop: Whether to end training when the ticket has converged or the weights are not finite.
        folder: Gets `ticket.safetensors` and `evidence.json` when the watcher would stop, and when training ends or
            is interrupted.
        probe: A `Probe`, or its batches, which are then taken for held out; the default is told above.

    Raises:
        TypeError: When `make_watcher` is not a function.
        ValueError: When training begins: an option of the watcher is out of range, training resumes without a saved
            watch, or the model is in shards other than those above, or in any and there is a folder.
    """

    def __init__(
        self,
        make_watcher: MakeWatcher = EarlyBirdWatcher,
        *,
        stop: bool = True,
        folder: str | Path | None = None,
        probe: Probe | Iterable[Any] | None = None,
    ) -> None:
        self.stop = stop
        self._watch = Watch(make_watcher, folder, probe)
        self._saved: SavedWatch | None = None

    @property
    def watcher(self) -> EarlyBirdWatcher | None:
        """The watcher, with all that it has seen; None before training begins."""
        return self._watch.watcher

    def state_dict(self) -> dict[str, Any]:
        """Returns what resuming needs; nothing before training."""
        return cast(dict[str, Any], self._watch.to_saved() or {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps what `state_dict` returned until training begins."""
        self._saved = cast(SavedWatch, state_dict)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the starting weights."""
        self._watch.begin(pl_module, trainer.global_step, self._saved, default=_find_probe(trainer))
        self._saved = None
        self._stop(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Checks when it is time."""
        del batch
        is_checked = self._watch.observe(
            pl_module,
            trainer.global_step,
            epoch=_count_epochs(trainer, batch_idx),
            loss=_find_loss(trainer, outputs),
            optimizer=next(iter(trainer.optimizers), None),
        )
        if is_checked:
            if trainer.is_global_zero:
                self._watch.save(at_end=False)
            self._stop(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes ticket and evidence."""
        del pl_module
        if trainer.is_global_zero:
            self._watch.save(at_end=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Writes what has been found until training was interrupted."""
        del exception
        self.on_train_end(trainer, pl_module)

    def _stop(self, trainer: Trainer) -> None:
        if self.stop and trainer.strategy.reduce_boolean_decision(self._watch.should_stop, all=True):
            trainer.should_stop = True


@final
@dataclass(frozen=True)
class _BatchLoss:
    """A loss that Lightning has divided by the number of accumulated batches; multiplied when it is read."""

    share: Tensor
    num_batches: int

    def __float__(self) -> float:
        return float(self.share) * self.num_batches


def _find_probe(trainer: Trainer) -> Probe | None:
    for loaders, held_out in ((trainer.val_dataloaders, True), (trainer.train_dataloader, False)):
        first = next(iter(loaders), None) if isinstance(loaders, list | tuple) else loaders
        if isinstance(first, Iterable) and not isinstance(first, Mapping):
            return Probe(first, held_out=held_out)
    return None


def _find_loss(trainer: Trainer, outputs: object) -> SupportsFloat | None:
    found = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
    return _BatchLoss(found.detach(), trainer.accumulate_grad_batches) if isinstance(found, Tensor) else None


def _count_epochs(trainer: Trainer, batch_idx: int) -> float:
    num_batches = trainer.num_training_batches
    return trainer.current_epoch + ((batch_idx + 1) / num_batches if math.isfinite(num_batches) else 0.0)
