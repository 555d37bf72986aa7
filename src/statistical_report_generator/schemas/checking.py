"""Are results what their kind says: whole, of the right shapes, with finite numbers; in words where they are not."""

import json
import math
from numbers import Integral, Real
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

LARGEST: Final = 1e150  # squares and sums of larger ones overflow
SURE: Final = 1 << 62  # integers up to this are numbers for everybody
MOST_DEPTH: Final = 64
MOST_LETTERS: Final = 80  # of what was got

Place = tuple[str | int, ...]


def to_plain(value: Any, where: str, place: Place = ()) -> Any:  # noqa: ANN401 - any result
    """Returns results as plain dicts, lists and numbers; what is none of these, such as a tensor or a mask, stays.

    Args:
        value: Read from a file, or handed in.
        where: What messages call it.
        place: In it.

    Raises:
        ValueError: When a number is not finite or too large to compute with, a name is no word, or when it is nested
            deeper than 64 times.
    """
    if not place and _is_plain(value, 0):  # as files nearly always are: nothing to say, nothing to copy
        return value
    if len(place) > MOST_DEPTH:
        raise ValueError(
            f"{where} must be nested at most {MOST_DEPTH} times, but is deeper at {format_place(place[:4])}"
        )
    if isinstance(value, dict):  # not any mapping: a mask would unpack its bits
        if odd := [name for name in value if not isinstance(name, str)]:
            raise ValueError(f"{where} must have words for names, but {format_place(place)} has {_shorten(odd[0])}")
        return {name: to_plain(item, where, (*place, name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item, where, (*place, number)) for number, item in enumerate(value)]
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not abs(number) <= LARGEST:
        got = f"{format_place(place)} is {_shorten(value)}"
        raise ValueError(f"{where} must hold finite numbers, up to {LARGEST:g}, but {got}; leave it out or say null")
    return int(value) if isinstance(value, Integral) else number


def _is_plain(value: object, depth: int) -> bool:
    """Returns whether `to_plain` would change nothing, fast; where in doubt it says no."""
    kind = type(value)
    if kind is float or kind is int:
        return abs(value) <= (LARGEST if kind is float else SURE)  # type: ignore[arg-type] # a number
    if value is None or kind is str or kind is bool:
        return True
    if depth >= MOST_DEPTH:
        return False
    if kind is list:
        return all(_is_plain(item, depth + 1) for item in value)  # type: ignore[attr-defined] # a list
    if kind is dict:
        return all(type(name) is str and _is_plain(item, depth + 1) for name, item in value.items())  # type: ignore[attr-defined] # a dict
    return False


def check_results(adapter: TypeAdapter[Any], results: Any, where: str, kind: str) -> Any:  # noqa: ANN401 - of the kind's type
    """Returns results that are of their kind's type.

    Args:
        adapter: Of the type.
        results: Plain.
        where: What messages call them.
        kind: Of analysis.

    Raises:
        ValueError: When they are not; says the place, what was got and what is allowed.
    """
    try:
        return adapter.validate_python(results)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        place = format_place(tuple(first["loc"]))
        if first["type"] == "missing":
            has = ", ".join(map(show_name, sorted(first["input"])[:8])) if isinstance(first["input"], dict) else ""
            words = f"{place} must be there, but there is only {has or 'nothing'}"
        elif first["type"] == "value_error":
            words = f"{place}: {message}"
        else:
            words = f"{place} {message}, got {_shorten(first['input'])}"
        more = f" ({error.error_count() - 1} more such places)" if error.error_count() > 1 else ""
        raise ValueError(
            f"{where} must hold whole results of kind {kind!r}, but {words}{more}; was it edited?"
        ) from error


def render_schema(adapter: TypeAdapter[Any], kind: str, version: int) -> str:
    """Returns the JSON Schema document (draft 2020-12) of a kind's type.

    Args:
        adapter: Of the type.
        kind: Of analysis.
        version: Of its schema.
    """
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **adapter.json_schema(),
        "title": f"lottery-tickets {kind} {version}",
    }
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def format_place(place: Place) -> str:
    """Returns such as "rows[3].sparsity"; "the top level" where there is no place."""
    words = ""
    for part in place:
        words += f"[{part}]" if isinstance(part, int) else f".{show_name(part)}"
    return words.removeprefix(".") or "the top level"


def show_name(name: str) -> str:
    """Returns a name that stands in a sentence; without line breaks and the like, which would end the line."""
    return (name if name.isprintable() else repr(name))[:MOST_LETTERS]


def _shorten(value: object) -> str:
    try:
        words = repr(value)
    except ValueError:  # an integer of more digits than Python writes
        return "a number of thousands of digits"
    return words if len(words) <= MOST_LETTERS else f"{words[:MOST_LETTERS]}..."
