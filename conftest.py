"""What every test shares: fenced examples of the documentation, types and shapes checked at run time, seeds."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from jaxtyping import install_import_hook
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

SOURCE = Path(__file__).parent / "src"


def _mechanisms() -> list[str]:
    """Returns the modules of `_core` but the kernels: numba compiles functions, not their checked wrappers."""
    paths = (SOURCE / "lottery_tickets" / "_core").rglob("*.py")
    names = [".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in paths]
    return [name for name in names if ".kernels" not in name and not name.endswith("__init__")]


# Arguments are checked once, at the public edge, with errors for people; below it, in the tests, each call is checked
# against its annotation. The hook must be in place before the package is imported.
install_import_hook(_mechanisms(), "beartype.beartype")


@pytest.fixture
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in an empty folder, for examples that write files."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _seed_torch(request: pytest.FixtureRequest) -> Iterator[None]:
    """Seeds torch as pytest-randomly seeds random and numpy, and puts its global state back."""
    import torch  # noqa: PLC0415 - after the import hook, and not at all for `pytest --help`

    seed = request.config.getoption("randomly_seed", default=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed if isinstance(seed, int) else 0)
        yield


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["README.md", "docs/**/*.md", "docs/*.md"],
    fixtures=["in_empty_folder"],
).pytest()
