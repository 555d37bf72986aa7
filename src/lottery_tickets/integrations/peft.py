"""Masks for the SHiRA adapters of PEFT, which train a fixed choice of the weights of each linear layer.

>>> from lottery_tickets.integrations.peft import make_shira_mask_fn
>>> config = peft.ShiraConfig(r=4, mask_type="chosen", target_modules=["up_proj"])  # doctest: +SKIP
>>> config.mask_fn = make_shira_mask_fn(model, mask, scores)  # doctest: +SKIP
>>> adapted = peft.get_peft_model(model, config)  # doctest: +SKIP

PEFT gives each adapted layer r * (inputs + outputs) weights, as many as LoRA of rank r has, and no other number.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from lottery_tickets._core.bits import unpack_bits
from lottery_tickets._core.names import clean_name, unwrap
from lottery_tickets._core.selection.largest import select_largest
from lottery_tickets._core.weights import Weights
from lottery_tickets.masks.mask import as_mask

MaskFunction = Callable[..., Tensor]


def make_shira_mask_fn(
    model: nn.Module, mask: Mapping[str, Tensor], scores: Mapping[str, Tensor] | None = None
) -> MaskFunction:
    """Returns a `mask_fn` for PEFT's `ShiraConfig`: it trains the weights that a mask keeps.

    Args:
        model: That the adapter will be put on, before it is.
        mask: By parameter name, such as a change mask; of the layers that are adapted at least.
        scores: By parameter name, in the parameter's shape: where the mask keeps more of a layer than the adapter has,
            those of largest magnitude are taken, equal ones by position; such as after - before. Without them the mask
            must keep as many as the adapter has.

    Returns:
        A function of the layer and of r: 1 where a weight is trained, in the weight's shape, dtype and device.

    Raises:
        TypeError: When the mask is not a mapping of tensors.
        ValueError: Of the function, when the layer is not one of the model's, the mask lacks it or has it in another
            shape, keeps too few, or keeps more and there are no scores.

    References:
        Bhardwaj et al., arXiv:2406.13175 (SHiRA).

    Examples:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 6))
        >>> mask_fn = make_shira_mask_fn(model, {"0.weight": torch.ones(6, 4)}, {"0.weight": model[0].weight})
        >>> mask_fn(model[0], 1).sum()
        tensor(10.)
    """
    inner, checked = unwrap(model), as_mask(mask)
    named = inner.named_parameters(remove_duplicate=False)
    names = {id(parameter): clean_name(name) for name, parameter in reversed(list(named))}  # the first name counts

    def choose(base_layer: nn.Linear, r: int, **_options: Any) -> Tensor:  # noqa: ANN401 - what PEFT adds by itself
        weight = base_layer.weight
        name = names.get(id(weight))
        if name is None or checked.shapes.get(name) != weight.shape:
            raise ValueError(
                f"the mask must have the weight of {base_layer} of shape {tuple(weight.shape)}, but has "
                f"{'no such' if name is None or name not in checked.shapes else tuple(checked.shapes[name])}; was it "
                "made for another model, or are more layers adapted?"
            )
        num_wanted, num_kept = r * sum(weight.shape), checked.count_kept()[name]
        if num_kept < num_wanted or (num_kept > num_wanted and scores is None):
            raise ValueError(
                f"a SHiRA adapter of rank {r} trains {num_wanted} weights of {name!r}, but the mask keeps {num_kept}; "
                f"{'give scores to choose by' if num_kept > num_wanted else 'take a smaller rank or a denser mask'}"
            )
        bits = checked.bits[name]
        if num_kept > num_wanted and scores is not None:
            ranked = Weights.from_tensors({name: scores[name]})
            bits = select_largest(ranked, num_wanted, within={name: bits})[name]
        return unpack_bits(bits, weight.shape).to(weight)

    return choose
