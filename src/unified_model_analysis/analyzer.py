"""Many analyses of one model: planned, run one after the other, kept as they finish, reported."""

import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Literal, TypedDict, final

from torch import nn

from lottery_tickets.storage import Record, RunFolder, hash_state, load_results, save_results
from lottery_tickets.utils import Log, Logger
from unified_model_analysis.analyses import ANALYSES
from unified_model_analysis.config import UnifiedConfig
from unified_model_analysis.registry import Analysis, list_analyses
from unified_model_analysis.subject import Subject, make_subject
from unified_model_analysis.terminal import say

INDEX: Final = "analysis.json"
KIND: Final = "analyses of a model"
REPORT: Final = "report"
MINUTE: Final = 60.0  # seconds
HOUR: Final = 3600.0  # seconds
Status = Literal["waiting", "finished", "failed", "interrupted"]


@final
@dataclass
class Entry:
    """An analysis in the index of its folder.

    Attributes:
        name: Of the analysis.
        kind: Of its results.
        title: What it asks.
        status: How far it is.
        file: Its results, beside the index; None before it has finished.
        expected_seconds: Told before it began.
        seconds: It took; None before it has ended.
        error: Why it failed; None otherwise.
        conclusion: What was found, in a sentence.
        warnings: Given while it ran.
    """

    name: str
    kind: str
    title: str
    expected_seconds: float
    status: Status = "waiting"
    file: str | None = None
    seconds: float | None = None
    error: str | None = None
    conclusion: str = ""
    warnings: tuple[str, ...] = ()


class _Index(TypedDict):
    """What is read of the index of a folder."""

    analyses: list[Entry]


def _read_index(path: Path) -> dict[str, Entry]:
    """Returns the analyses of an index, by name."""
    found = load_results(path, kind=_Index)["analyses"]
    names = {field.name for field in fields(Entry)}
    entries = [Entry(**{name: one[name] for name in names}) for one in found]
    for entry in entries:
        if entry.file is not None and Path(entry.file).name != entry.file:
            raise ValueError(f"{path}: each file must be the name of one beside it, but one is {entry.file!r}")
    return {entry.name: replace(entry, warnings=tuple(entry.warnings)) for entry in entries}


class AnalysisResults(TypedDict):
    """What `UnifiedModelAnalyzer.analyze` returns.

    Attributes:
        folder: Where everything lies.
        model: Name, class and size of the model.
        settings: That were chosen by its size.
        analyses: As the index has them, see `Entry`.
        results: By name, what each finished analysis found.
        report: The PDF; None without one.
    """

    folder: str
    model: dict[str, Any]
    settings: dict[str, Any]
    analyses: list[dict[str, Any]]
    results: dict[str, Mapping[str, Any]]
    report: str | None


@final
class UnifiedModelAnalyzer:
    """Runs the analyses that there are on a model, keeps each as it finishes, and makes a report of all.

    A failing analysis is reported with its error, and the others go on. Interrupted at any moment, the same call goes
    on with what is missing. The model is left as it was; with `config.train` it is put back after each training.

    Args:
        config: What to do; may be changed until `analyze` is called.
        tell: Called with each line that a user should see; printed by default.
        logger: Told the numbers that each analysis has found, when it has, at the count of analyses so far: anything
            with `log(values, step)`, or several; see `lottery_tickets.integrations`. It changes nothing.

    Examples:
        >>> import tempfile
        >>> import torch
        >>> model, data = nn.Linear(8, 4), [(torch.randn(16, 8), torch.randint(4, (16,)))]
        >>> config = UnifiedConfig(tempfile.mkdtemp(), ["ticket"], generate_report=False, progress=False)
        >>> found = UnifiedModelAnalyzer(config, tell=lambda line: None).analyze(model, data)
        >>> found["analyses"][0]["conclusion"]
        '68.75% of the weights are removed by magnitude; no layer is emptied'
    """

    def __init__(
        self,
        config: UnifiedConfig | None = None,
        *,
        tell: Callable[[str], object] = say,
        logger: Logger | Iterable[Logger] | None = None,
    ) -> None:
        self.config = config or UnifiedConfig()
        self._tell = tell
        self._log = Log(logger)

    def analyze(self, model: nn.Module, dataloader: Iterable[Any]) -> AnalysisResults:
        """Returns what all analyses found, and leaves results and report in `config.output_dir`.

        Args:
            model: A trained model; a batch-norm CNN, a language model, anything that `compute_loss` can drive.
            dataloader: Batches; can be gone through many times.

        Raises:
            TypeError: When the data can be gone through once only, or the model refuses a batch.
            OSError: When a file of the folder cannot be read or written.
            ValueError: When an analysis is not known, there is no data, or the folder holds something else or was
                altered.
        """
        config = self.config
        chosen = _choose(config)
        folder = Path(config.output_dir)
        record = Record("analysis", {"analyses": [analysis.name for analysis in chosen]})
        subject = make_subject(model, dataloader, config)
        with RunFolder(folder, KIND, "UnifiedModelAnalyzer").opened(subject.describe()):
            run = _Run(subject, folder, record, self._tell)
            run.begin(chosen)
            for number, analysis in enumerate(chosen, start=1):
                if run.go_through(analysis):
                    self._log.tell({analysis.name: run.results[analysis.name]}, number)
            report = run.report() if config.generate_report else None
            run.conclude(report)
            return {
                "folder": str(folder),
                "model": subject.describe_model(),
                "settings": subject.settings,
                "analyses": [asdict(entry) for entry in run.entries.values()],
                "results": run.results,
                "report": None if report is None else str(report),
            }


def _choose(config: UnifiedConfig) -> list[Analysis]:
    known = list_analyses()
    if config.analyses is None:
        return [analysis for analysis in known.values() if config.train or not analysis.trains]
    if isinstance(config.analyses, str) or not config.analyses or set(config.analyses) - known.keys():
        raise ValueError(f"analyses must be some of {', '.join(known)}, got {config.analyses!r}")
    chosen = [known[name] for name in dict.fromkeys(config.analyses)]
    if training := [analysis.name for analysis in chosen if analysis.trains and not config.train]:
        raise ValueError(f"{', '.join(training)} train the model; allow it by train=True, or leave them out")
    return chosen


@final
class _Run:
    """The analyses of one call, with their index."""

    def __init__(self, subject: Subject, folder: Path, record: Record, tell: Callable[[str], object]) -> None:
        self._subject, self._folder, self._record, self._tell = subject, folder, record, tell
        self.entries: dict[str, Entry] = {}
        self.results: dict[str, Mapping[str, Any]] = {}

    def begin(self, chosen: Iterable[Analysis]) -> None:
        """Says what will be run and how long it is expected to take; takes what is there already."""
        index = self._folder / INDEX
        before = _read_index(index) if index.exists() else {}
        for analysis in chosen:
            expected = self._subject.seconds_a_pass * analysis.count_passes(self._subject)
            entry = Entry(analysis.name, analysis.kind, analysis.title, round(expected, 3))
            earlier = before.pop(analysis.name, None)
            if earlier is not None and earlier.status == "finished":
                entry = earlier
                self.results[analysis.name] = load_results(self._folder / str(entry.file))
            self.entries[analysis.name] = entry
        self.entries |= before
        waiting = [entry for entry in self.entries.values() if entry.status == "waiting"]
        model = self._subject.describe_model()
        self._tell(
            f"{model['name']}: {model['num_parameters']:,} parameters, of which {model['num_prunable']:,} in "
            f"{model['num_layers']} weights can be pruned"
        )
        for entry in self.entries.values():
            when = _show_seconds(entry.expected_seconds) if entry.status == "waiting" else entry.status
            self._tell(f"  {entry.name:11} {when:>12}  {entry.title}")
        total = sum(entry.expected_seconds for entry in waiting)
        self._tell(f"{len(waiting)} analyses to run, expected to take {_show_seconds(total)} in all")
        self._save()

    def go_through(self, analysis: Analysis) -> bool:
        """Runs one analysis where it has not finished before; one that fails says so, and the next goes on.

        Args:
            analysis: Which.

        Returns:
            Whether it has finished now.
        """
        entry = self.entries[analysis.name]
        if entry.status == "finished":
            return False
        record = Record(analysis.kind, self._subject.settings)
        begun = time.perf_counter()
        try:
            with warnings.catch_warnings(record=True) as given:
                warnings.simplefilter("always")
                found = self._run(analysis)
                entry.warnings = tuple(dict.fromkeys(str(one.message) for one in given))
            entry.conclusion = analysis.conclude(found)
            entry.file = f"{analysis.name}.json"
            save_results(record.stamp(found), self._folder / entry.file)
            entry.status = "finished"
            self.results[analysis.name] = found
        except Exception as error:  # noqa: BLE001 - whatever it is, the other analyses can still be made
            entry.status, entry.file, entry.error = "failed", None, f"{type(error).__name__}: {error}"
        except BaseException:
            entry.status = "interrupted"
            raise
        finally:
            entry.seconds = round(time.perf_counter() - begun, 3)
            self._save()
        self._tell(f"{analysis.name}, {_show_seconds(entry.seconds)}: {entry.error or entry.conclusion}")
        return entry.status == "finished"

    def report(self) -> Path:
        """Makes the pages; returns the PDF."""
        from statistical_report_generator import ReportConfig, StatisticalReportGenerator

        config = self._subject.config
        generator = StatisticalReportGenerator(
            ReportConfig(
                output_dir=self._folder, title=self._subject.describe_model()["name"], style=config.report_style
            )
        )
        return generator.add_results(self._folder).generate_report(REPORT)

    def conclude(self, report: Path | None) -> None:
        """Says how it ended and where everything is."""
        failed = [entry.name for entry in self.entries.values() if entry.status == "failed"]
        finished = sum(entry.status == "finished" for entry in self.entries.values())
        how = f"; failed: {', '.join(failed)}" if failed else ""
        self._tell(f"{finished} of {len(self.entries)} analyses finished{how}")
        self._tell(f"results: {self._folder}" + ("" if report is None else f", report: {report}"))

    def _run(self, analysis: Analysis) -> Mapping[str, Any]:
        """Returns what was found; the model is then what it was. Ours that only measure are trusted to see to that."""
        model = self._subject.model
        if analysis in ANALYSES and not analysis.trains:
            return analysis.run(self._subject, self._folder)
        kept = {name: tensor.to("cpu", copy=True) for name, tensor in model.state_dict().items()}
        is_training = model.training
        try:
            found = analysis.run(self._subject, self._folder)
            if not analysis.trains and hash_state(model.state_dict()) != hash_state(kept):
                raise RuntimeError("it changed the model, and does not say that it trains; the model was put back")
            return found
        finally:
            model.load_state_dict(kept)
            model.train(is_training)

    def _save(self) -> None:
        index = {
            "name": self._subject.describe_model()["name"],
            "model": self._subject.describe_model(),
            "settings": self._subject.settings,
            "analyses": [asdict(entry) for entry in self.entries.values()],
        }
        save_results(self._record.stamp(index), self._folder / INDEX)


def _show_seconds(seconds: float) -> str:
    if seconds < MINUTE:
        return f"{max(seconds, 0.1):.1f} s"
    return f"{seconds / MINUTE:.0f} min" if seconds < HOUR else f"{seconds / HOUR:.1f} h"
