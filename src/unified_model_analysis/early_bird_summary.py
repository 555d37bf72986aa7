"""What `early-bird` shows at the end: a table, the verdict with advice, results as JSON, the ticket, a figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from unified_model_analysis.terminal import say

if TYPE_CHECKING:
    from lottery_tickets.early_bird.watcher import EarlyBirdResults
    from lottery_tickets.storage import Record

RESULTS: Final = "results.json"
TICKET: Final = "ticket.safetensors"
FIGURE: Final = "early-bird.png"
REMARK: Final = (
    "corr.: rank correlation with the check before; dist., start: mask distance to the check before and to the start, "
    "as shares of what chance gives; gap: what exchanging targets between samples adds to the loss on the probe; z: "
    "its signed ranks in standard deviations; run: stable checks in a row."
)
HEADINGS: Final = ("epoch", "step", "corr.", "dist.", "start", "moved", "loss", "gap", "z", "run", "verdict")


def advise(found: "EarlyBirdResults", folder: Path, share: float) -> list[str]:
    """Returns what the verdict means for the user, and what to do next.

    Args:
        found: The results.
        folder: Where they are saved.
        share: Of the training that was allowed, done at the last check.
    """
    ticket, rate = folder / TICKET, found["checkpoints"][-1]["learning_rate"] or 0.0
    if found["converged"]:
        means = f"The ticket stood after {share:.0%} of the training that was allowed; that of its end may differ."
        advice = f"use_ticket(network, '{ticket}') loads the starting weights and holds the mask; then train."
        if found["settings"]["channels"]:
            advice += " The mask is over the scales of batch norm: take the removed channels out before you train."
        advice += " Train a random mask too (create_random_mask): a ticket that does no better has won nothing."
    elif found["verdict"] == "trivially stable":
        means = "The mask is stable, but nothing that was learnt made it so: it is no ticket that training has found."
        advice = (
            f"raise --learning-rate above {rate:g}, train longer (--epochs), or take a score that moves when "
            "magnitudes do not: record_movement, or lottery-tickets score --method saliency."
        )
    elif found["verdict"] == "stable, learning not shown":
        means = "The mask has settled, but whether the network learns from its inputs was not measured."
        advice = "hand samples that are not trained on to compute_early_bird_tickets(probe=) in Python."
    elif found["verdict"] == "still changing":
        means = "The ticket has not settled; one drawn later may differ."
        advice = "the same command with a larger --epochs, or --steps, goes on where this one ended."
    else:
        means = "The training went wrong, so the ticket means nothing."
        advice = f"lower --learning-rate below {rate:g}, in another folder."
    if not found["converged"]:
        means += f" {ticket} is the mask of the last check."
    return [means, f"Next: {advice}"]


def report_early_bird(
    found: "EarlyBirdResults", record: "Record", folder: Path, name: str, *, share: float, caveats: Sequence[str] = ()
) -> None:
    """Writes the files and prints table, verdict and findings.

    Args:
        found: The results.
        record: Of the run.
        folder: Where the files go.
        name: Of the network.
        share: Of the training that was allowed, done at the last check.
        caveats: What the run could not make sure of, in sentences.
    """
    from lottery_tickets.early_bird.ticket import make_ticket
    from statistical_report_generator.figures import draw_early_bird, save_figure
    from statistical_report_generator.rows import format_rows

    left_out = {"starting_weights", "final_rankings"}
    results = {"network": name, **{key: value for key, value in found.items() if key not in left_out}}
    make_ticket(found).save(folder / TICKET)
    # Names alone, so that the results do not depend on where they lie.
    record.save({**results, "findings": [*advise(found, Path(), share), *caveats]}, folder / RESULTS)
    save_figure(draw_early_bird(results), folder / FIGURE)
    say(f"{name}: {found['verdict']}: {found['reason']}", *advise(found, folder, share), *caveats, "")
    print(format_rows([HEADINGS, *map(_format_check, found["checkpoints"])]))
    say("", REMARK)
    say(f"figure: {folder / FIGURE}, results: {folder / RESULTS}, {found['final_mask']!r}")


def _format_check(check: Mapping[str, Any]) -> tuple[str, ...]:
    def form(name: str, form_of_number: str) -> str:
        return "-" if check[name] is None else format(check[name], form_of_number)

    return (
        form("epoch", ".4g"),
        form("step", "d"),
        form("correlation", ".4f"),
        form("corrected_distance", ".4f"),
        form("corrected_start_distance", ".4f"),
        form("movement", ".2%"),
        form("loss", ".4g"),
        form("gap", "+.3g"),
        form("gap_z", "+.1f"),
        str(check["num_stable"]),
        check["verdict"],
    )
