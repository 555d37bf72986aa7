"""A caller's model and trainer as the subject of an experiment."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn

from lottery_tickets._core.batches.order import ordered_by
from lottery_tickets._core.determinism import seeded
from lottery_tickets._core.identity.callers import identify_given
from lottery_tickets._core.identity.identities import Identity
from lottery_tickets._core.measuring.performance import Measurement, average_figures, measure
from lottery_tickets._core.names import clean_name, unwrap
from lottery_tickets._core.sharding.data_parallel import find_together, name_class
from lottery_tickets._core.sharding.fsdp import reshard
from lottery_tickets._core.sharding.shards import Shards, find_shards
from lottery_tickets._core.sharding.together import Together
from lottery_tickets._core.sharding.whole_parameters import whole_parameters
from lottery_tickets._core.states import copy_clean_state, hash_state, load_clean_state
from lottery_tickets._core.training.steps_done import count_steps
from lottery_tickets._core.training.trainer_function import TrainerFunction, train_epochs
from lottery_tickets._core.training.watched_loader import watch_passes
from lottery_tickets._core.weights import Weights
from lottery_tickets.masks.controls import reinitialise_
from lottery_tickets.masks.mask import Mask

Figures = dict[str, float]


@final
@dataclass(frozen=True, eq=False)
class CallerSubject:
    """A model whose present weights are a starting point; a step is an epoch.

    One model object serves all trainings, so that a large one is held in memory once; the rest lies in the run folder.

    Attributes:
        model: Trained in place.
        dataloader: Handed to the trainer.
        trainer_fn: Called as `trainer_fn(model, dataloader, epochs=n)`.
        layers: Names of the parameters to prune.
        num_epochs: Epochs of a full training.
        evaluation_dataloader: What results are measured on; the training data when None.
        measurement: How.
        initialise_fn: Draws fresh weights in place from the global generators; by default each module's
            `reset_parameters`.
        ticket: The mask of level 1, where it is given and not found by pruning.
        seed: Of the data that is measured on.
        has_one_start: Whether all replicates start from the model's weights, not the first alone.
        start: The weights that the model has when the subject is made: theta_0; of a sharded model what lies here.
        together: The processes that train the model.
    """

    model: nn.Module
    dataloader: Iterable[Any]
    trainer_fn: TrainerFunction
    layers: Sequence[str]
    num_epochs: int
    evaluation_dataloader: Iterable[Any] | None = None
    measurement: Measurement = field(default_factory=Measurement)
    initialise_fn: Callable[[nn.Module], object] | None = None
    ticket: Mask | None = None
    seed: int = 0
    has_one_start: bool = False
    start: dict[str, Tensor] = field(init=False)
    together: Together = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", copy_clean_state(self.model))
        object.__setattr__(self, "together", find_together(self.model))

    @property
    def shards(self) -> Shards | None:
        """Where the elements of the model's state lie, where it is sharded."""
        return find_shards(self.start)

    def describe(self) -> Mapping[str, Any]:
        """Returns the hash of the starting weights, the layers, and the name of the model."""
        return {
            "model": name_class(self.model),
            "initial_sha256": hash_state(self.start),
            "layers": list(self.layers),
            "num_epochs": self.num_epochs,
        }

    def identify(self, trainer_id: str | None = None, data_id: str | None = None) -> dict[str, Identity]:
        """Returns what code and data the trainings are of, see `identify_given`."""
        return identify_given(
            model=self.model,
            trainer_fn=self.trainer_fn,
            trainer_id=trainer_id,
            data=self.dataloader,
            data_id=data_id,
            evaluation_data=self.evaluation_dataloader,
            functions={
                "loss_fn": self.measurement.loss_fn,
                "metric": self.measurement.metric,
                "initialise_fn": self.initialise_fn,
            },
        )

    def build(self, seed: int, *, replicate: int = 0, is_fresh: bool = False) -> nn.Module:
        """Returns the model with its own weights, or with fresh ones; see `Subject`."""
        load_clean_state(self.model, self.start)
        self.model.zero_grad(set_to_none=True)
        if is_fresh or (replicate and not self.has_one_start):
            self._initialise(seed)
        return self.model

    def find_weights(self, model: nn.Module) -> Weights:
        """Returns the weights of the layers to prune."""
        inner = unwrap(model)
        reshard(inner)
        named = inner.named_parameters(remove_duplicate=False)  # a mask may have another name of a tied weight
        return Weights.from_tensors({clean_name(name): p for name, p in named}).part(self.layers)

    def train(
        self,
        model: nn.Module,
        *,
        first_step: int,
        last_step: int,
        seed: int,
        rewind_step: int,
        keep_rewind_point: Callable[[], None],
        keep_early_stop: Callable[[], None] = lambda: None,  # noqa: ARG002 - there is no validation split to stop by
    ) -> dict[str, Any]:
        """Calls the trainer under seeded generators, in two stretches when theta_k lies between.

        Returns:
            `metric`, where it is a function of the caller's: its `name`, and whether `higher_is_better`.
            `end`: the step, and the figures of `evaluate`. `curve`: the same by name after each epoch, where it could
            be told: the trainer goes over its data once an epoch and trains the model in place. A figure that was not
            finite after some epoch is left out of it.
        """
        rows: list[Figures] = []
        with ordered_by(self.dataloader, seed):
            if first_step < rewind_step:
                rows += self._train(model, first_step, rewind_step)
                keep_rewind_point()
            rows += self._train(model, max(first_step, rewind_step), last_step)
        model.zero_grad(set_to_none=True)
        names = [name for name in rows[-1] if all(name in row for row in rows)]
        history = {"curve": {name: [row[name] for row in rows] for name in names}, "end": rows[-1]}
        if self.measurement.name is None:
            return history
        own = {"name": self.measurement.name, "higher_is_better": self.measurement.higher_is_better}
        return {**history, "metric": own}

    def evaluate(self, model: nn.Module) -> Figures:
        """Returns the loss and, where they have a meaning, accuracy, perplexity and the metric, named by the split.

        Raises:
            ValueError: When the loss is not finite.
        """
        figures = self._measure(model)
        if f"{self._split}_loss" not in figures:
            raise ValueError("the loss must be finite, but evaluation gave NaN or infinity; lower the learning rate")
        return figures

    @property
    def _split(self) -> str:
        return "train" if self.evaluation_dataloader is None else "test"

    def _measure(self, model: nn.Module) -> Figures:
        """Returns the figures that are finite, of several processes the means of what each has measured."""
        data = self.dataloader if self.evaluation_dataloader is None else self.evaluation_dataloader
        with torch.autocast(next(model.parameters()).device.type, enabled=False):
            found = measure(model, data, self.measurement, self.seed)
        named = {name: found.figures[name] for name in ("loss", "accuracy", "perplexity")} | {"metric": found.value}
        here = {name: value for name, value in named.items() if value is not None}
        means = average_figures(self.together.gather(lambda: here))
        if self.measurement.name is None and found.metric in means:
            means["metric"] = means[found.metric]
        return {name if name == "metric" else f"{self._split}_{name}": value for name, value in means.items()}

    def _initialise(self, seed: int) -> None:
        if self.initialise_fn is None:
            reinitialise_(self.model, seed)
            return
        with seeded(seed), whole_parameters(self.model):
            self.initialise_fn(self.model)

    def _train(self, model: nn.Module, first_step: int, last_step: int) -> list[Figures]:
        """Has the model trained from one step to another; returns the figures after each epoch, or the last alone."""
        if first_step == last_step:
            return []
        before_passes: list[Figures] = []
        num_passes = 0

        def on_pass() -> None:
            nonlocal num_passes
            num_passes += 1
            if num_passes > 1:
                count_steps()
                before_passes.append({"step": first_step + num_passes - 1, **self._measure(model)})

        data = watch_passes(self.dataloader, on_pass)
        was_trained_in_place = train_epochs(self.trainer_fn, model, data, last_step - first_step)
        last = {"step": last_step, **self.evaluate(model)}
        if was_trained_in_place and num_passes == last_step - first_step:
            return [*before_passes, last]
        return [last]
