"""`lottery-tickets ticket`: look into the file of a ticket, or make one from a run."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import tyro

from unified_model_analysis.exit_codes import ExitCode
from unified_model_analysis.held_results import check_place
from unified_model_analysis.options import MARGIN, FileOutput
from unified_model_analysis.terminal import say

if TYPE_CHECKING:
    from lottery_tickets import Ticket

POINTS: Final = 100  # of a share
MOST_LETTERS: Final = 200  # of a part of the provenance


@dataclass(frozen=True)
class Show:
    """Show what a ticket's file holds: how sparse it is, what was shown of it, where it is from, by layer.

    The weights are not read, so that this is as quick for 14 billion of them; --check reads them and compares them with
    the hash that the file carries; exit code 1 when they do not match. Hashes show that a file is whole, not who wrote
    it.

    Example: `lottery-tickets ticket show runs/digits/ticket.safetensors --check`

    Attributes:
        ticket: The file.
        check: Also compare the weights with their hash.
    """

    ticket: Annotated[Path, tyro.conf.Positional]
    check: bool = False

    def run(self) -> int:
        """Prints the ticket; returns the exit code."""
        from lottery_tickets import load_ticket

        ticket = load_ticket(self.ticket, weights=False)
        if self.check:
            try:
                ticket = load_ticket(self.ticket)
            except ValueError as error:
                say(f"FAILED  {error}")
                return ExitCode.CHECK_FAILED
        say(*describe_ticket(str(self.ticket), ticket))
        print("by layer:")
        for name, sparsity in ticket.mask.layer_sparsity().items():
            print(f"  {sparsity:8.4%} removed  {name} {tuple(ticket.mask.shapes[name])}")
        return 0


def describe_ticket(name: str, ticket: "Ticket") -> Iterator[str]:
    """Yields what a ticket is in lines: the answer, its claims, its weights, where it is from.

    Args:
        name: What it is called.
        ticket: With or without its weights.
    """
    mask, state = ticket.mask, ticket.state
    counts = f"{mask.num_kept:,} of {mask.num_weights:,} weights kept"
    yield f"{name}: a ticket of sparsity {mask.sparsity:.4f} ({counts}). {ticket.claim}"
    claims = ticket.claims or {}
    yield from (f"  {sentence}" for sentence in list(claims.get("sentences", ()))[1:])
    if claims:
        made = [f"{what}: {claims[key]}" for key, what in CLAIMED.items() if claims.get(key) is not None]
        yield f"  claims: {', '.join(made)}"
    num = sum(tensor.numel() for tensor in state.values())
    size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    dtypes = ", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in state.values()}))
    yield f"theta_k: k = {ticket.step}; {len(state)} tensors, {num:,} numbers ({dtypes}), {size:,} bytes"
    checked = "checked" if ticket.has_weights else "not checked, because the weights were not read (--check)"
    yield f"hashes: mask, claims and provenance checked; theta_k {checked}: sha256 {ticket.state_sha256}"
    yield from (f"{key}: {_shorten(value)}" for key, value in ticket.provenance.items())


CLAIMED: Final = {
    "verdict": "against dense",
    "winning": "winning",
    "metric": "metric",
    "moment": "at",
    "margin": "margin",
    "alpha": "alpha",
    "num_replicates": "replicates",
    "date": "on",
    "records_sha256": "of records",
}


def _shorten(value: object) -> str:
    words = str(value)
    return words if len(words) <= MOST_LETTERS else f"{words[: MOST_LETTERS - 3]}..."


@dataclass(frozen=True)
class Make(FileOutput):
    """Make the file of a ticket from a run of `imp`, `demo` or `evaluate --start`, with what was shown of its level.

    It holds all that is needed to train the ticket elsewhere: the mask, theta_k, seeds, recipe, versions, hashes and
    claims. Load it in Python by use_ticket(model, FILE).

    Example: `lottery-tickets ticket make runs/digits --level 1 --output ticket.safetensors`

    Attributes:
        run_folder: Of a finished run.
        output: The file to write.
        level: Rounds of pruning; when not given, the sparsest that wins, else the sparsest that matches, else the last.
        replicate: Which repetition.
        moment: When accuracy is taken; as in the run's summary when not given, else the first that all trainings have.
        margin: Points of accuracy whose loss counts as none; as in the run's summary when not given, else 0.2.
        looks: How often the findings are read in all while replicates are added, as planned before the first time; as
            in the run's summary when not given, else 1.
        test: Whether claims are on the mean, by t tests, or on the median, by sign tests; as in the run's summary when
            not given, else "t".
    """

    run_folder: Annotated[Path, tyro.conf.Positional]
    level: int | None = None
    replicate: int = 0
    moment: Literal["early_stop", "end"] | None = None
    margin: float | None = None
    looks: int | None = None
    test: Literal["t", "sign"] | None = None

    def run(self) -> int:
        """Writes the file and shows it; returns the exit code."""
        from lottery_tickets.experiments.folder import ExperimentFolder
        from lottery_tickets.experiments.results import collect_results
        from lottery_tickets.experiments.ticket import SAVED, describe_saving
        from statistical_report_generator.claims.assessment import assess_claims
        from unified_model_analysis.experiment_summary import check_report_extra
        from unified_model_analysis.experiment_tickets import make_run_ticket

        check_report_extra()
        check_place(self.output, force=self.force)
        results: Mapping[str, Any] = collect_results(ExperimentFolder.read(self.run_folder))
        claims = assess_claims(results, **self._choose_settings())
        saved = describe_saving()
        ticket = make_run_ticket(self.run_folder, claims, self.level, replicate=self.replicate, date=str(saved["date"]))
        if ticket is None:
            raise ValueError(f"{self.run_folder} must have a pruned level to make a ticket of, but has none")
        ticket.with_provenance({SAVED: saved}).save(self.output)
        return Show(self.output).run()

    def _choose_settings(self) -> dict[str, Any]:
        """Returns what is given, else what the run's own summary was made by: two tickets must not contradict it."""
        from lottery_tickets.storage import load_results
        from unified_model_analysis.experiment_summary import SUMMARY

        summary = self.run_folder / SUMMARY
        made: Mapping[str, Any] = load_results(summary)["claims"] if summary.exists() else {"margin": MARGIN / POINTS}
        given = {
            "moment": self.moment,
            "margin": None if self.margin is None else self.margin / POINTS,
            "num_looks": self.looks,
            "test": self.test,
        }
        chosen = {name: made.get(name) if value is None else value for name, value in given.items()}
        return {name: value for name, value in chosen.items() if value is not None}


@dataclass(frozen=True)
class TicketCommand:
    """Look into the file of a ticket, or make one from a run.

    Attributes:
        action: What to do.
    """

    action: tyro.conf.OmitArgPrefixes[
        Annotated[Make, tyro.conf.subcommand("make", prefix_name=False)]
        | Annotated[Show, tyro.conf.subcommand("show", prefix_name=False)]
    ]

    def run(self) -> int:
        """Runs the action; returns the exit code."""
        return self.action.run()
