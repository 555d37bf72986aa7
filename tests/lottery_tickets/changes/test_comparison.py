"""Several trainings of one model beside each other, and the files that keep what was found."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lottery_tickets import (
    compute_change_mask,
    compute_change_statistics,
    compute_changes,
    compute_overlap_matrix,
    load_results,
)


def make_updates(num: int) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    before = {name: 0.02 * torch.randn(shape) for name, shape in {"a.weight": (40, 30), "b.weight": (9, 40)}.items()}
    before = {name: weight.bfloat16() for name, weight in before.items()}
    return before, {
        f"seed {seed}": {name: (w.float() + 1e-4 * torch.randn(w.shape)).bfloat16() for name, w in before.items()}
        for seed in range(num)
    }


@pytest.mark.parametrize("options", [{}, {"by": "delta", "sparsity": 0.99}])
def test_each_update_is_as_alone_and_pairs_are_given_the_weights_before(
    options: dict[str, object], tmp_path: Path
) -> None:
    before, updates = make_updates(3)
    found = compute_changes(before, updates, path=tmp_path, **options)  # type: ignore[arg-type] # of several types
    masks = {name: compute_change_mask(before, after, **options) for name, after in updates.items()}  # type: ignore[arg-type] # likewise
    assert found["masks"] == masks
    assert [mask.provenance for mask in found["masks"].values()] == [mask.provenance for mask in masks.values()]
    assert found["overlaps"] == compute_overlap_matrix(masks, given=before)
    assert found["updates"] == {name: compute_change_statistics(before, after) for name, after in updates.items()}
    loaded = load_results(tmp_path / "changes.json")
    assert loaded["masks"] == masks
    assert loaded["updates"] == found["updates"]
    assert loaded["overlaps"]["pairs"] == found["overlaps"]["pairs"]


def test_one_update_has_no_overlap_and_none_is_an_error() -> None:
    before, updates = make_updates(1)
    found = compute_changes(before, list(updates.values()))
    assert (list(found["updates"]), found["overlaps"]) == (["0"], None)
    with pytest.raises(ValueError, match="there must be weights after"):
        compute_changes(before, {})
    for one in (updates["seed 0"], torch.nn.Sequential(torch.nn.Linear(2, 2))):
        with pytest.raises(TypeError, match="must be the weights of each training"):
            compute_changes(before, one)  # type: ignore[arg-type] # that is the test
