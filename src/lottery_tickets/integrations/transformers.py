"""Watching a training of transformers' `Trainer` for an early-bird ticket.

```text
from lottery_tickets.integrations.transformers import EarlyBirdCallback

make_watcher = partial(EarlyBirdWatcher, check_steps=50)
arguments = TrainingArguments("out", logging_steps=50, logging_first_step=True)
Trainer(model, arguments, train_dataset=data, callbacks=[EarlyBirdCallback(make_watcher, folder="bird")]).train()
use_ticket(model, "bird/ticket.safetensors")  # theta_0 and the mask, to be trained
```
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, cast, final

from torch import nn

from lottery_tickets._core.checks import needing_extra
from lottery_tickets.early_bird.probe import Probe
from lottery_tickets.early_bird.watcher import EarlyBirdWatcher
from lottery_tickets.integrations.watch import MakeWatcher, SavedWatch, Watch, read_watch, write_watch

with needing_extra("transformers"):
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
    from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

WATCH_FILE: Final = "early_bird.safetensors"


@final
class EarlyBirdCallback(TrainerCallback):
    """Watches the training of a `transformers.Trainer`; only reads the weights, and can stop it.

    **Loss.** `Trainer` tells its callbacks the loss in its logs only: the mean since the log before. A check at a step
    that is logged waits for this log; any other takes the latest. The first one logged stands for the loss at the
    start. So log at least as often as you check, and set `logging_first_step=True`, if you want losses in the record;
    no verdict rests on them. The learning rate is that of the optimizer's first group after the step.

    **Probe.** Learning is measured on samples of the evaluation set, where `Trainer` has evaluated before it trains
    (`trainer.evaluate()`), else of the training set, in their own form: `model(**batch)` must have a `.loss`. `Trainer`
    shows its callbacks no other evaluation set; `probe=trainer.get_eval_dataloader()` hands it over.

    **Several processes.** Under data parallelism each has the same weights and the same logged loss, watches for
    itself, and comes to the same verdict; the main one writes. Models under `fully_shard` (FSDP2) or tensor parallelism
    are watched by all together, without a folder; learning is measured only on a `probe` that is given, the same in
    each process, and no training that resumes is watched on. Those of `FullyShardedDataParallel` (FSDP1) and
    DeepSpeed's third stage are refused.

    **Resuming.** Each checkpoint that `Trainer` saves gets a file beside it, `early_bird.safetensors`: the starting
    weights, ranks and masks, all checks. `resume_from_checkpoint` goes on from it to the same verdicts; the checkpoint
    must lie in `output_dir`, or be named in the `TrainingArguments` too.

    Args:
        make_watcher: Called with the model when training begins; `partial(EarlyBirdWatcher, check_steps=50)` for
            options of your own.
        stop: Whether to end training when the ticket has converged or the weights are not finite.
        folder: Gets `ticket.safetensors` and `evidence.json` when the watcher would stop, and at the end of training.
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
        self._loss: float | None = None

    @property
    def watcher(self) -> EarlyBirdWatcher | None:
        """The watcher, with all that it has seen; None before training begins."""
        return self._watch.watcher

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Keeps the starting weights."""
        del control
        # Only a training that resumes has logs already; their last loss stands until the next is logged.
        self._loss = next((entry["loss"] for entry in reversed(state.log_history) if "loss" in entry), None)
        saved = _find_saved(args, state)
        self._watch.begin(cast(nn.Module, kwargs["model"]), state.global_step, saved, default=_find_probe(kwargs))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Checks when it is time, unless the loss of this step is about to be logged."""
        del args
        if not control.should_log:
            self._observe(state, control, kwargs)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Takes the loss of the log, and checks when it is time."""
        del args
        logs = kwargs.get("logs")
        if isinstance(logs, Mapping) and "loss" in logs:
            self._loss = float(logs["loss"])
            self._observe(state, control, kwargs)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Lays what resuming needs beside a checkpoint."""
        del control, kwargs
        if state.is_world_process_zero and not args.save_only_model:
            saved = self._watch.to_saved()
            if saved is not None:
                write_watch(_name_checkpoint(args, state) / WATCH_FILE, saved)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Writes ticket and evidence."""
        del args, control, kwargs
        if state.is_world_process_zero:
            self._watch.save(at_end=True)

    def _observe(self, state: TrainerState, control: TrainerControl, kwargs: Mapping[str, object]) -> None:
        self._watch.observe(
            cast(nn.Module, kwargs["model"]),
            state.global_step,
            epoch=state.epoch,
            loss=self._loss,
            optimizer=kwargs.get("optimizer"),
        )
        if not self._watch.should_stop:
            return
        if state.is_world_process_zero:
            self._watch.save(at_end=False)
        if self.stop:
            control.should_training_stop = True


def _find_probe(shown: Mapping[str, object]) -> Probe | None:
    evaluation, training = (cast(Iterable[Any] | None, shown.get(f"{name}_dataloader")) for name in ("eval", "train"))
    if evaluation is not None:
        return Probe(evaluation)
    return None if training is None else Probe(training, held_out=False)


def _name_checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"


def _find_saved(args: TrainingArguments, state: TrainerState) -> SavedWatch | None:
    if state.global_step == 0:
        return None
    given = args.resume_from_checkpoint
    folders = [*([Path(given)] if isinstance(given, str) else []), _name_checkpoint(args, state)]
    return next((read_watch(folder / WATCH_FILE) for folder in folders if (folder / WATCH_FILE).exists()), None)
