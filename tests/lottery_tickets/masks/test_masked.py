"""Inside `masked` a model computes as its pruned copy; afterwards no bit has changed."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lottery_tickets import apply_mask, compute_sparsity, masked
from tests.lottery_tickets.masks.half_kept import make_mask, make_model


class _Shaped(nn.Module):
    """Hands torch functions a torch.Size and a list with a parameter in it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, inputs: Tensor) -> Tensor:
        weights = torch.cat([self.linear.weight, self.linear.weight]).view(torch.Size([16, 8]))
        output: Tensor = self.linear(inputs) @ weights.T
        return output


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.lstm = nn.LSTM(8, 8, batch_first=True)

    def forward(self, inputs: Tensor) -> Tensor:
        attended = self.attention(inputs, inputs, inputs, need_weights=False)[0]
        output: Tensor = self.lstm(attended)[0]
        return output


@pytest.mark.parametrize(
    "make", [make_model, _Shaped, _Attention, lambda: nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)]
)
@pytest.mark.parametrize("training", [True, False])
def test_masked_computes_as_the_pruned_copy_and_leaves_every_bit(make: Callable[[], nn.Module], training: bool) -> None:
    model = make().train(training)
    mask = make_mask(model, 0.5)
    inputs = torch.randn(2, 1, 8, 8) if isinstance(model, nn.Sequential) else torch.randn(2, 5, 8)
    pruned = copy.deepcopy(model)
    apply_mask(pruned, mask)
    before = copy.deepcopy(model.state_dict())
    with masked(model, mask) as inside:
        output = inside(inputs)
        output.sum().backward()
    pruned(inputs).sum().backward()
    assert torch.equal(output, pruned(inputs))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    for (name, parameter), other in zip(model.named_parameters(), pruned.parameters(), strict=True):
        assert parameter.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(parameter.grad, other.grad * mask[name] if name in mask else other.grad)


def test_masked_allocates_one_layer_at_a_time() -> None:
    """Extra memory is at most the largest layer: what a forward pass of 4 layers allocates is 1 copy at a time."""
    model = nn.Sequential(*[nn.Linear(256, 256, bias=False) for _ in range(4)])
    mask = make_mask(model)
    inputs = torch.randn(1, 256)
    with torch.no_grad(), masked(model, mask):
        model(inputs)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            model(inputs)
    held, peak = 0, 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    layer_bytes = 256 * 256 * 4
    assert layer_bytes <= peak < 1.1 * layer_bytes  # a tenth for activations


def test_masked_ends_when_the_block_raises() -> None:
    model = nn.Linear(2, 2, bias=False)
    before = model(torch.ones(1, 2))
    with pytest.raises(RuntimeError, match="inside"), masked(model, {"weight": torch.zeros(2, 2)}):
        raise RuntimeError("inside")
    assert torch.equal(model(torch.ones(1, 2)), before)


def test_masked_refuses_changes_that_would_be_lost() -> None:
    model = nn.Linear(2, 2)
    with masked(model, {"weight": torch.eye(2)}), pytest.raises(RuntimeError, match=r"masked\(\) is for measuring"):
        nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model(torch.ones(1, 2)).sum().backward()
    with masked(model, {"weight": torch.eye(2)}), pytest.raises(RuntimeError, match=r"masked\(\) is for measuring"):
        optimizer.step()


def test_masked_compiled_model_is_pruned_too() -> None:
    model = nn.Linear(4, 4, bias=False)
    compiled: nn.Module = torch.compile(model, backend="eager")  # type: ignore[assignment]
    inputs = torch.randn(2, 4)
    dense = compiled(inputs)
    with masked(compiled, {"weight": torch.zeros(4, 4)}):
        assert not bool(compiled(inputs).any())
    assert torch.equal(compiled(inputs), dense)


def test_compute_sparsity_of_models_and_masks() -> None:
    model = nn.Linear(10, 10)
    assert compute_sparsity(model) == 0.0
    apply_mask(model, {"weight": torch.eye(10)})
    assert compute_sparsity(model) == pytest.approx(0.9)
    assert compute_sparsity({"weight": torch.eye(10)}) == pytest.approx(0.9)
