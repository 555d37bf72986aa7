"""Words from results as every page can show them: names may hold any character, and fonts do not have all."""

import unicodedata
from functools import cache
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.ft2font import FT2Font

KEPT: Final = "\t\n"  # of the control characters
TURNING: Final = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def clean(words: str) -> str:
    r"""Returns words without characters that are none: controls, halves of pairs, and such as turn the text around.

    Each is spelled out by its code, so that what was there can be seen.

    Args:
        words: Of results, which may hold anything that JSON can.

    Examples:
        >>> clean("a\x07b")
        'a[U+0007]b'
    """
    if words.isascii() and words.isprintable():
        return words
    return "".join(_spell(letter) if _is_none(letter) else letter for letter in words)


def spell_out(words: str) -> str:
    """Returns words with each character that figures and the PDF have no glyph for spelled out by its code.

    Both are drawn with fonts that come with their libraries, so that they are the same bytes on every machine.

    Args:
        words: As `clean` returns them, or not.

    Examples:
        >>> spell_out("réseau 模")
        'réseau [U+6A21]'
    """
    cleaned = clean(words)
    if cleaned.isascii():
        return cleaned
    known = _list_glyphs()
    return "".join(letter if letter in KEPT or ord(letter) in known else _spell(letter) for letter in cleaned)


def _is_none(letter: str) -> bool:
    return letter in TURNING or (letter not in KEPT and unicodedata.category(letter) in {"Cc", "Cs", "Cn", "Co"})


def _spell(letter: str) -> str:
    return f"[U+{ord(letter):04X}]"


@cache
def _list_glyphs() -> frozenset[int]:
    """Returns the characters of the font that comes with matplotlib."""
    return frozenset(FT2Font(str(find_font())).get_charmap())


def find_font() -> Path:
    """Returns the font that comes with matplotlib, DejaVu Sans, whatever else is installed."""
    return Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
