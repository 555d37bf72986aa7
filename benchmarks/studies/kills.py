"""Kills runs of every kind of folder by SIGKILL, has them go on, and compares every byte with an undisturbed run.

Run with `python -m benchmarks.studies.kills`; about ten minutes on two cores. Half of the kills come at a random
moment, half right before or after a call of fsync, rename or mkdir, which is where files are half there. A folder is
killed several times before it may end. Each run is a fork of this process, whose start costs nothing; one thread.
"""

import argparse
import contextlib
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from tests.models import make_mlp

from benchmarks.common import write_results
from lottery_tickets import (
    compute_iterative_magnitude_pruning,
    compute_linear_connectivity,
    compute_loss_landscape,
    compute_lottery_ticket_quality,
    create_magnitude_mask,
    find_stable_rewinding_step,
)
from unified_model_analysis.cli import main as run_command

SEED: Final = 0
KILLS_A_FOLDER: Final = 5
CALLS: Final = (("os", "fsync"), ("os", "replace"), ("os", "rename"), ("os", "mkdir"))

Run = Callable[[Path], object]


def command(*words: str) -> Run:
    """Returns a run of the command line in a folder."""

    def run(folder: Path) -> None:
        if run_command([words[0], "--output", str(folder / "run"), *words[1:]]) != 0:
            raise SystemExit(2)

    return run


def make_network() -> Any:  # noqa: ANN401 - model, training data, test data
    """Returns a small network with its data."""
    generator = torch.Generator().manual_seed(SEED)
    inputs, targets = torch.randn(64, 20, generator=generator), torch.arange(64) % 4
    return make_mlp(torch.float32, (20, 40, 4)), [(inputs, targets)], [(inputs + 0.1, targets)]


def prune(folder: Path) -> None:
    """Iterative magnitude pruning of a caller's model."""
    model, data, test = make_network()
    compute_iterative_magnitude_pruning(
        model, data, 0.8, train=True, num_epochs=4, num_replicates=2, evaluation_dataloader=test, run_folder=folder
    )


def train(model: Any, dataloader: Any, *, epochs: int) -> None:  # noqa: ANN401 - as a trainer is called
    """Trains under noise, so that two trainings differ."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(epochs):
        for inputs, targets in dataloader:
            torch.nn.functional.cross_entropy(model(inputs + torch.randn(inputs.shape) / 9), targets).backward()
            optimizer.step()
            optimizer.zero_grad()


def retrain(folder: Path) -> None:
    """A caller's ticket trained again beside its controls."""
    model, data, test = make_network()
    mask = create_magnitude_mask(model, 0.5)
    compute_lottery_ticket_quality(
        model, mask, test, trainer_fn=train, num_epochs=3, train_dataloader=data, num_replicates=3, run_folder=folder
    )


def part(folder: Path) -> None:
    """A caller's ticket trained in pairs that share an epoch."""
    model, data, test = make_network()
    dataset = torch.utils.data.TensorDataset(*data[0])
    loader = torch.utils.data.DataLoader(dataset, batch_size=16, shuffle=True)
    compute_linear_connectivity(
        model, test, trainer_fn=train, train_dataloader=loader, mask=create_magnitude_mask(model, 0.5), num_epochs=3,
        rewind_epoch=1, num_replicates=2, num_points=3, run_folder=folder,
    )  # fmt: skip


def draw(folder: Path) -> None:
    """A landscape in a file."""
    model, data, _ = make_network()
    compute_loss_landscape(model, data, grid_points=21, path=folder / "landscape.json")


def search(folder: Path) -> None:
    """A bisection in a file."""
    find_stable_rewinding_step(lambda step: 1 / (1 + step), 500, path=folder / "search.json", subject={"name": "a"})


SHORT: Final = ("--steps", "20")
RUNS: Final[dict[str, Run]] = {
    "imp": command("imp", "--levels=2", "--replicates=2", "--evaluate-every=20", "--workers=1", *SHORT),
    "early-bird": command("early-bird", "--epochs=3", "--check-interval=1"),
    "connectivity": command(
        *("connectivity", "--rewind-steps", "0", "5", "--search", "--grid-points=3", "--workers=1"), *SHORT
    ),
    "landscape": command("landscape", "--grid-points", "9", "--batches=1"),
    "compute_iterative_magnitude_pruning": prune,
    "compute_lottery_ticket_quality": retrain,
    "compute_linear_connectivity": part,
    "compute_loss_landscape": draw,
    "find_stable_rewinding_step": search,
}


@dataclass
class Counts:
    """What came of the kills of one kind of run."""

    kills: int = 0
    at_random: int = 0
    at_calls: int = 0
    folders: int = 0
    differences: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    failures: int = 0


class Extent(NamedTuple):
    """How long an undisturbed run takes, and how many calls it makes that change the disk."""

    seconds: float
    num_calls: int


def start(
    run: Run, folder: Path, die_at: int | None = None, *, after: bool = False, count_to: Path | None = None
) -> int:
    """Returns the process that runs in a fork.

    Args:
        run: What it runs.
        folder: Where.
        die_at: The number of the call at which it kills itself.
        after: Whether right after the call, or before.
        count_to: Where it writes how many calls it made.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 3
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        number = watch_calls(die_at, after=after)
        run(folder)
        if count_to is not None:
            count_to.write_text(str(number[0]))
        code = 0
    finally:
        os._exit(code)


def watch_calls(die_at: int | None, *, after: bool) -> list[int]:
    """Counts the calls of this process that change the disk, and kills it at one of them; returns the count."""
    number = [0]

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as the call
            number[0] += 1
            if number[0] == die_at and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*arguments, **options)
            if number[0] == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return counted

    for module, name in CALLS:
        setattr(sys.modules[module], name, watched(getattr(sys.modules[module], name)))
    return number


def finish(pid: int) -> int:
    """Waits for a process; returns its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def read_tree(folder: Path) -> dict[str, bytes]:
    """Returns the contents of all files, but for the seconds that a check of early-bird took, which are times."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: re.sub(rb'"seconds": [0-9.e-]+', b"", path.read_bytes()) for name, path in files.items()}


def study(run: Run, num_kills: int, chance: random.Random, place: Path) -> Counts:
    """Kills runs of one kind until so many were killed, and compares each folder when it is done."""
    whole, counted = place / "whole", place / "count"
    whole.mkdir(parents=True)
    began = time.monotonic()
    if finish(start(run, whole, count_to=counted)):
        raise RuntimeError("the undisturbed run must succeed")
    seconds, num_calls, expected = time.monotonic() - began, int(counted.read_text()), read_tree(whole)
    counts = Counts()
    while counts.kills < num_kills:
        folder = place / f"folder-{counts.folders}"
        folder.mkdir()
        counts.folders += 1
        for _ in range(KILLS_A_FOLDER):
            kill_once(run, folder, counts, chance, Extent(seconds, num_calls))
            if counts.kills == num_kills:
                break
        counts.failures += finish(start(run, folder)) != 0
        found = read_tree(folder)
        differing = sorted(n for n in found.keys() & expected.keys() if found[n] != expected[n])
        counts.differences += [*differing, *sorted(expected.keys() - found.keys())]
        counts.leftovers += sorted(found.keys() - expected.keys())
    return counts


def kill_once(run: Run, folder: Path, counts: Counts, chance: random.Random, whole: Extent) -> None:
    """Starts a run and kills it at a random moment or at a random call; a run that ends before is not counted."""
    at_random = counts.at_random <= counts.at_calls  # half of those that came before the end
    if at_random:
        pid = start(run, folder)
        time.sleep(chance.uniform(0, whole.seconds))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    else:
        call, after = chance.randint(1, max(1, whole.num_calls // 2)), chance.random() < 0.5  # noqa: PLR2004 - half of them
        pid = start(run, folder, call, after=after)
    if finish(pid) == -signal.SIGKILL:
        counts.kills += 1
        counts.at_random += at_random
        counts.at_calls += not at_random


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Gives a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory() as place:
        yield Path(place)


def main() -> None:
    """Kills, compares, prints and writes `results/kills.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chance = random.Random(SEED)  # noqa: S311 - when to kill
    found: dict[str, Any] = {}
    each = -(-arguments.kills // len(RUNS))
    for name, run in RUNS.items():
        with scratch() as place:
            counts = study(run, each, chance, place)
        found[name] = vars(counts) | {"differences": dict(Counter(counts.differences))}
        print(name, found[name], flush=True)
    print(write_results("kills", {"seed": SEED, "kills_a_folder": KILLS_A_FOLDER, "runs": found}))


if __name__ == "__main__":
    main()
