"""What tests of all commands are given."""

from pathlib import Path

import pytest

from tests.unified_model_analysis.commands.every_command import save_inputs


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given") / "networks"
    save_inputs(folder)
    return folder
