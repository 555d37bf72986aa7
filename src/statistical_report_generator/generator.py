"""From results to a report: the PDF, a page that opens without a network, and its figures and tables as files."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, Self, final

from statistical_report_generator.document import MARK, Document, Figure, Section, Table, Text
from statistical_report_generator.figures.pictures import Picture, make_picture
from statistical_report_generator.files import write_whole
from statistical_report_generator.kinds import describe
from statistical_report_generator.papers.methods import Judging, Statement, describe_methods, list_cited
from statistical_report_generator.papers.references import render_bibtex
from statistical_report_generator.preparing import STYLES, Style, prepare
from statistical_report_generator.reading import Given, read_sources
from statistical_report_generator.records import Record, list_records
from statistical_report_generator.rendering.csv import render_csv
from statistical_report_generator.rendering.html import render_html
from statistical_report_generator.rendering.latex import render_latex, render_methods
from statistical_report_generator.rendering.pdf import render_pdf
from statistical_report_generator.rendering.png import render_pngs
from statistical_report_generator.sections.comparison import describe_comparison
from statistical_report_generator.sections.experiment import ExperimentOptions
from statistical_report_generator.sources import Source, Verification
from statistical_report_generator.words import clean

MOST_SHOWN: Final = 12  # results with figures and tables on the pages; nobody looks through more, and pages grow large
EXPERIMENT_TYPES: Final = ("lottery_ticket_analysis",)


@final
@dataclass
class ReportConfig:
    """What a report is to be like.

    Attributes:
        output_dir: Where its files go.
        experiment_type: "lottery_ticket_analysis".
        style: "technical", or "summary", which leaves out what only those who check need.
        title: Stands above; made of the names of the results when None.
        margin: The loss that counts as none, in units of the metric; 0.002 is 0.2 points of accuracy.
        num_looks: How often results are looked at while replicates are added, as planned.
        test: Whether claims are on the mean ("t") or on the median ("sign"); see `assess_claims`.
        metric: What tickets are compared by; when None, the first of a metric, accuracy, perplexity and loss, on test
            data or else on training data, that all trainings have.
        moment: "early_stop" or "end"; when None the first that all trainings have.

    Raises:
        ValueError: When the type or the style is not known.
    """

    output_dir: str | Path = "reports"
    experiment_type: str = "lottery_ticket_analysis"
    style: Style = "technical"
    title: str | None = None
    margin: float = 0.002
    num_looks: int = 1
    test: Literal["t", "sign"] = "t"
    metric: str | None = None
    moment: str | None = None

    def __post_init__(self) -> None:
        """Checks the type and the style."""
        if self.experiment_type not in EXPERIMENT_TYPES:
            raise ValueError(f"experiment_type must be one of {list(EXPERIMENT_TYPES)}, got {self.experiment_type!r}")
        if self.style not in STYLES:
            raise ValueError(f"style must be one of {list(STYLES)}, got {self.style!r}")


@final
class StatisticalReportGenerator:
    """Makes a report of saved results. It needs no model, and computes nothing anew but statistics.

    Args:
        config: What it is to be like.

    Examples:
        >>> generator = StatisticalReportGenerator(ReportConfig(title="A small run"))
        >>> generator.num_results
        0
    """

    def __init__(self, config: ReportConfig | None = None) -> None:
        self.config = config or ReportConfig()
        self._sources: list[Source] = []
        self._names: list[str] = []

    @property
    def num_results(self) -> int:
        """How many results were added."""
        return len(self._names)

    def add_results(
        self,
        results: Given,
        name: str | None = None,
        *,
        verification: Verification | None = None,
    ) -> Self:
        """Adds results, read now; returns the generator.

        Args:
            results: A run folder, a JSON file, or what a function of `lottery_tickets` returned: a dict, a `Mask`, an
                `Importance`. Of tensors a summary is kept, so that what happens to them later changes nothing.
            name: What the report calls them; the name of the folder or file when None.
            verification: What re-checking them has found; `lottery-tickets report --verify` does.

        Raises:
            FileNotFoundError: When there is nothing.
            ValueError: When no report can be made of them.
        """
        sources = read_sources(results, name)
        if sources[0].name in self._names:
            raise ValueError(f"each results must have a name of its own, but {sources[0].name!r} is there; pass name=")
        self._sources += [replace(source, verification=verification) for source in sources]
        self._names.append(sources[0].name)
        return self

    def describe(self) -> Document:
        """Returns the report before it is rendered.

        Raises:
            ValueError: When no results were added, or they lack what claims are made of.
        """
        return Document(self._name(), _lay_out(self._describe_sections()))

    def _name(self) -> str:
        return clean(self.config.title or f"Lottery tickets: {', '.join(self._names)}")

    def _describe_sections(self) -> Iterator[Section]:
        """Yields the sections, each made when it is asked for: hundreds of drawings at once are slow and large."""
        if not self._sources:
            raise ValueError("there must be results to report on, but none were added; call add_results first")
        config = self.config
        options = ExperimentOptions(config.margin, config.num_looks, config.test, config.metric, config.moment)
        costs = tuple(source.results for source in self._sources if source.kind == "costs")
        sources = [replace(source, costs=costs) for source in self._sources]
        sections = (
            replace(
                section,
                title=section.title if len(sources) == 1 else f"{label}: {section.title}",
                leads=number == 0,
            )
            for place, (source, label) in enumerate(zip(sources, _label_apart(sources), strict=True))
            for number, section in enumerate(_describe(source, options, is_shown=place < MOST_SHOWN))
        )
        comparison = self._describe_comparison(options)
        methods = Section("Methods", [Text(" ".join(map(str, self.describe_methods())))], technical=True)
        yield from prepare(itertools.chain(comparison, sections, [methods]), config.style)

    def _describe_comparison(self, options: ExperimentOptions) -> list[Section]:
        try:
            return describe_comparison(self._sources, options)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(f"each results must be whole, but one lacks or garbles {error}; was it edited?") from error

    def describe_methods(self) -> list[Statement]:
        """Returns how the results were made and are judged, in sentences that say which papers they go back to."""
        config = self.config
        judging = Judging(config.margin, config.test, config.moment)
        return describe_methods([(source.kind, source.results) for source in self._sources], judging)

    def to_dataframe(self) -> Any:  # noqa: ANN401 - a DataFrame of pandas, which need not be there
        """Returns all results as one `pandas.DataFrame`: a row a run, or whatever else was measured once.

        Columns `results` and `kind` say where a row is from; inner values are named "outer.inner", such as
        `history.end.test_accuracy`. Lists, such as learning curves, are left out.

        Raises:
            ImportError: When pandas is not installed.
            ValueError: When results are not whole.
        """
        try:
            import pandas as pd  # noqa: PLC0415 - for those who have it
        except ImportError as error:
            raise ImportError(
                "to_dataframe needs pandas, which is not installed; run: pip install 'lottery-tickets[pandas]'"
            ) from error
        return pd.DataFrame([record for source in self._sources for record in _list_records(source)])

    def generate_report(self, name: str = "report") -> Path:
        """Writes NAME.pdf, NAME.html, and NAME-files/ with all figures and tables; returns the PDF.

        Figures are there as SVG and PNG, tables as CSV and LaTeX; methods.tex says in a paragraph how the results were
        made, and methods.bib whom the methods are by.

        Two reports on the same results are the same bytes. An earlier report of the name is replaced; files of others
        are not.

        Args:
            name: Of the files; no path.

        Raises:
            ValueError: When the name is a path, or that of files that are no report, or as `describe`.
            OSError: When the place cannot be written.
        """
        if not name or name != Path(name).name:
            raise ValueError(f"the name of a report must be that of a file, without a folder, got {name!r}")
        folder = Path(self.config.output_dir)
        pictures: dict[str, Picture] = {}
        sections: list[Section] = []
        for section in self._describe_sections():
            pictures |= _take_pictures(section)
            sections.append(section)
        document = Document(self._name(), _lay_out(sections))
        everything = Document(document.title, sections)
        files = _list_files(everything, pictures) | _list_papers(everything, self.describe_methods())
        pages = {"html": render_html(document, pictures).encode(), "pdf": render_pdf(document, pictures)}
        _check_place(folder, name)  # nothing is written before everything is rendered
        for file, content in files.items():
            write_whole(folder / f"{name}-files" / file, content)
        for suffix, content in pages.items():
            write_whole(folder / f"{name}.{suffix}", content)
        return folder / f"{name}.pdf"


def _lay_out(sections: Iterable[Section]) -> list[Section]:
    """Returns the sections of pages: what was found, of all results, before all else."""
    return sorted((section for section in sections if not section.filed), key=lambda section: not section.leads)


def _take_pictures(section: Section) -> dict[str, Picture]:
    """Returns the figures of a section as pictures by name, and lets their drawings go."""
    pictures: dict[str, Picture] = {}
    for figure in (block for block in section.blocks if isinstance(block, Figure)):
        try:
            drawing = figure.draw()
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(f"{figure.name} must be of whole results, but they lack or garble {error}") from error
        pictures[figure.name] = make_picture(drawing, figure.name)
        drawing.clear()
    return pictures


def _list_records(source: Source) -> list[Record]:
    try:
        return list_records(source.name, source.kind, source.results)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"{source.name} must hold whole results, but lacks or garbles {error}") from error


def _label_apart(sources: Sequence[Source]) -> list[str]:
    """Returns what sections on results are called: by name, and by kind where results of several kinds share one."""
    counted = Counter(source.name for source in sources)
    return [one.name if counted[one.name] == 1 else f"{one.name}, {one.kind}" for one in sources]


def _describe(source: Source, options: ExperimentOptions, *, is_shown: bool) -> list[Section]:
    sections = describe(source, options)
    return sections if is_shown else [_shorten(section, is_first=place == 0) for place, section in enumerate(sections)]


def _shorten(section: Section, *, is_first: bool) -> Section:
    """Returns a section of results beyond the first ones: without figures, and its tables as files alone."""
    if not is_first and (section.technical or any(isinstance(block, Table) for block in section.blocks)):
        return replace(section, blocks=[block for block in section.blocks if isinstance(block, Table)], filed=True)
    kept = [block for block in section.blocks if not isinstance(block, Figure)]
    if is_first:
        kept.append(Text(f"Its tables are files beside this page; the first {MOST_SHOWN} results have figures."))
    return replace(section, blocks=kept or [Text("Its figures are left out.")])


def _list_files(document: Document, pictures: Mapping[str, Picture]) -> dict[str, bytes]:
    """Returns figures and tables as files, by name."""
    figures = {f"{name}.svg": picture.svg for name, picture in pictures.items()}
    figures |= {f"{name}.png": content for name, content in render_pngs(pictures).items()}
    return figures | {f"{table.name}.csv": render_csv(table).encode() for table in document.list_tables()}


def _check_place(folder: Path, name: str) -> None:
    """Raises where something lies under the name of a report that is none of ours."""
    pages = [path for path in (folder / f"{name}.html", folder / f"{name}.pdf") if path.exists()]
    others = [path for path in pages if not path.is_file() or MARK.encode() not in path.read_bytes()]
    place = folder / f"{name}-files"
    if place.exists() and not pages:
        others.append(place)
    if others:
        raise ValueError(f"{others[0]} must be an earlier report or not exist, but is of others; take another name")


def _list_papers(document: Document, methods: Sequence[Statement]) -> dict[str, bytes]:
    """Returns what papers take: tables and methods as LaTeX, and whom the methods are by, by name of the file."""
    texts = {f"{table.name}.tex": render_latex(table) for table in document.list_tables()}
    texts |= {"methods.tex": render_methods(methods), "methods.bib": render_bibtex(list_cited(methods))}
    return {name: text.encode() for name, text in texts.items()}
