"""Which weights changed, by hand and against sorting; from memory and from files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lottery_tickets import CheckpointWeights, compute_change_mask
from lottery_tickets.storage import save_weights

SUBNORMAL = 2.0**-133  # the smallest of bfloat16


def one(*values: float, dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    return {"fc.weight": torch.tensor([values], dtype=dtype)}


def kept(mask: Any) -> list[bool]:  # noqa: ANN401 - a Mask
    return list(mask["fc.weight"][0].tolist())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.float8_e4m3fn])
def test_a_weight_changed_if_its_bits_did_but_zeros_are_one_number(dtype: torch.dtype) -> None:
    tiny = torch.finfo(dtype).smallest_normal / 4  # subnormal
    before = one(0.0, -0.0, 0.0, tiny, tiny, 1.0, 1.0, 2.0, dtype=dtype)
    after = one(-0.0, 0.0, tiny, -tiny, 2 * tiny, 1.0, 1.0 + torch.finfo(dtype).eps, 2.0, dtype=dtype)
    assert kept(compute_change_mask(before, after)) == [False, False, True, True, True, False, True, False]


def test_what_is_added_below_half_an_ulp_is_lost_in_bfloat16() -> None:
    """The unit in the last place by exponent: of 1 it is 2^-7, of 2 it is 2^-6, below 1 half of that of 1."""
    start = torch.tensor([[1.0, 2.0, 1.0, 1.0, 4 * SUBNORMAL]], dtype=torch.bfloat16)
    added = torch.tensor([[0.6 * 2.0**-7, 0.6 * 2.0**-7, -0.4 * 2.0**-7, 0.4 * 2.0**-7, 0.6 * SUBNORMAL]])
    after = {"fc.weight": (start.float() + added).bfloat16()}
    assert kept(compute_change_mask({"fc.weight": start}, after)) == [True, False, True, False, True]


def test_one_changed_byte_is_one_changed_weight_and_nothing_and_everything_are_found() -> None:
    before = torch.randn(40, 30).bfloat16()
    after = before.clone()
    after.view(torch.uint8).view(-1)[2 * 777] ^= 1
    mask = compute_change_mask({"fc.weight": before}, {"fc.weight": after})
    assert mask["fc.weight"].flatten().nonzero().flatten().tolist() == [777]
    assert compute_change_mask({"fc.weight": before}, {"fc.weight": before.clone()}).num_kept == 0
    assert compute_change_mask({"fc.weight": before}, {"fc.weight": -before}).density == 1.0


def test_nan_is_what_it_was_if_its_bits_are() -> None:
    before = torch.tensor([[float("nan"), float("nan"), 1.0]])
    after = before.clone()
    after.view(torch.int32)[0, 1] += 1
    assert kept(compute_change_mask({"fc.weight": before}, {"fc.weight": after})) == [False, True, False]


def make_pair(dtype: torch.dtype = torch.bfloat16, size: float = 1e-3) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Returns weights and an update: of three layers, one of which does not change."""
    before = {name: torch.randn(shape).to(dtype) for name, shape in {"a.weight": (33, 70), "b.weight": (9, 11)}.items()}
    after = {name: (w.double() + size * torch.randn(w.shape)).to(dtype) for name, w in before.items()}
    still = torch.randn(4, 5).to(dtype)
    return {**before, "c.weight": still}, {**after, "c.weight": still.clone()}


@pytest.mark.parametrize("by", ["delta", "relative"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_largest_changes_are_those_of_a_stable_sort(by: Any, dtype: torch.dtype) -> None:  # noqa: ANN401 - a Literal
    before, after = make_pair(dtype)
    mask = compute_change_mask(before, after, by=by, sparsity=0.98)
    old, new = (torch.cat([w.flatten().double() for w in side.values()]) for side in (before, after))
    sizes = (new - old).abs()
    if by == "relative":
        sizes = (new / torch.maximum(old.abs(), new.abs()) - old / torch.maximum(old.abs(), new.abs())).abs()
    if dtype != torch.float64:
        sizes = sizes.float()
    largest = sizes.argsort(descending=True, stable=True)[: mask.num_kept]
    expected = torch.zeros(len(sizes), dtype=torch.bool).index_fill(0, largest, value=True)
    assert mask.num_kept == len(sizes) - round(0.98 * len(sizes))
    assert torch.equal(torch.cat([mask[name].flatten() for name in mask]), expected)
    assert mask.is_subset(compute_change_mask(before, after))


def test_equal_changes_are_kept_by_position() -> None:
    mask = compute_change_mask(one(1, 1, 1, 1), one(1.5, 0.5, 1, 1.5), by="delta", sparsity=0.5)
    assert kept(mask) == [True, True, False, False]
    zeros = compute_change_mask(one(0, 0, 3, 1), one(0, 1, -3, 2), by="relative", sparsity=0.5)  # 1 and 2
    assert kept(zeros) == [False, True, True, False]


def test_more_changes_than_there_are_cannot_be_kept() -> None:
    before, after = one(1, 1, 1, 1), one(2, 1, 1, 2)
    with pytest.raises(ValueError, match="keeps 3 of the weights, but only 2 changed as stored"):
        compute_change_mask(before, after, by="delta", sparsity=0.25)
    with pytest.raises(ValueError, match=r"keeps 3 of 'fc.weight', but `within` has only 2 left") as caught:
        compute_change_mask(before, after, by="delta", sparsity=0.25, scope="layer")
    assert "the weights that changed" in caught.value.__notes__[0]


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("by", ["delta", "relative"])
def test_what_is_not_finite_and_did_not_change_is_no_change(by: Any, scope: str) -> None:  # noqa: ANN401 - a Literal
    odd = float("inf"), float("-inf"), float("nan")
    mask = compute_change_mask(one(*odd, 1), one(*odd, 2), by=by, sparsity=0.75, scope=scope)
    assert kept(mask) == [False, False, False, True]


@pytest.mark.parametrize("options", [{}, {"by": "delta", "sparsity": 0.99}, {"by": "relative", "sparsity": 0.99}])
def test_before_and_after_swapped_give_the_same_mask(options: dict[str, Any]) -> None:
    before, after = make_pair()
    assert compute_change_mask(before, after, **options) == compute_change_mask(after, before, **options)


@pytest.mark.parametrize("options", [{}, {"by": "delta", "sparsity": 0.995}])
def test_checkpoints_models_and_states_give_one_mask(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("change_mask", "differences"):
        monkeypatch.setattr(f"lottery_tickets.changes.{module}.WEIGHTS_PER_BLOCK", 64)  # many blocks
    model = nn.Sequential(nn.Linear(30, 50), nn.Linear(50, 7)).bfloat16()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1e-3 * torch.randn(parameter.shape))
    for name, state in (("before", before), ("after", model.state_dict())):
        save_weights(state, tmp_path / name / "model.safetensors")
    mask = compute_change_mask(before, model, **options)
    assert set(mask) == {"0.weight", "1.weight"}
    assert mask == compute_change_mask(before, model.state_dict(), **options)
    stored = [CheckpointWeights(tmp_path / name) for name in ("before", "after")]
    assert mask == compute_change_mask(*stored, **options)
    assert mask == compute_change_mask(stored[0], model, **options)
    assert mask.provenance["method"] == "change"


def test_a_tied_weight_counts_once() -> None:
    first, second = nn.Linear(6, 6), nn.Linear(6, 6)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    before["1.weight"] = before["0.weight"]
    with torch.no_grad():
        first.weight[0, 0] += 1
    mask = compute_change_mask(before, model)
    assert (set(mask), mask.num_kept) == ({"0.weight"}, 1)


def test_what_cannot_be_compared_is_refused() -> None:
    before = one(1, 2)
    with pytest.raises(ValueError, match=r"'fc.weight' has \(1, 2\) before and \(1, 3\) after"):
        compute_change_mask(before, one(1, 2, 3))
    with pytest.raises(ValueError, match=r"the same weights, but .*other.* on one side only"):
        compute_change_mask(before, {**before, "other.weight": torch.ones(2, 2)})
    with pytest.raises(ValueError, match=r"is torch.bfloat16 before and torch.float32 after"):
        compute_change_mask(before, one(1, 2, dtype=torch.float32))
    with pytest.raises(ValueError, match="by must be one of stored, delta, relative, got 'size'"):
        compute_change_mask(before, before, by="size")  # type: ignore[arg-type] # that is the test
    with pytest.raises(ValueError, match="have a sparsity of their own"):
        compute_change_mask(before, before, sparsity=0.5)
    with pytest.raises(ValueError, match="sparsity must be given"):
        compute_change_mask(before, before, by="delta")
    with pytest.raises(ValueError, match="NaN or infin"):
        compute_change_mask(before, one(1, float("inf")), by="delta", sparsity=0.5)
