"""Results that save themselves: as JSON that says its schema, and how, when and by what it was made."""

import inspect
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar, cast, final

import torch
from torch import nn

from lottery_tickets._core.encoding import Place, encode
from lottery_tickets._core.environment import describe_environment
from lottery_tickets._core.files import make_folder, read_json, write_json
from lottery_tickets._core.notebooks import Results
from lottery_tickets._core.reading import show, show_name

SCHEMA: Final = "schema"
PROVENANCE: Final = "provenance"
PREFIX: Final = "lottery-tickets"
VERSIONS: Final = {"experiment": 2}  # of schemas; others are in their first
SECONDS_FOR_GIT: Final = 5.0
MOST_ITEMS: Final = 100  # of a list among the settings
MOST_DIGITS: Final = 9  # of a version

P = ParamSpec("P")
R = TypeVar("R", bound=Mapping[str, Any])


def write_results(results: Mapping[str, Any], path: Path) -> None:
    """Writes results as JSON, whole, with a file for each mask beside it; see `lottery_tickets.save_results`."""
    files: dict[str, Callable[[Path], None]] = {}
    content = encode(results, Place("", path.stem, files))
    for name, write in files.items():  # first, so that results never name a file that is not there yet
        write(path.parent / name)
    write_json(path, content)


@final
class Record:
    """The results of one analysis, with how they were made. To be begun before the work: it keeps the time.

    Args:
        kind: Of analysis, such as "robustness"; a part of the schema.
        settings: What was asked for, JSON-able.
    """

    def __init__(self, kind: str, settings: Mapping[str, Any]) -> None:
        self._kind, self._begun = kind, time.monotonic()
        self._made_by = {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "commit": find_commit(Path.cwd()),
            "settings": dict(settings),
            "environment": describe_environment(of_threads=True),
            "hardware": describe_hardware(),
        }

    def find_file(self, path: str | Path) -> Path:
        """Returns the file that the results go to: in a folder, one that is called by the kind.

        Raises:
            ValueError: When something else lies there.
            OSError: When no file can be made there.
        """
        place = Path(path)
        file = place / f"{self._kind}.json" if place.is_dir() else place
        if file.exists():
            _check_earlier(file, self._kind)
        make_folder(file.parent)
        if not os.access(file.parent, os.W_OK):
            raise PermissionError(f"{file.parent} must be a folder that can be written; name another")
        return file

    def stamp(self, results: Mapping[str, Any]) -> dict[str, Any]:
        """Returns results with `schema` and `provenance`: settings, times, versions, machine, command and commit."""
        provenance = {**self._made_by, "wall_seconds": round(time.monotonic() - self._begun, 3)}
        return {SCHEMA: f"{PREFIX} {self._kind} {VERSIONS.get(self._kind, 1)}", PROVENANCE: provenance, **results}

    def save(self, results: Mapping[str, Any], path: str | Path) -> Path:
        """Writes results, stamped; where they stand there already, the file stays as it is. Returns the file.

        Raises:
            ValueError: When something else lies there, or a number is not finite.
            OSError: When the place cannot be written.
        """
        file = self.find_file(path)
        stamped = self.stamp(results)
        if not file.exists() or not _holds(file, stamped):
            write_results(stamped, file)
        return file


def recorded(kind: str, *, under: str | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Returns a decorator: a function that is called with `path=` writes its results there, beside returning them.

    A dict is returned as one that shows itself in a few lines.

    Args:
        kind: As in `Record`.
        under: The key that all the results stand under in the file; each under its own when None.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @wraps(function)
        def record(*args: P.args, **kwargs: P.kwargs) -> R:
            path: Any = kwargs.get("path")
            if path is None:
                return _show_short(function(*args, **kwargs))
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            left_out = {"path", "progress", "logger"}
            settings = {name: describe(value) for name, value in bound.arguments.items() if name not in left_out}
            begun = Record(kind, settings)
            begun.find_file(path)  # before the work
            results = _show_short(function(*args, **kwargs))
            begun.save(results if under is None else {under: results}, path)
            return results

        return record

    return decorate


def _show_short(results: R) -> R:
    """Returns the same dict, which shows itself in a few lines; what is more than a dict is left as it is."""
    return cast("R", Results(results)) if type(results) is dict else results


def check_schema(content: object, file: Path) -> None:
    """Raises a ValueError where a file is of a later schema than this version knows; files without one are older.

    Args:
        content: Of the file.
        file: Named in the error.
    """
    schema = content.get(SCHEMA) if isinstance(content, dict) else None
    if not isinstance(schema, str) or not schema.startswith(f"{PREFIX} "):
        return
    kind, _, version = schema.removeprefix(f"{PREFIX} ").rpartition(" ")
    known = VERSIONS.get(kind, 1)
    if not version.isdecimal() or len(version) > MOST_DIGITS or int(version) > known:
        raise ValueError(
            f"{file} is of schema {show(schema)}, but this version of lottery-tickets knows {show(kind)} up to "
            f"{known}; update"
        )


def describe(value: object) -> Any:  # noqa: ANN401 - JSON is anything
    """Returns an argument as JSON: what is small as it is, of a model its class and size, of others the type."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple) and len(value) <= MOST_ITEMS:
        items = [describe(item) for item in value]
        simple = all(item is None or isinstance(item, str | bool | int | float) for item in items)
        return items if simple and all(not isinstance(item, torch.Tensor) for item in value) else _name(value)
    if isinstance(value, nn.Module):
        return {"class": type(value).__qualname__, "num_parameters": sum(p.numel() for p in value.parameters())}
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return _name(value)


def describe_hardware() -> dict[str, Any]:
    """Returns the processor, its cores, the memory in bytes, and the GPUs."""
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpu": _name_processor(), "num_cpus": os.cpu_count(), "memory_bytes": memory, "gpus": gpus}


def find_commit(folder: Path) -> str | None:
    """Returns the commit of a work tree, with "+changes" where files differ from it; None outside of one."""
    try:
        commit, changes = (
            subprocess.run(  # noqa: S603 - fixed words
                ["git", *words],  # noqa: S607 - the git on the path, as the user's shell has it
                cwd=folder,
                capture_output=True,
                text=True,
                check=True,
                timeout=SECONDS_FOR_GIT,
            ).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}+changes" if changes else commit


def _name(value: object) -> str:
    return type(value).__name__


def _name_processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _check_earlier(file: Path, kind: str) -> None:
    """Raises where a file is no earlier result of the kind."""
    advice = "take another path"
    try:
        found = read_json(file)
    except ValueError as error:
        raise ValueError(f"{file} must be results of {kind} or not exist, but is something else; {advice}") from error
    schema = str(found.get(SCHEMA)) if isinstance(found, dict) else None
    if schema is None or not schema.startswith(f"{PREFIX} {kind} "):
        held = show_name(schema) if schema else "a list"
        raise ValueError(f"{file} must be results of {kind} or not exist, but holds {held}; {advice}")


def _holds(file: Path, stamped: Mapping[str, Any]) -> bool:
    content = encode(stamped, Place("", file.stem, {}))
    before, now = ({**found, PROVENANCE: None} for found in (read_json(file), json.loads(json.dumps(content))))
    return before == now
