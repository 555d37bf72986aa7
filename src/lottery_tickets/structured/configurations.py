"""A smaller model of transformers: its configuration, changed, and the class that builds it from that."""

import copy
from collections.abc import Container, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

# Of a configuration: lists with an entry for each layer.
BY_LAYER: Final = ("layer_types", "mlp_layer_types")


def change_configuration(config: Any, widths: Mapping[str, int], layers: Sequence[int]) -> Any:  # noqa: ANN401 - of transformers
    """Returns the configuration of a smaller model.

    Args:
        config: Of the model; it stays as it is.
        widths: Entries that say how many units there are, where that changes.
        layers: The places of the layers that stay.

    Raises:
        ValueError: When such a model cannot be said.
    """
    smaller = copy.deepcopy(config)
    changes: dict[str, Any] = dict(widths)
    if "num_key_value_heads" in widths:
        # A query head belongs to a key/value head for good, and is as large as before.
        num_queries = config.num_attention_heads // config.num_key_value_heads
        changes["num_attention_heads"] = widths["num_key_value_heads"] * num_queries
        changes["head_dim"] = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if len(layers) < config.num_hidden_layers:
        changes |= _drop_layers(config, layers)
    try:
        for name, value in changes.items():
            setattr(smaller, name, value)
        type(config).from_dict(smaller.to_dict())  # as it is read from a file, which is when it checks itself
    except Exception as error:
        told = ", ".join(f"{name}={value}" for name, value in changes.items())
        raise ValueError(
            f"the smaller model must have a configuration, but {type(config).__name__} refuses {told}: "
            f"{' '.join(str(error).split())}; remove other numbers of units"
        ) from error
    return smaller


def _drop_layers(config: Any, layers: Sequence[int]) -> dict[str, Any]:  # noqa: ANN401 - of transformers
    """Returns the entries that change when layers go."""
    changes: dict[str, Any] = {"num_hidden_layers": len(layers)}
    for name in BY_LAYER:
        if isinstance(listed := getattr(config, name, None), list):
            changes[name] = [listed[place] for place in layers]
    if hasattr(config, "decoder_sparse_step"):  # a layer has experts by its place, unless it is on a list
        step, without = config.decoder_sparse_step, config.mlp_only_layers
        dense = [new for new, old in enumerate(layers) if old in without or (old + 1) % step]
        changes |= {"decoder_sparse_step": 1, "mlp_only_layers": dense}
    return changes


def build_smaller(
    model: nn.Module,
    config: Any,  # noqa: ANN401 - of transformers
    state: Mapping[str, Tensor],
    frozen: Container[str | None],
) -> nn.Module:
    """Returns a model of the same class, built from another configuration, with this state.

    Args:
        model: The larger one, which has what no state has: modes, buffers that are not saved, how it generates.
        config: Of the smaller one.
        state: Of the smaller one.
        frozen: The names of its parameters that are not trained.
    """
    build: Any = type(model)
    with torch.device("meta"):  # draws nothing from torch's generator
        smaller: Any = build(config)
    smaller.load_state_dict(dict(state), assign=True)
    smaller.tie_weights()
    for name, parameter in smaller.named_parameters():
        parameter.requires_grad_(name not in frozen)
    buffers = dict(model.named_buffers())
    for prefix, module in smaller.named_modules():
        for key, buffer in module._buffers.items():  # noqa: SLF001 - where a module looks itself
            if buffer is not None and buffer.is_meta:
                module._buffers[key] = buffers[f"{prefix}.{key}" if prefix else key].clone()  # noqa: SLF001 - as above
    if getattr(model, "generation_config", None) is not None:
        smaller.generation_config = copy.deepcopy(model.generation_config)
    result: nn.Module = smaller.train(model.training)
    return result
