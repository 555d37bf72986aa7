"""Which stored tensors a model's tensors consist of is what transformers makes of them."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import conversion_mapping, core_model_loading

from lottery_tickets._core.tensor_files.headers import Entry
from lottery_tickets.workloads.conversion import find_parts
from tests.lottery_tickets.checkpoints.decoders import make_decoder

LAYER = "model.layers.0."


def describe(shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype = torch.float32) -> dict[str, Entry]:
    return {name: Entry(dtype, torch.Size(shape), 0) for name, shape in shapes.items()}


def list_experts(number: int, dtype: torch.dtype = torch.float32) -> dict[str, Entry]:
    shapes = {"w1": (48, 32), "w2": (32, 48), "w3": (48, 32)}
    name = LAYER + "block_sparse_moe.experts.{}.{}.weight"
    return describe({name.format(one, key): shape for one in range(number) for key, shape in shapes.items()}, dtype)


def test_experts_lie_one_behind_the_other_in_the_order_of_their_numbers() -> None:
    found = find_parts(make_decoder("mixtral", num_local_experts=12), list_experts(12))
    names = [f"{LAYER}block_sparse_moe.experts.{number}" for number in range(12)]
    assert found == {
        f"{LAYER}mlp.experts.gate_up_proj": tuple(f"{name}.{key}.weight" for name in names for key in ("w1", "w3")),
        f"{LAYER}mlp.experts.down_proj": tuple(f"{name}.w2.weight" for name in names),
    }


def test_experts_that_are_missing_or_of_several_dtypes_are_not_joined() -> None:
    model = make_decoder("mixtral")
    assert find_parts(model, list_experts(3)) == {}
    mixed = list_experts(4) | {
        f"{LAYER}block_sparse_moe.experts.1.w2.weight": Entry(torch.half, torch.Size((32, 48)), 0)
    }
    assert list(find_parts(model, mixed)) == [f"{LAYER}mlp.experts.gate_up_proj"]


def test_other_models_and_other_libraries_leave_names_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = describe({"weight": (2, 3), "odd": (4,)})
    assert find_parts(torch.nn.Linear(3, 2), stored) == {"weight": ("weight",)}
    experts, model = list_experts(4) | describe({"model.norm.weight": (32,)}), make_decoder("mixtral")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name.endswith("core_model_loading") else find_spec(name)
    )
    assert find_parts(model, experts) == {"model.norm.weight": ("model.norm.weight",)}


def find_by(
    rule: core_model_loading.WeightConverter, shapes: Mapping[str, tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> dict[str, tuple[str, ...]]:
    """Returns the parts of a Llama's tensors by one rule, once all modules that would import the stand-in are there."""
    model = make_decoder("llama")
    with monkeypatch.context() as patch:
        patch.setattr(conversion_mapping, "get_model_conversion_mapping", lambda _: [rule])
        return find_parts(model, describe(shapes))


class _Refusing(core_model_loading.ConversionOps):
    def convert(self, *_: Any, **__: Any) -> Any:  # noqa: ANN401 - as transformers has it
        raise RuntimeError("odd")


class _Doing(core_model_loading.ConversionOps):
    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        self.change = change

    def convert(self, input_dict: dict[str, list[Tensor]], target_patterns: list[str], **_: Any) -> dict[str, Any]:  # type: ignore[override] # noqa: ANN401 - as transformers has it
        [[tensor]] = input_dict.values()
        return {target_patterns[0]: self.change(tensor)}


@pytest.mark.parametrize(
    "operations",
    [
        [core_model_loading.Transpose(0, 1)],
        [core_model_loading.Interleave(0)],
        [core_model_loading.Chunk(0)],
        [_Refusing()],
        [_Doing(lambda tensor: tensor * 2)],
        [_Doing(lambda tensor: tensor + 1)],
        [_Doing(lambda tensor: tensor[1:])],
        [_Doing(lambda tensor: torch.cat([tensor, tensor]))],
    ],
)
@pytest.mark.parametrize("doing_nothing", [False, True])
def test_what_is_not_put_one_behind_the_other_is_left_out(
    operations: Sequence[Any], doing_nothing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = [_Doing(lambda tensor: [tensor])] if doing_nothing else operations
    targets = ["q_proj", "k_proj"] if isinstance(chosen[0], core_model_loading.Chunk) else ["q_proj"]
    rule = core_model_loading.WeightConverter("query", targets, operations=list(chosen))
    stored = {f"{LAYER}self_attn.query.weight": (32, 32), f"{LAYER}self_attn.o_proj.weight": (32, 32)}
    found = find_by(rule, stored, monkeypatch)
    as_it_is = {f"{LAYER}self_attn.o_proj.weight": (f"{LAYER}self_attn.o_proj.weight",)}
    joined = {f"{LAYER}self_attn.q_proj.weight": (f"{LAYER}self_attn.query.weight",)}
    assert found == (as_it_is | joined if doing_nothing else as_it_is)


@pytest.mark.parametrize("change", [lambda first, _: first, lambda first, _: torch.cat([first, first])])
def test_each_tensor_must_be_used_once(change: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    class Changing(core_model_loading.ConversionOps):
        def convert(self, input_dict: dict[str, list[Tensor]], target_patterns: list[str], **_: Any) -> dict[str, Any]:  # type: ignore[override] # noqa: ANN401 - as transformers has it
            return {target_patterns[0]: change(*(tensor for [tensor] in input_dict.values()))}

    rule = core_model_loading.WeightConverter(["query", "other"], "q_proj", operations=[Changing()])
    rows = change(torch.empty(1), torch.empty(1)).numel()
    names = [f"{LAYER}self_attn.{name}.weight" for name in ("query", "other")]
    assert find_by(rule, dict.fromkeys(names, (32 // rows, 32)), monkeypatch) == {}


def test_what_is_reshaped_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = core_model_loading.WeightConverter("query", "q_proj", operations=[_Doing(lambda tensor: tensor.view(-1))])
    assert find_by(rule, {f"{LAYER}self_attn.query.weight": (16, 64)}, monkeypatch) == {}
    assert find_by(rule, {f"{LAYER}self_attn.query.weight": (32, 32)}, monkeypatch) != {}
