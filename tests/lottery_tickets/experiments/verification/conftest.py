"""A finished run, made once a file."""

import shutil
from pathlib import Path

import pytest

from tests.lottery_tickets.experiments.verification.runs import make_run, make_workload_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    make_run(folder)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to be tampered with."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture(scope="module")
def finished_workload_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    make_workload_run(folder)
    return folder


@pytest.fixture
def workload_run(finished_workload_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run of a workload, two replicates of one ticket each, to be tampered with."""
    return Path(shutil.copytree(finished_workload_run, tmp_path / "run"))
