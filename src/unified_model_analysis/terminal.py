"""How commands talk: paragraphs that a terminal does not break within words, and pipes get whole."""

import shutil
import sys
import textwrap
from typing import Final

WIDEST: Final = 100  # columns of text; longer lines are hard to read


def say(*paragraphs: str) -> None:
    """Prints paragraphs; on a terminal in lines that it has room for, of whole words, with what follows indented.

    Args:
        paragraphs: Each a line without breaks. Words, such as paths, are never broken.
    """
    for paragraph in paragraphs:
        print(wrap(paragraph, shutil.get_terminal_size().columns) if sys.stdout.isatty() else paragraph, flush=True)


def wrap(paragraph: str, columns: int) -> str:
    """Returns a paragraph in lines of at most so many columns, and at most 100, as far as its words allow.

    Args:
        paragraph: Leading spaces stay, and the lines that follow are indented by two more.
        columns: That there are.

    Examples:
        >>> print(wrap("  one two three", 9))
          one two
            three
    """
    words = paragraph.lstrip(" ")
    indent = " " * (len(paragraph) - len(words))
    lines = textwrap.wrap(
        words,
        min(columns, WIDEST),
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines)
