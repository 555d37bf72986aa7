"""What a model costs: parameters, bytes and FLOPs, dense, as a mask says, and with what it empties cut out."""

import copy
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, TypedDict, final

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from lottery_tickets._core.batches.samples import require_samples, take_samples
from lottery_tickets._core.bits import num_bytes
from lottery_tickets._core.memory.stand_in import StandIn
from lottery_tickets._core.names import unwrap
from lottery_tickets._core.objective import LossFunction, compute_loss
from lottery_tickets._core.rates.work import CONVOLUTION, CONVOLUTION_BACKWARD, PRODUCT, describe_call, find_tensors
from lottery_tickets.masks.fitting import find_masked_parameters
from lottery_tickets.masks.guard import find_guard
from lottery_tickets.masks.holding import remove_mask
from lottery_tickets.masks.mask import Mask, as_mask
from lottery_tickets.structured.calling import find_inputs
from lottery_tickets.structured.decoders import find_model_type
from lottery_tickets.structured.shrinking import shrink

PRODUCTS: Final = (PRODUCT, CONVOLUTION, CONVOLUTION_BACKWARD)


class Cost(TypedDict):
    """What one form of a model costs.

    Attributes:
        parameters: How many are not pruned.
        memory_bytes: Of parameters and buffers as PyTorch holds them, where a zero takes as much as any number.
        disk_bytes: Of the same in a file; of a masked model as a ticket packs it: what is kept, and one bit a weight.
        forward_flops: Of a forward pass over the batch; 2 for a multiplication with its addition.
        step_flops: Of a forward and a backward pass.
    """

    parameters: int
    memory_bytes: int
    disk_bytes: int
    forward_flops: int
    step_flops: int


class Costs(TypedDict, total=False):
    """What a model costs in each form.

    Attributes:
        num_samples: In the batch.
        dense: As it is.
        masked: As the mask says. Its FLOPs leave out what is multiplied by pruned weights, which needs a kernel that
            skips them: PyTorch has none, and computes those of the dense model.
        shrunk: Without the units that nothing reads under the mask, which PyTorch does save; absent where the units of
            the model cannot be found, and "no_units" says why.
        no_units: The reason.
    """

    num_samples: int
    dense: Cost
    masked: Cost
    shrunk: Cost
    no_units: str


def compute_costs(
    model: nn.Module,
    batch: object,
    mask: Mapping[str, Tensor] | None = None,
    *,
    loss_fn: LossFunction | None = None,
    example_inputs: object = None,
) -> Costs:
    """Returns what a model costs: its parameters, its bytes, and the FLOPs of a batch.

    The model is not run: FLOPs follow from the shapes of what it would compute, and products of matrices, attention
    and convolutions are counted, as `torch.utils.flop_counter` counts them. So a model on the meta device will do.

    Args:
        model: Left as it is.
        batch: As for training: what `loss_fn`, or the model's own loss, takes.
        mask: Which of its weights are kept; None for a dense model alone.
        loss_fn: As in `compute_early_bird_tickets`.
        example_inputs: What a network is called with, as in `shrink`; by default the inputs of the batch.

    Returns:
        A `Costs`: "num_samples", "dense", and with a mask "masked" and "shrunk"; each of these has "parameters",
        "memory_bytes", "disk_bytes", "forward_flops" and "step_flops".

    Raises:
        ValueError: When the mask is of another model, or the batch has no samples.

    Examples:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> batch = torch.ones(3, 4), torch.tensor([0, 1, 0])
        >>> mask = {"2.weight": torch.tensor([[True] * 2 + [False] * 6] * 2)}  # six of the eight neurons are not read
        >>> costs = compute_costs(model, batch, mask)
        >>> [costs[form]["forward_flops"] for form in ("dense", "masked", "shrunk")]
        [288, 216, 72]
    """
    inner = unwrap(model)
    if find_guard(inner) is not None:  # what holds a mask looks at memory, which a stand-in has not
        inner = copy.deepcopy(inner)
        remove_mask(inner)
    dense, by_weight = _count(inner, batch, loss_fn)
    costs: Costs = {"num_samples": require_samples(batch), "dense": dense}
    if mask is not None:
        costs["masked"] = _skip_pruned(inner, dense, by_weight, as_mask(mask))
        try:
            smaller = shrink(inner, mask, uniform=True, example_inputs=_find_inputs(inner, batch, example_inputs))
        except (ModuleNotFoundError, ValueError) as error:
            costs["no_units"] = str(error)
        else:
            costs["shrunk"], _ = _count(smaller.model, batch, loss_fn)
    return costs


def _find_inputs(model: nn.Module, batch: Any, given: object) -> object:  # noqa: ANN401 - of any kind
    """Returns what a network is called with, one sample of it; None where the model is of transformers.

    Raises:
        ValueError: When the network has no values to be run with, or a batch of another kind does not say.
    """
    if find_model_type(model) is not None:
        return None
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ValueError("the units of a network are found by running it, but this one is on the meta device")
    inputs = find_inputs(batch, given)
    return None if inputs is None else take_samples(inputs, 0, 1)


def _count(model: nn.Module, batch: object, loss_fn: LossFunction | None) -> tuple[Cost, "_WeightFlops"]:
    """Returns what a model costs as it is, and the FLOPs by weight."""
    stand_in = StandIn(model, on_gpu=False)
    stand_in.model.train(model.training)
    stand_in_batch = stand_in.make_batch(batch, require_samples(batch))
    counter = _WeightFlops(stand_in.parameters)
    with torch.enable_grad(), stand_in.counting(), counter:
        loss = compute_loss(stand_in.model, stand_in_batch, loss_fn)
        forward = counter.total
        counter.is_backward = True
        loss.backward()
    held = [*model.parameters(), *model.buffers()]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    memory = sum(tensor.nbytes for tensor in held)
    stored = {id(tensor): tensor.nbytes for tensor in model.state_dict(keep_vars=True).values()}
    return {
        "parameters": parameters,
        "memory_bytes": memory,
        "disk_bytes": sum(stored.values()),
        "forward_flops": forward,
        "step_flops": counter.total,
    }, counter


def _skip_pruned(model: nn.Module, dense: Cost, flops: "_WeightFlops", mask: Mask) -> Cost:
    """Returns the cost of a model whose pruned weights are neither stored nor multiplied by."""
    parameters = find_masked_parameters(model, mask)
    skipped: Counter[str] = Counter()
    for name, num_kept in mask.count_kept().items():
        size = mask.shapes[name].numel()
        share = 1 - num_kept / size if size else 0.0
        skipped["parameters"] += size - num_kept
        skipped["disk_bytes"] += (size - num_kept) * parameters[name].element_size() - num_bytes(size)
        skipped["forward_flops"] += round(share * flops.forward[name])
        skipped["step_flops"] += round(share * flops.step[name])
    return {
        "parameters": dense["parameters"] - skipped["parameters"],
        "memory_bytes": dense["memory_bytes"],
        "disk_bytes": dense["disk_bytes"] - skipped["disk_bytes"],
        "forward_flops": dense["forward_flops"] - skipped["forward_flops"],
        "step_flops": dense["step_flops"] - skipped["step_flops"],
    }


@final
class _WeightFlops(TorchDispatchMode):
    """Within the block counts FLOPs, and those that belong to each weight: where it is multiplied by, and its gradient.

    Attributes:
        total: Of all that is computed.
        forward: By weight, in the forward pass.
        step: By weight, in both passes.
        is_backward: Whether what runs from now on is the backward pass.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch's
        self.total = 0
        self.is_backward = False
        self.forward: Counter[str] = Counter()
        self.step: Counter[str] = Counter()
        # A bias is added, where FLOPs of a product do not say so.
        self._names = {_storage(weight): name for name, weight in weights.items() if weight.ndim > 1}
        self._trained = {name for name, weight in weights.items() if weight.requires_grad}

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - whatever func returns
        result = func(*args, **(kwargs or {}))
        call = describe_call(func, args, kwargs or {}, result)
        if call is not None and call.kind in PRODUCTS:
            self.total += call.size
            self._attribute(call.kind, call.size, args)
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
