"""`lottery-tickets early-bird`: train until the ticket has converged, and say whether and why."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import tyro

from lottery_tickets import ConvergenceRule, TrainerSettings
from unified_model_analysis.early_bird_summary import report_early_bird
from unified_model_analysis.experiment_summary import check_report_extra
from unified_model_analysis.held_results import hold_results, list_run_caveats
from unified_model_analysis.networks import LoadedNetwork, load_own, load_shuffled_images, load_text
from unified_model_analysis.options import (
    ComputationOptions,
    FolderOutput,
    LoggingOptions,
    NetworkOptions,
    list_settings,
    read_help,
    take_help,
)

if TYPE_CHECKING:
    from lottery_tickets import Probe

RUN: Final = "run"
# From a run to its continuation.
MAY_CHANGE: Final = frozenset({"epochs", "steps", "device", "accept_changed_environment"})
NUM_BATCHES: Final = 100  # of a language model's text


@dataclass(frozen=True)
class Defaults:
    """What is used where an option is not given.

    Attributes:
        task: What this is for.
        sparsity: That is usual for the task.
        batch_size: Samples or sequences a batch.
        learning_rates: By optimizer.
    """

    task: str
    sparsity: float
    batch_size: int
    learning_rates: Mapping[str, float]


IMAGES: Final = Defaults("classification", 0.7, 60, {"sgd": 0.1, "adamw": 1e-3})  # fresh weights, to be trained
LANGUAGE: Final = Defaults("a language model", 0.5, 8, {"sgd": 1e-2, "adamw": 2e-5})  # trained weights, tuned further


def take_help_by_method(ranking: str, distance: str) -> Any:  # noqa: ANN401 - as `take_help`
    """Returns the marker that gives a flag the help texts of two options, of which `--method` chooses one."""
    texts = [
        f"{method}: {read_help(ConvergenceRule, name)} {getattr(ConvergenceRule, name)} when not given."
        for method, name in (("magnitude_ranking", ranking), ("mask_distance", distance))
    ]
    return tyro.conf.arg(help=" ".join(texts))


@dataclass(frozen=True)
class EarlyBird(ComputationOptions, LoggingOptions, NetworkOptions, FolderOutput):
    """Train a network until its early-bird ticket has converged, and draw the ticket.

    A ticket has converged when it is stable, has moved away from that of the starting weights, the network has learnt
    from its inputs, and the ticket slows down. Otherwise the verdict says what is missing, and the ticket is that of
    the last check. Learning is measured on validation images; of a language model, on sequences that it is trained on.

    The run lives in OUTPUT/run. Stopped at any moment, the same command goes on from its last check and ends with the
    same bits; when the run is over, it is only shown again. With more epochs or steps it goes on.

    Example: `lottery-tickets early-bird --output early-bird --epochs 2 --check-interval 1`

    Attributes:
        output: Folder for results.json, ticket.safetensors (the mask and the weights that it is trained from; see
            `lottery-tickets ticket show`), early-bird.png, and the run.
        checkpoint: Starting weights of the workload's network, .safetensors or torch; fresh ones when not given.
        batch_size: Samples a batch, 60 images or 8 sequences when not given.
        batches: Batches an epoch of a language model, cut from the text; 100 when not given.
        sparsity: Fraction removed by the ticket; 0.7 for images, 0.5 for a language model when not given.
        scope: What magnitudes are compared within: "global", "layer", "row", "erk", "lamp", or N:M such as "2:4".
        method: What counts as stable: a high rank correlation of all magnitudes, or a small distance between the last
            masks.
        channels: Whether to rank the scales of batch norm, each for its channel, as You et al. 2020 did, and to prune
            whole channels.
        epochs: Epochs of training, at most: it ends when the ticket has converged.
        check_interval: Epochs from one check to the next.
        check_steps: Checks by step instead: every so many, or "log" for steps 1, 2, 3, 4, 6, 8, 12, 16, ...
        steps: Training steps, at most, with --check-steps; those of --epochs when not given.
        learning_rate: Constant; for images 0.1 (adamw: 1e-3), for a language model 0.01 (adamw: 2e-5) when not given.
        optimizer: SGD steps within the backward pass and holds no gradients and no state; AdamW holds both.
        dtype: Of the weights. SGD rounds bfloat16 at random, so that small steps count on average.
        include: Glob patterns of parameter names to prune instead of the default choice.
        exclude: Glob patterns of parameter names to leave dense.
        accept_changed_environment: Go on with other versions or on another machine, or another number of threads, than
            the run was begun with; equal bits are then no longer claimed.
        seed: Of fresh weights, order, dropout and rounding.
        device: Where to train.
    """

    batch_size: int | None = None
    batches: int | None = None
    sparsity: float | None = None
    scope: str = "global"
    method: Literal["magnitude_ranking", "mask_distance"] = "magnitude_ranking"
    channels: bool = False
    threshold: Annotated[float | None, take_help_by_method("convergence_threshold", "distance_threshold")] = None
    window: Annotated[int | None, take_help_by_method("stability_window", "queue_length")] = None
    epochs: int = 50
    check_interval: int = 5
    check_steps: int | Literal["log"] | None = None
    steps: int | None = None
    learning_rate: float | None = None
    momentum: Annotated[float, take_help(TrainerSettings, "momentum")] = TrainerSettings.momentum
    optimizer: Literal["sgd", "adamw"] = "sgd"
    max_batch_size: Annotated[int | None, take_help(TrainerSettings, "max_batch_size")] = TrainerSettings.max_batch_size
    dtype: Literal["float32", "bfloat16"] = "float32"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    accept_changed_environment: bool = False

    def run(self) -> int:
        """Trains, saves and shows; returns the exit code."""
        check_report_extra()
        import torch

        from lottery_tickets import compute_early_bird_tickets
        from lottery_tickets.early_bird.folder import KIND
        from lottery_tickets.storage import Record

        self._check()
        record = Record("early-bird", list_settings(self))
        loaded = self._load()
        network = loaded.network.to(self.device, getattr(torch, self.dtype))
        settings = self._choose_settings()
        holding = hold_results(self.output, "early-bird", self, MAY_CHANGE)
        with holding, self.opened_loggers() as settings["logger"]:
            print(_describe_choices(settings, self._defaults), flush=True)
            settings["loss_fn"] = loaded.loss_fn
            found = compute_early_bird_tickets(network, loaded.batches, **settings, probe=self._hold_out(loaded))
            last = found["checkpoints"][-1]
            if self.check_steps is None:
                share = last["epoch"] / self.epochs
            else:
                share = (last["step"] or 0) / (self.steps or self.epochs * len(loaded.batches))
            caveats = list_run_caveats(self.output / RUN, KIND)
            report_early_bird(found, record, self.output, loaded.name, share=share, caveats=caveats)
        return 0

    @property
    def _defaults(self) -> Defaults:
        return LANGUAGE if self.language_model else IMAGES

    def _check(self) -> None:
        from lottery_tickets.utils import check_device

        if self.batches is not None and not self.language_model:
            raise ValueError("--batches is for a language model; an epoch of a workload is all its training images")
        if self.steps is not None and self.check_steps is None:
            raise ValueError("--steps goes with --check-steps; say --epochs, or --check-steps too")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"--batch-size must be at least 1, got {self.batch_size}")
        check_device(self.device)

    def _choose_settings(self) -> dict[str, Any]:
        """Returns the arguments of `compute_early_bird_tickets`."""
        defaults, ranks = self._defaults, self.method == "magnitude_ranking"
        given: dict[str, Any] = {
            "convergence_threshold" if ranks else "distance_threshold": self.threshold,
            "stability_window" if ranks else "queue_length": self.window,
        }
        rate = defaults.learning_rates[self.optimizer] if self.learning_rate is None else self.learning_rate
        return {
            "target_sparsity": defaults.sparsity if self.sparsity is None else self.sparsity,
            "rule": ConvergenceRule(self.method, **{name: value for name, value in given.items() if value is not None}),
            "training": TrainerSettings(
                rate, self.optimizer == "sgd", momentum=self.momentum, max_batch_size=self.max_batch_size
            ),
            "scope": self.scope,
            "channels": self.channels,
            "max_epochs": self.epochs,
            "check_interval": self.check_interval,
            "check_steps": self.check_steps,
            "max_steps": self.steps,
            "include": list(self.include) or None,
            "exclude": list(self.exclude) or None,
            "seed": self.seed,
            "run_folder": self.output / RUN,
            "accept_changed_environment": self.accept_changed_environment,
            "progress": True,
        }

    def _hold_out(self, loaded: LoadedNetwork) -> "Probe | list[Any] | None":
        """Returns batches that are not trained on, where there are any."""
        import torch

        from lottery_tickets import Probe

        if loaded.workload is None:
            return None if loaded.test_batches is None else Probe(loaded.test_batches, loaded.loss_fn)
        data, size = loaded.workload.data, self.batch_size or self._defaults.batch_size
        inputs, targets = data.validation_inputs.to(getattr(torch, self.dtype)), data.validation_targets
        return list(zip(inputs.split(size), targets.split(size), strict=True))

    def _load(self) -> LoadedNetwork:
        size = self.batch_size or self._defaults.batch_size
        if self.source is not None:
            return load_own(self)
        if not self.language_model:
            return load_shuffled_images(self, batch_size=size, dtype=self.dtype, seed=self.seed)
        num_batches = NUM_BATCHES if self.batches is None else self.batches
        return load_text(self, batch_size=size, num_batches=num_batches, seed=self.seed)


def _describe_choices(settings: Mapping[str, Any], defaults: Defaults) -> str:
    """Returns what is trained and how, with what was chosen for the user."""
    usual = f" (usual for {defaults.task})" if settings["target_sparsity"] == defaults.sparsity else ""
    training = settings["training"]
    optimizer = "SGD" if training.use_sgd else "AdamW"
    momentum = f", momentum {training.momentum:g}" if training.momentum else ""
    if settings["check_steps"] is None:
        checks = f"a check every {settings['check_interval']} of at most {settings['max_epochs']} epochs"
    elif settings["check_steps"] == "log":
        checks = "checks at steps 1, 2, 3, 4, 6, 8, 12, 16, ..."
    else:
        checks = f"a check every {settings['check_steps']} steps"
    return (
        f"target sparsity {settings['target_sparsity']:g}{usual}; {optimizer}, learning rate "
        f"{training.learning_rate:g}{momentum}; {checks}"
    )
