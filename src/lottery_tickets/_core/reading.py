"""What goes wrong where files are read, in one place and in words: which file, what is wrong, what is allowed."""

import contextlib
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Final, Literal, Union, final, get_args, get_origin, get_type_hints, is_typeddict

import torch
from torch import Tensor

MOST_LETTERS: Final = 80  # of what was got
MOST_NAMES: Final = 3  # of many
LETTERS_OF_HEAD: Final = 12  # bytes of a file that are looked at, and shown
WORDS: Final[Mapping[object, str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    None: "null",
    list: "a list",
    dict: "an object",
    tuple: "a tuple",
    Tensor: "a tensor",
}

# The form of a JSON value: a type, `object` for any value; None; a tuple of forms, any of which will do; a list of one
# form, that of all items; a mapping by name, where `...` stands for all other names. A name may be missing where its
# form is in `Maybe`.
Form = Any
Format = Literal["safetensors", "torch"]


@final
@dataclass(frozen=True)
class Maybe:
    """The form of what need not be there."""

    form: Form


def check_file(path: Path, what: str = "a file") -> None:
    """Raises where there is nothing to read.

    Args:
        path: Of the file.
        what: That it must be, such as "a safetensors file".

    Raises:
        FileNotFoundError: When there is no such file.
        IsADirectoryError: When it is a folder.
        OSError: When the system does not let us look.
        ValueError: When it is empty, a device or a pipe, or the path is none.
    """
    name = str(path) if str(path).isprintable() else repr(str(path))  # files name others, and may name them anyhow
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"{name} must be {what}, but there is no such file; check the name") from error
    except ValueError as error:  # a zero byte
        raise ValueError(f"{show(str(path))} must be {what}, but is no path ({error}); check the name") from error
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(f"{name} must be {what}, but is a folder; name a file in it")
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{name} must be {what}, but is a device or a pipe; name a plain file")
    if not found.st_size:
        raise ValueError(f"{name} must be {what}, but is empty; was it cut short? restore it, or make it again")


def find_format(path: Path, what: str) -> Format:
    """Returns what a file with tensors is, by how it begins.

    Args:
        path: Of the file.
        what: As in `check_file`.

    Raises:
        OSError: As `check_file`.
        ValueError: As `check_file`, and when it is neither.
    """
    check_file(path, what)
    with path.open("rb") as file:
        head = file.read(LETTERS_OF_HEAD)
    if head[8:9] == b"{":  # behind the length of its header
        return "safetensors"
    if head.startswith((b"PK", b"\x80")):  # a zip; before torch 1.6 a pickle
        return "torch"
    raise ValueError(
        f"{path} must be {what}, but is no safetensors file and no torch file (it begins with {head!r}); is it another "
        "file, or was it altered?"
    )


def read_torch(path: Path, what: str = "a torch file") -> Any:  # noqa: ANN401 - anything, until its reader has checked it
    """Returns what a torch file holds, on the CPU; none of its code runs.

    Args:
        path: Of the file.
        what: As in `check_file`.

    Raises:
        OSError: As `check_file`.
        ValueError: When the file is cut short, altered, no torch file, or needs code.
    """
    if find_format(path, what) != "torch":
        raise ValueError(f"{path} must be {what}, but is a safetensors file; name another")
    try:
        with path.open("rb") as file:  # and not the path: by its name torch may take it for another format
            return torch.load(file, map_location="cpu", weights_only=True)
    # The file is a program for torch's unpickler. Of a garbled one anything comes: IndexError, struct.error, ...
    except Exception as error:
        reason = say_briefly(error).partition(" Please file an issue")[0]  # torch goes on with advice to run the code
        raise ValueError(
            f"{path} must be {what}, but reading it gave: {reason}; was it cut short or altered?"
        ) from error


def read_text(path: Path) -> str:
    """Returns the text of a file; it may also be a pipe.

    Raises:
        OSError: As `check_file`.
        ValueError: When it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} must be a text in UTF-8, but the byte {error.object[error.start]:#04x} at {error.start} is not; "
            "convert it"
        ) from error
    except (OSError, ValueError):
        check_file(path, "a text file")
        raise


@contextlib.contextmanager
def naming(place: object, must: str) -> Iterator[None]:
    """Within the block, a ValueError about what a file holds becomes one that says which file.

    Args:
        place: The file or folder.
        must: What it must be or hold.
    """
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{place} must {must}, but {error}") from error


def check_form(value: object, form: Form, where: str) -> None:
    """Raises a ValueError where a JSON value is not of a form; says where, what was got and what is allowed.

    Args:
        value: As JSON gives it.
        form: See `Form`.
        where: What messages call it: the file, or the place.

    Examples:
        >>> check_form({"seeds": [1, 2], "note": None}, {"seeds": [int], ...: (str, None)}, "run.json")
        >>> check_form({"seeds": [1, "2"]}, {"seeds": [int]}, "run.json")
        Traceback (most recent call last):
        ValueError: run.json: seeds[1] must be a whole number, but is '2'; was it altered?
    """
    for place, allowed, got in _list_odd(value, form, ""):
        at = f"{where}: {place.lstrip('.')}" if place else where
        raise ValueError(f"{at} must be {allowed}, but is {got}; was it altered?")


def _list_odd(value: Any, form: Form, place: str) -> Iterator[tuple[str, str, str]]:  # noqa: ANN401 - JSON is anything
    """Yields where a value is of another form: the place, what is allowed, what was got."""
    if isinstance(form, tuple):
        tried = [next(_list_odd(value, one, place), None) for one in form]
        if None not in tried:
            inner = [odd for odd in tried if odd is not None and odd[0] != place]  # of the form that fits best
            yield inner[0] if inner else (place, " or ".join(map(_say_form, form)), show(value))
    elif isinstance(form, list):
        yield from _list_odd(value, list, place)
        for number, item in enumerate(value if isinstance(value, list) else ()):
            yield from _list_odd(item, form[0], f"{place}[{number}]")
    elif isinstance(form, Mapping):
        yield from _list_odd(value, dict, place)
        if isinstance(value, dict):
            yield from _list_odd_names(value, form, place)
    elif not _is_of(value, form):
        yield place, _say_form(form), show(value)


def _say_form(form: Form) -> str:
    return WORDS[list if isinstance(form, list) else dict if isinstance(form, Mapping) else form]


def _list_odd_names(value: Mapping[Any, Any], form: Mapping[Any, Form], place: str) -> Iterator[tuple[str, str, str]]:
    for name, inner in form.items():
        if name is not ... and name not in value and not isinstance(inner, Maybe):
            yield f"{place}.{name}", "there", "missing"
    for name, item in value.items():
        if name in form or ... in form:
            inner = form[name] if name in form else form[...]
            yield from _list_odd(
                item, inner.form if isinstance(inner, Maybe) else inner, f"{place}.{show_name(str(name))}"
            )


def _is_of(value: object, kind: object) -> bool:
    if kind is object:
        return True
    if kind is None:
        return value is None
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (float, int) if kind is float else kind)  # type: ignore[arg-type] # a type, as `Form` says


def make_form(kind: Any) -> Form:  # noqa: ANN401 - annotations are of many types
    """Returns the form of what an annotation allows, as far as JSON has it.

    Args:
        kind: A type, a union, a list, a mapping by name, a TypedDict or a dataclass, or a tuple, which JSON has as a
            list.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if is_typeddict(kind) or is_dataclass(kind):
        forms = {name: make_form(hint) for name, hint in get_type_hints(kind).items()}
        optional = getattr(kind, "__optional_keys__", ())
        return {name: Maybe(form) if name in optional else form for name, form in forms.items()}
    if origin in {Union, UnionType}:
        return tuple(make_form(one) for one in arguments)
    if origin is Literal:
        return tuple({type(one) for one in arguments})
    if origin in {list, tuple, Sequence}:
        return [tuple(make_form(one) for one in arguments if one is not ...)]
    if origin in {dict, Mapping}:
        return {...: make_form(arguments[1])}
    return {Any: object, type(None): None}.get(kind, kind)


def say_briefly(error: BaseException) -> str:
    """Returns what an exception says, in one line; its type where it says nothing."""
    lines = str(error).split("\n")
    said = " ".join(" ".join(lines[:2] if lines[0].endswith(":") else lines[:1]).split())
    return show_name(said, 300) if said else type(error).__name__


def show(value: object) -> str:
    """Returns a value as Python writes it, cut where it is long."""
    try:
        words = repr(value)
    except (ValueError, RecursionError):  # an integer of more digits than Python writes; lists without end
        return f"a {type(value).__name__} too long to show"
    return words if len(words) <= MOST_LETTERS else f"{words[:MOST_LETTERS]}..."


def show_name(name: str, most: int = MOST_LETTERS) -> str:
    """Returns a name that stands in a sentence; without line breaks and the like, which would end the line."""
    words = name if name.isprintable() else repr(name)
    return words if len(words) <= most else f"{words[:most]}..."


def list_names(names: Mapping[str, object] | list[str]) -> str:
    """Returns the first few of many names, and how many more there are."""
    shown = ", ".join(show_name(name) for name in list(names)[:MOST_NAMES])
    return shown + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")
