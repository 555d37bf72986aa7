"""What `connectivity` shows at the end: a table, findings in words, results as JSON, a figure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from unified_model_analysis.terminal import say

if TYPE_CHECKING:
    from lottery_tickets.connectivity.lines import ConnectivityResults
    from lottery_tickets.storage import Record

RESULTS: Final = "results.json"
PATH_FIGURE: Final = "path.png"
FIGURE: Final = "instability.png"
HEADINGS: Final = ("step", "network", "instability, points", "stable", "loss barrier", "accuracy, %")


def summarise_step(network: str, step: int, found: Sequence["ConnectivityResults"]) -> dict[str, Any]:
    """Returns what is found at one step, with intervals over the replicates.

    Args:
        network: Dense or subnetwork.
        step: At which the copies of each pair part.
        found: One measured pair a replicate.
    """
    from statistical_report_generator.inference.intervals import compute_t_interval

    lines = [pair["pairs"][0] for pair in found]
    errors = [(_known(line["first"]["error"]) + _known(line["second"]["error"])) / 2 for line in lines]
    barriers = [pair["barrier"] for pair in found if pair["barrier"] is not None]
    return {
        "step": step,
        "network": network,
        "num_pairs": len(found),
        "num_stable": sum(bool(pair["stable"]) for pair in found),
        "instability": asdict(compute_t_interval([_known(pair["instability"]) for pair in found])),
        "barrier": asdict(compute_t_interval(barriers)) if len(barriers) == len(found) else None,
        "accuracy": asdict(compute_t_interval([1 - error for error in errors])),
        "pairs": lines,
    }


def format_step(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the cells under `HEADINGS` of what `summarise_step` found."""
    from statistical_report_generator.tables import format_interval

    barrier = row["barrier"]
    return (
        str(row["step"]),
        str(row["network"]),
        format_interval(row["instability"]),
        f"{row['num_stable']} of {row['num_pairs']}",
        "-" if barrier is None else format_interval(barrier, scale=1, form=".3f"),
        format_interval(row["accuracy"]),
    )


def report_line(name: str, found: "ConnectivityResults", record: "Record", folder: Path) -> None:
    """Writes and prints what is found on the line between two given networks.

    Args:
        name: Of the workload.
        found: The measured pair.
        record: Of the command.
        folder: Where the files go.
    """
    from statistical_report_generator.figures import draw_error_path, save_figure
    from statistical_report_generator.rows import format_rows

    record.save({"network": name, **found}, folder / RESULTS)
    save_figure(draw_error_path(found, name), folder / PATH_FIGURE)
    verdicts = {True: "linearly connected", False: "not linearly connected", None: "not judged, without an error"}
    verdict = verdicts[found["stable"]]
    line = found["pairs"][0]
    errors = line["errors"] or [None] * len(line["alphas"])  # what is no classification has none
    instability, barrier = _format(found["instability"], 100, ".2f"), _format(found["barrier"], 1, ".4f")
    of_error = "" if line["errors"] is None else f"instability {instability} points of error, "
    print(f"{name}: {verdict}: {of_error}loss barrier {barrier}")
    rows = [("alpha", "error, %", "loss")]
    for alpha, error, loss in zip(line["alphas"], errors, line["losses"], strict=True):
        rows.append((f"{alpha:.3f}", _format(error, 100, ".2f"), _format(loss, 1, ".4f")))
    print(format_rows(rows))
    print(f"figure: {folder / PATH_FIGURE}, results: {folder / RESULTS}")


def report_steps(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    searches: Mapping[str, Any],
    *,
    settings: Mapping[str, Any],
    record: "Record",
    folder: Path,
    caveats: Sequence[str] = (),
) -> None:
    """Writes and prints what is found at all steps.

    Args:
        name: Of the workload.
        rows: One a network and step, from `summarise_step`.
        searches: By network, from `find_stable_rewinding_step`.
        settings: What the results keep of the options; `threshold` is drawn.
        record: Of the command.
        folder: Where the files go.
        caveats: What the trainings could not make sure of, in sentences.
    """
    from statistical_report_generator.figures import draw_instability, save_figure
    from statistical_report_generator.rows import format_rows

    findings = [
        f"{network}: stable from step {search['step']} on ({search['num_evaluations']} steps looked at)"
        if search["step"] is not None
        else f"{network}: not stable at step {search['last_step']}, the last that was looked at"
        for network, search in searches.items()
    ] + [*caveats]
    results = {"network": name, "settings": settings, "rows": rows, "searches": searches, "findings": findings}
    record.save(results, folder / RESULTS)
    save_figure(draw_instability({name: rows}, settings["threshold"]), folder / FIGURE)
    say(*findings)
    print(format_rows([HEADINGS, *map(format_step, rows)]))
    say(f"figure: {folder / FIGURE}, results: {folder / RESULTS}")


def _known(value: float | None) -> float:
    """Returns an error or an instability; 0 in place of one that is not known would pass for stable."""
    if value is None:
        raise ValueError("the networks must be classifiers, whose errors can be measured, but an error is not known")
    return value


def _format(value: float | None, scale: float, form: str) -> str:
    return "-" if value is None else format(scale * value, form)
