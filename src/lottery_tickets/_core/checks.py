"""Checks of arguments that several public functions share."""

from numbers import Integral


def check_count(argument: str, value: object, allowed: str = "an integer of at least 1") -> int:
    """Returns a number of things, which is at least 1.

    Args:
        argument: What the caller calls it.
        value: What the caller gave.
        allowed: What the error says is allowed.

    Raises:
        TypeError: When it is not an integer.
        ValueError: When it is less than 1.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{argument} must be {allowed}, got {value!r}")
    if value < 1:
        raise ValueError(f"{argument} must be {allowed}, got {value!r}")
    return int(value)
