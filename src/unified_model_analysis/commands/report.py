"""`lottery-tickets report`: pages from saved results, without a model."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from unified_model_analysis.exit_codes import ExitCode
from unified_model_analysis.held_results import check_place
from unified_model_analysis.options import MARGIN
from unified_model_analysis.terminal import say
from unified_model_analysis.workload_pairs import list_runs

if TYPE_CHECKING:
    from statistical_report_generator import Verification


@dataclass(frozen=True)
class Report:
    """Make a report of run folders or files of results: a PDF, a page that opens without a network, figures, tables.

    Says first what was found, each claim with its verdict and its interval, then shows it, then how it was made and
    what may be wrong with it. Needs no model; two reports on the same results are the same bytes.

    Example: `lottery-tickets report runs/digits --output reports`

    Attributes:
        results: Run folders and files of any command or analysis, and folders of `analyze`.
        output: Folder where the files go.
        force: Replace a report of this name; files that are no report's are never replaced.
        name: Of the report's files.
        verify: Re-check each run folder from its files first, and say in the report what that found.
        style: "summary" leaves out what only those who check need: values by run, each claim, settings, method.
        title: Stands above.
        margin: Points of accuracy whose loss counts as none.
        looks: How often the findings are read in all while replicates are added, as planned before the first time.
        moment: When accuracy is taken: at the least validation loss, or after the last step; the first of both that all
            trainings have when not given.
        test: Whether claims are on the mean, by t tests, or on the median, by sign tests.
    """

    results: Annotated[tuple[Path, ...], tyro.conf.Positional]
    output: Path = Path("reports")
    force: bool = False
    name: str = "report"
    verify: bool = False
    style: Literal["technical", "summary"] = "technical"
    title: str | None = None
    margin: float = MARGIN
    looks: int = 1
    moment: Literal["early_stop", "end"] | None = None
    test: Literal["t", "sign"] = "t"

    def run(self) -> int:
        """Writes the report and prints where it is; returns the exit code."""
        from statistical_report_generator import ReportConfig, StatisticalReportGenerator
        from statistical_report_generator.tables import POINTS

        if not self.results:
            raise ValueError("there must be results to report on; name run folders or files")
        for suffix in ("pdf", "html"):
            check_place(self.output / f"{self.name}.{suffix}", force=self.force)
        config = ReportConfig(
            output_dir=self.output,
            style=self.style,
            title=self.title,
            margin=self.margin / POINTS,
            num_looks=self.looks,
            test=self.test,
            moment=self.moment,
        )
        generator = StatisticalReportGenerator(config)
        failed = False
        for path in self.results:
            verification = self._verify(path) if self.verify else None
            failed |= verification is not None and bool(verification.problems)
            generator.add_results(path, verification=verification)
        pdf = generator.generate_report(self.name)
        say(f"report: {pdf}, page: {pdf.with_suffix('.html')}, figures and tables: {self.output / self.name}-files")
        return ExitCode.CHECK_FAILED if failed else ExitCode.DONE

    def _verify(self, path: Path) -> "Verification | None":
        from statistical_report_generator import Verification
        from unified_model_analysis.commands.verify import Verify

        if not path.is_dir():
            return None
        checks = []
        for run in list_runs(path):
            try:
                checks += Verify(run).check_run(run)
            except ValueError as error:
                say(f"{path}: not re-checked: {error}")
                return None
        problems = tuple(f"{check.where}: {check.name}: {check.problem}" for check in checks if check.problem)
        return Verification(len(checks), problems, f"lottery-tickets verify {path}")
