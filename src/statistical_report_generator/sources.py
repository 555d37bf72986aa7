"""Where a report has its results from: a run folder, a JSON file, or a dict; told apart by what they hold."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, final

RESULTS: Final = "results.json"
EXPERIMENT_SCHEMA: Final = "lottery-tickets experiment"
KNOWN_VERSION: Final = 2
MOST_BYTES: Final = 1 << 28  # 256 MB of JSON: far more than any run writes

Kind = Literal["experiment"]


@final
@dataclass(frozen=True)
class Source:
    """Results that a report is made of.

    Attributes:
        name: What the report calls them.
        kind: Of analysis.
        results: As they were saved.
        folder: The run folder, where they lie in one.
    """

    name: str
    kind: Kind
    results: Mapping[str, Any]
    folder: Path | None = None


def read_source(given: str | Path | Mapping[str, Any], name: str | None = None) -> Source:
    """Returns results, read and recognised; no model is needed, and none is loaded.

    Args:
        given: A run folder, a JSON file, or what was read from one.
        name: What the report calls them; the name of the folder or file when None.

    Raises:
        FileNotFoundError: When there is nothing at the path.
        ValueError: When it holds no results that a report can be made of; says what it holds.
    """
    if isinstance(given, Mapping):
        return Source(name or "results", _recognise(given, "the dict"), given)
    path = Path(given)
    file = path / RESULTS if path.is_dir() else path
    if not file.exists():
        raise FileNotFoundError(f"{path} must be a run folder or a JSON file of results, but there is no {file}")
    results = _read(file)
    default = path.resolve().name if path.is_dir() else path.stem
    return Source(name or default, _recognise(results, str(file)), results, path if path.is_dir() else None)


def _read(file: Path) -> dict[str, Any]:
    if file.stat().st_size > MOST_BYTES:
        raise ValueError(f"{file} must be results of at most {MOST_BYTES:,} bytes, but has {file.stat().st_size:,}")
    try:
        found = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse, parse_float=_read_float)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{file} must be a whole JSON file, but reading it gave: {error}; was it cut short?"
        ) from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} must hold an object of results, but holds a {type(found).__name__}")
    return found


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number that results may have")


def _read_float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is larger than any number that results may have")
    return number


def _recognise(results: Mapping[str, Any], where: str) -> Kind:
    schema = str(results.get("schema", ""))
    if schema.startswith(EXPERIMENT_SCHEMA):
        version = schema.removeprefix(EXPERIMENT_SCHEMA).strip()
        if not version.isdecimal() or int(version) > KNOWN_VERSION:
            raise ValueError(
                f"{where} is of schema {schema!r}, but this version knows {EXPERIMENT_SCHEMA} up to {KNOWN_VERSION}; "
                "update lottery-tickets"
            )
        return "experiment"
    if "trainings" in results:
        return "experiment"
    names = ", ".join(sorted(map(str, results))[:8])
    raise ValueError(
        f"{where} must hold results of an experiment, with 'trainings', but has {names or 'nothing'}; give a run "
        "folder of imp, demo or evaluate --start"
    )
