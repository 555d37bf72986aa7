"""Run folders grow: a call with larger numbers adds what is missing, and keeps the bits of what is there."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lottery_tickets import compute_iterative_magnitude_pruning
from lottery_tickets._core import environment
from lottery_tickets._core.files import read_json
from lottery_tickets.experiments.folder import ExperimentFolder
from lottery_tickets.experiments.schedules import PruningSchedule
from lottery_tickets.experiments.verification import verify_run
from statistical_report_generator.claims.assessment import assess_claims
from statistical_report_generator.claims.findings import describe_claims
from tests.models import make_mlp


def run(folder: Path, target: float = 0.5, **settings: Any) -> dict[str, Any]:  # noqa: ANN401 - settings of many types
    torch.manual_seed(0)
    model = make_mlp(torch.float32, (5, 8, 3))
    data = [(torch.randn(16, 5), torch.randint(3, (16,)))]
    defaults: dict[str, Any] = {"control_levels": [1], "num_epochs": 1, "prune_rates": 0.3}
    return dict(
        compute_iterative_magnitude_pruning(
            model, data, target, train=True, run_folder=folder, **{**defaults, **settings}
        )
    )


def read_trainings(folder: Path) -> dict[str, bytes]:
    """Returns the files of all trainings."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("replicate-*/*/*")}


LARGER: dict[str, dict[str, Any]] = {
    "more replicates": {"num_replicates": 3},
    "further controls": {"control_levels": [1, 2]},
    "both": {"num_replicates": 2, "control_levels": [2, 1]},
}


@pytest.mark.parametrize("case", LARGER)
def test_a_run_that_grew_is_the_run_that_was_large_at_once(tmp_path: Path, case: str) -> None:
    run(tmp_path / "grown")
    before = read_trainings(tmp_path / "grown")
    found, expected = run(tmp_path / "grown", **LARGER[case]), run(tmp_path / "at once", **LARGER[case])
    assert before.items() < read_trainings(tmp_path / "grown").items()
    assert read_trainings(tmp_path / "grown") == read_trainings(tmp_path / "at once")
    assert found["trainings"] == expected["trainings"]
    assert (tmp_path / "grown" / "run.json").read_bytes() == (tmp_path / "at once" / "run.json").read_bytes()
    results = [read_json(tmp_path / name / "results.json") for name in ("grown", "at once")]
    assert [differing for differing in results[0] if results[0][differing] != results[1][differing]] in ([], ["looks"])


def test_looks_are_counted_when_there_are_more_replicates(tmp_path: Path) -> None:
    for num_replicates, control_levels in ((2, [1]), (2, [1]), (2, [1, 2]), (3, [1]), (5, [1])):
        run(tmp_path, num_replicates=num_replicates, control_levels=control_levels)
    results = read_json(tmp_path / "results.json")
    assert results["looks"] == [2, 3, 5]
    claims = assess_claims(results, metric="train_accuracy", moment="end", margin=0.5, controls=["random"])
    assert (claims["num_looks"], claims["looks_taken"]) == (1, 3)
    assert claims["alpha_per_look"] == pytest.approx(0.05 / 3)
    assert claims["alpha_spent"] == pytest.approx(0.05 * (1 + 1 / 2 + 1 / 3))
    assert "the 3 looks that were taken as replicates were added (1 planned)" in " ".join(describe_claims(claims))
    assert "at most 9.17 % each" in " ".join(describe_claims(claims))
    planned = assess_claims(results, metric="train_accuracy", moment="end", margin=0.5, num_looks=4)
    assert (planned["alpha_per_look"], planned["alpha_spent"]) == pytest.approx((0.0125, 0.0375))


def test_a_sparser_target_goes_on_from_the_ticket_at_the_target_of_before(tmp_path: Path) -> None:
    run(tmp_path, 0.5)
    before = read_trainings(tmp_path)
    found = run(tmp_path, 0.8)
    assert before.items() < read_trainings(tmp_path).items()
    kept = [mask.num_kept for mask in found["masks"]]
    assert {32, 13} <= set(kept), "64 weights at 0.5 and at 0.8"
    assert kept == sorted(kept, reverse=True)
    assert len(set(kept)) == len(kept)
    assert run(tmp_path, 0.8)["masks"] == found["masks"]
    assert [check for check in verify_run(tmp_path) if check.problem] == []


def test_the_controls_of_the_last_level_move_with_it(tmp_path: Path) -> None:
    run(tmp_path, 0.5, control_levels="last")
    run(tmp_path, 0.8, control_levels="last")
    plan = ExperimentFolder.read(tmp_path).plan
    assert plan.control_levels == (2, plan.num_levels)
    assert plan.schedule == PruningSchedule((("*", 0.3),), "global", 0.8, (0.5,))


SMALLER: dict[str, tuple[dict[str, Any], str]] = {
    "fewer replicates": ({"num_replicates": 1}, "num_replicates is 2 there and 1 here"),
    "a denser target": ({"target": 0.4, "num_replicates": 2}, "target_sparsity is 0.5 there and 0.4 here"),
}


@pytest.mark.parametrize("case", SMALLER)
def test_a_run_never_shrinks(tmp_path: Path, case: str) -> None:
    run(tmp_path, num_replicates=2)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(ValueError, match=f"can only grow, but {SMALLER[case][1]}"):
        run(tmp_path, **SMALLER[case][0])
    assert (tmp_path / "run.json").read_bytes() == before


def test_another_environment_goes_on_when_it_is_accepted_and_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path)
    monkeypatch.setattr(environment, "version", lambda name: f"{name} of tomorrow")
    with pytest.raises(ValueError, match=r"differ: .*torch is .* there and 'torch of tomorrow' here"):
        run(tmp_path, num_replicates=2)
    run(tmp_path, num_replicates=2, accept_changed_environment=True)
    folder = ExperimentFolder.read(tmp_path)
    trainings = folder.plan.list_all_trainings()
    first, last = (folder.load_record(training) for training in (trainings[0], trainings[-1]))
    assert [first["environment"], last["environment"]] == folder.list_environments()
    claims = assess_claims(read_json(tmp_path / "results.json"), metric="train_accuracy", moment="end")
    caveat = "Trained in 2 environments: the same command need not give the same bits again."
    assert claims["caveats"] == [caveat]
    assert caveat in describe_claims(claims)
    assert [check for check in verify_run(tmp_path) if check.problem] == []
