"""Reports of results that were never run, for the tests of pages."""

from pathlib import Path
from typing import Any, Final

from statistical_report_generator import ReportConfig, StatisticalReportGenerator
from tests.statistical_report_generator.claims.made_up import DENSE, move, with_controls
from tests.statistical_report_generator.summaries import count_layers, make_results

HOSTILE: Final = (
    '<img src=x onerror=alert(1)> #panic("typst") \\input{/etc/passwd} $(reboot)$ ]] "\' & % _ ~ ^ {} ../x 模型 \u202e'
)


def make_experiment(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Returns results of an experiment: two levels, the second with controls, six replicates."""
    controls = [move(-0.02), move(-0.03), move(-0.04)]
    branches = {(0, "ticket"): DENSE, (1, "ticket"): move(-0.02), **with_controls(2, move(0.001), *controls)}
    results = make_results(branches)
    for row in results["trainings"]:
        share = 0.9 + 0.01 * row["replicate"]
        row |= {"layers": count_layers(row["density"] - 0.001 * row["replicate"], share), "share_moved": share}
    return {**results, **changes}


def make_connectivity() -> dict[str, Any]:
    """Returns results of pairs that part at three steps."""
    rows = [
        {
            "step": 10 * number,
            "network": "dense",
            "num_pairs": 4,
            "num_stable": number,
            "instability": {"low": low, "mean": mean, "high": high, "num_replicates": 4},
            "barrier": None,
            "accuracy": {"mean": 0.9, "low": 0.8, "high": 0.95, "num_replicates": 4},
        }
        for number, (low, mean, high) in enumerate([(0.03, 0.05, 0.07), (0.01, 0.019, 0.03), (0.0, 0.01, 0.019)])
    ]
    return {"network": "a", "settings": {"threshold": 0.02}, "rows": rows, "searches": {}, "findings": []}


def write_report(folder: Path, name: str = "report", **settings: Any) -> Path:  # noqa: ANN401 - of `ReportConfig`
    """Writes a report of an experiment, of one whose words attack the pages, and of pairs; returns its PDF."""
    attack = {"subject": {"workload": HOSTILE, HOSTILE: HOSTILE, "path": "/".join(["a_long_name"] * 60)}}
    generator = StatisticalReportGenerator(ReportConfig(output_dir=folder, **settings))
    generator.add_results(make_experiment(), "a run")
    generator.add_results(make_experiment(plan=attack, unidentified=[HOSTILE], environments=[{"x": HOSTILE}]), HOSTILE)
    generator.add_results(make_connectivity(), "pairs")
    return generator.generate_report(name)
