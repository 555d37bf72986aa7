"""Results that save themselves say how they were made, and never go over a file of others."""

import inspect
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lottery_tickets as lt
from lottery_tickets import load_results
from lottery_tickets._core.records import Record, describe, find_commit
from lottery_tickets.storage import save_results

MODEL = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
DATA = [(torch.arange(48.0).reshape(8, 6).cos(), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1]))]
MASK = lt.create_magnitude_mask(MODEL, 0.5)


def train(model: nn.Module, dataloader: Any, epochs: int) -> None:  # noqa: ANN401 - as trainers are
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for inputs, targets in [batch for _ in range(epochs) for batch in dataloader]:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()


def call(path: Path, name: str) -> Any:  # noqa: ANN401 - results of any kind
    states = [MODEL.state_dict(), {key: value + 0.01 for key, value in MODEL.state_dict().items()}]
    calls: dict[str, Callable[[], Any]] = {
        "quality": lambda: lt.compute_lottery_ticket_quality(MODEL, MASK, DATA, path=path),
        "robustness": lambda: lt.compute_pruning_robustness(MODEL, DATA[0], [0.5], path=path),
        "validation": lambda: lt.validate_pruning_correctness(MODEL, MASK, DATA, path=path),
        "overlap": lambda: lt.compute_ticket_overlap(MASK, lt.shuffle_mask(MASK, 1), path=path),
        "overlap-matrix": lambda: lt.compute_overlap_matrix({"a": MASK, "b": lt.shuffle_mask(MASK, 1)}, path=path),
        "lines": lambda: lt.compute_linear_connectivity(MODEL, DATA, *states, num_points=3, path=path),
        "costs": lambda: lt.compute_costs(MODEL, DATA[0], MASK, path=path),
        "landscape": lambda: lt.compute_loss_landscape(MODEL, DATA, 3, path=path),
        "ticket": lambda: lt.compute_layerwise_magnitude_ticket(MODEL, 0.5, path=path),
        "early-bird": lambda: lt.compute_early_bird_tickets(
            nn.Linear(6, 3), DATA, max_epochs=2, check_interval=1, path=path
        ),
        "experiment": lambda: lt.compute_iterative_magnitude_pruning(
            nn.Linear(6, 3), DATA, 0.3, trainer_fn=train, num_epochs=1, control_levels="none", path=path
        ),
    }
    return calls[name]()


KINDS = ["quality", "robustness", "validation", "overlap", "overlap-matrix", "lines", "ticket", "early-bird",
         "costs", "landscape", "experiment"]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_analysis_saves_what_it_returns_with_how_it_was_made(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / "found.json"
    returned = call(path, kind)
    stored = load_results(path)
    assert stored["schema"] == f"lottery-tickets {kind} {2 if kind == 'experiment' else 1}"
    provenance = stored["provenance"]
    assert provenance["wall_seconds"] >= 0
    assert provenance["environment"]["torch"] == torch.__version__
    assert provenance["hardware"]["num_cpus"] >= 1
    assert provenance["command"]
    save_results(returned, tmp_path / "again.json")
    again = load_results(tmp_path / "again.json")
    assert {name: stored[name] for name in again} == again


@pytest.mark.parametrize(
    "name", ["magnitude", "fisher", "gradient", "taylor", "hybrid", "snip", "grasp", "wanda", "synflow"]
)
def test_every_score_saves_its_summary(name: str, tmp_path: Path) -> None:
    score = getattr(lt, f"compute_{name}_importance")
    data: Any = {"magnitude": (), "synflow": (DATA[0][0], 0.5)}.get(name, (DATA,))
    scores = score(MODEL, *data, path=tmp_path)  # a folder
    stored = load_results(tmp_path / "importance.json")
    assert stored["importance"]["report"]["score"] == scores.report["score"]
    assert stored["importance"]["scores"].keys() == scores.keys()
    assert stored["provenance"]["settings"]["model"] == {"class": "Sequential", "num_parameters": 83}


def test_all_that_computes_results_can_save_them() -> None:
    others = {"compute_sparsity", "compute_histogram_quantile"}  # a few numbers each
    others |= {"compute_change_mask", "compute_change_statistics"}  # a mask saves itself; part of `compute_changes`
    for name in lt.__all__:
        if name.startswith("compute_") and name not in others:
            assert "path" in inspect.signature(getattr(lt, name)).parameters, name


def test_a_file_of_others_is_refused_before_the_work(tmp_path: Path) -> None:
    texts = ("not json", "[1]", '{"a": 1}', '{"schema": "lottery-tickets robustness 1"}', '{"schema": 3}')
    for text in texts:
        path = tmp_path / "notes.json"
        path.write_text(text)
        before = torch.get_rng_state()
        with pytest.raises(ValueError, match="must be results of quality or not exist"):
            call(path, "quality")
        assert path.read_text() == text
        assert torch.equal(torch.get_rng_state(), before)


def test_earlier_results_of_the_kind_are_replaced_and_equal_ones_stay(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    call(path, "quality")
    first = path.read_bytes()
    call(path, "quality")
    assert path.read_bytes() == first
    lt.compute_lottery_ticket_quality(MODEL, lt.create_magnitude_mask(MODEL, 0.75, scope="layer"), DATA, path=path)
    assert load_results(path)["sparsity"] == pytest.approx(0.75, abs=0.01)


def test_a_failing_analysis_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="metric"):
        lt.compute_lottery_ticket_quality(MODEL, MASK, DATA, metric="colour", path=tmp_path / "found.json")  # type: ignore[arg-type] # on purpose
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("schema", ["lottery-tickets quality 2", "lottery-tickets quality x", "lottery-tickets new 7"])
def test_results_of_a_later_schema_are_refused_in_words(schema: str, tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    path.write_text(json.dumps({"schema": schema}))
    with pytest.raises(ValueError, match=r"is of schema .*, but this version of lottery-tickets knows .* up to 1"):
        load_results(path)


def test_settings_are_what_was_asked_for_with_defaults(tmp_path: Path) -> None:
    call(tmp_path, "robustness")
    settings = load_results(tmp_path / "robustness.json")["provenance"]["settings"]
    assert (settings["sparsity_levels"], settings["scope"], settings["tolerance"]) == ([0.5], "global", 0.05)
    assert settings["batch"] == "tuple"
    assert "path" not in settings


def test_any_argument_can_be_described() -> None:
    assert describe([1, "a", None]) == [1, "a", None]
    assert describe([torch.ones(2)]) == "list"
    assert describe(train).endswith("test_records.train")
    assert describe({"a": 1}) == "dict"
    json.dumps(describe(nn.Linear(2, 2)))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    run = ("git", "-c", "user.name=a", "-c", "user.email=a@b.invalid")
    subprocess.run([*run, "init", "-q", "."], cwd=tmp_path, check=True)
    (tmp_path / "file").write_text("1")
    subprocess.run([*run, "add", "file"], cwd=tmp_path, check=True)
    subprocess.run([*run, "commit", "-qm", "first"], cwd=tmp_path, check=True)
    return tmp_path


def test_the_commit_is_that_of_the_work_tree_and_says_whether_it_was_changed(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    clean = find_commit(repository)
    assert clean is not None
    assert len(clean) == 40
    (repository / "file").write_text("2")
    assert find_commit(repository) == f"{clean}+changes"
    assert find_commit(tmp_path_factory.mktemp("elsewhere")) is None


def test_numbers_that_are_not_finite_are_refused_with_their_place(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="results must hold finite numbers, but /a/0 is nan"):
        Record("quality", {}).save({"a": [float("nan")]}, tmp_path / "found.json")
    assert list(tmp_path.iterdir()) == []
