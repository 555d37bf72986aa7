"""On a terminal no word is broken and no line is longer than it is wide; a pipe gets whole lines."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unified_model_analysis.test_cli import Output
from unified_model_analysis.terminal import say, wrap

WORDS = st.lists(st.text("abc/._-", min_size=1, max_size=30), min_size=1, max_size=40)


@given(WORDS, st.integers(0, 4), st.integers(10, 200))
def test_lines_are_short_where_words_allow_and_no_word_is_broken(words: list[str], indent: int, columns: int) -> None:
    lines = wrap(" " * indent + " ".join(words), columns).split("\n")
    assert " ".join(lines).split() == words
    for line in lines:
        assert len(line) <= min(columns, 100) or len(line.split()) == 1
    assert len(lines[0]) - len(lines[0].lstrip()) == indent


def test_a_pipe_gets_whole_lines(capsys: Output) -> None:
    say("word " * 100, "")
    assert capsys.readouterr().out == "word " * 100 + "\n\n"


def test_a_terminal_gets_lines_of_its_width(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((60, 24)))
    say("word " * 100)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60
    assert len(lines) > 8
