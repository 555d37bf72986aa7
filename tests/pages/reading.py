"""What a page shows to be typed: its code and its commands, in the order in which they stand."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent.parent
DOCS: Final = ROOT / "docs"
PAGES: Final = sorted([ROOT / "README.md", *DOCS.glob("*.md"), *DOCS.glob("howto/*.md")])
PROGRAM: Final = "lottery-tickets"
NAMES: Final = {"mask": 2, "ticket": 2, "pip": 2}  # words that say which command it is; one of others
BLOCK: Final = r"^```(?P<language>\w+)\n(?P<block>.*?)^```$"
INLINE: Final = r"`(?P<inline>(?:[^`\n]|\n(?!\n))+)`"
SHOWN: Final = re.compile(f"{BLOCK}|{INLINE}", re.DOTALL | re.MULTILINE)
TYPED: Final = re.compile(rf"({PROGRAM}|make|pip|(\.venv/bin/)?python) ")  # how what is typed at a shell begins


@dataclass(frozen=True)
class Step:
    """Something to run.

    Attributes:
        page: Where it stands, below the root.
        line: Its first line there.
        text: Code of Python, or one command of the shell.
        is_command: Whether it is the latter.
    """

    page: str
    line: int
    text: str
    is_command: bool

    @property
    def is_ours(self) -> bool:
        """Whether it is a command of this library."""
        return self.is_command and self.words[0] == PROGRAM

    @property
    def words(self) -> list[str]:
        """A command's words."""
        return shlex.split(self.text)

    @property
    def place(self) -> str:
        """Where it stands, in words."""
        return f"{self.page}:{self.line}: {self.text.splitlines()[0]}"


def read_steps(page: Path) -> list[Step]:
    """Returns what a page shows to be run: blocks of code, lines of blocks for the shell, and commands in sentences."""
    return list(_read(page.read_text(encoding="utf-8"), str(page.relative_to(ROOT))))


def _read(text: str, page: str) -> Iterator[Step]:
    for found in SHOWN.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        if found["language"] == "python":
            yield Step(page, line, found["block"], is_command=False)
        elif found["language"] == "bash":
            for number, command in enumerate(found["block"].splitlines(), start=line + 1):
                if words := shlex.split(command, comments=True):
                    yield Step(page, number, shlex.join(words), is_command=True)
        elif found["inline"] and is_whole(found["inline"]):
            yield Step(page, line, shlex.join(shlex.split(found["inline"])), is_command=True)


def is_whole(command: str) -> bool:
    """Whether words in a sentence are a command to be typed; others mention one, or have FILE where a name goes.

    Examples:
        >>> is_whole("lottery-tickets verify runs/demo"), is_whole("lottery-tickets verify RUN")
        (True, False)
        >>> is_whole("lottery-tickets mask show"), is_whole("make")
        (False, False)
    """
    if not TYPED.match(command):
        return False
    words = command.split()
    num_names = 1 + NAMES.get(words[1], 1) if words[0] == PROGRAM else NAMES.get(words[0], 1)
    return len(words) > num_names and not any(re.fullmatch("[A-Z]+|\\.\\.\\.", word) for word in words)
