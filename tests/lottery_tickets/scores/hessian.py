"""GraSP with the whole Hessian as one matrix: slow, and obviously right."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def grasp_by_hessian(model: nn.Module, names: list[str], loss_of: Callable[[nn.Module], Tensor]) -> dict[str, Tensor]:
    """w * (H g), with the whole Hessian over the named weights as one matrix."""
    weights = [model.get_parameter(name).detach() for name in names]
    sizes = [weight.numel() for weight in weights]

    def loss(flat: Tensor) -> Tensor:
        parts = dict(zip(names, flat.split(sizes), strict=True))
        shaped = {name: part.view(model.get_parameter(name).shape) for name, part in parts.items()}
        result: Tensor = torch.func.functional_call(
            _Wrapped(model), {f"model.{n}": w for n, w in shaped.items()}, (loss_of,)
        )
        return result

    flat = torch.cat([weight.flatten() for weight in weights])
    gradient = torch.autograd.functional.jacobian(loss, flat)
    hessian = torch.autograd.functional.hessian(loss, flat)
    scores = (flat * (hessian @ gradient)).split(sizes)
    return {name: part.view(model.get_parameter(name).shape) for name, part in zip(names, scores, strict=True)}


class _Wrapped(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[nn.Module], Tensor]) -> Tensor:
        return function(self.model)
