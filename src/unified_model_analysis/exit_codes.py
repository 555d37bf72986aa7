"""What a command exits with; --help and docs/shell.md say it by this table."""

from enum import IntEnum
from typing import Final, Self


class ExitCode(IntEnum):
    """What a command exits with, and what it means."""

    DONE = 0, "done"
    CHECK_FAILED = (
        1,
        "a check failed: `verify`, `report --verify`, `demo`, `doctor`, `ticket show --check`; nothing else is 1",
    )
    WRONG_INPUT = 2, "wrong arguments or input, or a file that cannot be read or written; one line says which"
    NOT_COMPUTED = 3, "an analysis of `analyze` failed, or an error that nobody foresaw, with its traceback"
    INTERRUPTED = 130, "interrupted; a line says what stays"
    NOBODY_READS = 141, "nobody reads the output any more, as in `| head -1`"

    meaning: str

    def __new__(cls, value: int, meaning: str) -> Self:
        """Returns a code that is its number, with what it means beside it."""
        code = int.__new__(cls, value)
        code._value_ = value
        code.meaning = meaning
        return code


EXIT_CODES: Final = "Exit codes: " + "; ".join(f"{code.value} {code.meaning}" for code in ExitCode) + "."
