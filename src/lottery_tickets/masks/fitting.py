"""A mask beside a model: the parameters that it speaks of, and the bits of what lies here of them."""

from torch import Tensor, nn

from lottery_tickets._core.names import clean_name, unwrap
from lottery_tickets._core.sharding.fsdp import reshard
from lottery_tickets._core.sharding.shards import find_shards
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
