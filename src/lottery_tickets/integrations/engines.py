"""Engines that train elsewhere, each by a name that stands in a line."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from lottery_tickets.experiments.elsewhere.tasks import Executor

LOCAL: Final = "dask://local"
DASK: Final = "dask://"
SLURM: Final = "slurm:"


@contextlib.contextmanager
def opened_executor(named: str | None, num_workers: int | None, output: Path) -> Iterator[Executor | None]:
    """Gives the engine that an option names, and None where there is none.

    Args:
        named: "dask://HOST:PORT", "dask://local" or "slurm:NAME=VALUE,NAME=VALUE".
        num_workers: Processes, of "dask://local".
        output: Of the command; Slurm's files go beside it.

    Raises:
        ModuleNotFoundError: When its library is not installed; says which extra has it.
        OSError: When it cannot be reached.
        ValueError: When there is no such engine.
    """
    if named is None:
        yield None
    elif named == LOCAL or named.startswith(DASK):
        from lottery_tickets.integrations.dask import opened_dask  # noqa: PLC0415 - only where it is asked for

        address = None if named == LOCAL else f"tcp://{named.removeprefix(DASK)}"
        with opened_dask(address, num_workers=num_workers) as client:
            yield client
    else:
        from lottery_tickets.integrations.slurm import SlurmExecutor  # noqa: PLC0415 - as above

        place = output.absolute()
        yield SlurmExecutor(place.with_name(f"{place.name}-slurm"), **_read_options(named.removeprefix(SLURM)))


def check_executor(named: str | None, num_workers: int | None) -> None:
    """Raises a ValueError where an option names no engine, or one that has workers of its own beside their number.

    Args:
        named: As in `opened_executor`.
        num_workers: As in `opened_executor`.
    """
    if named is None:
        return
    if not re.fullmatch(rf"{LOCAL}|{DASK}\S+:\d+|{SLURM}.*", named):
        raise ValueError(
            f"--executor must be dask://HOST:PORT, dask://local or slurm:NAME=VALUE,NAME=VALUE, got {named!r}"
        )
    if num_workers is not None and named != LOCAL:
        raise ValueError("--workers counts processes on this machine; leave it out, the engine has workers of its own")
    if named.startswith(SLURM):
        _read_options(named.removeprefix(SLURM))


def _read_options(text: str) -> dict[str, Any]:
    """Returns options by name, numbers as numbers; a value may have commas."""
    pairs = [pair.partition("=") for pair in re.split(r",(?=\w+=)", text) if pair]
    if odd := [name for name, equals, _ in pairs if not equals]:
        raise ValueError(f"options of slurm: must be NAME=VALUE, got {odd[0]!r}")
    return {name: int(value) if value.isdecimal() else value for name, _, value in pairs}
