"""Controls share a ticket's sparsity and nothing else, and drawing them leaves the global generators alone."""

import itertools
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from lottery_tickets import Mask, create_random_mask, reinitialise_, shuffle_mask
from lottery_tickets._core.determinism import derive_seed, make_generator
from lottery_tickets._core.kernels import drawing_cpu
from lottery_tickets._core.selection import largest, patterns
from lottery_tickets._core.selection.scopes import select_in_scope
from lottery_tickets._core.weights import Weights
from lottery_tickets.masks import draws

SIZES = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.lists(st.integers(0, 9), max_size=3), min_size=1)


def make_mask(shapes: dict[str, list[int]], density: float, seed: int) -> Mask:
    generator = torch.Generator().manual_seed(seed)
    return Mask.from_tensors({n: torch.rand(shape, generator=generator) < density for n, shape in shapes.items()})


def global_states() -> tuple[object, ...]:
    """The global generators of torch and numpy; not Python's, from which the type checker of the tests draws."""
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()  # type: ignore[index] # noqa: NPY002 - callers use it


# ------------------------------------------------------------------------------------------------------- shuffled masks


@given(SIZES, st.floats(0, 1), st.integers(0, 1000))
@settings(deadline=None, max_examples=50)
def test_shuffling_keeps_the_count_of_every_layer(shapes: dict[str, list[int]], density: float, seed: int) -> None:
    mask = make_mask(shapes, density, seed)
    shuffled = shuffle_mask(mask, seed)
    assert shuffled.shapes == mask.shapes
    assert shuffled.layer_sparsity() == mask.layer_sparsity()
    assert shuffle_mask(mask, seed) == shuffled
    assert shuffle_mask(dict(mask), seed) == shuffled


def test_synaptic_flow_shuffles_nothing_and_this_does() -> None:
    """Synaptic-Flow: the shuffle control returns the mask as it was. Two masks of density d agree on d of the kept."""
    mask = make_mask({"a": [200, 200], "b": [100, 100]}, 0.2, 0)
    shuffled = shuffle_mask(mask, seed=1)
    for name in mask:
        kept = int(mask[name].sum())
        overlap = int((mask[name] & shuffled[name]).sum())
        # The overlap is hypergeometric with mean 0.2 * kept and a standard deviation below sqrt(0.2 * 0.8 * kept).
        assert abs(overlap - 0.2 * kept) < 5 * (0.2 * 0.8 * kept) ** 0.5
    assert shuffle_mask(mask, seed=2) != shuffled


def test_layers_of_one_shape_are_shuffled_apart() -> None:
    shuffled = shuffle_mask(make_mask({"a": [50, 50], "b": [50, 50]}, 0.5, 0), seed=0)
    assert not torch.equal(shuffled["a"], shuffled["b"])


def test_a_shuffled_mask_says_what_it_was_made_of() -> None:
    mask = Mask.from_tensors({"w": torch.eye(3)}, {"method": "by hand"})
    assert shuffle_mask(mask, seed=7).provenance == {"method": "shuffled", "seed": 7, "of": {"method": "by hand"}}


# --------------------------------------------------------------------------------------------------------- random masks


def make_model() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(45, 10), nn.Linear(10, 3))


@given(sparsity=st.floats(0, 1), seed=st.integers(-(2**70), 2**70))
@settings(deadline=None, max_examples=20)
def test_random_masks_remove_exactly_the_asked_number(sparsity: float, seed: int) -> None:
    model = make_model()
    mask = create_random_mask(model, sparsity, seed)
    assert list(mask) == ["0.weight", "3.weight", "4.weight"]
    assert mask.num_weights - mask.num_kept == round(sparsity * mask.num_weights)
    assert create_random_mask(mask, sparsity, seed) == mask
    by_layer = create_random_mask(model, sparsity, seed, scope="layer")
    for name, bits in by_layer.items():
        assert int((~bits).sum()) == round(sparsity * bits.numel()), name


def test_erk_spares_small_layers() -> None:
    model = make_model()
    mask = create_random_mask(model, 0.6, 0, scope="erk")
    sparsities = mask.layer_sparsity()
    assert mask.num_kept == mask.num_weights - round(0.6 * mask.num_weights)
    assert sparsities["4.weight"] < sparsities["3.weight"]


def test_seeds_decide_and_differ() -> None:
    masks = [create_random_mask(make_model(), 0.5, seed) for seed in range(5)]
    assert all(masks[i] != masks[j] for i in range(5) for j in range(i))
    assert masks[0] != shuffle_mask(masks[0], seed=0), "one seed for two uses must not give one draw"


def test_every_weight_is_kept_equally_often() -> None:
    """Over 150 seeds each of 200 weights is kept Binomial(150, 0.3) times, up to the fixed total.

    The sum of squared deviations over the variance n p (1 - p) is then near chi-square with 199 degrees of freedom,
    mean 199 and standard deviation sqrt(2 * 199) = 20; four of these above and below are 119 and 279. The seeds are
    fixed, so the test gives one answer for good.
    """
    model = nn.Sequential(nn.Linear(10, 15, bias=False), nn.Linear(10, 5, bias=False))
    counts = torch.zeros(200)
    for seed in range(150):
        mask = create_random_mask(model, 0.7, seed)
        counts += torch.cat([bits.flatten() for bits in mask.values()])
    chi_square = float(((counts - 150 * 0.3) ** 2).sum() / (150 * 0.3 * 0.7))
    assert 119 < chi_square < 279


WRONG: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "sparsity 1.5": (lambda: create_random_mask(make_model(), 1.5, 0), ValueError, r"sparsity .* 1\.5"),
    "sparsity -1": (lambda: create_random_mask(make_model(), -1.0, 0), ValueError, "sparsity .* -1"),
    "sparsity NaN": (lambda: create_random_mask(make_model(), float("nan"), 0), ValueError, "sparsity .* nan"),
    "scope": (
        lambda: create_random_mask(make_model(), 0.5, 0, scope="rows"),
        ValueError,
        "scope must be one of .*'rows'",
    ),
    "no model": (lambda: create_random_mask(None, 0.5, 0), TypeError, "must be a mapping .* NoneType"),  # type: ignore[arg-type]
    "scores": (lambda: shuffle_mask({"w": torch.randn(3)}, 0), ValueError, "must hold only 0 and 1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_are_refused(case: str) -> None:
    call, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        call()


# ----------------------------------------------------------------------------------------------------- reinitialisation


def test_reinitialising_draws_all_anew_by_the_seed() -> None:
    norms = [nn.BatchNorm2d(2) for _ in range(3)]
    first, second, other = (nn.Sequential(nn.Conv2d(1, 2, 3), norm, nn.Linear(4, 3)) for norm in norms)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.fill_(7.0)
    norms[0].running_mean = torch.ones(2)
    for model, seed in ((first, 1), (second, 1), (other, 2)):
        reinitialise_(model, seed)
    for (name, a), b, c in zip(first.named_parameters(), second.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert torch.equal(a, c) == name.startswith("1."), "all but batch norm's ones and zeros depend on the seed"
    assert not norms[0].running_mean.any()


def test_reinitialising_keeps_identity_and_ties() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    before = [id(parameter) for parameter in model.parameters()]
    reinitialise_(model, 0)
    assert [id(parameter) for parameter in model.parameters()] == before
    assert model[1].weight is model[0].weight


SMALL = nn.Linear(3, 3)
DRAWS: dict[str, Callable[[], object]] = {
    "reinitialise_": lambda: reinitialise_(SMALL, 0),
    "create_random_mask": lambda: create_random_mask(SMALL, 0.5, 0),
    "shuffle_mask": lambda: shuffle_mask({"w": torch.eye(9)}, 0),
}


@pytest.mark.parametrize("draw", DRAWS)
def test_global_generators_are_left_alone(draw: str) -> None:
    before = global_states()
    DRAWS[draw]()
    assert global_states() == before
    torch.rand(1)
    assert global_states() != before, "this test would see nothing"


def test_reinitialising_leaves_the_generators_also_when_it_raises() -> None:
    class Broken(nn.Linear):
        def reset_parameters(self) -> None:
            if hasattr(self, "ready"):
                torch.rand(1)
                raise RuntimeError("no such distribution")

    model = Broken(2, 2)
    model.ready = True  # type: ignore[assignment] # any attribute tells the first call from the second
    before = (*global_states(), random.getstate())
    with pytest.raises(RuntimeError, match="no such distribution"):
        reinitialise_(model, 1234)
    assert (*global_states(), random.getstate()) == before


class _OwnParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = self.inner(inputs) * self.scale
        return output


def test_a_parameter_that_would_keep_its_value_is_refused_before_anything_changes() -> None:
    model = nn.Sequential(nn.Linear(2, 2), _OwnParameter())
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with pytest.raises(ValueError, match=r"'1\.scale' belongs to _OwnParameter; pass initialise_fn"):
        reinitialise_(model, 0)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("scope", ["global", "layer", "row", "erk"])
def test_random_numbers_are_those_of_one_generator_wherever_they_are_read(
    scope: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masks are those of numbers that are drawn at once, whatever the blocks: old seeds keep their masks."""
    shapes = {"a": (30, 41), "b": (5, 8, 3), "c": (1000,), "d": (0, 3)}
    generator = make_generator(3, "random mask")
    numbers = {name: torch.rand(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
    expected = select_in_scope(Weights.from_tensors(numbers), 0.7, scope=scope)
    monkeypatch.setattr(patterns, "WEIGHTS_PER_CHUNK", 64)
    monkeypatch.setattr(largest, "SMALLEST_TO_SAMPLE", 1)
    for size in (1, 7, 1 << 22):
        monkeypatch.setattr(draws, "DRAWS_PER_BLOCK", size)
        mask = create_random_mask(Mask.keeping_all(shapes), 0.7, seed=3, scope=scope)
        assert all(torch.equal(mask.bits[name], bits) for name, bits in expected.items())


def test_random_numbers_are_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    draw_from = drawing_cpu.draw_from

    def count(state: NDArray[np.uint32], first: int, numbers: NDArray[np.float64]) -> None:
        drawn.append(numbers.size)
        draw_from(state, first, numbers)

    monkeypatch.setattr(draws, "draw_from", count)
    create_random_mask(Mask.keeping_all({"a": (1000, 1500), "b": (3000, 1000)}), 0.5, seed=0)
    assert 4_500_000 <= sum(drawn) < 1.1 * 4_500_000


def test_random_numbers_are_the_same_in_whatever_order_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draws, "DRAWS_PER_BLOCK", 5)
    whole = torch.rand(6000, generator=make_generator(0, "test"), dtype=torch.float64)
    weights = draws.draw_weights({"a": torch.Size((4, 5)), "b": torch.Size((5980,))}, {}, derive_seed(0, "test"))
    for name, start, stop in (("b", 3100, 5980), ("a", 7, 9), ("b", 0, 3300), ("a", 0, 20), ("b", 12, 12), ("a", 7, 9)):
        assert torch.equal(weights[name].read(start, stop), whole[20 if name == "b" else 0 :][start:stop])
    assert torch.equal(weights["a"].read(3, 9, (1, 0)), whole[:20].view(4, 5).t().reshape(-1)[3:9])
    assert torch.equal(weights["b"].pick(np.array([0, 4, 5, 5979])), whole[20:][[0, 4, 5, 5979]])


@given(st.integers(0, 2**63 - 1), st.lists(st.integers(0, 2000), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_random_numbers_are_those_of_torch_for_any_seed(seed: int, stops: list[int]) -> None:
    wanted = torch.rand(2000, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    drawn = draws.draw_weights({"a": torch.Size((2000,))}, {}, seed)["a"]
    for start, stop in itertools.pairwise(sorted([0, *stops])):
        assert torch.equal(drawn.read(start, stop), wanted[start:stop])


def test_threads_read_the_same_random_numbers() -> None:
    wanted = torch.rand(300_000, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    drawn = draws.draw_weights({"a": torch.Size((300_000,))}, {}, 7)["a"]
    blocks = [(start, start + 1000) for start in range(299_000, -1, -1000)]
    with ThreadPoolExecutor(4) as pool:
        for (start, stop), found in zip(blocks, pool.map(drawn.read, *zip(*blocks, strict=True)), strict=True):
            assert torch.equal(found, wanted[start:stop])
