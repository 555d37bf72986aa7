"""Laws of masks of units: exact counts, nested, whole units, at least one of each group, multiples."""

from typing import Final

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lottery_tickets import compute_fisher_importance, compute_taylor_importance, create_unit_mask
from lottery_tickets.structured import Units, find_units
from lottery_tickets.structured import unit_masks as module
from lottery_tickets.structured.unit_scores import score_units
from lottery_tickets.structured.units import Member, UnitGroup
from tests.lottery_tickets.structured.networks import make_images, make_network
from tests.models import make_language_model

SIZES: Final = (5, 8, 3)


def make_groups(sizes: tuple[int, ...] = SIZES, least: int = 1) -> list[UnitGroup]:
    """Returns groups of units that have a bias each."""
    return [
        UnitGroup("neurons", str(place), size, (Member(f"{place}.bias", 0, torch.arange(size)),), least=least)
        for place, size in enumerate(sizes)
    ]


def choose(
    scores: dict[str, Tensor], sparsity: float, monkeypatch: pytest.MonkeyPatch, **options: object
) -> list[list[bool]]:
    """Returns which units stay of groups that have these scores."""
    groups = make_groups(tuple(len(score) for score in scores.values()))
    model = nn.ModuleList(nn.Linear(1, group.num_units) for group in groups)
    monkeypatch.setattr(module, "find_units", lambda *_: Units({group.name: group for group in groups}, {}))
    mask = create_unit_mask(model, sparsity, units="neurons", scores=scores, **options)  # type: ignore[arg-type] # as given
    return [mask[f"{name}.bias"].tolist() for name in scores]


few = st.integers(0, 4)  # so that there are ties
drawn = st.tuples(*(st.lists(few, min_size=size, max_size=size) for size in SIZES))


def as_scores(lists: tuple[list[int], ...]) -> dict[str, Tensor]:
    return {str(place): torch.tensor(values, dtype=torch.float64) for place, values in enumerate(lists)}


def choose_slowly(lists: tuple[list[int], ...], num_removed: int) -> list[list[bool]]:
    """Returns the same, one unit after the other: the least of all that may go, the last of equal ones."""
    kept = [[True] * len(values) for values in lists]
    for _ in range(num_removed):
        left = [
            (value, -group, -place)
            for group, values in enumerate(lists)
            for place, value in enumerate(values)
            if kept[group][place] and sum(kept[group]) > 1
        ]
        _, group, place = min(left)
        kept[-group][-place] = False
    return kept


@settings(max_examples=15, deadline=None)
@given(lists=drawn, num_removed=st.integers(0, sum(SIZES) - len(SIZES)))
def test_the_least_go_exactly_as_many_as_asked_for(lists: tuple[list[int], ...], num_removed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        kept = choose(as_scores(lists), num_removed / sum(SIZES), patch, scope="global")
    assert kept == choose_slowly(lists, num_removed)


@settings(max_examples=15, deadline=None)
@given(lists=drawn, sparsities=st.tuples(st.floats(0, 0.6), st.floats(0, 0.6)), multiple=st.integers(1, 4))
def test_sparser_masks_are_subsets_and_scale_does_not_matter(
    lists: tuple[list[int], ...], sparsities: tuple[float, float], multiple: int
) -> None:
    scores = as_scores(lists)
    with pytest.MonkeyPatch.context() as patch:
        try:
            sparser = choose(scores, max(sparsities), patch, scope="global", multiple_of=multiple)
        except ValueError:
            return
        denser = choose(scores, min(sparsities), patch, scope="global", multiple_of=multiple)
        scaled = choose(
            {n: 8 * s for n, s in scores.items()}, max(sparsities), patch, scope="global", multiple_of=multiple
        )
    assert all(y or not x for one, other in zip(sparser, denser, strict=True) for x, y in zip(one, other, strict=True))
    assert scaled == sparser
    assert all(sum(kept) % multiple == 0 or all(kept) for kept in sparser)
    assert sum(SIZES) - sum(map(sum, sparser)) <= round(max(sparsities) * sum(SIZES))


@pytest.mark.parametrize(
    ("sparsity", "counts"), [(0.0, [6, 5, 3]), (0.07, [6, 4, 3]), (0.2, [6, 4, 2]), (0.29, [4, 4, 2]), (0.6, [2, 2, 2])]
)
def test_whole_blocks_go_by_their_best_units(
    sparsity: float, counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = as_scores(([9, 2, 9, 9, 1, 9], [9, 7, 1, 7, 7], [9, 9, 2]))  # the last blocks go by 2, 1 and 2
    kept = choose(scores, sparsity, monkeypatch, scope="global", multiple_of=2)
    assert [sum(one) for one in kept] == counts


@pytest.mark.parametrize(("sparsity", "counts"), [(0.25, [4, 6, 2]), (0.5, [3, 4, 1]), (0.6, [2, 3, 1])])
def test_scope_layer_removes_the_same_share_of_each_group(
    sparsity: float, counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = choose(as_scores(([1] * 5, [1] * 8, [1] * 3)), sparsity, monkeypatch)
    assert [sum(one) for one in kept] == counts
    assert all(one == sorted(one, reverse=True) for one in kept), "of equal ones the first stay"


def test_scores_of_both_signs_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {"0": torch.tensor([-3.0, -1.0, -2.0, 0.5])}
    assert choose(scores, 0.5, monkeypatch) == [[False, True, False, True]]


def test_a_group_is_never_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = as_scores(([1] * 5, [1] * 8, [1] * 3))
    with pytest.raises(ValueError, match=r"removes 3 of 3 units, but at most 2 can go, because of each group some"):
        choose(scores, 0.9, monkeypatch)
    with pytest.raises(ValueError, match=r"removes 14 of 16 units, but at most 13 can go"):
        choose(scores, 0.875, monkeypatch, scope="global")
    assert [sum(kept) for kept in choose(scores, 0.5, monkeypatch, multiple_of=4)] == [4, 4, 3]


def test_norms_are_over_all_weights_that_make_a_unit() -> None:
    model, images = make_network("residual"), make_images(1)
    groups = find_units(model, images).groups
    mask = create_unit_mask(model, 0.5, scores="norm", example_inputs=images)
    state = model.state_dict()
    rows = torch.cat([state[f"{name}.weight"].flatten(1) for name in ("stem", "second")], dim=1)
    found = score_units(model, list(groups.values()), "norm", 0)["stem"]
    torch.testing.assert_close(found, rows.norm(dim=1), rtol=1e-14, atol=0)
    best = found.topk(3).indices
    kept = torch.zeros(groups["stem"].num_units, dtype=torch.bool)
    kept[best] = True
    assert torch.equal(mask["stem.bias"], kept)
    assert torch.equal(mask["first.weight"].any(0).any(1).any(1), kept)
    assert torch.equal(mask["norm.weight"], kept)
    assert mask.provenance["kept"] == {"stem": 3, "first": 3, "shortcut": 2}


def test_scores_by_weight_are_summed_over_a_unit() -> None:
    model, images = make_network("perceptron"), make_images(6)
    data = [(images, torch.arange(6) % 3)]
    saliency = compute_fisher_importance(model, data, saliency=True)
    mask = create_unit_mask(model, 0.5, units="neurons", scores=saliency, example_inputs=images)
    best = saliency["1.weight"].double().sum(1).topk(3).indices
    assert sorted(best.tolist()) == mask["1.bias"].nonzero().flatten().tolist()
    taylor = compute_taylor_importance(model, data, granularity="unit")
    mask = create_unit_mask(model, 0.5, units="neurons", scores=taylor, example_inputs=images)
    assert sorted(taylor["4.weight"][:, 0].topk(3).indices.tolist()) == mask["4.bias"].nonzero().flatten().tolist()
    with pytest.raises(ValueError, match=r"'1\.weight' has the shape \(7, 128\), got none; were they computed for"):
        create_unit_mask(model, 0.5, units="neurons", scores={"1.bias": torch.ones(7)}, example_inputs=images)


def test_what_has_one_score_an_output_counts_once() -> None:
    model, images = make_network("residual"), make_images(6)
    groups = find_units(model, images).of_kind("channels")
    taylor = compute_taylor_importance(model, [(images, torch.arange(6) % 3)], granularity="unit")
    found = score_units(model, groups, taylor, 0)["stem"]  # made by two layers with other numbers of inputs
    of_stem, of_second = (taylor[f"{name}.weight"][:, 0, 0, 0].double() for name in ("stem", "second"))
    assert torch.equal(found, of_stem + of_second)


def test_scales_of_batch_norms_rank_channels() -> None:
    model, images = make_network("residual"), make_images(1)
    with pytest.raises(ValueError, match="need a batch norm in each group of units, but 'shortcut' has none"):
        create_unit_mask(model, 0.5, scores="batch_norm_scale", example_inputs=images)
    model = make_network("resnet")
    mask = create_unit_mask(model, 0.5, scores="batch_norm_scale", scope="global", example_inputs=images)
    inner = "stages.0.0.norm1"
    kept = mask[f"{inner}.weight"]
    scales = model.get_parameter(f"{inner}.weight").detach().abs()
    assert scales[kept].min() > scales[~kept].max()


def test_controls_keep_as_many_of_each_group() -> None:
    model = make_language_model("Llama")
    mask = create_unit_mask(model, 0.5, units="neurons", scope="global")
    shuffled = create_unit_mask(model, mask.provenance["kept"], units="neurons", scores="random", seed=1)
    other = create_unit_mask(model, mask.provenance["kept"], units="neurons", scores="random", seed=2)
    assert mask.provenance["kept"] == shuffled.provenance["kept"] == other.provenance["kept"]
    assert mask.count_kept() == shuffled.count_kept()
    assert len({bytes(m["model.layers.0.mlp.down_proj.weight"].numpy()) for m in (mask, shuffled, other)}) == 3
    again = create_unit_mask(model, mask.provenance["kept"], units="neurons", scores="random", seed=1)
    assert again == shuffled
    with pytest.raises(ValueError, match=r"\['model.layers.0.mlp'\] stand on one side only; were they of another"):
        create_unit_mask(model, {"model.layers.1.mlp": 3}, units="neurons")
    with pytest.raises(ValueError, match=r"from 1 to 24 units of 'model.layers.0.mlp' can stay, got 0"):
        create_unit_mask(model, dict.fromkeys(mask.provenance["kept"], 0), units="neurons")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"units": "heads"}, ValueError, "units must be one of 'channels', 'neurons'"),
        ({"scope": "row"}, ValueError, "scope must be one of 'layer', 'global', got 'row'"),
        (
            {"scores": "size"},
            ValueError,
            "scores must be one of 'norm', 'batch_norm_scale', 'random', 'taylor', 'fisher'",
        ),
        ({"scores": 3}, TypeError, "scores must be a name or a mapping of tensors by name, got int"),
        ({"multiple_of": 0}, ValueError, "multiple_of must be an integer of at least 1"),
        ({"sparsity": 1.5}, ValueError, "sparsity must be from 0"),
        ({"scores": {"model.layers": torch.ones(3)}, "units": "layers"}, ValueError, "must be 2 floats, one a unit"),
    ],
)
def test_arguments_are_checked(options: dict[str, object], error: type[Exception], message: str) -> None:
    arguments = {"sparsity": 0.5, "units": "neurons", **options}
    with pytest.raises(error, match=message):
        create_unit_mask(make_language_model("Llama"), **arguments)  # type: ignore[arg-type] # on purpose
