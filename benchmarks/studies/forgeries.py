"""What `verify` finds: 22 forgeries with every hash made anew, and 500 random changes of run folders.

Of three small runs on the digits: one of the command line, LeNet-300-100 with two replicates and controls, one from
Python, and one whose networks are trained in pairs from a later step, which is changed at random only. A forger also
has summary, figure and ticket made of the forged results again. Run by `python -m benchmarks.studies.forgeries`, in
some five minutes; writes benchmarks/results/forgeries.json.
"""

import contextlib
import dataclasses
import io
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import nn

from benchmarks.common import write_results
from benchmarks.studies.forging import (
    change_history,
    change_mask,
    change_plan,
    change_provenance,
    change_record,
    change_state,
    keep_another_survivor,
    keep_one_more,
    keep_one_that_was_pruned_before,
    replace,
    revive,
    seal,
    swap,
)
from benchmarks.studies.mutations import Mutation, mutate, read_content
from lottery_tickets import compute_iterative_magnitude_pruning
from lottery_tickets._core.files import read_json
from lottery_tickets._core.states import hash_state
from lottery_tickets.experiments.folder import RECORD, REWIND, WEIGHTS, ExperimentFolder, stops_early
from lottery_tickets.experiments.plan import ExperimentPlan, Training
from lottery_tickets.experiments.run import run_experiment
from lottery_tickets.experiments.schedules import PruningSchedule
from lottery_tickets.experiments.steps import prune_state_
from lottery_tickets.experiments.subjects import Subject
from lottery_tickets.experiments.verification import create_caller_subject, create_workload_subject, verify_run
from lottery_tickets.experiments.workload_subject import WorkloadSource
from lottery_tickets.workloads import create_image_batches, digits_recipe, load_digits_data
from unified_model_analysis.commands.imp import Imp
from unified_model_analysis.experiment_summary import report_experiment
from unified_model_analysis.options import MARGIN
from unified_model_analysis.summary_checks import check_summary

MUTATIONS: Final = {"shell": 250, "python": 150, "pairs": 100}
WAYS: Final = ("files", "measured", "trained")
MOST_TRAININGS: Final = 1000
DENSE, LAST = Training(0, 0, "ticket"), Training(0, 2, "ticket")
FIRST, SHUFFLED, FRESH = Training(0, 1, "ticket"), Training(0, 2, "shuffled"), Training(0, 2, "reinitialised")
OTHER: Final = "other"  # a run with another seed, beside the one that is forged


@final
@dataclass(frozen=True)
class Kind:
    """A kind of run.

    Attributes:
        make: Makes a finished one in a folder, from a seed.
        build_subject: What measures it again.
        report: Makes what the command line makes of its results again.
    """

    make: Callable[[Path, int], object]
    build_subject: Callable[[Path], Subject]
    report: Callable[[Path], object]


def make_shell_run(run: Path, seed: int) -> None:
    """Runs LeNet-300-100 on the digits."""
    settings: dict[str, Any] = {"steps": 40, "evaluate_every": 10, "learning_rate": 0.03, "workers": 1}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        Imp(output=run, levels=2, controls=(2,), replicates=2, seed=seed, **settings).run()


def report_again(run: Path) -> None:
    """Makes summary, figure and ticket of the results as they are now, as the command does that made the run."""
    with contextlib.redirect_stdout(io.StringIO()):
        report_experiment(run, moment=None, margin=MARGIN / 100)


def _build_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def _make_data() -> tuple[Any, Any]:
    data = load_digits_data()
    pairs = (data.train_inputs, data.train_targets), (data.test_inputs, data.test_targets)
    return tuple(create_image_batches(*pair, batch_size=100) for pair in pairs)  # type: ignore[return-value] # two


def make_python_run(run: Path, seed: int) -> None:
    """Prunes a caller's model in two rounds."""
    train, test = _make_data()
    compute_iterative_magnitude_pruning(
        _build_model(), train, 0.36, train=True, num_epochs=3, num_replicates=2, seed=seed, evaluation_dataloader=test,
        run_folder=run,
    )  # fmt: skip


def make_pairs_run(run: Path, seed: int) -> None:
    """Trains LeNet-300-100 and its ticket in pairs that part at step 10."""
    recipe = dataclasses.replace(digits_recipe("lenet-300-100"), num_steps=40, evaluation_interval=10)
    source = WorkloadSource("digits", "lenet-300-100", recipe=recipe)
    schedule = PruningSchedule(tuple(recipe.prune_rates.items()), recipe.scope)
    plan = ExperimentPlan(
        source().describe(), schedule, 1, 40, rewind_step=10, num_replicates=2, seed=seed, copy_levels=(0, 1)
    )
    run_experiment(ExperimentFolder(run, plan), source)


def _build_caller_subject(run: Path) -> Subject:
    train, test = _make_data()
    return create_caller_subject(run, _build_model(), train, evaluation_dataloader=test)


KINDS: Final = {
    "shell": Kind(make_shell_run, create_workload_subject, report_again),
    "python": Kind(make_python_run, _build_caller_subject, lambda _: None),
    "pairs": Kind(make_pairs_run, create_workload_subject, lambda _: None),
}

# ------------------------------------------------------------------------------------------------------------ forgeries


def _raise_accuracy(history: dict[str, Any], moment: str) -> None:
    """Raises the accuracy of a moment wherever it stands."""
    claimed = {"test_accuracy": min(1.0, history[moment]["test_accuracy"] + 0.02)}
    for figures in (history[name] for name in ("end", "early_stop") if name in history):
        if figures["step"] == history[moment]["step"]:
            figures.update(claimed)
    if "test_accuracy" in history["curve"]:
        history["curve"]["test_accuracy"][-1] = claimed["test_accuracy"]


def _claim_end(run: Path) -> None:
    change_history(run, LAST, lambda history: _raise_accuracy(history, "end"))


def _claim_early_stop(run: Path) -> None:
    trainings = ExperimentFolder.read(run).plan.list_all_trainings()
    early = next(t for t in trainings if t.level and stops_early(read_json(run / t.path / RECORD)["history"]))
    change_history(run, early, lambda history: _raise_accuracy(history, "early_stop"))


def _change_weights(training: Training, factor: float) -> Callable[[Path], object]:
    return lambda run: change_state(run, training, WEIGHTS, lambda state: [t.mul_(factor) for t in state.values()])


def _make_biases_nan(run: Path) -> None:
    def change(state: dict[str, torch.Tensor]) -> None:
        for tensor in (tensor for name, tensor in state.items() if name.endswith("bias")):
            tensor.fill_(torch.nan)

    change_state(run, LAST, WEIGHTS, change)


def _insert_foreign_replicate(run: Path) -> None:
    for training in ExperimentFolder.read(run).plan.list_trainings(1):
        replace(run, training, run.parent / OTHER / training.path)


def _swap_replicates(run: Path) -> None:
    swap(run, "replicate-0", "replicate-1")
    plan = ExperimentFolder.read(run).plan
    for training in plan.list_all_trainings():
        values = {"replicate": training.replicate, "level": training.level, "branch": training.branch}
        change_record(run, training, training=values, seeds=training.derive_seeds(plan))


def _draw_another_theta_0(run: Path) -> None:
    change_state(run, DENSE, REWIND, lambda state: [tensor.add_(0.01) for tensor in state.values()])
    folder = ExperimentFolder.read(run)
    for training in (t for t in folder.plan.list_trainings(0) if t.branch in {"ticket", "shuffled"}):
        start = folder.load_rewind_point(training)
        prune_state_(start, folder.load_mask(training))
        change_record(run, training, start_sha256=hash_state(start))


def _copy_start(run: Path) -> None:
    change_record(run, FRESH, start_sha256=read_json(run / LAST.path / RECORD)["start_sha256"])


def _cut_curve(history: dict[str, Any]) -> None:
    history["curve"] = {name: values[1:] for name, values in history["curve"].items()}


def _change_version(run: Path) -> None:
    environment = read_json(run / LAST.path / RECORD)["environment"]
    change_record(run, LAST, environment={**environment, "torch": "1.0"})


FORGERIES: Final[dict[str, Callable[[Path], object]]] = {
    "an accuracy at the end": _claim_end,
    "an accuracy at the early stop": _claim_early_stop,
    "the last ticket doubled": _change_weights(LAST, 2.0),
    "the last ticket zeroed": _change_weights(LAST, 0.0),
    "the last ticket with NaN biases": _make_biases_nan,
    "a control zeroed": _change_weights(SHUFFLED, 0.0),
    "dense weights times 1.5": _change_weights(DENSE, 1.5),
    "an emptied history": lambda run: change_record(run, LAST, history={}),
    "a curve cut short": lambda run: change_history(run, LAST, _cut_curve),
    "a replicate of another run": _insert_foreign_replicate,
    "swapped replicates": _swap_replicates,
    "another theta_0": _draw_another_theta_0,
    "another start hash of a control": lambda run: change_record(run, FRESH, start_sha256=hash_state({})),
    "a control that is the ticket": _copy_start,
    "another provenance of a mask": lambda run: change_provenance(run, LAST, method="magnitude"),
    "another version in a record": _change_version,
    "one weight more kept": lambda run: change_mask(run, LAST, keep_one_more),
    "a mask not nested": lambda run: change_mask(run, LAST, keep_one_that_was_pruned_before),
    "another survivor": lambda run: change_mask(run, LAST, keep_another_survivor),
    "another shuffle": lambda run: change_mask(run, SHUFFLED, keep_another_survivor),
    "a pruned weight revived": lambda run: revive(run, LAST),
    "another rate in the plan": lambda run: change_plan(
        run, schedule=PruningSchedule((("*", 0.4),), "global").to_dict()
    ),
}
ONLY_SHELL: Final = {"an accuracy at the early stop"}  # a caller's training has no validation split to stop by


# -------------------------------------------------------------------------------------------------------------- finding


def find_problem(run: Path, kind: Kind, way: str) -> str:
    """Returns the first thing that `verify` finds wrong with a run; nothing when it finds nothing.

    Args:
        run: The run folder.
        kind: Of the run.
        way: "files" alone, "measured" too, or all "trained" again besides.
    """
    try:
        subject = None if way == "files" else kind.build_subject(run)
        num = MOST_TRAININGS if way == "trained" else 0
        checks = [*verify_run(run, subject, num_trained_again=num), *check_summary(run)]
    except ValueError as error:
        return f"refused: {error}"
    return next((f"{check.where}: {check.name}: {check.problem}" for check in checks if check.problem), "")


def find_problems(run: Path, kind: Kind) -> dict[str, str]:
    """Returns what is found in each way; what is found in one is found in those after it, which check more."""
    found: dict[str, str] = {}
    for way in WAYS:
        found[way] = next(filter(None, found.values()), "") or find_problem(run, kind, way)
    return found


def study_forgeries(name: str, finished: Path) -> list[dict[str, Any]]:
    """Returns what is found of each forgery of a kind of run."""
    kind, rows = KINDS[name], []
    for forgery, forge in FORGERIES.items():
        if name == "python" and forgery in ONLY_SHELL:
            continue
        run = Path(shutil.copytree(finished, finished.parent / "forged"))
        forge(run)
        with contextlib.suppress(ValueError, LookupError, TypeError):  # a forger may fail where figures are gone
            seal(run, under_plan=True)
            kind.report(run)
        rows.append({"run": name, "forgery": forgery, **find_problems(run, kind)})
        print(name, forgery, *(rows[-1][way][:80] or "-" for way in WAYS), sep=" | ", flush=True)
        shutil.rmtree(run)
    return rows


def study_mutations(name: str, finished: Path) -> list[dict[str, Any]]:
    """Returns what is found of each random change of a kind of run."""
    kind, rows, content = KINDS[name], [], read_content(finished)
    for seed in range(MUTATIONS[name]):
        run = Path(shutil.copytree(finished, finished.parent / "mutated"))
        made = mutate(run, random.Random(seed), kind.report)  # noqa: S311 - no secret
        found = find_problems(run, kind)
        is_harmless = not found["trained"] and read_content(run) == content
        rows.append({"run": name, "kind": made.kind, "what": made.what, "harmless": is_harmless, **found})
        if not found["measured"]:
            print(name, seed, made.kind, made.what, "harmless" if is_harmless else explain(made), flush=True)
        shutil.rmtree(run)
    return rows


REASONS: Final = {  # by what stands in a change
    "history.curve": "a point of a curve before its end, whose weights are not stored",
    "record.json: layers deleted": "nothing is stated of its layers, as by earlier versions, and `verify` says that",
    "settings.subject": "a setting of training",
    "summary.json: claims": "a choice of the report, which the same command may make anew",
    "summary.json: moment": "a choice of the report, which the same command may make anew",
}


def explain(made: Mutation) -> str:
    """Returns why a change that is not found is not."""
    for words, reason in REASONS.items():
        if words in made.what:
            return reason
    if made.kind.startswith("trainings swapped") and "-copy" in made.what and "-ticket" in made.what:
        return "the two copies of a pair, which differ in the order of the data alone"
    if made.kind.startswith("tensors"):
        return "no figure moves: the change reaches no output, or is lost in rounding"
    return "unexplained"


def sum_up(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns how many changes of each kind were made, were harmless, and were not found."""
    made = Counter(row["kind"] for row in rows)
    harmless = Counter(row["kind"] for row in rows if row["harmless"])
    missed = {way: Counter(r["kind"] for r in rows if not r[way] and not r["harmless"]) for way in WAYS}
    return [
        {
            "kind": kind,
            "made": num,
            "harmless": harmless[kind],
            "missed_by_files": missed["files"][kind],
            "missed_measured": missed["measured"][kind],
            "missed_trained": missed["trained"][kind],
        }
        for kind, num in sorted(made.items())
    ]


def main() -> None:
    """Makes the runs, forges and changes copies of them, and writes what was found."""
    forgeries: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for name, kind in KINDS.items():
        with tempfile.TemporaryDirectory() as place:
            finished = Path(place) / "run"
            kind.make(finished, 0)
            kind.make(Path(place) / OTHER, 1)
            assert find_problems(finished, kind) == dict.fromkeys(WAYS, "")
            content = read_content(finished)
            kind.report(finished)
            assert read_content(finished) == content, "what is reported again of an untouched run must be the same"
            forgeries += [] if name == "pairs" else study_forgeries(name, finished)
            rows += study_mutations(name, finished)
    missed = [
        {
            "run": row["run"],
            "what": row["what"],
            "reason": explain(Mutation(row["kind"], row["what"])),
            "trained": row["trained"],
        }
        for row in rows
        if not row["measured"] and not row["harmless"]
    ]
    write_results("forgeries", {"forgeries": forgeries, "mutations": sum_up(rows), "missed": missed})


if __name__ == "__main__":
    main()
