"""What each weight is multiplied with: sums of squares of the inputs, from forward passes alone.

The uses of the weights are found as for gradients: a function mode sees each torch function that is handed one.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn

from lottery_tickets._core.gradients.losses import LossCalls
from lottery_tickets._core.gradients.places import Place, get_part
from lottery_tickets._core.gradients.tracking import NotSeparableError, Rule, Tracker, open_function
from lottery_tickets._core.measuring.running import Slots
from lottery_tickets._core.objective import LossFunction
from lottery_tickets._core.sharding.dtensors import gather, see_form

Function = Callable[..., Any]


@final
class InputSquares:
    """Sums of squares of the inputs of some weights, over all positions of all calls.

    Attributes:
        weights: By name, contiguous; `watch` hands out their handles.
        sums: For each part of a weight that was used, the sums of squares of its elements' inputs, in a shape that
            broadcasts to the part.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.weights = {name: weight.detach().contiguous() for name, weight in weights.items()}
        self.sums: dict[Place, Tensor] = {}
        self.rules: dict[str, Rule] = {
            "linear": self._linear,
            **dict.fromkeys(("matmul", "__matmul__", "mm", "bmm"), self._matmul),
            **dict.fromkeys(("addmm", "baddbmm"), self._addmm),
            **dict.fromkeys(("grouped_mm", "_grouped_mm", "grouped_mm_fallback"), self._grouped_mm),
            **dict.fromkeys(("conv1d", "conv2d", "conv3d"), self._convolution),
            **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), self._transposed_convolution),
            "multi_head_attention_forward": _open_attention,
        }

    def watch(self) -> tuple[dict[str, Tensor], Tracker]:
        """Returns handles to run one forward pass with, and the function mode to run it under, with gradients enabled.

        Afterwards the mode's `find_reason` says whether a handle was used in a way for which there is no rule.
        """
        handles = {name: weight.detach() for name, weight in self.weights.items()}
        return handles, Tracker(handles, 1, LossCalls(1, "empirical", torch.Generator()), self.rules)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(iter(self.weights.values())).device

    def find_unused(self) -> list[str]:
        """Returns the names of the weights of which no part has been used."""
        used = {place.name for place in self.sums}
        return [name for name in self.weights if name not in used]

    def compute_total(self, name: str) -> Tensor:
        """Returns the sum of the squares of the inputs of each element of a weight, zero where there were none."""
        total = torch.zeros_like(see_form(self.weights[name]), dtype=_wide(self.weights[name]))
        for place, squares in self.sums.items():
            if place.name == name:
                place.of(total).add_(squares)
        return total

    def let_go(self) -> None:
        """Forgets weights and sums: its rules are its own methods, so it would keep them until garbage is collected."""
        self.weights.clear()
        self.sums.clear()

    def _add(self, place: Place, squares: Tensor) -> None:
        self.sums[place] = self.sums[place] + squares if place in self.sums else squares

    def _add_product(self, tracker: Tracker, inputs: Tensor, weight: Tensor, *, transposed: bool) -> None:
        """Adds the inputs of `inputs @ weight.T`, or of `inputs @ weight` when it is transposed."""
        place = tracker.find_place(weight, (lambda matrix: matrix.mT) if transposed else (lambda matrix: matrix))
        if place is None:
            return
        if get_part(inputs) is not None:
            raise NotSeparableError(f"{place.name!r} is multiplied with another weight, for which there is no rule")
        inputs = gather(inputs)
        if len(place.shape) == 2:  # noqa: PLR2004 - a matrix
            self._add(place, _sum_squares(inputs.reshape(-1, inputs.shape[-1])))
        elif len(place.shape) == inputs.ndim == 3 and len(inputs) == place.shape[0]:  # noqa: PLR2004 - one matrix an expert
            self._add(place, _sum_squares(inputs).unsqueeze(1))
        else:
            raise NotSeparableError(
                f"a product of {place.name!r} with inputs of shape {tuple(inputs.shape)} has no rule"
            )

    def _linear(
        self, tracker: Tracker, function: Function, input: Tensor, weight: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        self._add_product(tracker, input, weight, transposed=False)
        output: Tensor = function(input, weight, bias)
        return output

    def _matmul(self, tracker: Tracker, function: Function, input: Tensor, other: Tensor) -> Tensor:
        self._add_product(tracker, input, other, transposed=True)
        if get_part(input) is not None:  # weight @ inputs
            self._add_product(tracker, other.mT if other.ndim > 1 else other, input, transposed=False)
        output: Tensor = function(input, other)
        return output

    def _addmm(
        self, tracker: Tracker, function: Function, input: Tensor, mat1: Tensor, mat2: Tensor, **factors: float
    ) -> Tensor:
        self._add_product(tracker, mat1, mat2, transposed=True)
        output: Tensor = function(input, mat1, mat2, **factors)
        return output

    def _grouped_mm(
        self, tracker: Tracker, function: Function, mat_a: Tensor, mat_b: Tensor, offs: Tensor, **options: Any
    ) -> Tensor:
        """Rows sorted by expert, each group times its expert's weight (columns, rows)."""
        ends, inputs = offs.tolist(), gather(mat_a)
        for expert, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
            place = tracker.find_place(mat_b, partial(_take_expert, expert))
            if place is not None and end > start:
                self._add(place, _sum_squares(inputs[start:end]))
        output: Tensor = function(mat_a, mat_b, offs=offs, **options)
        return output

    def _convolution(
        self, tracker: Tracker, function: Function, input: Tensor, weight: Tensor, bias: Tensor | None = None,
        stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    ) -> Tensor:  # fmt: skip
        options = (stride, padding, dilation, groups)
        place = tracker.find_place(weight)
        if place is not None:
            # All outputs of a group see the same patches: one output a group is enough.
            squares = _sum_patches(function, input, (groups, *weight.shape[1:]), options)
            self._add(place, squares.repeat_interleave(len(weight) // groups, 0) if groups > 1 else squares)
        output: Tensor = function(input, weight, bias, *options)
        return output

    def _transposed_convolution(
        self, tracker: Tracker, function: Function, input: Tensor, weight: Tensor, bias: Tensor | None = None,
        stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
    ) -> Tensor:  # fmt: skip
        options = (stride, padding, output_padding, groups, dilation)
        place = tracker.find_place(weight)
        if place is not None:
            self._add(place, _sum_patches(function, input, (len(weight), 1, *weight.shape[2:]), options))
        output: Tensor = function(input, weight, bias, *options)
        return output


def watch_inputs(model: nn.Module, inputs: InputSquares, batch: object, loss_fn: LossFunction | None) -> None:
    """Runs a model on a batch and adds up the squares of the inputs of some weights.

    Args:
        model: In evaluation mode.
        inputs: Of the weights, by the names that they have in the model.
        batch: On the model's device.
        loss_fn: Runs the model on batches of other kinds.

    Raises:
        ValueError: When the inputs of a weight cannot be found.
    """
    handles, tracker = inputs.watch()
    # Nothing here requires a gradient, so no graph is kept; but a mode does not look into no_grad.
    with torch.enable_grad(), tracker:
        Slots(model, handles).run_with(handles, lambda module: run_batch(module, batch, loss_fn), are_whole=True)
    reason = tracker.find_reason()
    if reason is not None:
        raise ValueError(f"the inputs of every weight must be found, but {reason}; leave it out with exclude=")


def run_batch(model: nn.Module, batch: Any, loss_fn: LossFunction | None) -> None:
    """Runs a model on a batch of any kind, for what can be seen meanwhile."""
    if loss_fn is not None:
        loss_fn(model, batch)
    elif isinstance(batch, Mapping):
        model(**batch)
    elif isinstance(batch, tuple | list):
        model(batch[0])
    else:
        model(batch)


def _take_expert(expert: int, weights: Tensor) -> Tensor:
    return weights[expert].t()


def _open_attention(tracker: Tracker, function: Function, *args: Any, **kwargs: Any) -> Any:
    """Torch's attention: its parts are linear layers."""
    opened = open_function(function)
    with tracker:
        return opened(*args, **kwargs)


def _sum_patches(function: Function, inputs: Tensor, shape: tuple[int, ...], options: tuple[Any, ...]) -> Tensor:
    """Returns for each element of a kernel the sum of the squares of what it is multiplied with.

    That is the gradient of the kernel when the squares are convolved and all outputs summed.
    """
    squares = gather(inputs).to(_wide(inputs)).square()
    kernel = torch.zeros(shape, dtype=squares.dtype, device=squares.device, requires_grad=True)
    gradient: Tensor
    [gradient] = torch.autograd.grad(function(squares, kernel, None, *options).sum(), kernel)
    return gradient


def _sum_squares(inputs: Tensor) -> Tensor:
    """Returns the sum of squares over the last dimension but one."""
    if not math.prod(inputs.shape):
        return inputs.new_zeros((*inputs.shape[:-2], inputs.shape[-1]), dtype=_wide(inputs))
    # A norm squared, because it widens while it reads: squares would first take a wide copy of the inputs.
    norms: Tensor = torch.linalg.vector_norm(inputs.detach(), dim=-2, dtype=_wide(inputs))
    return norms.square()


def _wide(tensor: Tensor) -> torch.dtype:
    """Returns float32, or float64 for float64 tensors."""
    return torch.promote_types(tensor.dtype, torch.float32)
