"""Files and folders that appear whole: written aside, flushed to the disk, then renamed; and their hashes."""

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

import safetensors

from lottery_tickets._core.reading import check_file, say_briefly

# Nobody else ends a name like this, so what a killed process leaves can be told from files of others.
ASIDE: Final = ".lottery-tickets.part"
LOCK: Final = ".lock"  # of a folder, in it
PROBE_BYTES: Final = 1 << 16
MOST_DEPTH: Final = 100  # of lists in lists in JSON; what we write has some ten
DEEP: Final = f"its lists or objects are nested too deeply, more than {MOST_DEPTH} times"


class InUseError(ValueError):
    """Somebody else holds a lock."""


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Has `write` fill a file, see `writing_file`."""
    with writing_file(path) as aside:
        write(aside)


@contextlib.contextmanager
def writing_file(path: Path) -> Iterator[Path]:
    """Gives a file to fill beside `path`, then renames it: readers see the old file or the new, never half.

    Raises:
        OSError: When the place cannot be written or the disk is full; the old file is as it was.
    """
    make_folder(path.parent)
    aside = name_aside(path)
    try:
        with _telling_causes(path):
            aside.touch(exist_ok=False)  # now, because a library that writes it may hide why it cannot
            mode = aside.stat().st_mode
            yield aside
            aside.chmod(mode)  # that of the umask: safetensors puts a file of its own in place, for its owner alone
            flush_to_disk(aside)
            aside.replace(path)
            flush_to_disk(path.parent)  # the new name is an entry of the folder
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def writing_folder(path: Path) -> Iterator[Path]:
    """Gives a folder to fill, which then appears as `path`, whole, or not at all.

    Raises:
        OSError: As `writing_file`.
    """
    make_folder(path.parent)
    aside = name_aside(path)
    try:
        with _telling_causes(path):
            aside.mkdir()
            yield aside
            flush_to_disk(aside)
            aside.replace(path)
            flush_to_disk(path.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Makes a folder, and those that it is in.

    Raises:
        NotADirectoryError: When a file lies there, or where one of those should be; it is named.
        OSError: When the place cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        file = next((place for place in (path, *path.parents) if place.exists() and not place.is_dir()), path)
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(file)) from error


def remove_folder(path: Path) -> None:
    """Deletes a folder; a reader sees it whole or not at all."""
    aside = name_aside(path)
    path.replace(aside)
    shutil.rmtree(aside)


def is_leftover(path: Path, of: str = "") -> bool:
    """Returns whether a name is that of a write that was cut off: of any file, or of the one of this name."""
    start = f".{re.escape(of)}" if of else r"\..+"
    return re.fullmatch(rf"{start}\.[0-9a-f]+{re.escape(ASIDE)}", path.name) is not None


def remove_leftovers(folder: Path) -> None:
    """Deletes what writes that were cut off have left aside, at any depth.

    Links are not followed, and folders whose own lock somebody holds are left alone.
    """
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(place, name)
            if is_leftover(path):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        locked = [name for name in folders if Path(place, name, LOCK).exists()]
        for name in locked:
            with contextlib.suppress(InUseError), exclusive_lock(Path(place, name, LOCK)):
                remove_leftovers(Path(place, name))
                remove_lock(Path(place, name, LOCK), only_if_alone=True)
        folders[:] = [name for name in folders if not is_leftover(Path(name)) and name not in locked]


def remove_lock(lock: Path, *, only_if_alone: bool = False) -> None:
    """Deletes a lock that this process holds, and its folder when that is empty then."""
    if only_if_alone and any(path != lock for path in lock.parent.iterdir()):
        return
    lock.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        lock.parent.rmdir()


def flush_to_disk(path: Path) -> None:
    """Makes a file's bytes, or a folder's entries, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hash_file(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: object) -> None:
    """Writes strict JSON, whole; NaN, Infinity and lists in lists beyond 100 times are a ValueError."""
    try:
        text = json.dumps(value, indent=2, allow_nan=False) + "\n"
        _check_depth([value])
    except RecursionError as error:
        raise ValueError(DEEP) from error
    write_whole(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> Any:  # noqa: ANN401 - JSON is anything until its reader has checked it
    """Returns the value in a JSON file.

    Raises:
        OSError: When there is no such file, or it cannot be read.
        ValueError: When it is cut short, or not the JSON that we write; the message names it.
    """
    check_file(path, "a whole JSON file")
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        message = (
            f"{path} must be a whole JSON file, but reading it gave: {say_briefly(error)}; restore it or delete it and "
            "run again"
        )
        raise ValueError(message) from error


def parse_json(text: str) -> Any:  # noqa: ANN401 - as above
    """Returns the value of a JSON text; numbers beyond floats (1e999) and deep nesting are a ValueError."""
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_parse_float)
    except RecursionError as error:
        raise ValueError(DEEP) from error
    if text.count("[") + text.count("{") > MOST_DEPTH:
        _check_depth(value)
    return value


def _check_depth(value: object) -> None:
    """Raises where lists and objects are nested so deeply that what walks through them would run out of stack."""
    layer: list[Any] = [value]
    for _ in range(MOST_DEPTH):
        held = [one.values() if isinstance(one, dict) else one for one in layer]
        layer = [item for items in held for item in items if isinstance(item, dict | list)]
        if not layer:
            return
    raise ValueError(DEEP)


@contextlib.contextmanager
def exclusive_lock(
    path: Path, *, of: Path | None = None, while_waiting: Callable[[], object] | None = None
) -> Iterator[Callable[[], bool]]:
    """Holds an advisory lock for the life of the block; the system frees it when the process dies, however it dies.

    Gives what tells whether the lock that is held still lies there: its folder may be removed, and made anew.

    Args:
        path: The lock.
        of: What it is the lock of, its folder when None.
        while_waiting: Called again and again while another holds it; None does not wait.

    Raises:
        InUseError: When another process, or another block of this one, holds it.
        OSError: When the system gives no lock there.
    """
    while True:
        make_folder(path.parent)
        with _try_lock(path) as is_there:
            if is_there is not None:
                yield is_there
                return
        if while_waiting is None:
            raise InUseError(
                f"{of or path.parent} must be used by one process at a time, but another holds it; wait for it or stop "
                "it"
            )
        while_waiting()


@contextlib.contextmanager
def _try_lock(path: Path) -> Iterator[Callable[[], bool] | None]:
    """Holds a lock; gives what tells whether it still lies there, or None where another holds it."""
    import fcntl  # noqa: PLC0415 - not on Windows, where runs are not supported

    with path.open("w") as file:

        def is_there() -> bool:
            try:
                return os.path.samestat(path.stat(), os.fstat(file.fileno()))
            except FileNotFoundError:
                return False

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
        else:
            yield is_there if is_there() else None  # its last holder may have removed it


def name_aside(path: Path) -> Path:
    """Returns a new name in the same folder, because a rename is atomic within one file system only."""
    if not path.name:  # of "." or "/"
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{ASIDE}")


@contextlib.contextmanager
def _telling_causes(path: Path) -> Iterator[None]:
    """Turns what libraries raise where a file cannot be written into the system's own error, about this path."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    except (safetensors.SafetensorError, RuntimeError) as error:
        code = _find_cause(path.parent, str(error))
        if code is None:
            raise
        raise OSError(code, os.strerror(code), str(path)) from error


def _find_cause(folder: Path, said: str) -> int | None:
    """Returns the system's error number: the one that was said, or the one that writing into the folder gives."""
    if found := re.search(r"os error (\d+)", said):
        return int(found[1])
    probe = name_aside(folder / "probe")
    try:
        probe.write_bytes(bytes(PROBE_BYTES))
    except OSError as error:
        return error.errno
    finally:
        probe.unlink(missing_ok=True)
    return None


def _parse_float(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _refuse(digits)


def _refuse(number: str) -> NoReturn:
    raise ValueError(f"{number} is not allowed, because numbers must be finite")
