"""A mask is a mapping of booleans, an algebra, and comes back whole from copies."""

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from torch import Tensor

from lottery_tickets import Mask, as_mask
from tests.lottery_tickets.masks.drawn import bits, equal, make_tensors

# ------------------------------------------------------------------------------------------------------------ a mapping


@given(make_tensors())
def test_a_mask_gives_back_what_it_was_made_from(masks: list[dict[str, Tensor]]) -> None:
    [tensors] = masks
    mask = Mask.from_tensors(tensors)
    assert equal(mask, tensors)
    assert len(mask) == len(tensors)
    assert equal(dict(mask.items()), tensors)
    assert all(value.dtype == torch.bool for value in mask.values())
    assert mask.shapes == {name: tensor.shape for name, tensor in tensors.items()}
    assert "no such name" not in mask
    with pytest.raises(KeyError, match="no such name"):
        mask["no such name"]


@given(make_tensors())
def test_counts_are_those_of_the_tensors(masks: list[dict[str, Tensor]]) -> None:
    [tensors] = masks
    mask = Mask.from_tensors(tensors)
    sizes = {name: tensor.numel() for name, tensor in tensors.items()}
    kept = {name: int(tensor.sum()) for name, tensor in tensors.items()}
    total = sum(sizes.values())
    assert mask.num_weights == total
    assert mask.num_kept == sum(kept.values())
    assert mask.nbytes == sum((size + 7) // 8 for size in sizes.values())
    assert mask.density == (sum(kept.values()) / total if total else 1.0)
    assert mask.density + mask.sparsity == pytest.approx(1)
    expected = {name: (sizes[name] - kept[name]) / sizes[name] if sizes[name] else 0.0 for name in sizes}
    assert mask.layer_sparsity() == pytest.approx(expected)


def test_one_bit_a_weight_little_bit_order() -> None:
    mask = Mask.from_tensors({"a": torch.tensor([1, 0, 0, 0, 0, 0, 0, 0, 1, 1])})
    assert mask.bits["a"].tolist() == [0b1, 0b11]


def test_unpacked_tensors_are_the_callers_own() -> None:
    mask = Mask.from_tensors({"a": torch.eye(3)})
    mask["a"].fill_(value=True)
    assert mask.num_kept == 3


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(1.0),
        torch.tensor(0.0),
        torch.zeros(0),
        torch.zeros(3, 0, 2),
        torch.eye(5)[::2].t(),
        torch.eye(6)[:, ::3],
        torch.ones(1).expand(4, 3),
        torch.tensor([0.0, -0.0, 1.0]),
    ],
    ids=["scalar one", "scalar zero", "empty", "zero size", "transposed", "strided", "expanded", "negative zero"],
)
def test_any_layout_and_dtype_means_the_same(tensor: Tensor, dtype: torch.dtype) -> None:
    mask = Mask.from_tensors({"w": tensor.to(dtype)})
    assert torch.equal(mask["w"], tensor != 0)
    assert mask == {"w": tensor}
    assert mask.num_kept == int(tensor.sum())


# ----------------------------------------------------------------------------------------------------------- an algebra


@given(make_tensors(3))
def test_set_algebra(masks: list[dict[str, Tensor]]) -> None:
    a, b, c = (Mask.from_tensors(tensors) for tensors in masks)
    plain_a, plain_b, _ = masks
    assert equal(a & b, {name: plain_a[name] & plain_b[name] for name in plain_a})
    assert equal(a | b, {name: plain_a[name] | plain_b[name] for name in plain_a})
    assert equal(~a, {name: ~plain_a[name] for name in plain_a})
    assert ~~a == a
    assert ~(a & b) == ~a | ~b
    assert ~(a | b) == ~a & ~b
    assert a & (b | c) == (a & b) | (a & c)
    assert (a & ~a).num_kept == 0
    assert (a | ~a).num_kept == a.num_weights
    assert (a | b).num_kept + (a & b).num_kept == a.num_kept + b.num_kept


@given(make_tensors(2))
def test_subsets(masks: list[dict[str, Tensor]]) -> None:
    a, b = (Mask.from_tensors(tensors) for tensors in masks)
    assert (a & b).is_subset(a)
    assert a.is_subset(a | b)
    assert a.is_subset(b) == (a & b == a)
    assert a.is_subset(masks[1]) == a.is_subset(b)


@given(make_tensors(2))
def test_plain_dicts_of_0_and_1_mean_the_same(masks: list[dict[str, Tensor]]) -> None:
    a, b = (Mask.from_tensors(tensors) for tensors in masks)
    floats = {name: tensor.float() for name, tensor in masks[1].items()}
    assert as_mask(floats) == b
    assert b == floats
    assert floats == b
    assert a & floats == a & b == floats & a
    assert a | floats == a | b == floats | a
    assert as_mask(a) is a


def test_equality_is_by_content() -> None:
    a = Mask.from_tensors({"w": torch.eye(2)}, {"how": "by hand"})
    assert a == Mask.from_tensors({"w": torch.eye(2)})
    assert a != Mask.from_tensors({"w": torch.ones(2, 2)})
    assert a != Mask.from_tensors({"w": torch.eye(2).view(4)})
    assert a != Mask.from_tensors({"v": torch.eye(2)})
    for other in (None, 1, "mask", torch.eye(2), {}, {"w": 1}, {"w": torch.full((2, 2), 0.5)}, {"w": torch.ones(2, 3)}):
        assert a != other
    with pytest.raises(TypeError, match="unhashable"):
        hash(a)


def test_masks_of_different_models_do_not_mix() -> None:
    a = Mask.from_tensors({"w": torch.eye(2)})
    for other in ({"w": torch.ones(2, 3)}, {"v": torch.eye(2)}, {"w": torch.eye(2), "v": torch.eye(2)}):
        for mix in (a.__and__, a.__or__, a.is_subset):
            with pytest.raises(
                ValueError, match=r"two masks must cover the same parameters, but they differ in \['[vw]"
            ):
                mix(other)


# ------------------------------------------------------------------------------------------------------ wrong arguments


WRONG: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "a half": (lambda: Mask.from_tensors({"w": torch.tensor([0.5])}), ValueError, "'w' must hold only 0 and 1"),
    "a two": (lambda: Mask.from_tensors({"w": torch.tensor([2])}), ValueError, "'w' must hold only 0 and 1"),
    "minus one": (lambda: Mask.from_tensors({"w": torch.tensor([-1])}), ValueError, "'w' must hold only 0 and 1"),
    "NaN": (lambda: Mask.from_tensors({"w": torch.tensor([torch.nan])}), ValueError, "'w' must hold only 0 and 1"),
    "a list": (lambda: Mask.from_tensors({"w": [0, 1]}), TypeError, "'w' is a list"),  # type: ignore[dict-item]
    "no mapping": (lambda: as_mask(torch.eye(2)), TypeError, "must be a mapping .* got Tensor"),
    "None": (lambda: as_mask(None), TypeError, "must be a mapping .* got NoneType"),
    "other names": (lambda: Mask({"a": bits(1)}, {"b": (8,)}), ValueError, r"\['a', 'b'\] stand on one side only"),
    "too few bytes": (lambda: Mask({"w": bits(1)}, {"w": (9,)}), ValueError, r"'w' must be 2 bytes .* shape \(9,\)"),
    "too many bytes": (lambda: Mask({"w": bits(1, 0)}, {"w": (8,)}), ValueError, "'w' must be 1 bytes"),
    "bits of two dimensions": (lambda: Mask({"w": bits(1)[None]}, {"w": (8,)}), ValueError, "'w' must be 1 bytes"),
    "bits as int": (lambda: Mask({"w": bits(1).int()}, {"w": (8,)}), ValueError, "uint8 .* but got torch.int32"),
    "padding": (lambda: Mask({"w": bits(0b1000)}, {"w": (3,)}), ValueError, "padding bits of 'w' must be zero.*0x08"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_mask_is_refused(case: str) -> None:
    make, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        make()


# ------------------------------------------------------------------------------------------------------ copies, pickles


def save_with_torch(mask: Mask) -> Mask:
    file = io.BytesIO()
    torch.save({"mask": mask}, file)
    file.seek(0)
    loaded: Mask = torch.load(file, weights_only=True)["mask"]
    return loaded


COPIERS: dict[str, Callable[[Mask], Mask]] = {
    "pickle": lambda mask: pickle.loads(pickle.dumps(mask)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "torch.save, weights only": save_with_torch,
}


@pytest.mark.parametrize("copier", COPIERS)
def test_copies_are_equal_and_whole(copier: str) -> None:
    mask = Mask.from_tensors(
        {"b": torch.eye(3), "a": torch.zeros(0), "c": torch.tensor(1)}, {"deep": {"er": [1, None]}}
    )
    copied = COPIERS[copier](mask)
    assert type(copied) is Mask
    assert equal(copied, mask)
    assert copied.provenance == mask.provenance


def test_a_deep_copy_shares_no_bits() -> None:
    mask = Mask.from_tensors({"w": torch.eye(3)})
    copied = copy.deepcopy(mask)
    copied.bits["w"].zero_()
    copied.provenance["new"] = 1
    assert (mask.num_kept, mask.provenance) == (3, {})


def test_a_pickle_that_lies_is_refused() -> None:
    mask = Mask.from_tensors({"w": torch.eye(3)})
    state = {**mask.__getstate__(), "shapes": {"w": (100,)}}
    with pytest.raises(ValueError, match="'w' must be 13 bytes"):
        Mask.__new__(Mask).__setstate__(state)
