"""What a finding of the doctor consists of."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final


class DoctorError(Exception):
    """What a check found to be wrong.

    Args:
        problem: In words.
        advice: What to do.
    """

    def __init__(self, problem: str, advice: str = "") -> None:
        super().__init__(problem)
        self.advice = advice


@final
@dataclass(frozen=True)
class Finding:
    """What one check of an installation found.

    Attributes:
        name: What was looked at.
        found: What is there, or what holds.
        problem: What is wrong; empty where nothing is.
        advice: What to do, also where nothing is wrong but something could be better.
        seconds: How long the check took.
    """

    name: str
    found: str
    problem: str = ""
    advice: str = ""
    seconds: float = 0.0


def examine(name: str, look: Callable[[], Finding | str], advice: str = "") -> Finding:
    """Returns what a check finds; whatever it raises is a finding too, and no check keeps the others from being run.

    Args:
        name: What is looked at.
        look: Returns a finding, or in words what holds.
        advice: What to do when it raises, unless what it raises says so.
    """
    start = time.perf_counter()
    try:
        found = look()
    except DoctorError as error:
        found = Finding(name, "", str(error), error.advice or advice)
    except Exception as error:  # noqa: BLE001 - of a broken installation anything comes, and that is what is looked for
        words = " ".join(str(error).split())
        found = Finding(name, "", f"{type(error).__name__}: {words}" if words else type(error).__name__, advice)
    finding = Finding(name, found) if isinstance(found, str) else found
    return replace(finding, name=name, seconds=round(time.perf_counter() - start, 3))
