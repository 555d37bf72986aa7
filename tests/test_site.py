"""The documentation as a site: every link and every name of the reference is found, and every page is in the menu."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lottery_tickets

ROOT = Path(__file__).parent.parent


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
