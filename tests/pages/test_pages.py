"""Each page from top to bottom: its code and its commands, in one folder, as a reader types them.

Not among the tests of `make test`, which run the code of all pages and try whether the shell takes their commands:
`make docs-commands` runs these, and `make check` calls it.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

from tests.pages.reading import PAGES, ROOT, Step, read_steps
from tests.pages.stand_ins import GIVEN, NOT_TYPED, make, short_trainings, shorten
from tests.unified_model_analysis.test_cli import Output
from unified_model_analysis.cli import main

MODULE: Final = "my_project"  # of a reader, with the code of the page that she reads
WITH_COMMANDS: Final = [page for page in PAGES if any(step.is_ours for step in read_steps(page))]
pytestmark = pytest.mark.commands


@pytest.fixture(scope="module", autouse=True)
def _short() -> Iterator[None]:
    with short_trainings():
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `lottery-tickets demo`, with short trainings."""
    place = tmp_path_factory.mktemp("demo") / "runs" / "demo"
    assert main(["demo", "--output", str(place)]) == 0
    return place


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_runs_from_top_to_bottom(
    page: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    place = tmp_path / "page"
    place.mkdir()
    monkeypatch.chdir(place)
    for name in GIVEN.get(str(page.relative_to(ROOT)), ()):
        make(name, place, run)
    module: Any = ModuleType(MODULE)
    monkeypatch.setitem(sys.modules, MODULE, module)
    for step in read_steps(page):
        if not step.is_command:
            exec(compile(step.text, step.place, "exec"), vars(module))  # noqa: S102 - the code of our own pages
        elif step.is_ours and step.text not in NOT_TYPED:
            code = type_in(step, tmp_path)
            assert code == 0, f"{step.place}: exit code {code}, {capsys.readouterr().err}"


def type_in(step: Step, place: Path) -> int:
    """Returns the exit code of a command."""
    try:
        return main(shorten(step.words[1:], place))
    except SystemExit as end:  # of --help
        return int(end.code or 0)
