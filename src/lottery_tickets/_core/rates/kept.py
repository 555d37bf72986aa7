"""Rates of this machine, kept in a small file of the user's: seconds of calls by kind and size."""

import math
import os
import platform
import re
from bisect import bisect_left
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, final

import torch

from lottery_tickets._core.files import read_json, write_json
from lottery_tickets._core.rates.work import CALLING, NO_DTYPE, Operation, Work
from lottery_tickets._core.reading import Form, check_form

FORMAT: Final = "lottery-tickets rates 1"
NAME: Final = "rates.json"
FOLDER: Final = "lottery-tickets"
ADVICE: Final = "run lottery-tickets doctor"
PROCESSORS: Final = Path("/proc/cpuinfo")
FORM: Final[Form] = {
    "format": str,
    "machine": {"host": str, "processor": str, "vectors": str, "torch": str, "threads": int},
    "devices": {...: {"name": str, "points": {...: [[(int, float)]]}}},
}
Points = list[tuple[int, float]]  # (size, seconds) of one call, by growing size


class NoRateError(LookupError):
    """A kind of work, or a device, that was not measured."""


@final
@dataclass(frozen=True)
class DeviceRates:
    """What was measured on one device.

    Attributes:
        name: Of the device, as its driver says.
        points: By kind and dtype.
    """

    name: str
    points: Mapping[str, Points]

    def foretell(self, work: Work) -> float:
        """Returns the seconds that work takes, each call as long as one of its size was measured to take.

        Raises:
            NoRateError: When a kind was not measured in a dtype.
        """
        alone = sum((times * self._find_seconds(call) for call, times in work.calls.items()), 0.0)
        return alone + work.num_calls * self._seconds_to_call

    @property
    def _seconds_to_call(self) -> float:
        points = self.points.get(CALLING)
        return points[0][1] / points[0][0] if points else 0.0

    def _find_seconds(self, call: Operation) -> float:
        """Returns the seconds of a call: between two sizes on the line through them in logarithms, else at their rate.

        Smaller ones than were measured take as long as the smallest.
        """
        points = self.points.get(name_points(call.kind, call.dtype))
        if not points:
            raise NoRateError(f"no rate of a {call.kind} in {call.dtype}" if call.dtype else f"no rate of {call.kind}")
        place = bisect_left(points, (call.size, 0.0))
        if place == 0:
            return points[0][1]
        if place == len(points):
            return points[-1][1] * call.size / points[-1][0]
        (low, first), (high, second) = points[place - 1], points[place]
        share = math.log(call.size / low) / math.log(high / low)
        return math.exp((1 - share) * math.log(first) + share * math.log(second))

    def find_largest_rate(self, kind: str, dtype: str = NO_DTYPE) -> float | None:
        """Returns the rate of the largest size of a kind, a second; None where it was not measured."""
        points = self.points.get(name_points(kind, dtype))
        return points[-1][0] / points[-1][1] if points else None


Rates = Mapping[str, DeviceRates]  # by torch's name of the device


def name_points(kind: str, dtype: str) -> str:
    """Returns what points are kept under.

    Examples:
        >>> name_points("product", "float32"), name_points("memory", "")
        ('product float32', 'memory')
    """
    return f"{kind} {dtype}".strip()


def describe_rated_machine() -> dict[str, Any]:
    """Returns what rates depend on: they hold where all of it is the same."""
    return {
        "host": platform.node(),
        "processor": _find_processor(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def _find_processor() -> str:
    with suppress(OSError):
        if found := re.search(r"^model name\s*:\s*(.+)$", PROCESSORS.read_text(encoding="utf-8"), re.MULTILINE):
            return found[1].strip()
    return platform.processor() or platform.machine()


def find_place() -> Path:
    """Returns where rates are kept: in the user's cache folder, XDG_CACHE_HOME or ~/.cache.

    Raises:
        OSError: When the user has no home.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    try:
        folder = Path(given) if Path(given).is_absolute() else Path.home() / ".cache"
    except RuntimeError as error:
        raise FileNotFoundError(f"the user has no home folder ({error}); export XDG_CACHE_HOME=/path") from error
    return folder / FOLDER / NAME


def write_rates(rates: Rates) -> Path:
    """Writes the rates of this machine as it is now, whole, in place of those that are there; returns where.

    Raises:
        OSError: When the place cannot be written.
    """
    devices = {name: {"name": device.name, "points": dict(device.points)} for name, device in rates.items()}
    path = find_place()
    write_json(path, {"format": FORMAT, "machine": describe_rated_machine(), "devices": devices})
    return path


def read_rates() -> tuple[Rates, str]:
    """Returns the rates that were measured on this machine as it is now, or none and in words why."""
    try:
        path = find_place()
        if not path.exists():
            return {}, f"not measured: {ADVICE}"
        found = read_json(path)
        check_form(found, FORM, str(path))
        if found["format"] != FORMAT:
            return {}, f"measured by another version: {ADVICE} again"
        devices = found["devices"].items()
        rates = {name: DeviceRates(device["name"], _check(device["points"])) for name, device in devices}
    except (OSError, ValueError) as error:
        return {}, f"what was measured cannot be read ({error}): {ADVICE} again"
    now = describe_rated_machine()
    for name, value in now.items():
        if found["machine"][name] != value:
            return {}, f"measured with {name} {found['machine'][name]}, but this is {value}: {ADVICE} again"
    return rates, ""


def _check(kept: Mapping[str, list[Any]]) -> dict[str, Points]:
    """Returns points whose numbers can be rates.

    Raises:
        ValueError: When one is zero or less, or sizes do not grow.
    """
    for name, points in kept.items():
        is_right = all(len(point) == 2 and min(point) > 0 for point in points)  # noqa: PLR2004 - size and seconds
        if not points or not is_right or not all(one[0] < other[0] for one, other in pairwise(points)):
            raise ValueError(f"{name} must be growing sizes, each with seconds, got {points!r:.80}")
    return {name: [(int(size), float(seconds)) for size, seconds in points] for name, points in kept.items()}
