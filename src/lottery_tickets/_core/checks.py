"""Checks that several public functions share: of arguments, and of whether a library is there."""

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterator
from dataclasses import fields
from numbers import Integral, Real
from typing import Any, Final, TypeVar

# Whose frames no warning points at: ours, and those of what checks types at run time.
OWN: Final = ("lottery_tickets", "unified_model_analysis", "beartype", "jaxtyping")
Options = TypeVar("Options")


def check_count(argument: str, value: object, allowed: str = "an integer of at least 1") -> int:
    """Returns a number of things, which is at least 1.

    Args:
        argument: What the caller calls it.
        value: What the caller gave.
        allowed: What the error says is allowed.

    Raises:
        TypeError: When it is not an integer.
        ValueError: When it is less than 1.

    Examples:
        >>> check_count("num_samples", 8)
        8
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{argument} must be {allowed}, got {value!r}")
    if value < 1:
        raise ValueError(f"{argument} must be {allowed}, got {value!r}")
    return int(value)


def check_share(what: str, value: object) -> float:
    """Returns a number that is from 0 to 1.

    Args:
        what: What the number is.
        value: What was got.

    Raises:
        TypeError: When it is no number.
        ValueError: When it is outside, or NaN.

    Examples:
        >>> check_share("threshold", 1)
        1.0
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{what} must be a number from 0 to 1, got {value!r}")
    number = float(value)
    if not 0 <= number <= 1:
        raise ValueError(f"{what} must be from 0 to 1, got {value!r}")
    return number


def check_number(argument: str, value: object, allowed: str, is_allowed: Callable[[float], bool]) -> float:
    """Returns a number that is in some range.

    Args:
        argument: What the caller calls it.
        value: What the caller gave.
        allowed: What the error says is allowed, such as "at least 0".
        is_allowed: Whether a number is in the range; NaN should not be.

    Raises:
        TypeError: When it is no number.
        ValueError: When it is out of the range.

    Examples:
        >>> check_number("momentum", 0.9, "in [0, 1)", lambda value: 0 <= value < 1)
        0.9
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{argument} must be a number {allowed}, got {value!r}")
    if not is_allowed(float(value)):
        raise ValueError(f"{argument} must be {allowed}, got {value!r}")
    return float(value)


def take_options(argument: str, given: Options | None, made: Options, default: Options) -> Options:
    """Returns the options that were given whole, or else those made of single keywords.

    Args:
        argument: What the caller calls the whole.
        given: The whole, None when it was not given.
        made: Made of single keywords.
        default: What `made` is when no keyword was given.

    Raises:
        TypeError: When both were given, or the whole is of another type.
    """
    if given is None:
        return made
    if type(given) is not type(default):
        raise TypeError(f"{argument} must be a {type(default).__name__}, got {given!r}")
    if made != default:
        pairs: Any = (made, default)  # frozen dataclasses of one type
        names = [field.name for field in fields(pairs[0]) if len({getattr(one, field.name) for one in pairs}) > 1]
        raise TypeError(f"{', '.join(names)} must not be given beside {argument}; put it into {argument}")
    return given


def check_any_samples(num_samples: int) -> None:
    """Raises a ValueError when a dataloader has given no sample."""
    if not num_samples:
        raise ValueError("the dataloader must hold at least one sample, but gave none; is it empty?")


def check_restartable(dataloader: object) -> None:
    """Raises a TypeError for an iterator, which is used up after one epoch."""
    if isinstance(dataloader, Iterator):
        got = type(dataloader).__name__
        raise TypeError(f"dataloader must start anew each epoch, but a {got} is used up after one; pass a list")


def warn_caller(message: str) -> None:
    """Warns at the line of the user's code that called into this package, however deep the warning is given.

    Args:
        message: Of the UserWarning.
    """
    frame, level = inspect.currentframe(), 0
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in OWN:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level + 1)


@contextlib.contextmanager
def needing_extra(extra: str) -> Iterator[None]:
    """Within the block, a module that is missing is said with the extra that has it.

    Args:
        extra: Of this distribution.

    Raises:
        ModuleNotFoundError: When a module is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"this needs {error.name}, which is not installed; run: pip install 'lottery-tickets[{extra}]'",
            name=error.name,
        ) from error
