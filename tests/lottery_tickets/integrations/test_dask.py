"""Experiments on a real cluster of Dask: same bits, a worker killed in mid-training, a driver, a scheduler lost."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster

from lottery_tickets.experiments.run import run_experiment
from lottery_tickets.experiments.verification import verify_run
from lottery_tickets.integrations.dask import opened_dask
from tests.lottery_tickets.experiments.elsewhere.spread import (
    list_trainings,
    make_folder,
    make_source,
    prune,
    read_all,
    train,
    wait_until,
)
from unified_model_analysis.cli import main

NUM_STEPS = 400  # a second a training
SETTINGS = ("--levels=1", "--replicates=2", "--controls=1", "--steps=100", "--evaluate-every=100")


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster:
        yield cluster


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    with Client(cluster) as client:
        yield client


def test_a_client_is_an_executor_as_it_is_and_results_are_the_same_bits(client: Client, tmp_path: Path) -> None:
    source = make_source()
    run_experiment(make_folder(tmp_path / "here", source), source)
    for name, executor in (("client", client), ("futures", client.get_executor())):
        run_experiment(make_folder(tmp_path / name, source), source, executor=executor)
        assert read_all(tmp_path / name) == read_all(tmp_path / "here")


def test_functions_of_a_script_travel_with_their_model_and_data(client: Client, tmp_path: Path) -> None:
    found = prune(tmp_path / "run", lambda model, data, *, epochs: train(model, data, epochs=epochs), executor=client)
    assert [check for check in verify_run(tmp_path / "run") if check.problem] == []
    assert [environment["num_threads"] for environment in found["environments"]] == [1]


def test_a_worker_killed_in_mid_training_costs_that_training_alone(client: Client, tmp_path: Path) -> None:
    source, killed = make_source(NUM_STEPS), dict[str, int]()

    class Killer:
        """A logger, told of each training that has ended, which is in the middle of the next ones."""

        def log(self, _values: object, _step: int) -> None:
            finished = list_trainings(tmp_path / "there")
            if not killed and len({Path(training).parts[0] for training in finished}) == 2:  # each worker's
                killed.update(finished)
                [address, *_] = [worker for worker, tasks in client.processing().items() if tasks]
                os.kill(client.run(os.getpid, workers=[address])[address], signal.SIGKILL)

    run_experiment(make_folder(tmp_path / "there", source, num_levels=2), source, executor=client, logger=Killer())
    assert 0 < len(killed) < 6
    assert killed.items() < list_trainings(tmp_path / "there").items(), "a finished training was computed again"
    run_experiment(make_folder(tmp_path / "here", source, num_levels=2), source)
    assert read_all(tmp_path / "there") == read_all(tmp_path / "here")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command leaves that trains in its own process."""
    run = tmp_path_factory.mktemp("here") / "run"
    assert main(["imp", "--output", str(run), *SETTINGS, "--workers=1"]) == 0
    return run


def start_driver(run: Path, address: str) -> tuple[list[str], "subprocess.Popen[bytes]"]:
    """Returns the words of a command, and the command as it runs."""
    words = ["imp", "--output", str(run), *SETTINGS, "--executor", address]
    command = [sys.executable, "-c", "from unified_model_analysis.cli import main; raise SystemExit(main())", *words]
    return words, subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.long
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_is_killed_or_stopped_goes_on_by_the_same_command(
    sent: signal.Signals, cluster: LocalCluster, here: Path, tmp_path: Path
) -> None:
    address = cluster.scheduler_address.replace("tcp://", "dask://")
    words, driver = start_driver(tmp_path / "run", address)
    with driver:
        wait_until(lambda: list_trainings(tmp_path / "run"))
        driver.send_signal(sent)
    assert driver.returncode == (130 if sent == signal.SIGINT else -sent)
    before = list_trainings(tmp_path / "run")
    assert main(words) == 0
    assert before.items() < list_trainings(tmp_path / "run").items(), "a finished training was computed again"
    assert read_all(tmp_path / "run") == read_all(here)


@pytest.mark.long
def test_a_scheduler_that_goes_away_ends_the_run_in_words(tmp_path: Path) -> None:
    """Its client waits for another one at the same address, as long as Dask says; then nothing hangs."""
    source = make_source(NUM_STEPS)
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "2s"}),
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster.scheduler_address) as client,
    ):

        class Closer:
            def log(self, _values: object, _step: int) -> None:
                cluster.close()

        with pytest.raises(ChildProcessError, match=r"run the same (again|call), which goes on"):
            run_experiment(make_folder(tmp_path, source, num_levels=2), source, executor=client, logger=Closer())
    before = list_trainings(tmp_path)
    run_experiment(make_folder(tmp_path, source, num_levels=2), source)
    assert before.items() < list_trainings(tmp_path).items()


@pytest.mark.long
def test_a_cluster_of_this_machine_is_begun_by_its_name(tmp_path: Path) -> None:
    words = ["connectivity", "--output", str(tmp_path / "there"), "--rewind-steps", "0", "--replicates=2", "--steps=20"]
    words += ["--grid-points=3", "--executor", "dask://local", "--workers", "2"]
    assert main(words) == 0
    assert len(list_trainings(tmp_path / "there" / "trainings" / "step-0")) == 6


def test_a_scheduler_that_does_not_answer_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        assert main(["imp", "--output", str(tmp_path / "run"), "--executor", "dask://127.0.0.1:9"]) == 2
    assert "127.0.0.1:9" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_client_is_given_for_the_life_of_a_block(cluster: LocalCluster) -> None:
    with opened_dask(num_workers=1) as own, opened_dask(cluster.scheduler_address) as client:
        for each in (own, client):
            assert each.submit(abs, -1).result() == 1
            assert set(each.nthreads().values()) == {1}  # a process trains one replicate at a time
    assert own.status == client.status == "closed"
