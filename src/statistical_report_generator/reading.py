"""From a run folder, a JSON file or a dict to results: read without a model, recognised, checked."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

from statistical_report_generator.kinds import recognise
from statistical_report_generator.sources import Source

ANALYSIS: Final = "analysis.json"
FILES: Final = (ANALYSIS, "results.json", "landscape.json", "evidence.json")  # in a folder, the first that is there
MOST_BYTES: Final = 1 << 28  # 256 MB of JSON: far more than any run writes


@runtime_checkable
class Reportable(Protocol):
    """An object that says of itself what reports tell of it, such as a mask or scores."""

    def to_results(self) -> Mapping[str, Any]:
        """Returns what a file of results would hold."""
        ...


Given = str | Path | Mapping[str, Any] | Reportable


def read_sources(given: Given, name: str | None = None) -> list[Source]:
    """Returns results, and, where they are an analysis, those of each of its finished parts behind it.

    Args:
        given: A run folder, a JSON file, what was read from one or returned by a function, a mask, scores.
        name: What the report calls them; the name of the folder or file when None. Parts are called "NAME / PART".

    Raises:
        FileNotFoundError: When there is nothing at the path.
        ValueError: When it holds no results that a report can be made of; says where, what was got, what is allowed.
    """
    if isinstance(given, Reportable):
        given = given.to_results()
    if isinstance(given, Mapping):
        kind, results = recognise(given, "the dict")
        return list(_split(Source(name or "results", kind, results)))
    path = Path(given)
    file = _find_file(path)
    kind, results = recognise(_read(file), str(file))
    default = path.resolve().name if path.is_dir() else path.stem
    source = Source(name or default, kind, results, path if path.is_dir() else None)
    return [*_split(source), *(_read_parts(source, file.parent) if kind == "analysis" else ())]


def _find_file(path: Path) -> Path:
    if not path.is_dir():
        if not path.exists():
            raise FileNotFoundError(
                f"{path} must be a run folder or a JSON file of results, but there is no such file; check the name"
            )
        return path
    for name in FILES:
        if (path / name).is_file():
            return path / name
    raise FileNotFoundError(f"{path} must be a run folder with one of {', '.join(FILES)}, but there is none of them")


def _split(source: Source) -> Iterator[Source]:
    """Yields results, or in their place what they consist of; a quality is followed by the ticket trained again."""
    if source.kind == "evaluation":
        for kind in ("performance", "quality", "validation", "robustness", "costs"):
            if kind in source.results:
                yield from _split(source.part(kind, source.results[kind]))
        if "retrained" in source.results:
            yield source.part("experiment", source.results["retrained"])
        return
    yield source
    if source.kind == "quality" and source.results.get("retrained"):
        yield source.part("experiment", source.results["retrained"])


def _read_parts(analysis: Source, folder: Path) -> Iterator[Source]:
    for entry in analysis.results["analyses"]:
        if entry["status"] != "finished" or entry["file"] is None:
            continue
        file = _find_beside(folder, entry["file"])
        kind, results = recognise(_read(file), str(file))
        if kind != entry["kind"]:
            raise ValueError(
                f"{file} must hold results of kind {entry['kind']!r}, as {ANALYSIS} says, but holds {kind!r}"
            )
        yield from _split(Source(f"{analysis.name} / {entry['name']}", kind, results))


def _find_beside(folder: Path, name: str) -> Path:
    """Returns the file of that name in a folder; a foreign file must not send us elsewhere."""
    file = folder / name
    if not name or "\x00" in name or Path(name).name != name or "\\" in name or file.is_symlink():
        raise ValueError(f"each file of an analysis must be the name of a file beside {ANALYSIS}, but one is {name!r}")
    if not file.is_file():
        raise FileNotFoundError(f"{file} must be there, because {ANALYSIS} says that it is finished, but is not")
    return file


def _read(file: Path) -> dict[str, Any]:
    if file.stat().st_size > MOST_BYTES:
        raise ValueError(f"{file} must be results of at most {MOST_BYTES:,} bytes, but has {file.stat().st_size:,}")
    try:
        found = json.loads(
            file.read_text(encoding="utf-8"),
            parse_constant=_refuse,
            parse_float=_read_float,
            object_pairs_hook=_collect_once,
        )
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
        raise ValueError(f"{text[:40]} is larger than any number that results may have")
    return number


def _collect_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice[:40]!r} is there twice in one object")
    return found
