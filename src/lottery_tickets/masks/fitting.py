"""A mask beside a model: the parameters that it speaks of, and the bits of what lies here of them."""

from collections.abc import Mapping

from torch import Tensor, nn

from lottery_tickets._core.names import clean_name, unwrap
from lottery_tickets._core.prunable_weights import find_prunable_weights
from lottery_tickets._core.reading import say_briefly
from lottery_tickets._core.sharding.fsdp import reshard
from lottery_tickets._core.sharding.shards import find_shards
from lottery_tickets._core.weights import Weights, WeightSource
from lottery_tickets.masks.mask import Mask


def find_masked_parameters(model: nn.Module, mask: Mask) -> dict[str, nn.Parameter]:
    """Returns the parameters a mask speaks of, by its names; all are plain tensors.

    Raises:
        ValueError: When a name or a shape does not fit the model.
        TypeError: When a parameter is sharded.
    """
    found = _find_parameters(model, mask)
    for name, parameter in found.items():
        if type(parameter.data) is not Tensor:
            message = (
                f"{name!r} must be a plain tensor, but is a {type(parameter.data).__name__}; gather the model first"
            )
            raise TypeError(message)
    return found


def fit_mask(model: nn.Module, mask: Mask) -> tuple[dict[str, nn.Parameter], Mask]:
    """Returns the parameters a mask speaks of, by its names, and the mask with the bits of what lies here of each.

    Raises:
        ValueError: When a name or a shape does not fit the model.
    """
    parameters = _find_parameters(model, mask)
    return parameters, mask.placed(find_shards(parameters))


def find_masked_weights(given: nn.Module | Mapping[str, Tensor] | WeightSource, mask: Mask) -> Weights:
    """Returns the weights that a mask speaks of, in its order; a tied one by whichever of its names the mask has.

    Args:
        given: A model, a mapping of weights by name, or a checkpoint.
        mask: Of all its weights, or of some.

    Raises:
        TypeError: When it is none of the three.
        ValueError: When a weight is missing, has another shape or is sharded.
    """
    if isinstance(given, nn.Module):
        given = dict[str, Tensor](_find_parameters(given, mask))
    elif isinstance(given, Mapping):
        first = {name: given[name] for name in mask.shapes if name in given}  # a tied weight goes by its first name
        given = first | dict(given)
    try:
        weights = find_prunable_weights(given, include=list(mask.shapes))
    except ValueError as error:
        raise ValueError(f"`given` must have the weights of the mask, but does not: {say_briefly(error)}") from error
    for name, shape in mask.shapes.items():
        weight = weights.get(name)
        if weight is None or weight.whole_shape != shape:
            has = "has none of this name" if weight is None else f"has {tuple(weight.whole_shape)}"
            raise ValueError(
                f"`given` must have {name!r} in the mask's shape {tuple(shape)}, but {has}; was the mask made of "
                "another model?"
            )
    if weights.shards is not None or mask.shards is not None:
        raise ValueError("strata are counted of whole weights, but these are sharded; give a checkpoint, and gather()")
    return weights.part(mask.shapes)


def _find_parameters(model: nn.Module, mask: Mask) -> dict[str, nn.Parameter]:
    inner = unwrap(model)
    reshard(inner)
    named = inner.named_parameters(remove_duplicate=False)
    parameters = {clean_name(name): parameter for name, parameter in named}
    found = {}
    for name, shape in mask.shapes.items():
        parameter = parameters.get(name)
        if parameter is None:
            message = f"mask names {name!r}, but the model has no such parameter; was it made for another model?"
            raise ValueError(message)
        if parameter.shape != shape:
            message = (
                f"mask for {name!r} has shape {tuple(shape)}, but the parameter has shape {tuple(parameter.shape)}; "
                "was it made for another model?"
            )
            raise ValueError(message)
        found[name] = parameter
    return found
