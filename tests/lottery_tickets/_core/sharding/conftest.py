"""Processes that wait for what is to be checked."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Processes, started


@pytest.fixture(scope="module", params=[2, 4])
def processes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """So many processes in one group."""
    folder: Path = tmp_path_factory.mktemp("processes")
    with started(request.param, folder) as together:
        yield together
