"""Compares the time that a command foretells with the time that it then takes.

Run with `python -m benchmarks.speed.time_left`; about ten minutes on two cores. Each command runs as at the shell;
what its bar says is noted with when it was said. The time in question is that of steps, from the first to the last.
"""

import contextlib
import io
import os
import tempfile
import time
from pathlib import Path
from typing import Any, Final
from unittest import mock

import torch

from benchmarks.common import write_results
from lottery_tickets._core.training import pace
from unified_model_analysis.cli import main as run_command

SHARES: Final = (0.25, 0.5, 0.75)  # of the time, at which the time left is looked at
REPEATS: Final = 3
RESNET: Final = ("--model", "resnet-20")
RUNS: Final[dict[str, tuple[str, ...]]] = {
    "imp, LeNet-300-100, 2 replicates, 1 process": ("imp", "--levels=2", "--replicates=2", "--workers=1"),
    "imp, LeNet-300-100, 3 replicates, 2 processes": ("imp", "--levels=2", "--replicates=3", "--workers=2"),
    "imp, ResNet-20, 2 replicates, 1 process": (
        *("imp", *RESNET, "--levels=1", "--steps=15", "--evaluate-every=5", "--replicates=2", "--workers=1"),
    ),
    "imp, ResNet-20, 3 replicates, 2 processes": (
        *("imp", *RESNET, "--levels=1", "--steps=15", "--evaluate-every=5", "--replicates=3", "--workers=2"),
    ),
    "early-bird, ResNet-20": ("early-bird", *RESNET, "--epochs=4", "--check-interval=1"),
}


def follow(words: tuple[str, ...]) -> list[tuple[float, float]]:
    """Returns what a command said about the time left: when, and how many seconds; 0 at the last step."""
    told: list[tuple[float, float]] = []
    foretell, show = pace.StepsBar._foretell, pace.StepsBar.show  # noqa: SLF001 - listens to what is said

    def listen(bar: pace.StepsBar, seconds: float, each: float) -> None:
        told.append((time.perf_counter(), seconds))
        foretell(bar, seconds, each)

    def watch(bar: pace.StepsBar, done: int, **settings: Any) -> None:  # noqa: ANN401 - of `show`
        show(bar, done, **settings)
        if done == bar._total:  # noqa: SLF001 - as above
            told.append((time.perf_counter(), 0.0))

    with (
        mock.patch.object(pace.StepsBar, "_foretell", listen),
        mock.patch.object(pace.StepsBar, "show", watch),
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        if run_command([words[0], "--output", str(Path(folder) / "run"), *words[1:]]) != 0:
            raise SystemExit(2)
    first_end = next(place for place, (_, seconds) in enumerate(told) if seconds == 0)
    return told[: first_end + 1]


def judge(told: list[tuple[float, float]]) -> dict[str, float]:
    """Returns the seconds foretold over those that it took: at first, and at shares of the time."""
    begin, end = told[0][0], told[-1][0]
    ratios = {"seconds": end - begin, "first": told[0][1] / (end - begin)}
    for share in SHARES:
        when, seconds = min(told[:-1], key=lambda one, share=share: abs(one[0] - begin - share * (end - begin)))  # type: ignore[misc] # of each its own
        ratios[f"{share:g}"] = seconds / (end - when)
    return ratios


def main() -> None:
    """Runs all commands in turns and writes the ratios."""
    torch.set_num_threads(1)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in RUNS}
    for _ in range(REPEATS):
        for name, words in RUNS.items():
            found[name].append(judge(follow(words)))
            print(f"{name}: {found[name][-1]}", flush=True)
    settings = {"repeats": REPEATS, "load": os.getloadavg()[0]}
    commands = {name: " ".join(words) for name, words in RUNS.items()}
    write_results("time_left", {"runs": found, "commands": commands, "settings": settings})


if __name__ == "__main__":
    main()
