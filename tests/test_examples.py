"""The examples run: scripts as they stand, notebooks cell by cell."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_scripts_run(script: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(script)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("notebook", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_run_and_are_stored_without_outputs(notebook: Path, tmp_path: Path) -> None:
    held = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call] # nbformat has no types here
    assert all(not cell.get("outputs") for cell in held.cells)
    NotebookClient(held, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert any(cell.get("outputs") for cell in held.cells)
    assert list(tmp_path.glob("*.png"))
