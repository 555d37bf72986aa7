"""A pytest plugin: no test file takes more CPU seconds than its budget, so that all tests together stay fast.

CPU time of the process and of those it waited for, not time on the wall: a busy machine must not fail a run, nor a
slow one: where all tests together take longer than usual, a file may too. Each report carries what its test took; the
process that collects them, xdist's or the only one, adds up by file and judges.
"""

import os
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

import pytest

USUAL_SECONDS: Final = 700.0  # of all tests together, on the machine that the budgets were measured on
BUDGET_SECONDS: Final = 30.0  # twice what the slowest file without an entry here takes there
LARGER: Final[Mapping[str, tuple[float, str]]] = {  # thrice what they take, and why that is much
    "tests/pages/test_pages.py": (400, "all commands of all pages; not among those of `make test`"),
    "tests/test_examples.py": (90, "scripts and notebooks, in processes of their own, which import torch"),
    "tests/benchmarks/test_fuzzing.py": (75, "files of a dozen kinds, each changed and read, also by a command"),
    "tests/benchmarks/test_null_trainings.py": (60, "trainings of each kind that can have no ticket, each watched"),
    "tests/lottery_tickets/experiments/test_engine.py": (50, "the command runs in processes of its own, to be killed"),
    "tests/lottery_tickets/experiments/elsewhere/test_tasks.py": (75, "two processes of a pool, which import torch"),
    "tests/lottery_tickets/integrations/test_dask.py": (250, "workers and drivers are processes, to be killed"),
    "tests/lottery_tickets/integrations/test_slurm.py": (150, "jobs and drivers are processes, to be killed"),
    "tests/lottery_tickets/landscape/test_surface.py": (40, "seven models, each point measured twice, in two ways"),
    "tests/lottery_tickets/scores/test_gradient_scores.py": (40, "a battery of 15 laws for each of 14 scores"),
    "tests/lottery_tickets/planning/test_plan.py": (60, "a dozen networks, run on tensors without values"),
    "tests/lottery_tickets/checkpoints/test_wanda.py": (50, "15 architectures in two dtypes, loaded and streamed"),
    "tests/lottery_tickets/evaluation/test_performance.py": (50, "the same architectures and dtypes"),
    "tests/lottery_tickets/early_bird/test_rank_correlation.py": (40, "millions of ranks, and kernels to be compiled"),
    "tests/lottery_tickets/_core/selection/test_largest.py": (40, "millions of weights, and kernels to be compiled"),
}
PROPERTY: Final = "cpu_seconds"


def list_over_budget(spent: Mapping[str, float]) -> list[str]:
    """Returns a sentence for each file that took more than it may."""
    slowness = max(1.0, sum(spent.values()) / USUAL_SECONDS)
    budgets = {path: slowness * LARGER.get(path, (BUDGET_SECONDS, ""))[0] for path in spent}
    return [
        f"{path} took {seconds:.1f} CPU seconds, of {budgets[path]:.0f} that it may: smaller cases, shared fixtures?"
        for path, seconds in sorted(spent.items())
        if seconds > budgets[path]
    ]


class Budget:
    """What each file took so far."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, float] = defaultdict(float)
        self.before = 0.0

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        self.before = sum(os.times()[:4])

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[Any]) -> None:
        if call.when == "teardown":
            item.user_properties.append((PROPERTY, sum(os.times()[:4]) - self.before))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            self.spent[report.nodeid.split("::")[0]] += float(str(dict(report.user_properties).get(PROPERTY, 0.0)))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if list_over_budget(self.spent) and not hasattr(session.config, "workerinput"):  # xdist's workers do not judge
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in list_over_budget(self.spent):
            terminalreporter.write_line(line, red=True)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Budget())
