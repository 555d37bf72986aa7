"""Figures told to somebody else's logger while something trains; no logger can change a training, nor end it."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Protocol, final, runtime_checkable

from lottery_tickets._core.determinism import seeded

messages = logging.getLogger(__name__)
SEED: Final = 0  # what a logger draws under; the generators of the training are put back


@runtime_checkable
class Logger(Protocol):
    """What figures are told to: anything that has this method."""

    def log(self, values: Mapping[str, float], step: int) -> object:
        """Takes figures by name.

        Args:
            values: Numbers by name, with "/" between a group and what is in it.
            step: When they were taken: steps, epochs or levels, as the names say. Not ascending over several groups.
        """
        ...


@final
class Log:
    """Tells figures to loggers. One that raises is named once, in a warning of this module's logger, and all goes on.

    Args:
        loggers: One, several, or None.

    Raises:
        TypeError: When one has no `log`.

    Examples:
        >>> class Printer:
        ...     def log(self, values, step):
        ...         print(step, values)
        >>> Log(Printer()).tell({"train": {"loss": 0.5, "note": "fine"}}, 3)
        3 {'train/loss': 0.5}
    """

    def __init__(self, loggers: object = None) -> None:
        given: list[Any] = [] if loggers is None else _list(loggers)
        for logger in given:
            if not callable(getattr(logger, "log", None)):
                raise TypeError(
                    f"a logger must have a method log(values, step), but a {type(logger).__name__} has none; "
                    "lottery_tickets.integrations has some for TensorBoard and Weights & Biases"
                )
        self._loggers: list[Logger] = given
        self._failed: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._loggers)

    def tell(self, values: Mapping[str, Any], step: int) -> None:
        """Tells all numbers in nested dicts, each by its way through them; all else is left out.

        Args:
            values: Figures.
            step: When they were taken.
        """
        if not self._loggers:
            return
        numbers = dict(list_numbers(values))
        for place, logger in enumerate(self._loggers):
            try:
                with seeded(SEED):
                    logger.log(dict(numbers), step)
            except Exception as error:  # noqa: BLE001 - of code of others, which must not end a training
                if place not in self._failed:
                    self._failed.add(place)
                    messages.warning("%s could not log, and all goes on: %r", type(logger).__name__, error)


def list_numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yields the numbers in nested dicts with their names.

    Args:
        values: Of any kind.
        prefix: Before each name.
    """
    for key, value in values.items():
        if isinstance(value, dict):
            yield from list_numbers(value, f"{prefix}{key}/")
        elif isinstance(value, int | float):
            yield f"{prefix}{key}", float(value)


def _list(loggers: object) -> list[Any]:
    return list(loggers) if isinstance(loggers, Iterable) and not hasattr(loggers, "log") else [loggers]
