"""Methods say what results say of themselves, and cite whom they go back to, and nobody else."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from statistical_report_generator import ReportConfig, StatisticalReportGenerator
from statistical_report_generator.papers.methods import Judging, describe_methods, list_cited
from statistical_report_generator.papers.references import REFERENCES, render_bibtex
from statistical_report_generator.papers.scores import SCORES
from tests.statistical_report_generator.rendering.reports import make_experiment

PAGE = Path(__file__).parents[3] / "docs" / "references.md"
JUDGING = Judging(0.002, "t", "end")
RECIPE = {"optimizer": "sgd", "optimizer_arguments": {"lr": 0.1, "momentum": 0.9}, "batch_size": 128, "num_steps": 9000}
PLAN: dict[str, Any] = {
    "subject": {"workload": "fashion-mnist/resnet-20", "recipe": RECIPE},
    "schedule": {"prune_rates": [["*", 0.2]], "scope": "global"},
    "num_levels": 7,
    "rewind_step": 500,
    "rewinding": "weights",
    "controls": ["reinitialised", "shuffled"],
    "num_replicates": 6,
    "seed": 3,
}


def test_every_paper_stands_on_the_page_of_references() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for reference in REFERENCES.values():
        if reference.arxiv is not None:
            assert f"| {reference.arxiv} |" in page
        else:
            assert f"{reference.authors.split(',')[0]} {reference.year}" in page
    assert {key for _, cites in SCORES.values() for key in cites} <= REFERENCES.keys()


def test_an_experiment_is_told_by_its_settings() -> None:
    statements = describe_methods([("experiment", make_experiment(plan=PLAN))], JUDGING)
    text = " ".join(map(str, statements))
    for words in (
        "Networks were trained on fashion-mnist/resnet-20 (He et al. 2016; Xiao et al. 2017).",
        "The optimizer was sgd with lr 0.1, momentum 0.9, batches of 128 and 9000 steps.",
        "in 7 rounds: in each the network was trained, the weights of least magnitude were removed (20 % of those",
        "those that were left went back to their values at step 500 (Frankle & Carbin 2019; Frankle et al. 2019).",
        "Weights of all layers were compared with each other.",
        "the mask shuffled within each layer",
        "repeated 6 times, with other seeds for initialisation and data order, which all derive from the seed 3.",
        "not worse than the dense network by 0.002 or more",
        "Holm's method (Holm 1979).",
    ):
        assert words in text, words
    assert "random mask" not in text
    cited = list_cited(statements)
    assert "frankle2019stabilizing" in cited
    assert not {"renda2020comparing", "you2020drawing", "li2018visualizing"} & set(cited)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"rewinding": "learning_rate"}, "renda2020comparing"),
        ({"schedule": {"scope": "erk"}}, "evci2020rigging"),
        ({"schedule": {"scope": "lamp"}}, "lee2021layer"),
        ({"controls": ["random"]}, "su2020sanity"),
        ({"subject": {"workload": "digits/lenet-300-100"}}, "frankle2019lottery"),
    ],
)
def test_a_setting_brings_its_paper(changes: dict[str, Any], key: str) -> None:
    bare = {**PLAN, "controls": [], "subject": {}, "schedule": {}}
    with_it, without = (
        list_cited(describe_methods([("experiment", {"plan": plan})], JUDGING)) for plan in ({**bare, **changes}, bare)
    )
    assert key in with_it
    assert key not in without or key == "frankle2019lottery"


OTHERS: dict[str, tuple[dict[str, Any], str, set[str]]] = {
    "connectivity": ({"settings": {"threshold": 0.02}}, "stable below 2 points", {"frankle2020linear"}),
    "lines": ({}, "Instability is the largest error", {"frankle2020linear"}),
    "early-bird": ({"method": "mask_distance", "target_sparsity": 0.7}, "of sparsity 0.7", {"you2020drawing"}),
    "landscape": ({"mode": "plane"}, "normalised by filter", {"li2018visualizing"}),
    "importance": (
        {"importance": {"report": {"score": "synaptic flow"}}, "scope": "row"},
        "scored by synaptic flow",
        {"tanaka2020pruning", "sun2024simple"},
    ),
    "ticket": ({"thresholds": {"fc": 0.5}}, "largest magnitude", {"han2015learning"}),
    "quality": ({"metric": "accuracy"}, "Retention is the accuracy", set()),
    "robustness": ({}, "growing sparsities", {"han2015learning"}),
    "strategies": ({"rows": [{"strategy": "taylor"}]}, "gradient times weight", {"molchanov2019importance"}),
    "overlap": ({"method": "dice"}, "the dice coefficient", set()),
    "validation": ({}, "", set()),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_each_kind_cites_its_own_papers(kind: str) -> None:
    results, words, keys = OTHERS[kind]
    statements = describe_methods([(kind, results), (kind, results)], JUDGING)
    assert words in " ".join(map(str, statements))
    assert set(list_cited(statements)) == keys
    assert len(set(statements)) == len(statements)


def test_a_simulation_has_no_tests_to_tell_of() -> None:
    statements = describe_methods([("experiment", {"simulated": True})], JUDGING)
    assert [str(one) for one in statements] == [
        "Masks were made from the weights as they were, and nothing was trained."
    ]


NAMES = st.sampled_from([*PLAN, *RECIPE, "recipe", "scope", "prune_rates", "workload"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=20,
)
PARTS = st.dictionaries(st.sampled_from(["plan", "rows", "settings", "importance", "mode", "method"]), JSON)


@settings(suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
@given(st.sampled_from([*OTHERS, "experiment"]), PARTS)
def test_no_settings_stop_it(kind: str, results: dict[str, Any]) -> None:
    statements = describe_methods([(kind, results)], JUDGING)
    assert set(list_cited(statements)) <= REFERENCES.keys()
    render_bibtex(list_cited(statements))


def test_what_is_cited_is_what_stands_in_the_files(tmp_path: Path) -> None:
    generator = StatisticalReportGenerator(ReportConfig(output_dir=tmp_path)).add_results(
        make_experiment(plan=PLAN), "a"
    )
    files = generator.generate_report().with_name("report-files")
    cited = {
        key for keys in re.findall(r"\\cite\{(.*?)\}", (files / "methods.tex").read_text()) for key in keys.split(",")
    }
    assert cited
    assert set(re.findall(r"@\w+\{(.*?),", (files / "methods.bib").read_text())) == cited
    [section] = [section for section in generator.describe().sections if section.title == "Methods"]
    assert section.technical


@pytest.mark.parametrize("number", [10**400, -(10**400), 1e300])
def test_numbers_that_no_setting_has_are_not_told(number: float) -> None:
    results = {"plan": {"schedule": {"prune_rates": [["*", number]]}, "num_levels": number}, "target_sparsity": number}
    for kind in ("experiment", "early-bird"):
        text = " ".join(map(str, describe_methods([(kind, {**results, "settings": {"threshold": number}})], JUDGING)))
        assert "000" not in text
        assert "e+" not in text
