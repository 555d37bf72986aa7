"""How large a model is: parameters, bytes, FLOPs, counted as torch runs operations."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, TypedDict, final

from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from lottery_tickets._core.measuring.running import evaluating
from lottery_tickets._core.rates.work import CONVOLUTION, CONVOLUTION_BACKWARD, PRODUCT, describe_call, find_tensors
from lottery_tickets.structured.calling import call

PRODUCTS: Final = (PRODUCT, CONVOLUTION, CONVOLUTION_BACKWARD)


class ModelSize(TypedDict):
    """How large a model is.

    Attributes:
        num_parameters: Scalars; tied ones count once.
        num_bytes: Of parameters and buffers.
        flops: Of a forward pass on the example inputs, see `FlopCounter`; None without them.
    """

    num_parameters: int
    num_bytes: int
    flops: int | None


def measure_size(model: nn.Module, example_inputs: object = None) -> ModelSize:
    """Returns how large a model is.

    Args:
        model: Any model; it comes back as it was.
        example_inputs: What it is called with, as in `shrink`; None for no FLOPs.
    """
    flops: int | None = None
    if example_inputs is not None:
        # With gradients, because torch's fused encoder layers, of which no operations are counted, have none.
        with evaluating(model), FlopCounter() as counter:
            call(model, example_inputs)
        flops = counter.total
    return {
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "num_bytes": sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers())),
        "flops": flops,
    }


@final
class FlopCounter(TorchDispatchMode):
    """Within the block counts FLOPs, and those that belong to each weight: where it is multiplied by, and its gradient.

    Products of matrices, attention and convolutions are counted, 2 for a multiplication with its addition, as
    `torch.utils.flop_counter` counts them.

    Args:
        weights: By name, of which FLOPs are told apart.

    Attributes:
        total: Of all that is computed.
        forward: By weight, in the forward pass.
        step: By weight, in both passes.
        is_backward: Whether what runs from now on is the backward pass.
    """

    def __init__(self, weights: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch's
        named = weights or {}
        self.total = 0
        self.is_backward = False
        self.forward: Counter[str] = Counter()
        self.step: Counter[str] = Counter()
        # A bias is added, where FLOPs of a product do not say so.
        self._names = {_storage(weight): name for name, weight in named.items() if weight.ndim > 1}
        self._trained = {name for name, weight in named.items() if weight.requires_grad}

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - whatever func returns
        result = func(*args, **(kwargs or {}))
        found = describe_call(func, args, kwargs or {}, result)
        if found is not None and found.kind in PRODUCTS:
            self.total += found.size
            self._attribute(found.kind, found.size, args)
        return result

    def _attribute(self, kind: str, size: int, args: tuple[Any, ...]) -> None:
        storages = {_storage(tensor) for tensor in find_tensors(args)}
        for name in {self._names[storage] for storage in storages if storage in self._names}:
            self.step[name] += size
            if self.is_backward:
                continue
            self.forward[name] += size
            # The gradient of a weight of a product is a product of as many FLOPs, which the weight itself is no part
            # of; one call computes all gradients of a convolution.
            if kind == PRODUCT and name in self._trained:
                self.step[name] += size


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)  # noqa: SLF001 - its address
