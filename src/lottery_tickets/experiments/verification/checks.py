"""What a verification consists of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Check:
    """One thing that was checked.

    Attributes:
        name: What must hold.
        where: The training, or the file.
        problem: What was found instead; empty when it holds.
        note: In words, why it says less than it could; empty when it does not.
    """

    name: str
    where: str
    problem: str = ""
    note: str = ""


def run_check(name: str, where: str, find_problem: Callable[[], str], note: str = "") -> Check:
    """Returns a check that has been run; a file that cannot be read is a problem like any other.

    Args:
        name: What must hold.
        where: The training, or the file.
        find_problem: Returns what is found instead, empty when it holds.
        note: Why it says less than it could.
    """
    try:
        return Check(name, where, find_problem(), note)
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, OSError, RuntimeError) as error:
        return Check(name, where, str(error) or repr(error), note)
