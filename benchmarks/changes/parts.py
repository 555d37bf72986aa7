"""What studies of changed weights share: states in files, views of them, what is shown of what was found."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lottery_tickets import compute_changes
from statistical_report_generator.claims import assess_claims
from statistical_report_generator.claims.findings import describe_claims
from statistical_report_generator.inference.intervals import summarise_experiment

LARGEST: Final = 0.99  # sparsity of the masks of largest changes
VIEWS: Final[dict[str, tuple[torch.dtype, dict[str, Any]]]] = {
    "bfloat16": (torch.bfloat16, {}),
    "float32": (torch.float32, {}),
    "float32, largest 1 %": (torch.float32, {"by": "delta", "sparsity": LARGEST}),
}
DRAWN: Final = "bfloat16"  # the view of which the exponents are shown
SHARES: Final = ("num_weights", "share_changed", "share_hidden", "largest_share")

State = dict[str, Tensor]


def name_once(model: nn.Module) -> State:
    """Returns the parameters on the CPU, tied ones once."""
    return {name: parameter.detach().cpu() for name, parameter in model.named_parameters()}


def load_state(path: Path, dtype: torch.dtype) -> State:
    """Returns the tensors of a file in another dtype."""
    return {name: tensor.to(dtype) for name, tensor in load_file(path).items()}


def compare(folder: Path, trainings: Mapping[str, str], view: str) -> dict[str, Any]:
    """Returns what trainings changed, and what they have in common beside each null.

    Args:
        folder: Of the states: "before.safetensors", and those of the trainings.
        trainings: What each is called, and its file without the ending.
        view: One of `VIEWS`.
    """
    dtype, options = VIEWS[view]
    after = {label: load_state(folder / f"{file}.safetensors", dtype) for label, file in trainings.items()}
    found = compute_changes(load_state(folder / "before.safetensors", dtype), after, **options)
    pairs = found["overlaps"]["pairs"] if found["overlaps"] else []
    return shorten(found["updates"], pairs, view)


def shorten(updates: Mapping[str, Any], pairs: Iterable[Mapping[str, Any]], view: str) -> dict[str, Any]:
    """Returns of what was found what is shown: all weights, shares by kind, and exponents where they are drawn."""
    kinds = {
        name: {kind: {share: found[share] for share in SHARES} for kind, found in update["kinds"].items()}
        for name, update in updates.items()
    }
    left_out = set() if view == DRAWN else {"by_exponent"}
    return {
        "updates": {name: {"overall": update["overall"], "kinds": kinds[name]} for name, update in updates.items()},
        "pairs": [{key: value for key, value in pair.items() if key not in left_out} for pair in pairs],
    }


def judge(found: Mapping[str, Any], *, metric: str, margin: float) -> dict[str, Any]:
    """Returns the means of all branches of an experiment with their intervals, and the claims.

    Args:
        found: Of `compute_change_mask_quality`.
        metric: That counts.
        margin: Of it, that counts as none.
    """
    claims = assess_claims(found, metric=metric, margin=margin)
    branches = [
        {"level": summary.level, "branch": summary.branch, "density": summary.density}
        | {name: asdict(getattr(summary, name)) for name in ("value", "minus_dense", "minus_ticket")}
        for summary in summarise_experiment(found, metric=metric, moment="end")
    ]
    return {"branches": branches, "claims": claims, "findings": describe_claims(claims)}
