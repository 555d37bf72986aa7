"""An analysis that another package brings: how many parameters no mask prunes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unified_model_analysis import Analysis, Subject


def count_biases(subject: Subject, _: Path) -> Mapping[str, Any]:
    """Returns how many parameters are biases, and what share of all that is."""
    sizes = {name: parameter.numel() for name, parameter in subject.model.named_parameters()}
    num_biases = sum(size for name, size in sizes.items() if name.endswith("bias"))
    return {"num_biases": num_biases, "share": num_biases / sum(sizes.values())}


CENSUS = Analysis(
    "bias-census",
    "how many parameters no mask prunes",
    count_biases,
    lambda _: 1,
    conclude=lambda found: f"{found['num_biases']} parameters are biases, {found['share']:.1%} of all",
)
