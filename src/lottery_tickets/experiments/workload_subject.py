"""A workload as the subject of an experiment: trained by its recipe, its early stop found afterwards."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from lottery_tickets._core.batches.tensor_batches import TensorBatches
from lottery_tickets._core.determinism import one_thread
from lottery_tickets._core.devices import check_device
from lottery_tickets._core.measuring.evaluating import evaluate_tensors
from lottery_tickets._core.prunable_weights import find_prunable_weights
from lottery_tickets._core.reading import naming
from lottery_tickets._core.states import hash_state, load_whole_state
from lottery_tickets._core.training.plain_loop import train_steps
from lottery_tickets._core.weights import Weights
from lottery_tickets.masks.mask import Mask
from lottery_tickets.workloads.data import ImageData
from lottery_tickets.workloads.recipes import Recipe
from lottery_tickets.workloads.registry import Workload, load_workload

OPTIMIZERS: Final[Mapping[str, Callable[..., torch.optim.Optimizer]]] = {
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
}


@final
@dataclass(frozen=True)
class WorkloadSubject:
    """A workload that an experiment trains on one device.

    Attributes:
        workload: The network, its data and its recipe.
        device: Where to train.
        ticket: The mask of level 1, where it is given and not found by pruning.
        start: theta_0 of all replicates; fresh weights for each when None.
    """

    workload: Workload
    device: str = "cpu"
    ticket: Mask | None = None
    start: Mapping[str, Tensor] | None = None

    def describe(self) -> Mapping[str, Any]:
        """Returns the workload's name, recipe and the fingerprint of its data."""
        return {
            "workload": self.workload.name,
            "recipe": self.workload.recipe.to_dict(),
            "data_sha256": self.workload.data.fingerprint,
            "device": self.device,
            "initial_sha256": None if self.start is None else hash_state(self.start),
        }

    def build(self, seed: int, *, replicate: int = 0, is_fresh: bool = True) -> nn.Module:  # noqa: ARG002 - as `Subject`
        """Returns the workload's model, freshly initialised unless there are starting weights; see `Subject`."""
        model = self.workload.build_model(torch.Generator().manual_seed(seed))
        if self.start is not None and not is_fresh:
            with naming("the starting weights", f"be of {self.workload.name}"):
                load_whole_state(model, self.start)
        return model.to(self.device)

    def find_weights(self, model: nn.Module) -> Weights:
        """Returns the weights of linear and convolution layers."""
        return find_prunable_weights(model)

    def train(
        self,
        model: nn.Module,
        *,
        first_step: int,
        last_step: int,
        seed: int,
        rewind_step: int,
        keep_rewind_point: Callable[[], None],
        keep_early_stop: Callable[[], None] = lambda: None,
        observe: Callable[[nn.Module, int], object] = lambda _model, _step: None,
    ) -> dict[str, Any]:
        """Trains by the recipe, on one thread, so that the bits do not depend on how many cores there are.

        Args:
            model: See `Subject`.
            first_step: See `Subject`.
            last_step: See `Subject`.
            seed: See `Subject`.
            rewind_step: See `Subject`.
            keep_rewind_point: See `Subject`.
            keep_early_stop: See `Subject`.
            observe: Called with the model and the number of steps done, to look and not to touch.

        Returns:
            `curve` (steps, validation loss and accuracy at each evaluation), `early_stop` (the evaluation of least
            validation loss: its step, validation and test figures) and `end` (the same after the last step).
        """
        recipe, data = self.workload.recipe, self.workload.data
        inputs, targets = data.train_inputs.to(self.device), data.train_targets.to(self.device)
        watch = _Watch(model, data, self.device, recipe.evaluation_interval, last_step)

        def after_step(step: int) -> None:
            if step == rewind_step:
                keep_rewind_point()
            if watch.after_step(step):
                keep_early_stop()
            observe(model, step)

        with one_thread():
            train_steps(
                model,
                TensorBatches(inputs, targets, recipe.batch_size, seed).from_step(first_step),
                _make_optimizer(model, recipe),
                first_step=first_step,
                num_steps=last_step,
                lr_factor=lambda step: find_lr_factor(recipe, step),
                after_step=after_step,
            )
        return watch.history()

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Returns loss and accuracy on the validation and the test split, computed as while training."""
        watch = _Watch(model, self.workload.data, self.device, interval=1, num_steps=0)
        with one_thread():
            watch.after_step(0)
        return {name: value for name, value in watch.end.items() if name != "step"}


def find_lr_factor(recipe: Recipe, step: int) -> float:
    """Returns the factor on the base learning rate at a 0-based step: linear warm-up, then drops at milestones."""
    warmup = min(1.0, (step + 1) / recipe.warmup_steps) if recipe.warmup_steps else 1.0
    passed = sum(step >= round(milestone * recipe.num_steps) for milestone in recipe.lr_milestones)
    return float(warmup * recipe.lr_decay**passed)


def _make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    return OPTIMIZERS[recipe.optimizer](model.parameters(), **recipe.optimizer_arguments, fused=True)


class _Watch:
    """Evaluates on the validation split as training goes, on the test split where an early stop may turn out to be."""

    def __init__(self, model: nn.Module, data: ImageData, device: str, interval: int, num_steps: int) -> None:
        self.model = model
        self.validation = data.validation_inputs.to(device), data.validation_targets.to(device)
        self.test = data.test_inputs.to(device), data.test_targets.to(device)
        self.interval, self.num_steps = interval, num_steps
        self.curve: dict[str, list[float]] = {"step": [], "validation_loss": [], "validation_accuracy": []}
        self.early_stop: dict[str, float] = {}
        self.end: dict[str, float] = {}

    def after_step(self, step: int) -> bool:
        """Evaluates where it is time to; returns whether the validation loss is the least so far."""
        if step % self.interval and step != self.num_steps:
            return False
        loss, accuracy = evaluate_tensors(self.model, *self.validation)
        for name, value in (("step", step), ("validation_loss", loss), ("validation_accuracy", accuracy)):
            self.curve[name].append(value)
        is_least = not self.early_stop or loss < self.early_stop["validation_loss"]
        if is_least or step == self.num_steps:
            test_loss, test_accuracy = evaluate_tensors(self.model, *self.test)
            figures = {"step": step, "validation_loss": loss, "validation_accuracy": accuracy}
            self.end = {**figures, "test_loss": test_loss, "test_accuracy": test_accuracy}
            self.early_stop = self.end if is_least else self.early_stop
        return is_least

    def history(self) -> dict[str, Any]:
        return {"curve": self.curve, "early_stop": self.early_stop, "end": self.end}


@final
@dataclass(frozen=True)
class WorkloadSource:
    """Where a `WorkloadSubject` comes from: names instead of data, so that it travels cheaply to a worker process.

    Attributes:
        data: As in `load_workload`.
        model: As in `load_workload`.
        folder: As in `load_workload`.
        recipe: Replaces the workload's own.
        device: Where to train.
        ticket: As in `WorkloadSubject`.
        start: As in `WorkloadSubject`.
    """

    data: str
    model: str
    folder: Path | None = None
    recipe: Recipe | None = None
    device: str = "cpu"
    ticket: Mask | None = None
    start: Mapping[str, Tensor] | None = None

    def __call__(self) -> WorkloadSubject:
        """Returns the subject, its data loaded."""
        check_device(self.device)
        workload = load_workload(self.data, self.model, folder=self.folder)
        workload = replace(workload, recipe=self.recipe or workload.recipe)
        return WorkloadSubject(workload, self.device, self.ticket, self.start)
