"""The units of any model: from the table of decoders, or from the graph of a network."""

from torch import nn

from lottery_tickets._core.names import unwrap
from lottery_tickets._core.sharding.dtensors import refuse_sharded
from lottery_tickets.structured.decoders import find_decoder_units, find_model_type
from lottery_tickets.structured.dependencies import find_network_units
from lottery_tickets.structured.units import Units


def find_units(model: nn.Module, example_inputs: object = None) -> Units:
    """Returns what goes together when a model becomes smaller.

    Of transformers' Llama, Mistral, Qwen2, Qwen3, Gemma, GPT-2, BERT, Mixtral, Qwen2-MoE and Qwen3-MoE: hidden neurons
    of each feed-forward block with their gates, key/value heads with their query heads, experts with their rows of the
    router, whole layers. Of any other network: channels and hidden neurons with their batch norms, over residual sums,
    concatenations, depthwise and grouped convolutions and flattening, through Torch-Pruning's dependency graph (extra
    `shrink`). Each such group is tried out: in float64, with random weights and half of its units, a smaller copy must
    compute what the masked network computes, else it is left out.

    The width of a residual stream under LayerNorm, RMSNorm or GroupNorm is no unit: such a norm computes with all of
    it, so the masked network is another function than the smaller one.

    Args:
        model: A model; it stays as it is.
        example_inputs: What a network is called with: a tensor, a tuple or list of arguments, or a dict of named ones.
            Models of transformers need none.

    Raises:
        ModuleNotFoundError: When Torch-Pruning is needed and not installed.
        TypeError: When the model is no module.
        ValueError: When a model of transformers is of another architecture, a network has no example inputs, or the
            model is sharded.

    References:
        Fang et al., arXiv:2301.12900 (the dependency graph).

    Examples:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> import torch
        >>> [group] = find_units(model, torch.randn(1, 4)).groups.values()
        >>> group.kind, group.name, group.num_units, [member.name for member in group.members]
        ('neurons', '0', 8, ['0.weight', '0.bias', '2.weight'])
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model must be a torch.nn.Module, which can become smaller, got {type(model).__name__}")
    refuse_sharded(model, "units")
    inner = unwrap(model)
    return find_decoder_units(inner) if find_model_type(inner) else find_network_units(inner, example_inputs)
