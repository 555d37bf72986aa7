"""Commands that train tell loggers of others their figures, which changes nothing in the results."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lottery_tickets.integrations import wandb
from tests.unified_model_analysis.commands.every_command import forget_times, make_words, read_files
from unified_model_analysis.cli import main


class Recorder:
    """Stands for a run of Weights & Biases."""

    made: ClassVar[list["Recorder"]] = []

    def __init__(self, project: str) -> None:
        self.project, self.names, self.is_closed = project, set[str](), False
        Recorder.made.append(self)

    def log(self, values: Mapping[str, float], step: int) -> None:
        assert step >= 0
        self.names |= values.keys()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.is_closed = True


@pytest.mark.parametrize("name", ["imp", "early-bird"])
def test_what_is_trained_is_told_and_the_results_are_the_same(
    name: str, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb, "WandbLogger", Recorder)
    Recorder.made.clear()
    plain, told, logs = tmp_path / "plain", tmp_path / "told", tmp_path / "logs"
    assert main(make_words(name, given, plain)) == 0
    assert main([*make_words(name, given, told), "--tensorboard", str(logs), "--wandb", "mine"]) == 0
    assert forget_times(read_files(told)) == forget_times(read_files(plain))
    events = EventAccumulator(str(logs))
    events.Reload()
    [run] = Recorder.made
    assert (run.project, run.is_closed) == ("mine", True)
    assert set(events.Tags()["scalars"]) == run.names
    assert any("loss" in one for one in run.names)
    assert main(make_words(name, given, told)) == 0  # the run goes on without them


def test_a_network_of_ones_own_tells_them_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = f"told_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(
        "import torch\n"
        "def make():\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Linear(4, 3), [(torch.randn(9, 4), torch.arange(9) % 3)]\n"
    )
    monkeypatch.chdir(tmp_path)
    words: list[Any] = ["imp", "--output", "run", "--from", f"{module}:make", "--levels", 1, "--epochs", 1]
    assert main([*map(str, words), "--replicates", "2", "--tensorboard", "logs"]) == 0
    events = EventAccumulator("logs")
    events.Reload()
    assert events.Tags()["scalars"]
