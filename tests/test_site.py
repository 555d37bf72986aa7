"""The documentation as a site: every link and every name of the reference is found, and every page is in the menu."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

import lottery_tickets
from unified_model_analysis.cli import Command

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.glob("*.md"), *DOCS.glob("howto/*.md")])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(place)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return place


def test_each_public_name_is_in_the_reference(site: Path) -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in site.glob("api/*.html"))
    functions = [name for name in lottery_tickets.__all__ if callable(getattr(lottery_tickets, name))]
    assert len(functions) > 40
    missing = [name for name in functions if f'id="lottery_tickets.{name}"' not in pages]
    assert missing == []


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    page = (site / "index.html").read_text(encoding="utf-8")
    fetched = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(https?:[^"]*)"', page)
    assert [address for address in fetched if 'rel="canonical"' not in address] == []


def list_commands() -> list[tuple[str, str]]:
    """Returns each command of the shell that a page names, with the page."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL))
        inline = re.findall(r"`(lottery-tickets [a-z][^`]*)`", text)
        for line in [*blocks.splitlines(), *inline]:
            command = line.partition(" #")[0].strip()
            words = command.split()
            is_whole = (
                len(words) > 2
                and words[2:] not in (["make"], ["show"], ["create"])
                and words[-1] not in {"--help", "...", "FILE", "RUN", "FOLDER"}
            )  # else a mention
            if command.startswith("lottery-tickets ") and is_whole:
                found.append((str(page.relative_to(ROOT)), command))
    return found


@pytest.mark.parametrize(("page", "command"), list_commands())
def test_each_command_of_the_pages_is_one_that_the_shell_takes(page: str, command: str) -> None:
    """Parsed and not run: many train for hours. The examples of `--help` are run."""
    assert page
    tyro.cli(Command, args=shlex.split(command)[1:])  # raises SystemExit where it is none
