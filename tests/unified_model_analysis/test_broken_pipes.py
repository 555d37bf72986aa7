"""What a command says where nobody reads on, and where its output cannot be written."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lottery_tickets import Mask

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "import sys; from unified_model_analysis.cli import main; sys.exit(main())"]


def start(*words: str, **options: Any) -> "subprocess.Popen[str]":  # noqa: ANN401 - as Popen's
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    environment.pop("PYTHONUNBUFFERED", None)  # so that what is written last is written when Python ends
    return subprocess.Popen([*COMMAND, *words], text=True, env=environment, stderr=subprocess.PIPE, **options)


@pytest.mark.parametrize("words", [["mask", "show"], ["--help"]])
def test_who_stops_reading_is_told_nothing(tmp_path: Path, words: list[str]) -> None:
    path = tmp_path / "mask.safetensors"
    Mask.from_tensors({f"layer{number}.weight": torch.eye(2) for number in range(5000)}).save(path)
    reader, writer = os.pipe()
    os.close(reader)
    with start(*words, *([str(path)] if words[0] == "mask" else []), stdout=writer) as process:
        os.close(writer)
        _, said = process.communicate(timeout=60)
    assert said == ""
    assert process.returncode in {0, 141}


def test_output_on_a_full_disk_is_said_once(tmp_path: Path) -> None:
    path = tmp_path / "mask.safetensors"
    Mask.from_tensors({"w": torch.eye(2)}).save(path)
    with Path("/dev/full").open("w") as full, start("mask", "show", str(path), stdout=full) as process:
        _, said = process.communicate(timeout=60)
    assert said == ("lottery-tickets: No space left on device; make room and run the same command again\n")
    assert process.returncode == 2
