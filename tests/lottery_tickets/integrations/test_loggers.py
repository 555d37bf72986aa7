"""What is logged can be read back by the library that it was written for, and changes no bit of a training."""

import contextlib
import json
import os
import random
import struct
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter
from wandb.proto import wandb_internal_pb2

from lottery_tickets import EarlyBirdWatcher, compute_early_bird_tickets
from lottery_tickets._core.loggers import Log
from lottery_tickets._core.states import hash_state
from lottery_tickets.experiments.folder import ExperimentFolder
from lottery_tickets.experiments.plan import ExperimentPlan
from lottery_tickets.experiments.run import run_experiment
from lottery_tickets.experiments.schedules import PruningSchedule
from lottery_tickets.experiments.workload_subject import WorkloadSource
from lottery_tickets.integrations.tensorboard import TensorBoardLogger
from lottery_tickets.integrations.wandb import WandbLogger
from tests.lottery_tickets.early_bird.digits import find_digits, strip
from tests.lottery_tickets.experiments.callers import DATA, Trainer, make_model, run
from tests.lottery_tickets.experiments.test_run import Elsewhere
from tests.models import load_digits
from unified_model_analysis import UnifiedConfig, UnifiedModelAnalyzer

Figures = dict[str, list[tuple[int, float]]]
WARNING = "could not log, and all goes on"


class Recorder:
    """Keeps what it is told, and meddles as a logger of others might."""

    def __init__(self, fails: bool = False) -> None:
        self.figures: Figures = defaultdict(list)
        self.fails = fails
        self.num_calls = 0

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.num_calls += 1
        torch.rand(3), np.random.random(), random.random()  # noqa: NPY002, S311 - as a logger of others might
        torch.manual_seed(7)
        for name, value in values.items():
            self.figures[name].append((step, value))
        if isinstance(values, dict):
            values.clear()
        if self.fails:
            raise RuntimeError("no network")


def draw_from_all() -> float:
    return float(torch.rand(())) + float(np.random.random()) + random.random()  # noqa: NPY002, S311 - global ones are meant


def train_at_random(model: torch.nn.Module, dataloader: Any, *, epochs: int) -> None:  # noqa: ANN401 - a loader
    """A trainer whose bits hang on all global generators."""
    for _ in range(epochs):
        for inputs, targets in dataloader:
            torch.nn.functional.cross_entropy(model(inputs), targets).backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.sub_(parameter.grad if parameter.grad is not None else 0.0, alpha=0.1 * draw_from_all())
                    parameter.grad = None


def expect_figures(rows: Sequence[Mapping[str, Any]]) -> Figures:
    """Returns what must be logged of trainings."""
    expected: Figures = defaultdict(list)
    for row in rows:
        path = f"replicate-{row['replicate']}/level-{row['level']:02d}-{row['branch']}"
        for name in ("train_loss", "train_accuracy"):
            curve = row["history"]["curve"]
            expected[f"{path}/{name}"] += list(zip(curve["step"], curve[name], strict=True))
            end = (row["level"], row["history"]["end"][name])
            expected[f"replicate-{row['replicate']}/{row['branch']}/end/{name}"].append(end)
    return expected


# ------------------------------------------------------------------------------------------------------------- the laws


@pytest.mark.parametrize("fails", [False, True])
def test_a_logger_changes_no_bit_of_an_experiment(fails: bool, caplog: pytest.LogCaptureFixture) -> None:
    plain = run(make_model(), train_at_random, 0.3, num_replicates=2)
    recorders = [Recorder(fails), Recorder()]
    told = run(make_model(), train_at_random, 0.3, num_replicates=2, logger=recorders)
    assert told["trainings"] == plain["trainings"]
    assert told["final_mask"].digest == plain["final_mask"].digest
    for recorder in recorders:
        expected = expect_figures(plain["trainings"])
        assert {name: recorder.figures[name] for name in expected} == expected
        assert recorder.num_calls > 1
    warned = [record.message for record in caplog.records if WARNING in record.message]
    assert warned == ["Recorder could not log, and all goes on: RuntimeError('no network')"] * fails


@pytest.mark.parametrize("fails", [False, True])
def test_a_logger_changes_no_bit_of_an_early_bird_run(fails: bool, caplog: pytest.LogCaptureFixture) -> None:
    arguments: dict[str, Any] = {"max_epochs": 3, "check_interval": 1, "target_sparsity": 0.5}
    plain = compute_early_bird_tickets(make_model(), DATA, train_at_random, **arguments)
    recorder = Recorder(fails)
    told = compute_early_bird_tickets(make_model(), DATA, train_at_random, logger=recorder, **arguments)
    assert strip(told) == strip(plain)
    correlations = [(round(check["epoch"]), check["correlation"]) for check in plain["checkpoints"]]
    assert recorder.figures["early-bird/correlation"] == correlations
    assert "early-bird/layers/0.weight/share_moved" in recorder.figures
    assert sum(WARNING in record.message for record in caplog.records) == fails


def test_a_watched_loop_draws_what_it_would_have_drawn() -> None:
    ends = []
    for logger in (None, Recorder(), Recorder(fails=True)):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002 - the global one is meant
        random.seed(0)
        model = make_model()
        watcher = EarlyBirdWatcher(model, check_steps=1, logger=logger)
        for step in range(1, 4):
            train_at_random(model, DATA, epochs=1)
            watcher.observe(model, step)
        ends.append(hash_state(model.state_dict()))
    assert len(set(ends)) == 1


def test_trainings_that_run_elsewhere_are_logged_by_this_process(tmp_path: Path) -> None:
    source = WorkloadSource(
        "digits", "lenet-300-100", recipe=replace(load_digits().recipe, num_steps=20, evaluation_interval=10)
    )
    settings: dict[str, Any] = {"subject": source().describe(), "num_levels": 0, "num_steps": 20}
    plan = ExperimentPlan(schedule=PruningSchedule(), **settings, num_replicates=2)
    recorders = [Recorder(), Recorder(), Recorder()]
    run_experiment(ExperimentFolder(tmp_path / "a", plan), source, executor=Elsewhere(), logger=recorders[0])
    run_experiment(ExperimentFolder(tmp_path / "b", plan), source, logger=recorders[1])
    grown = replace(plan, num_replicates=3)
    run_experiment(ExperimentFolder(tmp_path / "b", grown), source, logger=recorders[2])
    assert recorders[0].figures.keys() == recorders[1].figures.keys() != set()
    assert all(sorted(told) == sorted(recorders[1].figures[name]) for name, told in recorders[0].figures.items())
    assert {name.split("/")[0] for name in recorders[2].figures} == {"replicate-2"}, "others are not told again"


def test_the_analyzer_tells_what_it_found(tmp_path: Path) -> None:
    config = UnifiedConfig(tmp_path, ["ticket", "robustness"], generate_report=False, progress=False)
    recorder = Recorder()
    found = UnifiedModelAnalyzer(config, tell=lambda _: None, logger=recorder).analyze(make_model(), DATA)
    assert recorder.figures["ticket/actual_sparsity"] == [(1, found["results"]["ticket"]["actual_sparsity"])]
    assert recorder.figures["robustness/baseline_loss"] == [(2, found["results"]["robustness"]["baseline_loss"])]


def test_numbers_alone_are_told_each_by_its_way() -> None:
    recorder = Recorder()
    given = {"a": {"b": 1, "c": {"d": 0.5, "e": "text"}}, "f": None, "g": True, "h": torch.ones(1), "i": [1.0]}
    Log(recorder).tell(given, 3)
    assert recorder.figures == {"a/b": [(3, 1.0)], "a/c/d": [(3, 0.5)], "g": [(3, 1.0)]}


@pytest.mark.parametrize("logger", [3, print, [print], object()])
def test_what_cannot_log_is_refused_before_the_work(logger: Any) -> None:  # noqa: ANN401 - anything
    with pytest.raises(TypeError, match=r"a logger must have a method log\(values, step\), but a .* has none"):
        run(make_model(), Trainer(), logger=logger)


# ----------------------------------------------------------------------------------------------------------- the doors


def read_events(folder: Path) -> Figures:
    events = EventAccumulator(str(folder), {SCALARS: 0})
    events.Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_tensorboard_reads_what_was_logged(tmp_path: Path) -> None:
    with TensorBoardLogger(tmp_path / "logs") as logger:
        found = run(make_model(), Trainer(), 0.3, num_replicates=2, logger=logger)
    assert logger._writer.all_writers is None, "closed"
    events = read_events(tmp_path / "logs")
    for name, values in expect_figures(found["trainings"]).items():
        steps, figures = zip(*values, strict=True)
        assert [step for step, _ in events[name]] == list(steps)
        assert [value for _, value in events[name]] == pytest.approx(figures, rel=1e-6), "event files hold float32"


def test_what_was_logged_is_in_the_file_when_log_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard's writer has a thread of its own, which is made slow here, so that nothing is there by chance."""
    written: list[bytes] = []
    write = RecordWriter.write

    def write_slowly(writer: RecordWriter, data: bytes) -> None:
        time.sleep(0.05)
        write(writer, data)
        written.append(data)

    monkeypatch.setattr(RecordWriter, "write", write_slowly)
    logger = TensorBoardLogger(tmp_path)
    logger.log({"loss": 0.5, "accuracy": 0.25}, 3)
    num_written = len(written)
    assert num_written == 3, "the file's version, and two figures"
    assert read_events(tmp_path) == {"loss": [(3, 0.5)], "accuracy": [(3, 0.25)]}
    logger.close()


def test_a_check_can_be_read_while_the_training_goes_on(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    model = make_model()
    watcher = EarlyBirdWatcher(model, check_steps=1, logger=logger)
    for step in (1, 2):
        watcher.observe(model, step, loss=0.5 / step)
        assert read_events(tmp_path)["early-bird/loss"] == [(n, 0.5 / n) for n in range(1, step + 1)]
    logger.close()


HEADER, BLOCK = 7, 32768  # the file is a log of LevelDB's format: blocks of records, each with checksum, length, type


def read_records(path: Path) -> Iterator[bytes]:
    content, place, parts = path.read_bytes(), HEADER, b""
    while place + HEADER <= len(content):
        if BLOCK - place % BLOCK < HEADER:  # the rest of a block is filled
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + HEADER])
        parts += content[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def parse_records(path: Path) -> list[Any]:
    records: list[Any] = [vars(wandb_internal_pb2)["Record"]() for _ in read_records(path)]  # made when it is imported
    for record, content in zip(records, read_records(path), strict=True):
        record.ParseFromString(content)
    return records


def wait_for_records(path: Path, seconds: float = 60.0) -> list[Any]:
    """W&B's own process writes the file, and is done a little after the run is: its last record says so."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(Exception):  # of a file that is half written
            records = parse_records(path)
            if records and records[-1].WhichOneof("record_type") == "exit":
                return records
        time.sleep(0.05)
    return parse_records(path)


def read_run(folder: Path) -> Figures:
    figures: Figures = defaultdict(list)
    [path] = folder.glob("wandb/offline-run-*/run-*.wandb")
    for record in wait_for_records(path):
        if record.WhichOneof("record_type") == "history":
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            for name, value in row.items():
                if name != "step" and not name.startswith("_"):
                    figures[name].append((row["step"], value))
    return figures


@pytest.fixture
def quiet_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.usefixtures("quiet_wandb")
def test_an_offline_run_of_wandb_has_what_was_logged(tmp_path: Path) -> None:
    """Steps begin anew with each training, which W&B's own step would throw away."""
    with WandbLogger("tickets", folder=tmp_path, name="a run") as logger:
        found = run(make_model(), Trainer(), 0.3, num_replicates=2, logger=logger)
    figures = read_run(tmp_path)
    expected = expect_figures(found["trainings"])
    assert {name: figures[name] for name in expected} == expected


@pytest.mark.usefixtures("quiet_wandb")
def test_neither_changes_an_early_bird_run(tmp_path: Path) -> None:
    plain, _ = find_digits(max_epochs=2)
    loggers: list[Callable[[], Any]] = [lambda: TensorBoardLogger(tmp_path), lambda: WandbLogger("p", folder=tmp_path)]
    for make in loggers:
        with make() as logger:
            told, model = find_digits(max_epochs=2, logger=logger)
        assert strip(told) == strip(plain)
        assert hash_state(model.state_dict()) == hash_state(find_digits(max_epochs=2)[1].state_dict())
