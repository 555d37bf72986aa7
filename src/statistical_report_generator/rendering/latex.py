r"""Tables and methods as LaTeX for papers. What a table holds is shown: no word of results is read as a command.

A table needs \usepackage{booktabs} and nothing else, in every engine and font encoding: what is written is ASCII.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from statistical_report_generator.document import MARK, Table
from statistical_report_generator.papers.methods import Statement
from statistical_report_generator.words import clean

SPELLED: Final = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    '"': r"\char34{}",  # active in some languages of babel
    "`": "`{}",
    "?": "?{}",  # with a grave accent behind them these two are others
    "!": "!{}",
    "[": "{[}",  # an option, behind the end of a row
    "]": "{]}",
    "*": "{*}",
    "−": "$-$",  # noqa: RUF001 - a minus sign
    "–": "--",  # noqa: RUF001 - a dash
    "—": "---",
    "…": r"\ldots{}",
    "±": r"$\pm$",
    "×": r"$\times$",  # noqa: RUF001 - a sign for times
    "·": r"$\cdot$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "ß": r"\ss{}",
    "\N{ZERO WIDTH SPACE}": "",
    **dict.fromkeys("\n\t\N{NO-BREAK SPACE}", " "),
}
ACCENTS: Final = {
    "\N{COMBINING GRAVE ACCENT}": "`",
    "\N{COMBINING ACUTE ACCENT}": "'",
    "\N{COMBINING CIRCUMFLEX ACCENT}": "^",
    "\N{COMBINING TILDE}": "~",
    "\N{COMBINING DIAERESIS}": '"',
    "\N{COMBINING RING ABOVE}": "r",
    "\N{COMBINING CARON}": "v",
    "\N{COMBINING CEDILLA}": "c",
    "\N{COMBINING DOUBLE ACUTE ACCENT}": "H",
}
TWICE: Final = re.compile(r"([-,'])(?=\1)")  # two of these are drawn as one
PAIR: Final = 2  # a name with its value, which may be long; a letter with its accent


def escape_latex(words: str) -> str:
    r"""Returns words as LaTeX that shows them, character by character; one that it has not is given by its code.

    Args:
        words: Any.

    Examples:
        >>> print(escape_latex("50 % of a_b \\input{x}"))
        50 \% of a\_b \textbackslash{}input\{x\}
    """
    return "".join(map(_escape, TWICE.sub("\\1\0", clean(words)))).replace("\0", "{}")


def _escape(letter: str) -> str:
    if letter in SPELLED:
        return SPELLED[letter]
    if letter.isascii():
        return letter
    parts = unicodedata.normalize("NFD", letter)
    if len(parts) == PAIR and parts[0].isascii() and parts[0].isalpha() and parts[1] in ACCENTS:
        return rf"\{ACCENTS[parts[1]]}{{{parts[0]}}}"
    return f"{{[}}U+{ord(letter):04X}{{]}}"


def render_latex(table: Table) -> str:
    r"""Returns a table as a `table` environment with booktabs' rules, to be put into a paper by \input.

    Args:
        table: Of the report.
    """
    sides = ["r" if place in table.numeric else "l" for place in range(len(table.headings))]
    if len(sides) == PAIR and not table.numeric:
        sides[1] = r"p{0.6\linewidth}"
    return "\n".join(
        [
            f"% {MARK}; needs \\usepackage{{booktabs}}",
            r"\begin{table}",
            r"  \centering",
            f"  \\caption{{{escape_latex(table.caption)}}}",
            f"  \\label{{tab:{re.sub('[^A-Za-z0-9-]', '-', table.name)}}}",
            f"  \\begin{{tabular}}{{{''.join(sides)}}}",
            r"    \toprule",
            f"    {_join(table.headings)}",
            r"    \midrule",
            *(f"    {_join(row)}" for row in table.rows),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _join(cells: Sequence[str]) -> str:
    return f"{' & '.join(map(_escape_cell, cells))} \\\\"


def _escape_cell(words: str) -> str:
    """Returns a cell; the hyphen before a number is a minus."""
    return re.sub(r"(?:(?<![\w}])|(?<=\{\[\}))-(?=[\d.])", "$-$", escape_latex(words))


def render_methods(statements: Sequence[Statement]) -> str:
    r"""Returns methods as a paragraph that cites the keys of methods.bib.

    Args:
        statements: The sentences.
    """
    lines = (f"{escape_latex(one.words)}{_cite(one.cites)}." for one in statements)
    return "\n".join([f"% {MARK}; the keys are those of methods.bib", *lines, ""])


def _cite(keys: Sequence[str]) -> str:
    return f"~\\cite{{{','.join(keys)}}}" if keys else ""
