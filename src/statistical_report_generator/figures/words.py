"""Words of results in figures: names of others are shown as they are, never read as formulas or markup."""

import os.path
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

    Example:
        >>> shorten("model.layers.17.self_attn.q_proj.weight", 24)
        'model.layer…_proj.weight'
    """
    if len(words) <= most:
        return words
    ahead = (most - 1) // 2
    return f"{words[:ahead]}…{words[len(words) - (most - 1 - ahead) :]}"


def drop_common(names: Sequence[str]) -> list[str]:
    """Returns names without the folder and the ending that all of them have, so that what tells them apart is left.

    Args:
        names: Such as paths of files.

    Example:
        >>> drop_common(["runs/a/mask.safetensors", "runs/b/mask.safetensors"])
        ['a', 'b']
        >>> drop_common(["layers.1.weight", "layers.2.weight", "layers.1.weight"])
        ['layers.1', 'layers.2', 'layers.1']
    """
    if len(set(names)) < 2:  # noqa: PLR2004 - one is told apart from nothing
        return list(names)
    ahead = os.path.commonprefix(list(names)).rfind("/") + 1  # noqa: RUF071 - it is cut at a folder
    rests = [name[ahead:] for name in names]
    behind = os.path.commonprefix([rest[::-1] for rest in rests])[::-1]  # noqa: RUF071 - it is cut at a dot
    cut = min((place for mark in "/." if (place := behind.find(mark)) >= 0), default=len(behind))
    kept = [rest[: len(rest) - len(behind) + cut] for rest in rests]
    return kept if all(kept) else rests


@cache
def _list_letters() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties())).get_charmap())
