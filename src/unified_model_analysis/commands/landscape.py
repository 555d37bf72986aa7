"""`lottery-tickets landscape`: the losses around a network, on a plane of random directions or on a line to another."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from unified_model_analysis.experiment_summary import check_report_extra
from unified_model_analysis.held_results import hold_results
from unified_model_analysis.networks import LoadedNetwork, load_images, load_own, load_text
from unified_model_analysis.options import ComputationOptions, FolderOutput, NetworkOptions
from unified_model_analysis.terminal import say

if TYPE_CHECKING:
    from lottery_tickets.landscape.surface import LandscapeResults

RESULTS: Final = "landscape.json"
FIGURE: Final = "landscape.png"
NUM_IMAGES: Final = 500  # a batch
NUM_SEQUENCES: Final = 8  # a batch

MAY_CHANGE: Final = frozenset({"device"})  # from a call to the one that goes on


@dataclass(frozen=True)
class Landscape(ComputationOptions, NetworkOptions, FolderOutput):
    """Measure the losses around a network, and draw them.

    On a plane of two random directions, each filter as long as that of the weights (Li et al. 2018), or, with --to, on
    the straight line to another network. Nothing is trained. What the picture shows and what it does not:
    docs/landscape.md.

    Stopped at any moment, the same command goes on from the last second.

    Example: `lottery-tickets landscape --output landscape --checkpoint trained.safetensors --grid-points 3`

    Attributes:
        output: Folder for landscape.json and landscape.png.
        data: Data set of a workload; its training images are measured on.
        mask: A mask file: the landscape of the pruned network.
        to: Weights of another such network: the line to it, from --checkpoint, instead of a plane.
        grid_points: Points in each direction, or in x and in y; an odd number has the network among them.
        span: How far to go to each side, in lengths of the weights, or how far in x and in y; 1 when not given. On a
            line its two ends, 0 and 1 when not given.
        batches: Batches that every point is measured on.
        batch_size: Samples a batch; 500 images or 8 sequences when not given.
        include: Glob patterns of parameter names to move, instead of all weights of two or more dimensions.
        exclude: Glob patterns of parameter names to leave where they are.
        seed: Of the directions, of fresh weights, and of the samples that are drawn.
    """

    mask: Path | None = None
    to: Path | None = None
    grid_points: tuple[int, ...] = (25,)
    span: tuple[float, ...] = ()
    batches: int = 4
    batch_size: int | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def run(self) -> int:
        """Measures, saves and shows; returns the exit code."""
        check_report_extra()
        from lottery_tickets import Mask, compute_loss_landscape
        from lottery_tickets.storage import load_weights
        from lottery_tickets.utils import check_count, check_device

        check_device(self.device)
        for option, number in (("--batches", self.batches), ("--batch-size", self.batch_size)):
            if number is not None:
                check_count(option, number)
        loaded = self._load()
        grid_points: Any = self.grid_points[0] if len(self.grid_points) == 1 else self.grid_points
        span: Any = self.span[0] if len(self.span) == 1 else self.span or None
        with hold_results(self.output, "landscape", self, MAY_CHANGE):
            found = compute_loss_landscape(
                loaded.network.to(self.device),
                loaded.batches,
                grid_points,
                span=span,
                seed=self.seed,
                mask=None if self.mask is None else Mask.load(self.mask),
                end_state=None if self.to is None else load_weights(self.to),
                include=list(self.include) or None,
                exclude=list(self.exclude) or None,
                loss_fn=loaded.loss_fn,
                path=self.output / RESULTS,
                progress=True,
            )
            self._report(found, loaded.name)
        return 0

    def _load(self) -> LoadedNetwork:
        if self.source is not None:
            loaded = load_own(self)
            return replace(loaded, batches=list(islice(loaded.batches, self.batches)))
        if self.language_model:
            size = self.batch_size or NUM_SEQUENCES
            return load_text(self, batch_size=size, num_batches=self.batches, seed=self.seed)
        size = self.batch_size or NUM_IMAGES
        return load_images(self, batch_size=size, num_images=self.batches * size, seed=self.seed)

    def _report(self, found: "LandscapeResults", name: str) -> None:
        """Draws the figure and prints what was found."""
        from statistical_report_generator.figures import draw_loss_landscape, save_figure

        save_figure(draw_loss_landscape({**found, "network": name}), self.output / FIGURE)
        for line in _describe(found, name):
            say(line)
        if self.checkpoint is None and self.source is None and not self.language_model:
            print("These are fresh weights; give trained ones with --checkpoint.")
        print(f"figure: {self.output / FIGURE}, results: {self.output / RESULTS}")


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
