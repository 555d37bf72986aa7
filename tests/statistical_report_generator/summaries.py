"""Results of experiments that were never run, for the tests of reports."""

from collections.abc import Mapping, Sequence
from typing import Any


def count_layers(density: float, share_moved: float) -> dict[str, Any]:
    """Returns the layers of a training: a large one, and a small one that keeps more."""
    sizes = {"fc1.weight": (30_000, density), "fc2.weight": (1_000, (1 + density) / 2)}
    return {
        name: {
            "num_weights": num_weights,
            "num_kept": (num_kept := round(share * num_weights)),
            "num_moved": round(share_moved * num_kept),
            "dtype": "float32",
        }
        for name, (num_weights, share) in sizes.items()
    }


def make_results(accuracies: Mapping[tuple[int, str], Sequence[float]], **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Returns results in the form of `results.json`: for each level and branch one test accuracy a replicate."""
    rows = [
        {
            "replicate": replicate,
            "level": level,
            "branch": branch,
            "density": 0.8**level,
            "history": {
                "early_stop": {"step": 100 * (level + 1), "test_accuracy": accuracy},
                "end": {"step": 1000, "test_accuracy": accuracy - 0.1},
            },
        }
        for (level, branch), values in accuracies.items()
        for replicate, accuracy in enumerate(values)
    ]
    return {"simulated": False, "trainings": rows, **changes}
