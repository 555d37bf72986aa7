"""The results folder of a command that can be continued: held by one process, with the options it was begun with."""

import contextlib
import json
from collections.abc import Collection, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        ValueError: When the folder is of others or in use, or the run was begun with other options.
    """
    from lottery_tickets.storage import RunFolder

    given: dict[str, Any] = {
        f"--{name.replace('_', '-')}": value for name, value in asdict(options).items() if name not in may_change
    }
    settings = json.loads(json.dumps(given, default=str))
    with RunFolder(folder, f"results of {command}", f"lottery-tickets {command}").opened(settings):
        yield
