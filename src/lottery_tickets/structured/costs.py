"""What a model costs: parameters, bytes and FLOPs, dense, as a mask says, and with what it empties cut out."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from lottery_tickets._core.batches.samples import require_samples, take_samples
from lottery_tickets._core.bits import num_bytes
from lottery_tickets._core.memory.stand_in import StandIn
from lottery_tickets._core.names import clean_name, unwrap
from lottery_tickets._core.objective import LossFunction, compute_loss
from lottery_tickets._core.records import recorded
from lottery_tickets.masks.fitting import find_masked_parameters
from lottery_tickets.masks.guard import find_guard
from lottery_tickets.masks.holding import remove_mask
from lottery_tickets.masks.mask import Mask, as_mask
from lottery_tickets.structured.calling import find_inputs
from lottery_tickets.structured.cutting import find_aliases
from lottery_tickets.structured.decoders import find_model_type
from lottery_tickets.structured.shrinking import shrink
from lottery_tickets.structured.sizes import FlopCounter, measure_size


class WeightCost(TypedDict):
    """What one parameter costs.

    Attributes:
        parameters: How many numbers it has.
        disk_bytes: Of these in a file.
        forward_flops: Of what is multiplied by it in a forward pass over the batch.
        step_flops: Of that and of its gradients, in a forward and a backward pass.
    """

    parameters: int
    disk_bytes: int
    forward_flops: int
    step_flops: int


class Cost(WeightCost):
    """What one form of a model costs.

    Attributes:
        parameters: How many are not pruned.
        disk_bytes: Of parameters and buffers in a file; of a masked model as a ticket packs it: what is kept, and one
            bit a weight.
        forward_flops: Of a forward pass over the batch; 2 for a multiplication with its addition.
        step_flops: Of a forward and a backward pass.
        memory_bytes: Of parameters and buffers as PyTorch holds them, where a zero takes as much as any number.
    """

    memory_bytes: int


class Costs(TypedDict, total=False):
    """What a model costs in each form.

    Attributes:
        num_samples: In the batch.
        dense: As it is.
        weights: What each parameter is part of that, by name.
        masked: As the mask says. Its FLOPs leave out what is multiplied by pruned weights, which needs a kernel that
            skips them: PyTorch has none, and computes those of the dense model.
        shrunk: Without the units that nothing reads under the mask, which PyTorch does save; absent where the units of
            the model cannot be found, and "no_units" says why.
        no_units: The reason.
    """

    num_samples: int
    dense: Cost
    weights: dict[str, WeightCost]
    masked: Cost
    shrunk: Cost
    no_units: str


@recorded("costs")
def compute_costs(
    model: nn.Module,
    batch: object,
    mask: Mapping[str, Tensor] | None = None,
    *,
    loss_fn: LossFunction | None = None,
    example_inputs: object = None,
    path: str | Path | None = None,  # noqa: ARG001 - `recorded` takes it
) -> Costs:
    """Returns what a model costs: its parameters, its bytes, and the FLOPs of a batch.

    The model is not run: FLOPs follow from the shapes of what it would compute, and products of matrices, attention
    and convolutions are counted, as `torch.utils.flop_counter` counts them. So a model on the meta device will do.

    In a report, what tables say of a mask of the same model they say in parameters, bytes and FLOPs too, where these
    results are added beside.

    Args:
        model: Left as it is.
        batch: As for training: what `loss_fn`, or the model's own loss, takes.
        mask: Which of its weights are kept; None for a dense model alone.
        loss_fn: As in `compute_early_bird_tickets`.
        example_inputs: What a network is called with, as in `shrink`; by default the inputs of the batch.
        path: A JSON file that the results also go to, or a folder for it; see `save_results`.

    Returns:
        A `Costs`: "num_samples", "dense", "weights", and with a mask "masked" and "shrunk". Each form has
        "parameters", "memory_bytes", "disk_bytes", "forward_flops" and "step_flops", each weight all but the second.

    Raises:
        OSError: When `path` cannot be written.
        ValueError: When the mask is of another model, or the batch has no samples, or something else lies at `path`.

    Examples:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> batch = torch.ones(3, 4), torch.tensor([0, 1, 0])
        >>> mask = {"2.weight": torch.tensor([[True] * 2 + [False] * 6] * 2)}  # six of the eight neurons are not read
        >>> costs = compute_costs(model, batch, mask)
        >>> [costs[form]["forward_flops"] for form in ("dense", "masked", "shrunk")]
        [288, 216, 72]
        >>> costs["weights"]["2.weight"]
        {'parameters': 16, 'disk_bytes': 64, 'forward_flops': 96, 'step_flops': 288}
    """
    inner = unwrap(model)
    if find_guard(inner) is not None:  # what holds a mask looks at memory, which a stand-in has not
        inner = copy.deepcopy(inner)
        remove_mask(inner)
    dense, weights = _count(inner, batch, loss_fn)
    costs: Costs = {"num_samples": require_samples(batch), "dense": dense, "weights": weights}
    if mask is not None:
        costs["masked"] = _skip_pruned(inner, dense, weights, as_mask(mask))
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


def _count(model: nn.Module, batch: object, loss_fn: LossFunction | None) -> tuple[Cost, dict[str, WeightCost]]:
    """Returns what a model costs as it is, and what each of its parameters is of that."""
    stand_in = StandIn(model, on_gpu=False)
    stand_in.model.train(model.training)
    stand_in_batch = stand_in.make_batch(batch, require_samples(batch))
    counter = FlopCounter(stand_in.parameters)
    with torch.enable_grad(), stand_in.counting(), counter:
        loss = compute_loss(stand_in.model, stand_in_batch, loss_fn)
        forward = counter.total
        counter.is_backward = True
        loss.backward()
    size = measure_size(model)
    stored = {id(tensor): tensor.nbytes for tensor in model.state_dict(keep_vars=True).values()}
    dense: Cost = {
        "parameters": size["num_parameters"],
        "memory_bytes": size["num_bytes"],
        "disk_bytes": sum(stored.values()),
        "forward_flops": forward,
        "step_flops": counter.total,
    }
    weights: dict[str, WeightCost] = {
        name: {
            "parameters": parameter.numel(),
            "disk_bytes": parameter.nbytes,
            "forward_flops": counter.forward[name],
            "step_flops": counter.step[name],
        }
        for name, parameter in ((clean_name(name), parameter) for name, parameter in model.named_parameters())
    }
    return dense, weights


def _skip_pruned(model: nn.Module, dense: Cost, weights: Mapping[str, WeightCost], mask: Mask) -> Cost:
    """Returns the cost of a model whose pruned weights are neither stored nor multiplied by."""
    parameters, aliases = find_masked_parameters(model, mask), find_aliases(model)
    left = dense.copy()
    for name, num_kept in mask.count_kept().items():
        size, cost = mask.shapes[name].numel(), weights[aliases[name]]
        share = 1 - num_kept / size if size else 0.0
        left["parameters"] -= size - num_kept
        left["disk_bytes"] -= (size - num_kept) * parameters[name].element_size() - num_bytes(size)
        left["forward_flops"] -= round(share * cost["forward_flops"])
        left["step_flops"] -= round(share * cost["step_flops"])
    return left
