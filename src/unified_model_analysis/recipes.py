"""Recipes: the options of a command in a TOML file, so that a run can be named, kept and repeated."""

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

RECIPE: Final = "--recipe"


def expand_recipe(words: Sequence[str]) -> list[str]:
    """Returns the words of a command with those of its recipe in place of `--recipe FILE`, before all other options.

    So an option that is given beside a recipe wins.

    Args:
        words: After the program's name.

    Raises:
        ValueError: When the file is no TOML of options, or none is named.
        OSError: When it cannot be read.

    Examples:
        >>> expand_recipe(["imp", "--levels", "2"])
        ['imp', '--levels', '2']
    """
    place = next((number for number, word in enumerate(words) if word.partition("=")[0] == RECIPE), None)
    if place is None:
        return list(words)
    path, others = _take_path(words, place)
    first = next((number for number, word in enumerate(others) if word.startswith("-")), len(others))
    return [*others[:first], *_list_options(Path(path)), *others[first:]]


def _take_path(words: Sequence[str], place: int) -> tuple[str, list[str]]:
    """Returns the path of the recipe, and all words without it."""
    _, equals, path = words[place].partition("=")
    end = place + 1
    if not equals:
        path, end = next(iter(words[end : end + 1]), ""), end + 1
    others = [*words[:place], *words[end:]]
    if not path or any(word.partition("=")[0] == RECIPE for word in others):
        raise ValueError(f"{RECIPE} must name one TOML file of options, such as {RECIPE} imp.toml")
    return path, others


def _list_options(path: Path) -> Iterator[str]:
    try:
        options = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} must be TOML, such as `sparsity = 0.8`, but is not: {error}") from error
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            yield f"--{flag}" if value else f"--no-{flag}"
            continue
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(item, str | int | float) and not isinstance(item, bool) for item in values):
            raise ValueError(
                f"{path} must hold options of the command: numbers, words, true or false, and lists of numbers or "
                f"words; got {_show(value)} for {name}"
            )
        if isinstance(value, list):
            yield from (f"--{flag}", *map(str, values))
        else:
            yield f"--{flag}={value}"


def _show(value: Any) -> str:  # noqa: ANN401 - what TOML holds
    return "a table" if isinstance(value, dict) else repr(value)
