"""One small made-up result of each kind, as files hold them."""

import copy
import json
from collections.abc import Iterator
from typing import Any, Final

from statistical_report_generator.document import Figure, Section, Table
from statistical_report_generator.kinds import KINDS as KNOWN
from statistical_report_generator.reading import read_sources
from statistical_report_generator.sections.experiment import ExperimentOptions
from tests.statistical_report_generator.rendering.reports import make_connectivity, make_experiment

PROVENANCE: Final[dict[str, Any]] = {
    "started": "2026-01-02T03:04:05+00:00",
    "wall_seconds": 1.5,
    "command": "lottery-tickets score out.json",
    "commit": None,
    "settings": {"seed": 0},
    "environment": {"torch": "2.0"},
    "hardware": {"cpu": "one", "num_cpus": 2, "memory_bytes": 8, "gpus": []},
}
FIGURES: Final = {"loss": 0.25, "accuracy": 0.925, "perplexity": 1.284, "num_predictions": 400}


def make_point(sparsity: float, accuracy: float | None) -> dict[str, Any]:
    """Returns a network at one sparsity."""
    return {
        "sparsity": sparsity,
        "actual_sparsity": sparsity,
        "loss": None if accuracy is None else 1 - accuracy,
        "accuracy": accuracy,
        "perplexity": None if accuracy is None else 2 - accuracy,
        "retention": None if accuracy is None else accuracy / 0.925,
    }


def make_check(epoch: float, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - any figure
    """Returns one look at an early-bird run."""
    return {
        "epoch": epoch,
        "step": int(10 * epoch),
        "correlation": 0.9 + epoch / 100,
        "start_correlation": 0.8,
        "distance": 0.1,
        "corrected_distance": 0.25,
        "start_distance": 0.2,
        "corrected_start_distance": 0.5,
        "queue_distances": [0.1],
        "movement": 0.3,
        "share_moved": 0.99,
        "loss": 1 / epoch,
        "start_loss": 2.3,
        "gap": 0.5,
        "gap_z": 5.5,
        "stable": epoch > 1,
        **changes,
    }


def make_summary(mean: float) -> dict[str, Any]:
    """Returns what `save_results` makes of a matrix."""
    return {
        "shape": [4, 3],
        "dtype": "float32",
        "mean": mean,
        "std": mean / 2,
        "quantiles": {"0.0": 0.0, "0.5": mean, "1.0": 3 * mean},
        "heat_map": [[mean, 2 * mean], [3 * mean, 0.0]],
    }


LAYERS: Final = {"fc1.weight": 0.75, "fc2.weight": 0.25}
OVERLAP_FIGURES: Final = {"overlap": 0.5, "expected": 0.25, "adjusted": 0.3333}
PAIR: Final = {
    "alphas": [0.0, 0.5, 1.0],
    "errors": [0.1, 0.15, 0.12],
    "losses": [0.3, None, 0.31],
    "first": {"loss": 0.3, "accuracy": 0.9, "error": 0.1},
    "second": {"loss": 0.31, "accuracy": 0.88, "error": 0.12},
    "instability": 0.04,
    "stable": False,
    "barrier": 0.05,
    "num_nonfinite": 1,
}
QUALITY: Final[dict[str, Any]] = {
    "kind": "post-hoc",
    "metric": "accuracy",
    "higher_is_better": True,
    "performance_retention": 0.875,
    "baseline_performance": 0.925,
    "ticket_performance": 0.809375,
    "baseline_loss": 0.25,
    "ticket_loss": 0.75,
    "baseline": FIGURES,
    "ticket": {**FIGURES, "loss": 0.75, "accuracy": 0.809375},
    "sparsity": 0.7,
    "retrained": None,
}
ROBUSTNESS: Final[dict[str, Any]] = {
    "baseline_loss": 0.25,
    "metric": "accuracy",
    "sparsity_curves": {
        "magnitude": [make_point(0.5, 0.9), make_point(0.9, 0.55)],
        "random": [make_point(0.5, 0.4), make_point(0.9, None)],
    },
    "robustness_metrics": {"winning_ticket_score": 0.4, "optimal_sparsity": 0.5, "critical_sparsity": None},
    "settings": {"baseline": FIGURES, "tolerance": 0.05, "critical_retention": 0.5, "scope": "global", "seed": 0},
}
PERFORMANCE: Final[dict[str, Any]] = {
    **FIGURES,
    "metric": "accuracy",
    "higher_is_better": True,
    "performance": 0.925,
}
VALIDATION: Final[dict[str, Any]] = {
    "valid": False,
    "performs_well": None,
    "applied": True,
    "zeros": {"passed": False, "num_nonzero": 3},
    "shapes": {"passed": True, "num_parameters": 2},
    "performance": {"passed": None, "reason": "no original performance was given"},
}
MATRIX: Final[dict[str, Any]] = {
    "names": ["one", "two"],
    "method": "jaccard",
    "overlaps": [[1.0, 0.5], [0.5, 1.0]],
    "expected": [[0.4, 0.3], [0.3, 0.4]],
    "adjusted": [[1.0, 0.2857], [0.2857, 1.0]],
    "densities": [0.5, 0.4],
}
NULL: Final = {"expected_both": 20.0, "ratio": 1.5, "low": 1.25, "high": 1.75, "p_value": 0.001}
GIVEN: Final[dict[str, Any]] = {
    "nulls": {"naive": {**NULL, "expected_both": 2.0, "ratio": 15.0, "low": 14.0, "high": 16.0}, "value": NULL},
    "verdict": "beyond chance",
    "error_rate": 0.01,
    "by_exponent": [
        {"exponent": -7, "num_weights": 100, "num_kept": [50, 50], "num_both": 30, "expected_both": 20.0},
        {"exponent": -6, "num_weights": 200, "num_kept": [0, 1], "num_both": 0, "expected_both": 0.0},
    ],
}
CHANGED: Final[dict[str, Any]] = {
    "num_weights": 300,
    "num_changed": 50,
    "share_changed": 0.1667,
    "num_sign_flips": 2,
    "num_hidden": 20,
    "share_hidden": 0.4,
    "norm": 0.125,
    "largest_share": 0.5,
    "ulps": {"0": 40, "1": 10},
    "sizes": {"-14": 50},
    "by_exponent": [
        {"exponent": -7, "num_weights": 100, "num_changed": 50},
        {"exponent": -6, "num_weights": 200, "num_changed": 0},
    ],
}
UPDATE: Final[dict[str, Any]] = {
    "overall": CHANGED,
    "kinds": {"layers.*.up.weight": CHANGED},
    "layers": {"layers.0.up.weight": CHANGED},
    "dtypes": ["float32"],
}
WEIGHT_COSTS: Final = {
    "fc1.weight": {"parameters": 80, "disk_bytes": 320, "forward_flops": 160, "step_flops": 320},
    "fc1.bias": {"parameters": 8, "disk_bytes": 32, "forward_flops": 0, "step_flops": 0},
    "fc2.weight": {"parameters": 24, "disk_bytes": 96, "forward_flops": 48, "step_flops": 144},
}
COSTS: Final[dict[str, Any]] = {
    "num_samples": 1,
    "dense": {
        **{key: sum(cost[key] for cost in WEIGHT_COSTS.values()) for key in WEIGHT_COSTS["fc1.weight"]},
        "memory_bytes": 448,
    },
    "weights": WEIGHT_COSTS,
    "masked": {"parameters": 46, "disk_bytes": 197, "forward_flops": 76, "step_flops": 188, "memory_bytes": 448},
    "no_units": "the units of a network are found by running it, but this one is on the meta device",
}
KINDS: Final[dict[str, dict[str, Any]]] = {
    "experiment": make_experiment(),
    "connectivity": make_connectivity(),
    "lines": {"pairs": [PAIR], "settings": {"threshold": 0.02, "trained": False, "num_points": 3}},
    "early-bird": {
        "method": "magnitude_ranking",
        "target_sparsity": 0.7,
        "convergence_threshold": 0.95,
        "converged": True,
        "convergence_epoch": 3.0,
        "verdict": "converged",
        "reason": "rank correlation 0.93",
        "checkpoints": [make_check(1.0), make_check(2.0), make_check(3.0)],
        "settings": {"counts": "epochs"},
    },
    "landscape": {
        "mode": "plane",
        "x": [-1.0, 0.0, 1.0],
        "y": [-1.0, 1.0],
        "losses": [[3.0, 1.0, 2.0], [2.5, None, 4.0]],
        "accuracies": [[0.1, 0.9, 0.5], [0.4, None, 0.2]],
        "centre": {**FIGURES, "loss": 0.5},
        "num_nonfinite": 1,
        "num_measured": 6,
        "sharpness": [{"radius": 0.5, "mean_rise": 0.75, "largest_rise": 1.25}],
        "normalisation": "filter",
        "settings": {"seed": 4},
    },
    "importance": {
        "importance": {
            "report": {"score": "mean of gradient^2", "num_samples": 100, "labels": "empirical"},
            "scores": {"fc1.weight": make_summary(0.25), "fc2.weight": make_summary(0.125)},
        },
        "sparsity": 0.5,
        "scope": "global",
        "layer_sparsities": LAYERS,
    },
    "ticket": {
        "layer_sparsities": {**LAYERS, "fc3.weight": 1.0},
        "actual_sparsity": 0.625,
        "collapsed_layers": ["fc3.weight"],
        "thresholds": {"fc1.weight": 0.125, "fc2.weight": 0.0625, "fc3.weight": None},
    },
    "quality": QUALITY,
    "robustness": ROBUSTNESS,
    "validation": VALIDATION,
    "performance": PERFORMANCE,
    "evaluation": {
        "network": "digits",
        "performance": PERFORMANCE,
        "quality": QUALITY,
        "validation": VALIDATION,
        "robustness": ROBUSTNESS,
    },
    "overlap": {
        "overall_overlap": 0.5,
        "expected_overlap": 0.25,
        "adjusted_overlap": 0.3333,
        "layer_overlaps": {
            name: {**OVERLAP_FIGURES, "num_both": 50, "num_kept": [75, 75], "num_weights": 150} for name in LAYERS
        },
        "method": "jaccard",
    },
    "overlap-matrix": MATRIX,
    "changes": {
        "by": "stored",
        "updates": {"one": UPDATE, "two": {**UPDATE, "overall": {**CHANGED, "num_hidden": None, "share_hidden": None}}},
        "overlaps": {**MATRIX, "pairs": [{"first": "one", "second": "two", **GIVEN}]},
    },
    "strategies": {
        "metric": "accuracy",
        "higher_is_better": True,
        "baseline": FIGURES,
        "rows": [
            {"strategy": name, **make_point(sparsity, accuracy)}
            for name, accuracies in {"magnitude": (0.9, 0.6), "random": (0.5, 0.1)}.items()
            for sparsity, accuracy in zip((0.5, 0.9), accuracies, strict=True)
        ],
        "num_samples": 400,
    },
    "costs": COSTS,
    "table": {"num_biases": 410, "share": 0.25, "inner": {"word": "a"}},
}


def make_result(kind: str) -> dict[str, Any]:
    """Returns a result as a file of today holds it."""
    version = 2 if kind == "experiment" else 1
    return {"schema": f"lottery-tickets {kind} {version}", "provenance": PROVENANCE, **KINDS[kind]}


def describe(results: Any) -> list[Section]:  # noqa: ANN401 - of any kind
    """Returns the sections on results of any kind."""
    return [
        section
        for source in read_sources(results)
        for section in KNOWN[source.kind].describe(source, ExperimentOptions())
    ]


def tell(sections: list[Section]) -> Iterator[Any]:
    """Yields all words of sections, in order; of figures what is said beside them."""
    for section in sections:
        yield section.title
        for block in section.blocks:
            if isinstance(block, Figure):
                yield [block.name, block.caption, block.alternative]
            elif isinstance(block, Table):
                yield [block.caption, list(block.headings), *map(list, block.rows)]
            else:
                yield json.loads(json.dumps(vars(block)))


def list_places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:  # noqa: ANN401 - JSON
    """Yields where each value stands, outer ones first."""
    yield place
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from list_places(item, (*place, key))


def change(value: Any, place: tuple[Any, ...], by: Any) -> Any:  # noqa: ANN401 - JSON
    """Returns JSON with one value replaced, or taken out where the new one is `...`."""
    changed = copy.deepcopy(value)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    if by is ...:
        del inner[place[-1]]
    else:
        inner[place[-1]] = by
    return changed
