"""Experiments as jobs of a real Slurm with two nodes: same bits, killed jobs, a driver that stops, the page."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lottery_tickets.experiments.run import run_experiment
from lottery_tickets.experiments.verification import verify_run
from lottery_tickets.integrations import slurm
from lottery_tickets.integrations.slurm import SlurmExecutor
from tests.lottery_tickets.experiments.elsewhere.spread import (
    list_trainings,
    make_folder,
    make_source,
    prune,
    read_all,
    wait_until,
)
from tests.slurm_cluster import NoSlurmError, running_slurm
from tests.test_repository import ROOT
from unified_model_analysis.cli import main

NUM_STEPS = 400  # some seconds a training
PAGE = ROOT / "docs" / "howto" / "cluster.md"


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """That of a cluster, whose nodes find this checkout and its commands."""
    with tempfile.TemporaryDirectory(prefix="slurm") as folder:  # pytest's own names are too long for a socket
        try:
            with running_slurm(Path(folder)) as environment:
                environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
                yield {**environment, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
        except NoSlurmError as error:
            pytest.skip(str(error))


@pytest.fixture(autouse=True)
def _in_cluster(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATH", "SLURM_CONF", "PYTHONPATH", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, environment[name])
    monkeypatch.setattr(slurm, "LOOK_SECONDS", 1.0)


def list_jobs() -> list[str]:
    listed = subprocess.run(["squeue", "--noheader", "--format=%A"], capture_output=True, text=True, check=True)
    return listed.stdout.split()


def find_workers(logs: Path) -> list[int]:
    """Returns the processes in which jobs train."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().decode().split("\0")
            if words[0] == sys.executable and str(logs) in words:
                found.append(int(process.name))
    return found


def test_replicates_are_jobs_on_nodes_and_give_the_same_bits(tmp_path: Path) -> None:
    source = make_source()
    executor = SlurmExecutor(tmp_path / "logs", partition="short", cpus_per_task=2)
    run_experiment(make_folder(tmp_path / "there", source), source, executor=executor)
    run_experiment(make_folder(tmp_path / "here", source), source)
    assert read_all(tmp_path / "there") == read_all(tmp_path / "here")
    assert [check for check in verify_run(tmp_path / "there") if check.problem] == []


def test_a_job_that_is_killed_in_mid_training_costs_that_training_alone(tmp_path: Path) -> None:
    source = make_source(NUM_STEPS)
    killed: dict[str, int] = {}

    class Killer:
        """A logger, told of each training that has ended, which is in the middle of the next one."""

        def log(self, _values: object, _step: int) -> None:
            if not killed:
                killed.update(list_trainings(tmp_path / "there"))
                os.kill(find_workers(tmp_path / "logs")[0], signal.SIGKILL)

    executor = SlurmExecutor(tmp_path / "logs")
    run = make_folder(tmp_path / "there", source, num_levels=2)
    run_experiment(run, source, executor=executor, logger=Killer())
    assert 0 < len(killed) < 6
    assert killed.items() < list_trainings(tmp_path / "there").items(), "a finished training was computed again"
    assert len(list((tmp_path / "logs").glob("*_submitted.pkl"))) == 3, "one job was given to another worker"
    run_experiment(make_folder(tmp_path / "here", source, num_levels=2), source)
    assert read_all(tmp_path / "there") == read_all(tmp_path / "here")


@pytest.mark.long
def test_a_driver_that_is_stopped_takes_its_jobs_along_and_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["imp", "--output", str(run), "--levels=1", "--replicates=2", "--controls=1", f"--steps={NUM_STEPS}"]
    words += ["--evaluate-every", str(NUM_STEPS), "--executor", "slurm:partition=short,time=5"]
    command = [sys.executable, "-c", "from unified_model_analysis.cli import main; raise SystemExit(main())", *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as driver:
        wait_until(lambda: list_trainings(run))
        driver.send_signal(signal.SIGTERM)
        assert driver.stderr is not None
        said = driver.stderr.read()
    assert driver.returncode == 130
    assert "the same command goes on" in said
    wait_until(lambda: not list_jobs())
    before = list_trainings(run)
    assert 0 < len(before) < 10
    assert main(words) == 0
    assert before.items() < list_trainings(run).items()


def test_what_a_training_raises_comes_back_from_a_node(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the learning rate must be positive") as caught:
        prune(tmp_path / "run", fail, executor=SlurmExecutor(tmp_path / "logs"))
    assert "Traceback" in str(caught.value.__cause__)
    wait_until(lambda: not list_jobs())


def fail(*_: object, **__: object) -> None:
    raise ValueError("the learning rate must be positive, got -1")


def test_options_that_slurm_does_not_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="planet"):
        SlurmExecutor(tmp_path, planet="mars")


@pytest.mark.long
def test_the_script_of_the_page_works_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [script] = re.findall(r"^```bash\n(#!/bin/bash\n.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    Path("imp.sh").write_text(script)
    subprocess.run(["sbatch", "--wait", "imp.sh"], check=True, timeout=250)
    assert [check for check in verify_run("runs/digits") if check.problem] == []
    assert list(Path("runs/digits-slurm").glob("*_submitted.pkl"))
