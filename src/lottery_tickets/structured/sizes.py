"""How large a model is: parameters, bytes, operations of a forward pass."""

from typing import TypedDict

from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lottery_tickets._core.measuring.running import evaluating
from lottery_tickets.structured.calling import call


class ModelSize(TypedDict):
    """How large a model is.

    Attributes:
        num_parameters: Scalars; tied ones count once.
        num_bytes: Of parameters and buffers.
        flops: Of a forward pass on the example inputs, as `torch.utils.flop_counter` counts; None without them.
    """

    num_parameters: int
    num_bytes: int
    flops: int | None


def measure_size(model: nn.Module, example_inputs: object) -> ModelSize:
    """Returns how large a model is.

    Args:
        model: Any model; it comes back as it was.
        example_inputs: What it is called with, as in `shrink`; None for no operations.
    """
    flops: int | None = None
    if example_inputs is not None:
        # With gradients, because torch's fused encoder layers, of which no operations are counted, have none.
        with evaluating(model), FlopCounterMode(display=False) as counter:
            call(model, example_inputs)
        flops = counter.get_total_flops()
    return {
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "num_bytes": sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers())),
        "flops": flops,
    }
