"""Times iterative pruning of LeNet-300-100 in two processes here, and on Dask with two workers.

Run with `python -m benchmarks.cluster.executors`; some minutes on two cores. Both run in turns, each into a new folder.
Dask's workers are processes of this machine that have just begun, as those here do; how long its cluster takes to begin
is told beside. Both must leave the same bytes.
"""

import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from distributed import Client

from benchmarks.common import write_results
from lottery_tickets.experiments.folder import ExperimentFolder
from lottery_tickets.experiments.plan import ExperimentPlan
from lottery_tickets.experiments.run import run_experiment
from lottery_tickets.experiments.schedules import PruningSchedule
from lottery_tickets.experiments.workload_subject import WorkloadSource
from lottery_tickets.integrations.dask import opened_dask

NUM_WORKERS: Final = 2
NUM_REPLICATES: Final = 2
NUM_LEVELS: Final = 2
NUM_STEPS: Final = 300
REPEATS: Final = 3


def make_source() -> WorkloadSource:
    """Returns LeNet-300-100 on Fashion-MNIST, trained for a part of its recipe."""
    source = WorkloadSource("fashion-mnist", "lenet-300-100")
    recipe = replace(source().workload.recipe, num_steps=NUM_STEPS, evaluation_interval=100)
    return replace(source, recipe=recipe)


def read_all(run: Path) -> dict[str, bytes]:
    """Returns the bytes of all files of a run."""
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def time_run(folder: ExperimentFolder, source: WorkloadSource, **settings: Any) -> float:  # noqa: ANN401 - of `run_experiment`
    """Returns the seconds of a run from its first training to its results."""
    start = time.perf_counter()
    run_experiment(folder, source, **settings)
    return time.perf_counter() - start


def main() -> None:
    """Times both in turns and writes what they took."""
    source = make_source()
    plan = ExperimentPlan(
        source().describe(),
        PruningSchedule(),
        num_levels=NUM_LEVELS,
        num_steps=NUM_STEPS,
        control_levels=(NUM_LEVELS,),
        num_replicates=NUM_REPLICATES,
    )
    seconds: dict[str, list[float]] = {"processes": [], "dask": [], "dask_begins": []}
    load = os.getloadavg()
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as place:
            runs = {name: ExperimentFolder(Path(place) / name, plan) for name in ("processes", "dask")}
            seconds["processes"].append(time_run(runs["processes"], source, num_workers=NUM_WORKERS))
            start = time.perf_counter()
            with opened_dask(num_workers=NUM_WORKERS) as client:
                client.wait_for_workers(NUM_WORKERS)
                seconds["dask_begins"].append(time.perf_counter() - start)
                seconds["dask"].append(time_run(runs["dask"], source, executor=check_client(client)))
            assert read_all(runs["processes"].path) == read_all(runs["dask"].path)
        print({name: round(times[-1], 1) for name, times in seconds.items()}, flush=True)
    settings = {
        "num_workers": NUM_WORKERS,
        "num_replicates": NUM_REPLICATES,
        "num_trainings": plan.num_trainings,
        "num_steps": NUM_STEPS,
        "load_before": load,
    }
    write_results("executors", {"seconds": seconds, "settings": settings})


def check_client(client: Client) -> Client:
    """Returns a client whose workers have one thread each."""
    threads = set(client.nthreads().values())
    assert threads == {1}, threads
    return client


if __name__ == "__main__":
    main()
