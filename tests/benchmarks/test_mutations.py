"""The study of random changes changes runs, knows what is harmless, and counts."""

import json
import random
import shutil
from pathlib import Path

import pytest
from benchmarks.studies.forgeries import sum_up
from benchmarks.studies.mutations import KINDS, mutate, read_content

from lottery_tickets.experiments.verification import verify_run
from tests.lottery_tickets.experiments.verification.runs import make_run


@pytest.mark.long
def test_every_kind_of_change_is_made_and_what_is_harmless_is_known(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    content, made = read_content(tmp_path / "run"), {}
    for seed in range(40):
        run = Path(shutil.copytree(tmp_path / "run", tmp_path / f"run-{seed}"))
        mutation = mutate(run, random.Random(seed), lambda _: None)  # noqa: S311 - no secret
        made[mutation.kind] = mutation.what
        try:
            is_found = any(check.problem for check in verify_run(run))
        except ValueError:
            is_found = True
        assert is_found or read_content(run) == content or "hashes made anew" in mutation.kind, mutation
    assert len(made) == len(KINDS)


def test_another_kind_of_space_is_harmless_and_another_value_is_not(tmp_path: Path) -> None:
    make_run(tmp_path)
    content, path = read_content(tmp_path), tmp_path / "run.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values))
    assert read_content(tmp_path) == content
    path.write_text(json.dumps({**values, "made_by": "somebody"}))
    assert read_content(tmp_path) != content


def test_changes_are_counted_by_kind_and_harmless_ones_apart() -> None:
    found, missed = ({"files": text, "measured": text, "trained": text} for text in ("found", ""))
    rows = [
        {"kind": "a", "harmless": False, **found},
        {"kind": "a", "harmless": True, **missed},
        {"kind": "b", "harmless": False, **missed},
        {"kind": "b", "harmless": False, **missed, "trained": "found"},
    ]
    counts = {"missed_by_files": 2, "missed_measured": 2, "missed_trained": 1}
    assert sum_up(rows) == [
        {"kind": "a", "made": 2, "harmless": 1, **dict.fromkeys(counts, 0)},
        {"kind": "b", "made": 2, "harmless": 0, **counts},
    ]
