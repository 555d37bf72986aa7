"""`lottery-tickets report`: pages from saved results, without a model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from unified_model_analysis.terminal import say


@dataclass(frozen=True)
class Report:
    """Make a report of run folders or files of results: a PDF, a page that opens without a network, figures, tables.

    Says first what was found, each claim with its verdict and its interval, then shows it, then how it was made and
    what may be wrong with it. Needs no model; two reports on the same results are the same bytes.

    Attributes:
        results: Run folders of `imp`, `demo` or `evaluate --start`, results of `connectivity`, or JSON files of such.
        output: Where the files go.
        name: Of the report's files.
        style: "summary" leaves out what only those who check need: values by run, each claim, settings, method.
        title: Stands above.
        margin: Points of accuracy whose loss counts as none.
        looks: How often the results are looked at in all while replicates are added, as planned before the first time.
        moment: When accuracy is taken: at the least validation loss, or after the last step; the first of both that all
            trainings have when not given.
        test: Whether claims are on the mean, by t tests, or on the median, by sign tests.
    """

    results: Annotated[tuple[Path, ...], tyro.conf.Positional]
    output: Path = Path("reports")
    name: str = "report"
    style: Literal["technical", "summary"] = "technical"
    title: str | None = None
    margin: float = 0.5
    looks: int = 1
    moment: Literal["early_stop", "end"] | None = None
    test: Literal["t", "sign"] = "t"

    def run(self) -> int:
        """Writes the report and prints where it is; returns the exit code."""
        from statistical_report_generator import ReportConfig, StatisticalReportGenerator
        from statistical_report_generator.tables import POINTS

        if not self.results:
            raise ValueError("there must be results to report on; name run folders or files")
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
        for path in self.results:
            generator.add_results(path)
        pdf = generator.generate_report(self.name)
        say(f"report: {pdf}, page: {pdf.with_suffix('.html')}, figures and tables: {self.output / self.name}-files")
        return 0
