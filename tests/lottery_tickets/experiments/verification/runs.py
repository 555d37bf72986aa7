"""Finished runs to be tampered with, and what verification finds in them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lottery_tickets import compute_iterative_magnitude_pruning
from lottery_tickets.experiments.folder import ExperimentFolder
from lottery_tickets.experiments.plan import ExperimentPlan, Training
from lottery_tickets.experiments.run import run_experiment
from lottery_tickets.experiments.schedules import PruningSchedule
from lottery_tickets.experiments.verification import Check, verify_run
from lottery_tickets.experiments.workload_subject import WorkloadSource
from lottery_tickets.workloads import digits_recipe
from tests.models import make_mlp

DENSE, FIRST, LAST = (Training(0, level, "ticket") for level in (0, 1, 2))


def make_run(folder: Path, **settings: Any) -> None:  # noqa: ANN401 - settings of many types
    model = make_mlp(torch.float32, (5, 8, 3))
    data = [(torch.randn(16, 5), torch.randint(3, (16,)))]
    defaults: dict[str, Any] = {"control_levels": [2], "num_epochs": 2, "prune_rates": 0.3}
    compute_iterative_magnitude_pruning(model, data, 0.5, train=True, run_folder=folder, **{**defaults, **settings})


def make_workload_run(folder: Path, **changes: Any) -> None:  # noqa: ANN401 - settings of many types
    recipe = replace(
        digits_recipe("lenet-300-100"), num_steps=30, evaluation_interval=5, optimizer_arguments={"lr": 0.05}
    )
    source = WorkloadSource("digits", "lenet-300-100", recipe=recipe)
    settings: dict[str, Any] = {"num_levels": 1, "num_replicates": 2, **changes}
    schedule = PruningSchedule(tuple(recipe.prune_rates.items()), recipe.scope)
    plan = ExperimentPlan(subject=source().describe(), schedule=schedule, num_steps=recipe.num_steps, **settings)
    run_experiment(ExperimentFolder(folder, plan), source)


def failed(run: Path) -> list[Check]:
    return [check for check in verify_run(run) if check.problem]


def failures(run: Path) -> set[tuple[str, str]]:
    return {(check.where, check.name) for check in failed(run)}


def list_files(run: Path) -> list[Path]:
    return sorted(path for path in run.rglob("*") if path.is_file() and path.name != ".lock")


def is_found(run: Path) -> bool:
    """Whether tampering is found; without a plan that can be read by a ValueError that names it."""
    try:
        return bool(failed(run))
    except ValueError as error:
        return str(run) in str(error)
