"""Which analyses there are: ours, and those that other packages bring by an entry point."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final, final

from unified_model_analysis.subject import Subject

ENTRY_POINTS: Final = "lottery_tickets.analyses"


def _say_nothing(_: Mapping[str, Any]) -> str:
    return ""


@final
@dataclass(frozen=True)
class Analysis:
    """One way of looking at a model.

    Attributes:
        name: Of the analysis, and of its file.
        title: What it asks, in a few words.
        run: Called with the subject and the folder of the analyses; returns JSON-able results, tensors and masks.
        count_passes: About how many forward passes of one batch it takes, to say how long it will be.
        kind: Of its results, as reports know them; "table" shows whatever they hold as a table.
        conclude: What was found, in a sentence.
        trains: Whether it trains the model; it is then put back afterwards.
    """

    name: str
    title: str
    run: Callable[[Subject, Path], Mapping[str, Any]]
    count_passes: Callable[[Subject], float]
    kind: str = "table"
    conclude: Callable[[Mapping[str, Any]], str] = _say_nothing
    trains: bool = False


def list_analyses() -> dict[str, Analysis]:
    """Returns all analyses by name: ours, then those of other packages.

    A package brings one by an entry point of the group "lottery_tickets.analyses" that names an `Analysis`. One that
    cannot be loaded is left out with a warning.

    Raises:
        ValueError: When two are called the same.
    """
    from unified_model_analysis.analyses import ANALYSES

    found = {analysis.name: analysis for analysis in ANALYSES}
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        try:
            analysis = point.load()
        except Exception as error:  # noqa: BLE001 - code of others may fail in any way; the rest must go on
            warnings.warn(f"the analysis {point.name} ({point.value}) cannot be loaded: {error}", stacklevel=2)
            continue
        if not isinstance(analysis, Analysis):
            warnings.warn(f"the entry point {point.name} must name an Analysis, got {analysis!r}", stacklevel=2)
            continue
        if analysis.name in found:
            raise ValueError(f"each analysis must have a name of its own, but {analysis.name!r} is there twice")
        found[analysis.name] = analysis
    return found
