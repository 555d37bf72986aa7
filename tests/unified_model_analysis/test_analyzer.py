"""Many analyses of one model: planned, kept as they finish, resumed, put back; one that fails stops no other."""

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lottery_tickets import load_results, recommend_settings
from lottery_tickets.storage import hash_state
from tests.models import load_digits, make_convolutions, make_language_model, make_lenet
from unified_model_analysis import Analysis, Subject, UnifiedConfig, UnifiedModelAnalyzer, analyses, list_analyses
from unified_model_analysis.subject import make_subject

PLUGIN = Path(__file__).parents[1] / "plugins" / "bias_census"
MEASURING = ["robustness", "ticket", "importance", "strategies", "quality", "costs", "overlap", "landscape"]
TRAINING = ["early-bird", "pruning"]
STOPPED = "stopped here"


def make_batches(num: int = 3) -> list[tuple[torch.Tensor, torch.Tensor]]:
    data = load_digits().data
    return list(zip(data.test_inputs.split(16)[:num], data.test_targets.split(16)[:num], strict=True))


def analyze(
    folder: Path,
    model: nn.Module | None = None,
    data: Any = None,  # noqa: ANN401 - any batches
    **settings: Any,  # noqa: ANN401 - of the config
) -> tuple[Any, list[str]]:
    said: list[str] = []
    fast = {"num_samples": 16, "grid_points": 3, "num_batches": 2, "sparsity_levels": [0.5], "progress": False}
    config = UnifiedConfig(folder, generate_report=False, **{**fast, **settings})
    analyzer = UnifiedModelAnalyzer(config, tell=said.append)
    return analyzer.analyze(model or make_lenet(), make_batches() if data is None else data), said


def test_a_config_may_be_changed_afterwards() -> None:
    config = UnifiedConfig()
    config.generate_report, config.report_style = True, "technical"
    assert UnifiedModelAnalyzer(config).config is config
    assert UnifiedModelAnalyzer().config == UnifiedConfig()


def test_it_says_what_it_will_run_and_for_how_long_before_it_does(tmp_path: Path) -> None:
    found, said = analyze(tmp_path)
    assert [entry["name"] for entry in found["analyses"]] == MEASURING
    assert said[0].startswith("LeNet300100: 50,610 parameters, of which 50,200 in 3 weights can be pruned")
    assert [line.split()[0] for line in said[1:9]] == MEASURING
    assert said[9].startswith("8 analyses to run, expected to take ")
    assert [line.split(",")[0] for line in said[10:18]] == MEASURING
    assert said[18] == "8 of 8 analyses finished"
    assert all(entry["expected_seconds"] > 0 for entry in found["analyses"])


def test_each_result_is_a_file_that_says_how_it_was_made_and_the_index_names_it(tmp_path: Path) -> None:
    found, _ = analyze(tmp_path)
    index = load_results(tmp_path / "analysis.json")
    assert index["schema"] == "lottery-tickets analysis 1"
    assert index["model"] == {
        "name": "LeNet300100",
        "class": "LeNet300100",
        "num_parameters": 50_610,
        "num_prunable": 50_200,
        "num_layers": 3,
    }
    for entry in index["analyses"]:
        stored = load_results(tmp_path / entry["file"])
        assert stored["schema"] == f"lottery-tickets {entry['kind']} 1"
        assert stored["provenance"]["settings"]["num_samples"] == 16
        assert entry["status"] == "finished"
        assert entry["conclusion"]
    assert found["results"]["quality"]["sparsity"] == pytest.approx(0.7, abs=1e-3)


@pytest.mark.parametrize("is_training", [True, False])
def test_the_model_is_left_as_it_was_also_by_analyses_that_train(tmp_path: Path, *, is_training: bool) -> None:
    model = make_lenet().train(is_training)
    before = hash_state(model.state_dict())
    found, _ = analyze(tmp_path, model, train=True, num_epochs=1, learning_rate=0.1)
    assert [entry["name"] for entry in found["analyses"]] == [*MEASURING, *TRAINING]
    assert [entry["error"] for entry in found["analyses"]] == [None] * 10
    assert hash_state(model.state_dict()) == before
    assert model.training is is_training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert {row["branch"] for row in found["results"]["pruning"]["trainings"]} >= {"ticket", "shuffled"}


def test_what_finished_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    analyze(tmp_path, analyses=["ticket"])
    before = (tmp_path / "ticket.json").read_bytes()

    def fail(*_: object) -> Mapping[str, Any]:
        raise AssertionError("must not be called")

    ticket = next(analysis for analysis in analyses.ANALYSES if analysis.name == "ticket")
    others = [replace(ticket, run=fail), *(one for one in analyses.ANALYSES if one.name != "ticket")]
    monkeypatch.setattr(analyses, "ANALYSES", tuple(others))
    found, said = analyze(tmp_path, analyses=["ticket", "quality"])
    assert [entry["status"] for entry in found["analyses"]] == ["finished", "finished"]
    assert found["results"]["ticket"]["actual_sparsity"] == pytest.approx(0.7, abs=1e-3)
    assert "1 analyses to run" in said[3]
    assert (tmp_path / "ticket.json").read_bytes() == before


def replace_analysis(monkeypatch: pytest.MonkeyPatch, name: str, **changes: Any) -> None:  # noqa: ANN401 - any field
    changed = [replace(one, **changes) if one.name == name else one for one in analyses.ANALYSES]
    monkeypatch.setattr(analyses, "ANALYSES", tuple(changed))
    monkeypatch.setattr("unified_model_analysis.analyzer.ANALYSES", tuple(changed))


def test_a_failing_analysis_is_reported_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Mapping[str, Any]:
        raise ZeroDivisionError("by nothing")

    with monkeypatch.context() as patched:
        replace_analysis(patched, "quality", run=fail)
        found, said = analyze(tmp_path, analyses=["ticket", "quality", "overlap"])
    entries = {entry["name"]: entry for entry in found["analyses"]}
    assert {name: entry["status"] for name, entry in entries.items()} == {
        "ticket": "finished",
        "quality": "failed",
        "overlap": "finished",
    }
    assert entries["quality"]["error"] == "ZeroDivisionError: by nothing"
    assert not (tmp_path / "quality.json").exists()
    assert "2 of 3 analyses finished; failed: quality" in said
    again, _ = analyze(tmp_path, analyses=["ticket", "quality", "overlap"])  # what failed is tried again
    assert [entry["status"] for entry in again["analyses"]] == ["finished"] * 3


def test_interrupted_it_keeps_what_is_finished_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> Mapping[str, Any]:
        raise KeyboardInterrupt(STOPPED)

    with monkeypatch.context() as patched:
        replace_analysis(patched, "quality", run=stop)
        with pytest.raises(KeyboardInterrupt, match=STOPPED):
            analyze(tmp_path, analyses=["ticket", "quality", "overlap"])
    index = load_results(tmp_path / "analysis.json")
    assert [entry["status"] for entry in index["analyses"]] == ["finished", "interrupted", "waiting"]
    found, said = analyze(tmp_path, analyses=["ticket", "quality", "overlap"])
    assert [entry["status"] for entry in found["analyses"]] == ["finished"] * 3
    assert any(line.startswith("2 analyses to run") for line in said)


def test_an_interrupted_training_puts_the_model_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(subject: Subject, _: Path) -> Mapping[str, Any]:
        for parameter in subject.model.parameters():
            parameter.data.zero_()
        raise KeyboardInterrupt(STOPPED)

    model = make_lenet()
    before = hash_state(model.state_dict())
    replace_analysis(monkeypatch, "early-bird", run=stop)
    with pytest.raises(KeyboardInterrupt, match=STOPPED):
        analyze(tmp_path, model, analyses=["early-bird"], train=True)
    assert hash_state(model.state_dict()) == before


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"seed": 1}, "differ: config"),
        ({"data": make_batches(1)}, "differ: .*data_sha256"),
        ({"model": make_lenet(1)}, "differ: .*model_sha256"),
    ],
)
def test_a_folder_of_another_model_data_or_settings_is_refused(
    change: dict[str, Any], match: str, tmp_path: Path
) -> None:
    analyze(tmp_path, analyses=["ticket"])
    with pytest.raises(ValueError, match=match):
        analyze(tmp_path, analyses=["ticket"], **change)


def test_a_folder_of_others_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="it holds other files"):
        analyze(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"analyses": ["colour"]}, "analyses must be some of robustness, .*, got .'colour'"),
        ({"analyses": "ticket"}, "analyses must be some of"),
        ({"analyses": []}, "analyses must be some of"),
        ({"analyses": ["early-bird"]}, "early-bird train the model; allow it by train=True"),
        ({"data": []}, "dataloader must hold at least one batch"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_left(settings: dict[str, Any], match: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=match):
        analyze(tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_data_that_can_be_gone_through_once_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="gone through many times, got an iterator; pass a list"):
        analyze(tmp_path / "out", data=iter(make_batches()))


def test_the_report_answers_first_and_says_what_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Mapping[str, Any]:
        raise ZeroDivisionError("<b>by</b> nothing")

    replace_analysis(monkeypatch, "quality", run=fail)
    install_plugin(tmp_path, monkeypatch)
    said: list[str] = []
    chosen = ["ticket", "quality", "landscape", "bias-census"]
    config = UnifiedConfig(tmp_path / "out", chosen, name="my net", grid_points=3, progress=False)
    found = UnifiedModelAnalyzer(config, tell=said.append).analyze(make_lenet(), make_batches())
    assert found["report"] == str(tmp_path / "out" / "report.pdf")
    assert said[-1].endswith(f"report: {found['report']}")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    words = ("3 of 4 analyses finished, on my net", "no layer is emptied", "ZeroDivisionError: &lt;b&gt;by", "410")
    assert all(word in page for word in words)
    assert page.rindex(words[0]) < page.rindex("How it was made")  # the first are the contents
    monkeypatch.undo()
    monkeypatch.setattr(
        "unified_model_analysis.analyzer.list_analyses", lambda: {one.name: one for one in analyses.ANALYSES}
    )
    config.analyses, config.report_style = ["quality"], "summary"
    UnifiedModelAnalyzer(config, tell=said.append).analyze(make_lenet(), make_batches())  # the page is made anew
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "4 of 4 analyses finished" in page
    assert "How it was made" not in page


# --------------------------------------------------------------------------------------------------- analyses of others


def install_plugin(folder: Path, monkeypatch: pytest.MonkeyPatch, **points: str) -> None:
    """Makes the example package importable with its entry points, as an installer does."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    declared = {**project["entry-points"]["lottery_tickets.analyses"], **points}
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [f"{name} = {value}" for name, value in declared.items()]
    (info / "entry_points.txt").write_text("\n".join(["[lottery_tickets.analyses]", *lines, ""]))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.syspath_prepend(str(PLUGIN))


def test_another_package_brings_an_analysis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_plugin(tmp_path, monkeypatch)
    assert list(list_analyses())[-1] == "bias-census"
    found, said = analyze(tmp_path / "out", analyses=["bias-census"])
    assert found["results"]["bias-census"] == {"num_biases": 410, "share": 410 / 50_610}
    assert "410 parameters are biases, 0.8% of all" in said[3]
    assert load_results(tmp_path / "out" / "bias-census.json")["schema"] == "lottery-tickets table 1"


def test_a_package_that_cannot_be_loaded_is_left_out_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plugin(tmp_path, monkeypatch, broken="nowhere_to_be_found:CENSUS", odd="bias_census:count_biases")
    with (
        pytest.warns(UserWarning, match="the analysis broken .* cannot be loaded: No module named"),
        pytest.warns(UserWarning, match="the entry point odd must name an Analysis, got <function"),
    ):
        names = list(list_analyses())
    assert names[-1] == "bias-census"


def test_an_analysis_of_others_that_changes_the_model_fails_and_the_model_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(subject: Subject, _: Path) -> Mapping[str, Any]:
        next(subject.model.parameters()).data.zero_()
        return {}

    spoiler = Analysis("spoiler", "spoils", spoil, lambda _: 1)
    monkeypatch.setattr(
        "unified_model_analysis.analyzer.list_analyses",
        lambda: {"spoiler": spoiler, **{one.name: one for one in analyses.ANALYSES}},
    )
    model = make_lenet()
    before = hash_state(model.state_dict())
    found, _ = analyze(tmp_path, model, analyses=["spoiler", "ticket"])
    assert [entry["status"] for entry in found["analyses"]] == ["failed", "finished"]
    assert "it changed the model" in found["analyses"][0]["error"]
    assert hash_state(model.state_dict()) == before


# -------------------------------------------------------------------------------------------------------- other models


def test_a_network_with_batch_norm(tmp_path: Path) -> None:
    model = make_convolutions()
    images = torch.randn(12, 2, 4, 4).double()
    data = [(images, model.eval()(images).argmax(1))]
    before = hash_state(model.state_dict())
    found, _ = analyze(tmp_path, model, data, train=True, num_epochs=1)
    assert [entry["error"] for entry in found["analyses"]] == [None] * 10
    assert hash_state(model.state_dict()) == before


def draw_all(model: nn.Module) -> None:
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)


@pytest.mark.parametrize("kind", [pytest.param("Llama", marks=pytest.mark.long), "Qwen2"])
def test_a_language_model(kind: str, tmp_path: Path) -> None:
    model = make_language_model(kind)
    tokens = torch.arange(48).reshape(4, 12) % 16
    data = [{"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}]
    trains = kind == "Llama"  # one of them is enough
    found, _ = analyze(tmp_path, model, data, train=trains, num_epochs=1, initialise_fn=draw_all)
    assert [entry["error"] for entry in found["analyses"]] == [None] * (10 if trains else 8)
    assert (found["settings"]["task"], found["settings"]["target_sparsity"]) == ("language modelling", 0.5)
    assert found["results"]["quality"]["metric"] == "perplexity"


@pytest.mark.parametrize(
    ("num_parameters", "expected"), [(5e8, (1000, 25)), (2e9, (500, 19)), (5e9, (200, 15)), (1.4e10, (100, 11))]
)
def test_settings_follow_the_size_of_the_model(
    num_parameters: float, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "unified_model_analysis.subject.recommend_settings",
        lambda _, memory: recommend_settings(num_parameters, memory),
    )
    subject = make_subject(make_lenet(), make_batches(), UnifiedConfig())
    assert (subject.settings["num_samples"], subject.settings["grid_points"]) == expected
