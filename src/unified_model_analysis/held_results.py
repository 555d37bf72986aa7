"""The results folder of a command that can be continued: held by one process, with the options it was begun with."""

import contextlib
import errno
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unified_model_analysis.options import list_settings

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@contextlib.contextmanager
def hold_results(
    folder: Path, command: str, options: "DataclassInstance", may_change: Collection[str]
) -> Iterator[None]:
    """Holds a folder of results; the library cannot know whether data and batches are those of before, the options do.

    Args:
        folder: Where the results go.
        command: Its name.
        options: All that were given.
        may_change: The names of those that may differ from a run to its continuation.

    Raises:
        ValueError: When the folder is of others or in use, or the run was begun with other options, or by an earlier
            version with options that the command no longer has.
    """
    from lottery_tickets.storage import RunFolder

    given: dict[str, Any] = {f"--{name.replace('_', '-')}": value for name, value in list_settings(options).items()}
    fixed = given.keys() - {f"--{name.replace('_', '-')}" for name in may_change}
    held = RunFolder(folder, f"results of {command}", f"lottery-tickets {command}")
    before = held.read_settings() if held.list_environments() else {}
    if gone := [f"{name} {value}" for name, value in before.items() if name not in given and value is not None]:
        raise ValueError(
            f"{folder} was begun by an earlier version with {', '.join(gone)}, which `{command}` now has under another "
            "name or not at all; name a new folder, or go on with that version"
        )
    with held.opened({name: given[name] for name in fixed}):
        yield


def list_run_caveats(folder: Path, kind: str) -> list[str]:
    """Returns what the run inside the results could not make sure of, in sentences.

    Args:
        folder: Of the run.
        kind: What the run is, as its folder says.
    """
    from lottery_tickets.storage import RunFolder
    from statistical_report_generator.claims.assessment import list_caveats

    run = RunFolder(folder, kind)
    return list_caveats({"environments": run.list_environments(), "unidentified": run.list_unidentified()})


def check_place(path: Path, *, force: bool) -> None:
    """Raises an OSError where no file can be written, before the work whose results it is to hold.

    Args:
        path: Of the file.
        force: Whether a file that exists may be replaced.

    Raises:
        ValueError: When it exists and may not.
        OSError: When no file can be there.
    """
    if path.is_file() and not force:
        raise ValueError(f"{path} exists and would be replaced; name another place, or say so with --force")
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    check_above(path)


def check_above(path: Path) -> None:
    """Raises a NotADirectoryError where a file lies in place of a folder that a path is to be in."""
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(above))
