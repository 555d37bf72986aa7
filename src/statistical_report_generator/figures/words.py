"""Words of results in figures: names of others are shown as they are, never read as formulas or markup."""

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


@cache
def _list_letters() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties())).get_charmap())
