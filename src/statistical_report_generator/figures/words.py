"""Words of results in figures: names of others are shown as they are, never read as formulas or markup."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Final

from matplotlib.font_manager import FontProperties, findfont, get_font

MOST_LETTERS: Final = 28
UNKNOWN: Final = "\N{REPLACEMENT CHARACTER}"  # the font has it


def show_words(words: str, most: int = MOST_LETTERS) -> str:
    """Returns words as matplotlib shows them letter by letter: no formula, no letter that the font lacks, not too long.

    Args:
        words: Of the results.
        most: Letters; of longer words the middle is left out.
    """
    known = _list_letters()
    letters = "".join(letter if ord(letter) in known else UNKNOWN for letter in " ".join(words.split()))
    shown = shorten(letters, most).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown  # legends leave out what begins so


def shorten(words: str, most: int) -> str:
    """Returns words of at most so many letters: of longer ones the middle is left out, for names differ at both ends.

    Args:
        words: Any.
        most: Letters, at least 3.

    Examples:
        >>> shorten("model.layers.17.self_attn.q_proj.weight", 24)
        'model.layer…_proj.weight'
    """
    if len(words) <= most:
        return words
    ahead = (most - 1) // 2
    return f"{words[:ahead]}…{words[len(words) - (most - 1 - ahead) :]}"


def tell_apart(names: Sequence[str], most: int = MOST_LETTERS) -> list[str]:
    """Returns names as `show_words` does; where one is too long, without the parts that all of them begin and end with.

    For what tells long names apart often stands in the middle, which would be left out.

    Args:
        names: Such as paths of files, or layers of a deep model.
        most: Letters.

    Examples:
        >>> tell_apart(["fc.weight", "head.weight"])
        ['fc.weight', 'head.weight']
        >>> tell_apart([f"model.layers.{number}.self_attn.q_proj.weight" for number in (8, 10)])
        ['layers.8', 'layers.10']
    """
    if all(len(name) <= most for name in names) or len(set(names)) == 1:
        return [show_words(name, most) for name in names]
    parts = [re.split("(?<=[/.])", name) for name in names]
    num_ahead = _count_common(parts)
    num_behind = _count_common([part[num_ahead:][::-1] for part in parts])
    if num_ahead and all(part[num_ahead].rstrip("/.").isdigit() for part in parts):  # of which list is it the number
        num_ahead -= 1
    rests = ["".join(part[num_ahead : len(part) - num_behind]).rstrip("/.") for part in parts]
    return [show_words(rest or name, most) for rest, name in zip(rests, names, strict=True)]


def _count_common(parts: Sequence[Sequence[str]]) -> int:
    """Returns how many parts all lists begin with, one less than the shortest has, so that something is left."""
    most = min(map(len, parts)) - 1
    return next((place for place in range(most) if len({part[place] for part in parts}) > 1), most)


@cache
def _list_letters() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties())).get_charmap())
