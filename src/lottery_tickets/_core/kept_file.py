"""A file of results that the same call goes on from: held by one process, with its own hash."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from lottery_tickets._core.files import exclusive_lock, is_leftover
from lottery_tickets._core.folders import read_hashed, write_hashed
from lottery_tickets._core.records import Record


@final
@dataclass(frozen=True)
class KeptFile:
    """A JSON file that grows while it is computed.

    Attributes:
        path: The file.
        record: What the file says of how it was made.
    """

    path: Path
    record: Record

    @contextlib.contextmanager
    def opened(self) -> Iterator[dict[str, Any] | None]:
        """Holds the file for this process; gives what it holds, None where it does not exist yet.

        Raises:
            ValueError: When it is in use, is no file of ours, or was altered.
        """
        lock = self.path.with_name(f".{self.path.name}.lock")
        with exclusive_lock(lock, of=self.path):
            try:
                for beside in self.path.parent.iterdir():
                    if is_leftover(beside, of=self.path.name):
                        beside.unlink(missing_ok=True)
                yield read_hashed(self.path) if self.path.exists() else None
            finally:
                lock.unlink(missing_ok=True)

    def write(self, values: Mapping[str, Any]) -> None:
        """Writes the values, stamped and with their hash, whole."""
        write_hashed(self.path, self.record.stamp(values))
