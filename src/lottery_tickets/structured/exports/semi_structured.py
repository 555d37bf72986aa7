"""Weights of which two of each four are zero, as `torch.sparse` multiplies them on CUDA GPUs."""

from collections.abc import Iterable
from typing import Final

from torch import Tensor, nn
from torch.sparse import SparseSemiStructuredTensor, to_sparse_semi_structured

from lottery_tickets.masks.mask import Mask

KEPT: Final = 2
OF: Final = 4


def check_semi_structured(model: nn.Module, mask: Mask) -> None:
    """Raises a ValueError where the weights that a mask prunes cannot be multiplied as 2:4; returns nothing."""
    for name, kept in mask.items():
        layer = model.get_submodule(name.rpartition(".")[0])
        if not isinstance(layer, nn.Linear):
            raise ValueError(
                f"2:4 is for weights of nn.Linear, but {name!r} is of {type(layer).__name__}; leave it out of the mask"
            )
        if kept.shape[-1] % OF or bool((kept.view(-1, OF).sum(1) > KEPT).any()):
            raise ValueError(
                f"the mask must keep at most {KEPT} of each {OF} weights along a row, but in {name!r} it keeps more, "
                f"or rows are no multiple of {OF}; make it with scope='2:4'"
            )
    devices = {parameter.device.type for parameter in model.parameters()}
    if devices != {"cuda"}:
        raise ValueError(
            f"2:4 weights are multiplied on CUDA GPUs, but the model is on {', '.join(sorted(devices))}; move it to "
            "one, or take the form 'dense', which has the same zeros"
        )


def compress(model: nn.Module, names: Iterable[str]) -> None:
    """Puts 2:4 weights into a model in place of dense ones; returns nothing.

    Args:
        model: On a CUDA GPU, of a dtype that torch has such products for.
        names: Of the weights of its linear layers. They have no -0.0, which would count as kept.

    Raises:
        ValueError: When torch refuses a dtype or a shape.
    """
    for name in names:
        layer = model.get_submodule(name.rpartition(".")[0])
        try:
            sparse = to_sparse_semi_structured(layer.get_parameter("weight").detach())
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"{name!r} cannot be 2:4 here, because torch says: {error}; take the form 'dense'"
            ) from error
        layer.register_parameter("weight", nn.Parameter(sparse, requires_grad=False))


def to_dense(tensor: Tensor) -> Tensor:
    """Returns a tensor with its zeros, where it is a 2:4 one; any other as it is."""
    return tensor.to_dense() if isinstance(tensor, SparseSemiStructuredTensor) else tensor
