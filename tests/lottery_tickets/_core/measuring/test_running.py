"""A model that runs on other tensors is as it was afterwards, whatever happens meanwhile."""

from typing import cast

import pytest
import torch
from torch import Tensor, nn

from lottery_tickets._core.measuring.running import Slots, run_with


class _Net(nn.Module):
    """Two layers of one weight, a third that shares its memory, and a buffer that two modules hold."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.tied, self.beside = (nn.Linear(3, 3, bias=False) for _ in range(3))
        self.tied.weight = self.first.weight
        self.beside.weight = nn.Parameter(self.first.weight.data)
        self.free = nn.Linear(3, 3)
        shift = torch.zeros(3)
        self.register_buffer("shift", shift)
        self.free.register_buffer("same_shift", shift)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.free(self.beside(self.tied(self.first(inputs)))) + self.shift + self.free.same_shift
        return outputs


def list_slots(model: nn.Module) -> list[tuple[str, int]]:
    return [
        (f"{prefix}.{key}", id(tensor))
        for prefix, module in model.named_modules()
        for slots in (module._parameters, module._buffers)
        for key, tensor in slots.items()
    ]


def test_tied_weights_and_those_that_share_memory_are_replaced_together() -> None:
    model = _Net()
    before = list_slots(model)
    inputs, weight, shift = torch.randn(2, 3), torch.randn(3, 3), torch.randn(3)
    got = run_with(model, {"first.weight": weight, "shift": shift}, lambda inner: inner(inputs))
    wanted = model.free(inputs @ weight.T @ weight.T @ weight.T) + 2 * shift
    torch.testing.assert_close(got, wanted)
    assert list_slots(model) == before


def test_slots_found_once_serve_many_runs_also_after_one_that_failed() -> None:
    model, inputs = _Net(), torch.randn(2, 3)
    before, slots = list_slots(model), Slots(model, ["first.weight"])
    for weight in torch.randn(2, 3, 3):
        got = slots.run_with({"first.weight": weight}, lambda inner: inner(inputs))
        torch.testing.assert_close(got, model.free(inputs @ weight.T @ weight.T @ weight.T))
        with pytest.raises(TypeError, match="missing"):
            slots.run_with({"first.weight": weight}, lambda inner: inner())
        assert list_slots(model) == before


def test_a_parameter_that_was_replaced_since_is_told_and_kept() -> None:
    model, inputs = _Net(), torch.randn(2, 3)
    for name, owner in (("first.weight", model.first), ("free.bias", model.free)):
        slots = Slots(model, ["first.weight"])
        setattr(owner, name.partition(".")[2], nn.Parameter(torch.zeros(3, 3) if "weight" in name else torch.zeros(3)))
        before = list_slots(model)
        with pytest.raises(RuntimeError, match=rf"'?{name}'? must stay the model's own while the model is measured"):
            slots.run_with({"first.weight": torch.ones(3, 3)}, lambda inner: inner(inputs))
        assert list_slots(model) == before


def test_weights_that_are_not_named_are_constants() -> None:
    model, inputs = _Net(), torch.randn(2, 3)
    handle = model.first.weight.detach().requires_grad_()
    run_with(model, {"first.weight": handle}, lambda inner: inner(inputs).sum()).backward()
    assert handle.grad is not None
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not run_with(model, {}, lambda inner: inner(inputs)).requires_grad


@pytest.mark.filterwarnings("ignore")
def test_names_are_those_without_compilation() -> None:
    model = nn.Sequential(cast("nn.Module", torch.compile(nn.Linear(3, 3, bias=False))), nn.Linear(3, 3, bias=False))
    inputs, weight = torch.randn(2, 3), torch.randn(3, 3)
    for whole in (model, cast("nn.Module", torch.compile(model))):
        with torch.compiler.set_stance("force_eager"):
            got = run_with(whole, {"0.weight": weight}, lambda inner: inner(inputs))
        torch.testing.assert_close(got, inputs @ weight.T @ cast("nn.Linear", model[1]).weight.T)


def test_the_model_is_as_before_when_its_forward_fails_or_writes_to_itself() -> None:
    model = _Net()
    before = list_slots(model)

    def fail(inner: nn.Module) -> None:
        inner.get_submodule("free").weight = nn.Parameter(torch.zeros(3, 3))
        del inner.get_submodule("first").weight
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        run_with(model, {"first.weight": torch.zeros(3, 3)}, fail)
    assert sorted(list_slots(model)) == sorted(before)
