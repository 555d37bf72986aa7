"""What becomes of a changed file: it is read, refused as documented, or something else happens."""

import builtins
import contextlib
import inspect
import io
import logging
import random
import re
import resource
import shutil
import signal
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final, final

from benchmarks.studies.fuzzing.mutators import list_changes
from benchmarks.studies.fuzzing.sealing import seal
from unified_model_analysis.cli import main

MOST_SECONDS: Final = 10.0  # for one file; all that are whole take far below one
MOST_BYTES: Final = 4 << 30  # of memory that may be asked for beyond what the process has
WRONG_INPUT: Final = 2
WHOLE: Final = "whole"
SEALED: Final = ", sealed"
SHARE_SEALED: Final = 0.5  # of changes after which hashes are made anew


class TooSlowError(BaseException):
    """One file took longer than it may; no `Exception`, so that nobody catches it."""


@final
@dataclass(frozen=True)
class FileKind:
    """A kind of file, and who reads it.

    Attributes:
        name: A row of the table.
        make: Fills a folder with files that are whole, and returns those that are changed.
        read: What users call, given the folder.
        documents: The functions whose docstrings say what may be raised.
        command: The words of a command that reads it too, given the folder; none where there is no such command.
        names_place: Whether errors name the file or a folder that it is in.
        compares: Whether what is read of a changed file, whose hashes were not made anew, must be what is read of the
            whole one; else that it is read is enough.
    """

    name: str
    make: Callable[[Path], Sequence[Path]]
    read: Callable[[Path], object]
    documents: tuple[Callable[..., object], ...]
    command: Callable[[Path], Sequence[str]] | None = None
    names_place: bool = True
    compares: bool = False

    @property
    def documented(self) -> tuple[type[BaseException], ...]:
        """The exceptions under "Raises:", but TypeError: that is for arguments, which are right here."""
        known = vars(builtins)
        texts = [inspect.getdoc(function) or "" for function in self.documents]
        names = {name for text in texts for name in re.findall(r"^    (\w+(?:Error|Exit)):", text, re.MULTILINE)}
        return tuple(known[name] for name in sorted(names - {"TypeError"}) if name in known)


@dataclass
class Outcomes:
    """Counts over changed files.

    Attributes:
        read: That were read.
        refused: With an exception that is documented.
        undocumented: With another one, by its type.
        unclear: Refused, but in several lines, or without the name of the file.
        examples: One message or the end of a traceback for each type that is undocumented or unclear.
    """

    read: int = 0
    refused: int = 0
    undocumented: Counter[str] = field(default_factory=Counter)
    unclear: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns the counts."""
        return {name: value for name, value in vars(self).items() if name != "examples"}


def fuzz(kind: FileKind, place: Path, num_files: int, seed: int = 0) -> Outcomes:
    """Returns what becomes of changed files of one kind.

    Args:
        kind: Which.
        place: A folder, made anew.
        num_files: How many are changed, one at a time.
        seed: Draws the changes.
    """
    found, whole = Outcomes(), None
    for target, how in _change_files(kind, place, num_files, seed):
        if how == WHOLE:
            whole = kind.read(place) if kind.compares else None
            continue
        _judge(kind, place, how, found, (place.name, target.stem, target.parent.name), whole=whole)
    return found


def fuzz_command(kind: FileKind, place: Path, num_files: int, seed: int = 1) -> Outcomes:
    """Returns what the command of a kind says to changed files; arguments as for `fuzz`.

    Raises:
        ValueError: When the command fails on files that are whole, so that it would say nothing.
    """
    found = Outcomes()
    assert kind.command is not None, f"{kind.name} must have a command"
    words = list(kind.command(place))
    for _, how in _change_files(kind, place, num_files, seed):
        shutil.rmtree(name_output(place).parent, ignore_errors=True)
        if how == WHOLE:
            with _quiet():
                code = main(words)
            if code:
                raise ValueError(f"{words} must succeed on whole files, but ends with {code}")
        else:
            _judge_command(words, how, found)
    return found


def name_output(place: Path) -> Path:
    """Returns where a command writes: beside the folder that is changed."""
    return place.parent / f"{place.name}-output" / "output"


def _change_files(kind: FileKind, place: Path, num_files: int, seed: int) -> Iterator[tuple[Path, str]]:
    """Changes one file at a time, after none, and yields which and how; before the next the folder is as it was."""
    chance = random.Random(f"{seed} {kind.name}")  # noqa: S311 - no secret
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    targets = kind.make(place)
    with _quiet():
        kind.read(place)  # what is whole can be read; what reading adds belongs to it
    whole = {path.relative_to(place): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    yield targets[0], WHOLE
    for _ in range(num_files):
        target = chance.choice(targets)
        how = _change_file(target, chance, list(whole.values()))
        if chance.random() < SHARE_SEALED and seal(place):
            how += SEALED
        yield target, f"{target.name}: {how}"
        _restore(place, whole)


def _change_file(path: Path, chance: random.Random, others: Sequence[bytes]) -> str:
    content, share = path.read_bytes(), chance.random()
    if share < 0.005:  # noqa: PLR2004 - a few of each
        path.unlink()
        return "missing"
    if share < 0.01:  # noqa: PLR2004 - as above
        path.unlink()
        path.mkdir()
        return "a folder"
    if share < 0.02:  # noqa: PLR2004 - as above
        path.write_bytes(b"")
        return "empty"
    if share < 0.04:  # noqa: PLR2004 - as above
        foreign = chance.choice(
            (*others, b"NaN", b"\x80\x02}q\x00.", b"null", b"[]", b"{}", b"\x1f\x8b", b"PK\x03\x04")
        )
        path.write_bytes(foreign)
        return "another file"
    change = chance.choice(list_changes(content))
    path.write_bytes(change(content, chance))
    return change.__name__.strip("_")


def _restore(place: Path, whole: Mapping[Path, bytes]) -> None:
    for path in sorted(place.rglob("*"), reverse=True):
        if path.is_file() and path.relative_to(place) not in whole:
            path.unlink()
        elif path.is_dir() and (path.relative_to(place) in whole or not any(path.iterdir())):
            shutil.rmtree(path)
    for name, content in whole.items():
        path = place / name
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def _judge(kind: FileKind, place: Path, how: str, found: Outcomes, names: Sequence[str], *, whole: object) -> None:
    try:
        with _quiet(), bounded():
            read = kind.read(place)
    except kind.documented as error:
        found.refused += 1
        said = " ".join([str(error), *getattr(error, "__notes__", ())])
        if "\n" in said or (kind.names_place and not any(name in said for name in names)):
            _count(found.unclear, type(error).__name__, how, f"{_tell(error)}: {said}", found)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        _count(found.undocumented, type(error).__name__, how, _tell(error), found)
    else:
        found.read += 1
        if kind.compares and not how.endswith(SEALED) and read != whole:
            _count(found.undocumented, "read as something else", how, str(read), found)


def _judge_command(words: list[str], how: str, found: Outcomes) -> None:
    said = io.StringIO()
    try:
        with _quiet(said), bounded():
            code = main(words)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        _count(found.undocumented, type(error).__name__, how, _tell(error), found)
        return
    last = said.getvalue().rpartition("lottery-tickets: ")
    checked = code == 1 and words[0] == "verify"
    if code == WRONG_INPUT:
        found.refused += 1
        if not last[1] or last[2].count("\n") != 1 or "Traceback" in said.getvalue():
            _count(found.unclear, "in several lines", how, said.getvalue(), found)
    elif code == 0 or checked:
        found.read += 1
    else:
        _count(found.undocumented, f"exit code {code}", how, said.getvalue(), found)


def _count(counts: Counter[str], name: str, how: str, said: str, found: Outcomes) -> None:
    counts[name] += 1
    what = "unclear" if counts is found.unclear else "undocumented"
    found.examples.setdefault(f"{what} {name} {said.partition(' | ')[0]}", f"{said[:800]} [{how}]")


def _tell(error: BaseException) -> str:
    """Returns where an exception comes from, in our code and at all, and what it says."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/src/" in frame.filename]
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in (*ours[-2:], *frames[-1:])]
    return f"{' > '.join(places)} | {error!s}"


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Within the block no more memory is to be had than 4 GiB, and no more time than 10 seconds."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TooSlowError(f"it took more than {MOST_SECONDS} s")

    before, handler = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGALRM, stop)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST_BYTES, before[1]))
    signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextlib.contextmanager
def _quiet(said: io.StringIO | None = None) -> Iterator[None]:
    """Within the block nothing is shown; what goes to stderr is kept."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(said or io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
