"""How an early-bird ticket settled while its network trained: a figure from saved results."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from statistical_report_generator.figures.style import (
    BLUE,
    GREEN,
    PURPLE,
    VERMILION,
    add_mark,
    create_figure,
    draw_grid,
    draw_level,
    make_drawable,
)
from statistical_report_generator.figures.words import show_words

FEWEST_SPACED: Final = 4  # checks, to tell how they are spaced
PANEL_HEIGHT: Final = 2.4  # inches

History = Sequence[Mapping[str, Any]]


def draw_early_bird(results: Mapping[str, Any]) -> Figure:
    """Returns the figure of one early-bird run: what its checks saw over training.

    Panels share the axis of training time, which is logarithmic when the checks are ever further apart: rank
    correlation with its threshold; mask distances as a share of chance, to the check before and to the start; movement;
    the loss, and what exchanging targets adds to it on a probe, where they are known. A line through all marks the
    check at which the ticket converged.

    Args:
        results: As `compute_early_bird_tickets` returns and `save_results` stores them; read are `checkpoints`,
            `convergence_epoch`, `verdict`, `method`, `convergence_threshold`, and, where they are there, `settings`
            and `network`. Figures that are None leave a gap.

    Raises:
        ValueError: When there is no check.
    """
    history: History = results["checkpoints"]
    if not history:
        raise ValueError("results must hold at least one check to be drawn, got none; train until the first check")
    label, times = _find_times(results)
    has_loss = any(check.get(name) is not None for check in history for name in ("loss", "gap"))
    num_panels = 4 if has_loss else 3
    figure = create_figure(8, num_panels * PANEL_HEIGHT)
    panels: list[Axes] = list(figure.subplots(num_panels, 1, sharex=True))
    _draw_correlation(panels[0], times, results)
    _draw_distances(panels[1], times, results)
    _draw_movement(panels[2], times, history)
    if has_loss:
        _draw_loss(panels[3], times, history)
    converged = [t for t, check in zip(times, history, strict=True) if check["epoch"] == results["convergence_epoch"]]
    for axes in panels:
        if converged:
            words = f"converged at {label} {converged[0]:g}" if axes is panels[0] else None
            axes.axvline(converged[0], color=GREEN, linewidth=1.5, label=words)
        draw_grid(axes)
        axes.legend(frameon=False, fontsize="small")
    if _are_log_spaced(times):
        panels[-1].set_xscale("log", base=2)
        panels[-1].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panels[-1].xaxis.set_minor_formatter(NullFormatter())
    panels[-1].set_xlabel(label)
    panels[0].set_title(show_words(f"{results.get('network', 'early-bird ticket')}: {results['verdict']}", 80))
    return figure


def _find_times(results: Mapping[str, Any]) -> tuple[str, list[float]]:
    """Returns the unit of training time, and when the checks were."""
    history: History = results["checkpoints"]
    counts_epochs = results.get("settings", {}).get("counts") == "epochs"
    if counts_epochs or any(check.get("step") is None for check in history):
        return "epoch", [float(check["epoch"]) for check in history]
    return "step", [float(check["step"]) for check in history]


def _are_log_spaced(times: Sequence[float]) -> bool:
    """Returns whether checks are ever further apart; the last one may be nearer, at the end of the training."""
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    return len(times) >= FEWEST_SPACED and times[0] > 0 and max(gaps) > 2 * gaps[0]


def _plot(axes: Axes, times: Sequence[float], values: Sequence[float | None], colour: str, label: str) -> None:
    numbers = [make_drawable(value) for value in values]
    axes.plot(times, numbers, color=colour, marker="o", markersize=4, linewidth=1.2, label=label)
    for time, number in zip(times, numbers, strict=True):
        if not math.isnan(number):
            add_mark(axes, time, number, f"at {time:g}, {label}: {number:.4g}, one training")


def _draw_correlation(axes: Axes, times: Sequence[float], results: Mapping[str, Any]) -> None:
    history: History = results["checkpoints"]
    _plot(axes, times, [check["correlation"] for check in history], BLUE, "with the check before")
    _plot(axes, times, [check["start_correlation"] for check in history], VERMILION, "with the start")
    if results["method"] == "magnitude_ranking":
        threshold = results["convergence_threshold"]
        draw_level(axes, threshold, f"stable from {threshold:g}")
    axes.set_ylabel("rank correlation")


def _draw_distances(axes: Axes, times: Sequence[float], results: Mapping[str, Any]) -> None:
    history: History = results["checkpoints"]
    _plot(axes, times, [check["corrected_distance"] for check in history], BLUE, "from the check before")
    _plot(axes, times, [check["corrected_start_distance"] for check in history], VERMILION, "from the start")
    if results["method"] == "mask_distance":
        queue = [max(check["queue_distances"], default=None) for check in history]
        _plot(axes, times, queue, PURPLE, "largest in the queue, share of all weights")
        threshold = results.get("settings", {}).get("rule", {}).get("distance_threshold")
        if threshold is not None:
            draw_level(axes, threshold, f"stable up to {threshold:g} of all weights")
    draw_level(axes, 1, "chance", ":")
    axes.set_ylabel("mask distance\nover chance")


def _draw_movement(axes: Axes, times: Sequence[float], history: History) -> None:
    _plot(axes, times, [check["movement"] for check in history], BLUE, "of the norm at the start")
    axes.set_ylabel("movement")


def _draw_loss(axes: Axes, times: Sequence[float], history: History) -> None:
    _plot(axes, times, [check["loss"] for check in history], BLUE, "training, mean since the check before")
    start_loss = history[-1].get("start_loss")
    if start_loss is not None:
        draw_level(axes, start_loss, "at the start")
    if any(check.get("gap") is not None for check in history):
        _plot(axes, times, [check.get("gap") for check in history], VERMILION, "what exchanged targets add, on a probe")
    axes.set_ylabel("loss")
