r"""LaTeX shows words and runs none of them.

The last test needs pdflatex with booktabs, Debian's texlive-latex-recommended; skipped where they are not.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statistical_report_generator.document import Table
from statistical_report_generator.rendering.latex import SPELLED, escape_latex, render_latex
from tests.statistical_report_generator.rendering.reports import HOSTILE, write_report

PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126))
BACK: Final = {spelled: letter for letter, spelled in SPELLED.items() if letter.isascii() and letter.isprintable()}
TOKEN: Final = re.compile("|".join(map(re.escape, sorted(BACK, key=len, reverse=True))) + r"|\{\}|[^\\{}$&%#_^~]")


def read_latex(text: str) -> str:
    """Returns the words that LaTeX shows; fails on any command, group or special character that is not expected."""
    found, place = [], 0
    while place < len(text):
        token = TOKEN.match(text, place)
        assert token is not None, f"{text[place : place + 20]!r} is neither a letter nor one of ours"
        found.append(BACK.get(token[0], "" if token[0] == "{}" else token[0]))
        place = token.end()
    return "".join(found)


@given(PRINTABLE)
def test_what_is_shown_is_what_was_there(words: str) -> None:
    escaped = escape_latex(words)
    assert read_latex(escaped) == words
    assert not re.search(r"--|''|,,|[?!]`|<<|>>", escaped.replace("{}", "\0"))  # ligatures, which would show another


@given(st.text())
def test_what_is_written_is_ascii_in_one_line(words: str) -> None:
    escaped = escape_latex(words)
    assert escaped.isascii()
    assert "\n" not in escaped


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("café Ångström Erdős", r"caf\'{e} \r{A}ngstr\"{o}m Erd\H{o}s"),
        ("模", "{[}U+6A21{]}"),
        ("5 ± 2", r"5 $\pm$ 2"),
        ("a\n\nb", "a  b"),
        ("--x ---''", "-{}-x -{}-{}-'{}'"),
    ],
)
def test_letters_that_latex_reads_in_its_own_way(words: str, expected: str) -> None:
    assert escape_latex(words) == expected


def test_a_table_has_a_row_a_line_and_true_minus_signs() -> None:
    table = Table("a-b", "50 % done", ("x", "y"), (("-0.5 [-1, 2]", "[1]"), ("a-b", "&")), frozenset({0}))
    assert render_latex(table).splitlines()[3:] == [
        r"  \caption{50 \% done}",
        r"  \label{tab:a-b}",
        r"  \begin{tabular}{rl}",
        r"    \toprule",
        r"    x & y \\",
        r"    \midrule",
        r"    $-$0.5 {[}$-$1, 2{]} & {[}1{]} \\",
        r"    a-b & \& \\",
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs Debian's package texlive-latex-recommended")
def test_a_paper_takes_every_table_and_the_methods(tmp_path: Path) -> None:
    files = write_report(tmp_path).with_name("report-files")
    tables = sorted(path.name for path in files.glob("*.tex") if path.name != "methods.tex")
    assert len(tables) == 13
    odd = "".join(map(chr, range(0x20, 0x250)))
    (files / "odd.tex").write_text(render_latex(Table("odd", odd, (HOSTILE, "-"), (("[x", "*"), ("", odd[:95])))))
    inputs = "\n".join(rf"\input{{{name}}}\clearpage" for name in [*tables, "odd.tex", "methods.tex"])
    for encoding in ("OT1", "T1"):
        paper = rf"""\documentclass{{article}}\usepackage[{encoding}]{{fontenc}}\usepackage{{booktabs}}
\begin{{document}}
{inputs}
\bibliographystyle{{plain}}\bibliography{{methods}}
\end{{document}}
"""
        (files / "paper.tex").write_text(paper)
        run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper"], files)
        assert "warning" not in run(["bibtex", "paper"], files).lower()
        assert b"\\bibitem{holm1979simple}" in (files / "paper.bbl").read_bytes()


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    said = done.stdout.decode(errors="replace")
    assert done.returncode == 0, said[-3000:]
    return said
