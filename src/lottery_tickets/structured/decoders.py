"""The units of transformers' models, from a small table of what their parts are called."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from lottery_tickets.structured.units import Member, UnitGroup, Units


@final
@dataclass(frozen=True)
class _Block:
    """Where the units of a layer are.

    Attributes:
        kind: Of the units.
        module: In the layer, after which the group is named.
        incoming: Modules or parameters in the layer whose outputs belong to the units.
        outgoing: Those that read them.
        setting: The entry of the configuration that says how many there are.
    """

    kind: str
    module: str
    incoming: tuple[str, ...]
    outgoing: tuple[str, ...]
    setting: str


@final
@dataclass(frozen=True)
class _Architecture:
    """What the parts of a model are called.

    Attributes:
        layers: The list of its layers, as the end of a module's name.
        blocks: Where their units are; a layer need not have all.
        outputs: Modules and parameters of a layer that add to the residual stream.
        without: Kinds of units that it has not, with the reason.
    """

    layers: str
    blocks: tuple[_Block, ...]
    outputs: tuple[str, ...] = (
        "self_attn.o_proj",
        "mlp.down_proj",
        "mlp.experts.down_proj",
        "mlp.shared_expert.down_proj",
    )
    without: Mapping[str, str] = field(default_factory=dict)


_GATED: Final = _Block("neurons", "mlp", ("mlp.gate_proj", "mlp.up_proj"), ("mlp.down_proj",), "intermediate_size")
_GROUPED: Final = _Block(
    "kv_groups",
    "self_attn",
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    "num_key_value_heads",
)
_SHARED: Final = _Block(
    "neurons",
    "mlp.shared_expert",
    ("mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj"),
    ("mlp.shared_expert.down_proj",),
    "shared_expert_intermediate_size",
)


def _experts(setting: str) -> _Block:
    return _Block(
        "experts", "mlp.experts", ("mlp.experts.gate_up_proj",), ("mlp.experts.down_proj", "mlp.gate"), setting
    )


_NO_HEAD_SIZE: Final = "its configuration has no size of a head beside the number of heads"
_LLAMA: Final = _Architecture("layers", (_GATED, _GROUPED))
_GPT2: Final = _Architecture(
    "h",
    (_Block("neurons", "mlp", ("mlp.c_fc",), ("mlp.c_proj",), "n_inner"),),
    ("attn.c_proj", "crossattention.c_proj", "mlp.c_proj"),
    {"kv_groups": _NO_HEAD_SIZE},
)
_BERT: Final = _Architecture(
    "encoder.layer",
    (_Block("neurons", "intermediate", ("intermediate.dense",), ("output.dense",), "intermediate_size"),),
    without={
        "kv_groups": _NO_HEAD_SIZE,
        "layers": "its norms stand behind the sums, so a layer that adds nothing is still no identity",
    },
)
ARCHITECTURES: Final[Mapping[str, _Architecture]] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma"), _LLAMA),
    "gpt2": _GPT2,
    "bert": _BERT,
    "mixtral": _Architecture("layers", (_GROUPED, _experts("num_local_experts"))),
    **dict.fromkeys(
        ("qwen2_moe", "qwen3_moe"), _Architecture("layers", (_GATED, _SHARED, _GROUPED, _experts("num_experts")))
    ),
}


def find_model_type(model: nn.Module) -> str | None:
    """Returns what transformers calls a model's architecture; None for a model that is not of transformers."""
    found = getattr(getattr(model, "config", None), "model_type", None)
    return found if isinstance(found, str) and found else None


def find_decoder_units(model: nn.Module) -> Units:
    """Returns the units of a model of transformers.

    Raises:
        ValueError: When its architecture is not in the table.
    """
    model_type, config = str(find_model_type(model)), getattr(model, "config", None)
    if model_type not in ARCHITECTURES:
        raise ValueError(
            f"a model of transformers must be one of {', '.join(ARCHITECTURES)}, whose parts are known, got "
            f"{model_type!r}; its configuration would have to say what was removed"
        )
    architecture = ARCHITECTURES[model_type]
    path, layers = _find_layers(model, architecture.layers)
    groups = {
        group.name: group
        for place, layer in enumerate(layers)
        for block in architecture.blocks
        if (group := _make_group(block, f"{path}.{place}", layer, config)) is not None
    }
    left_out = dict(architecture.without)
    if getattr(config, "scale_attn_by_inverse_layer_idx", False):
        left_out["layers"] = "its attention is scaled by the place of the layer"
    if "layers" not in left_out:
        groups[path] = _make_depth(path, layers, architecture.outputs)
    return Units(groups, left_out)


def _find_layers(model: nn.Module, ending: str) -> tuple[str, nn.ModuleList]:
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and f".{name}".endswith(f".{ending}"):
            return name, module
    raise ValueError(f"the model must have its layers in a list called {ending!r}, but {type(model).__name__} has none")


def _make_group(block: _Block, path: str, layer: nn.Module, config: Any) -> UnitGroup | None:  # noqa: ANN401 - of transformers
    """Returns the group of a block in one layer, None where the layer has no such block."""
    if any(_find(layer, part) is None for part in (*block.incoming, *block.outgoing)):
        return None
    read = [part for name in block.outgoing for part in _list_inputs(layer, path, name, block.kind)]
    made = [part for name in block.incoming for part in _list_outputs(layer, path, name)]
    num_units = read[0][2] if block.kind == "neurons" else int(getattr(config, block.setting))
    members = [
        Member(name, dim, _share_out(size, num_units), is_outgoing)
        for parts, is_outgoing in ((made, False), (read, True))
        for name, dim, size in parts
    ]
    least = int(config.num_experts_per_tok) if block.kind == "experts" else 1
    return UnitGroup(block.kind, f"{path}.{block.module}", num_units, tuple(members), block.setting, least)


def _share_out(size: int, num_units: int) -> Tensor:
    """Returns the owners of so many indices, of which each unit has as many, one behind the other."""
    return torch.arange(size) // (size // num_units)


def _make_depth(path: str, layers: nn.ModuleList, outputs: tuple[str, ...]) -> UnitGroup:
    """Returns the layers as units: read by what they add to the residual stream, biases included."""
    members = []
    for place, layer in enumerate(layers):
        for name, parameter in layer.named_parameters():
            is_output = any(name == output or name.startswith(f"{output}.") for output in outputs)
            owners = torch.full((len(parameter),), place)
            members.append(Member(f"{path}.{place}.{name}", 0, owners, is_output))
    return UnitGroup("layers", path, len(layers), tuple(members), "num_hidden_layers")


def _find(layer: nn.Module, part: str) -> nn.Module | Tensor | None:
    found: object = layer
    for name in part.split("."):
        found = getattr(found, name, None)
    return found if isinstance(found, nn.Module | Tensor) else None


def _list_outputs(layer: nn.Module, path: str, part: str) -> Iterator[tuple[str, int, int]]:
    """Yields the tensors that make the outputs of a part: name, dimension, and how many indices it has."""
    found = _find(layer, part)
    if isinstance(found, Tensor):
        yield f"{path}.{part}", 0, len(found)
    elif found is not None:
        dim = 1 if type(found).__name__ == "Conv1D" else 0
        for name, parameter in found.named_parameters(recurse=False):
            along = dim if parameter.ndim > 1 else 0
            yield f"{path}.{part}.{name}", along, parameter.shape[along]


def _list_inputs(layer: nn.Module, path: str, part: str, kind: str) -> Iterator[tuple[str, int, int]]:
    """Yields the tensors that read the inputs of a part; experts and their rows of the router are read as a whole."""
    found = _find(layer, part)
    if kind == "experts":
        yield from _list_outputs(layer, path, part)
    elif isinstance(found, nn.Module):
        weight = found.get_parameter("weight")
        dim = 0 if type(found).__name__ == "Conv1D" else 1
        yield f"{path}.{part}.weight", dim, weight.shape[dim]
