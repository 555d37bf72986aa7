"""SynFlow beside the authors' loop."""

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Final

import pytest
import torch
from torch import Tensor, nn

from lottery_tickets import (
    compute_synflow_importance,
    create_importance_mask,
)
from tests.data import make_data
from tests.models import make_convolutions, make_language_model, make_mlp


def synflow_by_the_authors_loop(
    model: nn.Module, shape: tuple[int, ...], sparsity: float, num_rounds: int
) -> dict[str, Tensor]:
    """The published loop on a copy in float64: a mask for each Linear and convolution weight; ties aside."""
    twin = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        for tensor in twin.state_dict().values():
            tensor.abs_()
    names = [name for name, parameter in twin.named_parameters() if parameter.ndim > 1]
    masks = {name: torch.ones_like(twin.get_parameter(name)) for name in names}
    num_weights = sum(mask.numel() for mask in masks.values())
    for i in range(num_rounds):
        twin.zero_grad()
        twin(torch.ones(1, *shape, dtype=torch.float64)).sum().backward()
        scores = {}
        for name in names:
            parameter = twin.get_parameter(name)
            assert parameter.grad is not None
            scores[name] = (parameter * parameter.grad).detach().abs()
        num_removed = round((1 - (1 - sparsity) ** ((i + 1) / num_rounds)) * num_weights)
        if num_removed:
            threshold = torch.cat([score.flatten() for score in scores.values()]).kthvalue(num_removed).values
            masks = {name: (score > threshold).double() for name, score in scores.items()}
        with torch.no_grad():
            for name in names:
                twin.get_parameter(name).mul_(masks[name])
    return {name: mask.bool() for name, mask in masks.items()}


SYNFLOW_MODELS: Final[dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]]] = {
    "mlp": (make_mlp, (5,)),
    "convolutions": (make_convolutions, (2, 4, 4)),
}


@pytest.mark.parametrize("kind", SYNFLOW_MODELS)
@pytest.mark.filterwarnings("ignore:layer collapse")
@pytest.mark.parametrize(("sparsity", "num_rounds"), [(0.5, 1), (0.8, 100), (0.9, 7), (0.0, 3)])
def test_synflow_gives_the_masks_of_the_authors_loop(kind: str, sparsity: float, num_rounds: int) -> None:
    make, shape = SYNFLOW_MODELS[kind]
    model = make()
    expected = synflow_by_the_authors_loop(model, shape, sparsity, num_rounds)
    scores = compute_synflow_importance(model, shape, sparsity, num_rounds)
    mask = create_importance_mask(scores, sparsity)
    assert list(mask) == list(expected)
    for name, kept in expected.items():
        assert torch.equal(mask[name], kept), name
        assert torch.equal(scores[name] > 0, kept), "pruned weights, and only these, have score 0"
        assert scores[name].dtype == torch.float32
        assert float(scores[name].max()) <= 1


def test_synflow_flows_through_each_layer_alike() -> None:
    """Conservation: without biases the scores of every layer sum to the same, R."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 8, bias=False), nn.Linear(8, 3, bias=False), nn.Linear(3, 5, bias=False))
    scores = compute_synflow_importance(model, (6,), 0.0, 1)
    sums = [float(score.sum(dtype=torch.float64)) for score in scores.values()]
    assert sums == pytest.approx([sums[0]] * 3)


def test_synflow_rounds_spare_layers_that_one_round_empties() -> None:
    torch.manual_seed(0)
    sizes = (40, 300, 4, 300, 10)
    model = nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in pairwise(sizes)))
    once = compute_synflow_importance(model, (40,), 0.997, 1)
    often = compute_synflow_importance(model, (40,), 0.997, 100)
    assert not all(bool((score > 0).any()) for score in once.values())
    assert all(bool((score > 0).any()) for score in often.values())


def test_synflow_keeps_exact_counts_where_flow_is_tied_or_zero() -> None:
    model = nn.Sequential(nn.Linear(8, 6, bias=False), nn.Linear(6, 4, bias=False)).double()
    with torch.no_grad():
        model.get_parameter("0.weight").fill_(1.0)
        model.get_parameter("1.weight").fill_(0.0)
        model.get_parameter("1.weight")[0] = 1.0
    scores = compute_synflow_importance(model, (8,), 0.1, 5)
    mask = create_importance_mask(scores, 0.1)
    assert mask.num_kept == 72 - round(0.1 * 72)
    for name, score in scores.items():
        assert torch.equal(mask[name], score > 0)


def test_synflow_brings_nothing_back_where_flow_is_zero() -> None:
    """The second unit loses two inputs, then its output; so its third input is tied at 0 with the two, and stays."""
    model = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model.get_parameter("0.weight").copy_(torch.tensor([[1.0, 1.0, 1.0], [0.1, 0.1, 0.2]]))
        model.get_parameter("1.weight").fill_(1.0)
    mask = create_importance_mask(compute_synflow_importance(model, (3,), 0.37, 10), 0.37)
    assert mask["0.weight"].tolist() == [[True, True, True], [False, False, True]]
    assert mask["1.weight"].tolist() == [[True, False]]


def test_synflow_stays_within_float64_where_float32_overflows() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(30, 30, bias=False) for _ in range(30)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(30)
    mask = create_importance_mask(compute_synflow_importance(model, (30,), 0.9, 20), 0.9)
    expected = synflow_by_the_authors_loop(model, (30,), 0.9, 20)
    assert all(torch.equal(mask[name], kept) for name, kept in expected.items())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e20)
    with pytest.raises(ValueError, match=r"flow through .* overflows float64"):
        compute_synflow_importance(model, (30,), 0.9)


def test_synflow_takes_shapes_and_batches() -> None:
    model = make_convolutions()
    inputs, targets = make_data(torch.float32, (2, 4, 4))
    expected = compute_synflow_importance(model, (2, 4, 4), 0.7, 3)
    for given in (torch.Size([2, 4, 4]), [2, 4, 4], inputs, (inputs, targets), [inputs]):
        found = compute_synflow_importance(model, given, 0.7, 3)
        assert all(torch.equal(found[name], score) for name, score in expected.items())


class _Flat(nn.Module):
    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        return {"output": inputs}


TOKENS: Final = torch.zeros(2, 3, dtype=torch.long)
SYNFLOW_MISTAKES: Final[dict[str, tuple[Callable[[], object], type[Exception], str]]] = {
    "token ids": (
        lambda: compute_synflow_importance(make_mlp(), TOKENS, 0.5),
        ValueError,
        r"token ids.* another score",
    ),
    "a batch of token ids": (
        lambda: compute_synflow_importance(make_mlp(), {"input_ids": TOKENS}, 0.5),  # type: ignore[arg-type] # refused
        TypeError,
        "got a mapping; .*token ids",
    ),
    "sparsity 1": (lambda: compute_synflow_importance(make_mlp(), (5,), 1.0), ValueError, "below 1 .*got 1"),
    "sparsity 2": (lambda: compute_synflow_importance(make_mlp(), (5,), 2.0), ValueError, r"from 0 .*got 2\.0"),
    "no rounds": (lambda: compute_synflow_importance(make_mlp(), (5,), 0.5, 0), ValueError, "num_rounds .*got 0"),
    "a shape of halves": (lambda: compute_synflow_importance(make_mlp(), (2.5,), 0.5), TypeError, r"got \(2\.5,\)"),
    "size 0": (lambda: compute_synflow_importance(make_mlp(), (0,), 0.5), ValueError, "input shape .*got 0"),
    "a word": (lambda: compute_synflow_importance(make_mlp(), "five", 0.5), TypeError, "got 'five'"),
    "no model": (lambda: compute_synflow_importance({}, (5,), 0.5), TypeError, "got dict"),  # type: ignore[arg-type]
    "a dict as output": (
        lambda: compute_synflow_importance(nn.Sequential(nn.Linear(5, 2), _Flat()), (5,), 0.5),
        TypeError,
        "must return a tensor .*got dict",
    ),
}


@pytest.mark.parametrize("case", SYNFLOW_MISTAKES)
def test_synflow_refuses(case: str) -> None:
    call, error, message = SYNFLOW_MISTAKES[case]
    with pytest.raises(error, match=message):
        call()


def test_synflow_explains_why_a_language_model_cannot_be_scored() -> None:
    with pytest.raises(RuntimeError, match="indices") as raised:
        compute_synflow_importance(make_language_model("Llama"), (9,), 0.5)
    assert "such as token ids, cannot be scored this way" in "".join(raised.value.__notes__)


def test_synflow_refuses_a_network_through_which_nothing_flows() -> None:
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 2, bias=False))
    nn.init.zeros_(model.get_parameter("1.weight"))
    with pytest.raises(ValueError, match="in round 1 nothing does"):
        compute_synflow_importance(model, (4,), 0.5)
