"""How calls of torch functions become uses of their weights: one rule a function, closed forms of the literature.

Products: Goodfellow, arXiv:1510.01799; convolutions as products with patches: Rochette et al., arXiv:1912.06015.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from operator import ge
from typing import Any, Final

import torch
from torch import Tensor

from lottery_tickets._core.gradients.arithmetic.correlations import has_planes
from lottery_tickets._core.gradients.places import get_part
from lottery_tickets._core.gradients.shortcuts import mix_channels
from lottery_tickets._core.gradients.tracking import (
    ROWS,
    Collector,
    NotSeparableError,
    Rule,
    Tracker,
    copy_rows,
    open_function,
    pad_rows,
)
from lottery_tickets._core.gradients.uses import (
    ConvolutionUse,
    DirectUse,
    GroupedConvolutionUse,
    LookupUse,
    ProductUse,
    Use,
    differentiate_kernels,
    find_geometry,
    pad_channels_last,
)

Function = Callable[..., Any]

MIN_GROUPED_POSITIONS: Final = 128  # measured, see docs/diary.md of 2026-11-22


def apply_linear(
    tracker: Tracker, function: Function, input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """linear(input, weight, bias): weight (rows, columns)."""
    return _tap_product(tracker, function(input, weight, bias), input, weight, bias)


def apply_matmul(tracker: Tracker, function: Function, input: Tensor, other: Tensor) -> Tensor:
    """Input @ weight: weight (columns, rows)."""
    return _tap_product(tracker, function(input, other), input, other, None, transposed=True)


def apply_addmm(
    tracker: Tracker,
    function: Function,
    input: Tensor,
    mat1: Tensor,
    mat2: Tensor,
    *,
    beta: float = 1,
    alpha: float = 1,
) -> Tensor:
    """Bias + input @ weight, as transformers' Conv1D computes it."""
    if (beta, alpha) != (1, 1):
        raise NotSeparableError("addmm with beta or alpha has no rule")
    return _tap_product(tracker, function(input, mat1, mat2), mat1, mat2, input, transposed=True)


def _tap_product(
    tracker: Tracker, output: Tensor, inputs: Tensor, weight: Tensor, bias: Tensor | None, *, transposed: bool = False
) -> Tensor:
    _refuse_tracked(inputs)
    if weight.ndim != 2 or (bias is not None and bias.ndim != 1):  # noqa: PLR2004 - a matrix and a vector
        raise NotSeparableError(f"a product with a weight of shape {tuple(weight.shape)} has no rule")
    layout = tracker.find_layout(inputs)
    collectors: list[Collector] = []
    place = tracker.find_place(weight, torch.t) if transposed else tracker.find_place(weight)
    if place is not None:
        collectors.append((place, lambda grad, x: ProductUse(layout(grad), layout(x.to(grad.dtype)))))
    place = None if bias is None else tracker.find_place(bias)
    if place is not None:
        collectors.append((place, lambda grad, _: DirectUse(_widen(layout(grad)).sum(1).unsqueeze(-1))))
    repeat = None if get_part(weight) is None else _multiply_rows
    tapped = tracker.tap(output, [inputs], collectors, repeat=repeat)
    copy_rows(inputs, tapped)
    return tapped


def _multiply_rows(gradient: Tensor, inputs: Tensor) -> Tensor:
    return gradient.flatten(0, -2).t() @ inputs.flatten(0, -2)


def apply_grouped_mm(tracker: Tracker, function: Function, mat_a: Tensor, mat_b: Tensor, **options: Any) -> Tensor:
    """Rows sorted by expert, each group times its expert's weight (columns, rows)."""
    offsets, rows = options.get("offs"), getattr(mat_a, ROWS, None)
    if offsets is None or rows is None or options.get("bias") is not None:
        raise NotSeparableError("grouped_mm has a rule for routed rows with offsets only")
    _refuse_tracked(mat_a)
    ends = offsets.tolist()
    collectors: list[Collector] = []
    for expert, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        place = tracker.find_place(mat_b, partial(_take_expert, expert=expert))
        if place is not None and end > start:
            collectors.append((place, partial(_use_rows, rows, tracker.num_samples, slice(start, end))))
    tapped = tracker.tap(function(mat_a, mat_b, **options), [mat_a], collectors)
    copy_rows(mat_a, tapped)
    return tapped


def _take_expert(weights: Tensor, expert: int) -> Tensor:
    return weights[expert].t()


def _use_rows(rows: Tensor, num_samples: int, chosen: slice, gradient: Tensor, inputs: Tensor) -> ProductUse:
    own = rows[chosen]
    return ProductUse(
        pad_rows(gradient[chosen], own, num_samples), pad_rows(inputs[chosen].to(gradient.dtype), own, num_samples)
    )


def apply_convolution(
    tracker: Tracker,
    function: Function,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """conv1d, conv2d and conv3d."""
    _refuse_tracked(input)
    num_images = input.shape[0]  # not its length, which is asked for in Python
    if input.ndim != weight.ndim or num_images % tracker.num_samples:
        raise NotSeparableError(f"a convolution's input of shape {tuple(input.shape)} is not divided by the samples")
    window, sides, is_even, is_point = find_geometry(
        tuple(weight.shape[2:]), _freeze(stride), _freeze(padding), _freeze(dilation)
    )
    run = partial(function, input, weight, bias, stride, padding, dilation, groups)
    mixes = is_point and groups == 1
    output, back = mix_channels(run, input, weight, bias) if mixes and tracker.shortens else (run(), None)
    split = partial(_split_images, num_samples=tracker.num_samples)
    num_spatial = len(window.kernel_size)
    # A depthwise convolution stays one, of more channels; of torch's kernels not where it is mostly padding.
    is_depthwise = groups == input.shape[1] == weight.shape[0] and (
        has_planes(output, num_spatial) or all(map(ge, input.shape[2:], window.kernel_size))
    )
    has_many = is_depthwise or output.shape[2:].numel() >= MIN_GROUPED_POSITIONS
    is_grouped = is_even and output.device.type == "cpu" and has_many
    is_product = mixes and num_images == tracker.num_samples

    def make(gradient: Tensor, inputs: Tensor) -> Use:
        inputs = inputs.to(gradient.dtype)
        if is_product:  # a linear layer at each position
            return ProductUse(gradient.flatten(2).mT, inputs.flatten(2).mT)
        if is_grouped:
            return GroupedConvolutionUse(split(gradient), split(inputs), window, groups)
        rows = split(gradient).movedim(2, 1).flatten(2)
        padded = split(pad_channels_last(inputs, sides))
        return ConvolutionUse(rows, padded, window, tuple(gradient.shape[2:]), groups)

    collectors: list[Collector] = []
    repeat = None
    place = tracker.find_place(weight, _keep if is_grouped or is_product else _put_channels_last)
    if place is not None:
        collectors.append((place, make))
        repeat = partial(differentiate_kernels, shape=weight.shape, window=window, groups=groups) if is_even else None
    place = None if bias is None else tracker.find_place(bias)
    if place is not None:
        collectors.append((place, lambda grad, _: DirectUse(_widen(split(grad)).flatten(3).sum((1, 3)).unsqueeze(-1))))
    return tracker.tap(output, [input], collectors, back, repeat)


def apply_embedding(
    tracker: Tracker,
    function: Function,
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """embedding(indices, weight): one row an index."""
    if max_norm is not None or scale_grad_by_freq:
        raise NotSeparableError("an embedding with max_norm or scale_grad_by_freq has no rule")
    num_samples = tracker.num_samples
    indices = input.expand(num_samples, *input.shape[1:]) if len(input) == 1 else input  # positions, shared by all
    if len(indices) % num_samples:
        raise NotSeparableError(
            f"an embedding's indices of shape {tuple(indices.shape)} are not divided by the samples"
        )

    def make(gradient: Tensor, looked_up: Tensor) -> LookupUse:
        rows = looked_up.reshape(num_samples, -1)
        gradients = _widen(gradient.reshape(*rows.shape, -1))
        if padding_idx is not None:
            gradients = gradients.masked_fill((rows == padding_idx % len(weight)).unsqueeze(-1), 0)
        return LookupUse(gradients, rows, len(weight))

    output = function(indices, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
    place = tracker.find_place(weight)
    return tracker.tap(output, [indices], [] if place is None else [(place, make)])


def apply_layer_norm(
    tracker: Tracker, function: Function, input: Tensor, normalized_shape: Sequence[int],
    weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """layer_norm over the last dimensions."""
    bare = partial(function, normalized_shape=normalized_shape, eps=eps)
    return _tap_norm(tracker, bare, input, {"weight": weight, "bias": bias}, tuple(normalized_shape))


def apply_rms_norm(
    tracker: Tracker, function: Function, input: Tensor, normalized_shape: Sequence[int],
    weight: Tensor | None = None, eps: float | None = None,
) -> Tensor:  # fmt: skip
    """rms_norm over the last dimensions."""
    bare = partial(function, normalized_shape=normalized_shape, eps=eps)
    return _tap_norm(tracker, bare, input, {"weight": weight}, tuple(normalized_shape))


def apply_group_norm(
    tracker: Tracker, function: Function, input: Tensor, num_groups: int,
    weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """group_norm: one weight a channel."""
    bare = partial(function, num_groups=num_groups, eps=eps)
    return _tap_norm(tracker, bare, input, {"weight": weight, "bias": bias}, _channels_of(input))


def apply_batch_norm(
    tracker: Tracker, function: Function, input: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
    weight: Tensor | None = None, bias: Tensor | None = None, training: bool = False, momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """batch_norm with the running statistics."""
    if training or running_mean is None:
        raise NotSeparableError("batch_norm with the statistics of the batch mixes the samples")
    bare = partial(
        function, running_mean=running_mean, running_var=running_var, training=False, momentum=momentum, eps=eps
    )
    return _tap_norm(tracker, bare, input, {"weight": weight, "bias": bias}, _channels_of(input))


def _tap_norm(
    tracker: Tracker, bare: Function, inputs: Tensor, weights: dict[str, Tensor | None], spread: tuple[int, ...]
) -> Tensor:
    """Taps a normalisation: its weight scales the bare normalised inputs, its bias is added."""
    _refuse_tracked(inputs)
    factors: dict[str, Function] = {"weight": lambda x: _widen(bare(x)), "bias": lambda _: 1}
    operands = [(weight, spread, factors[kind]) for kind, weight in weights.items() if weight is not None]
    return _tap_broadcast(tracker, bare(inputs, **weights), inputs, operands)


def apply_mul(tracker: Tracker, function: Function, input: Any, other: Any) -> Tensor:
    """Weight * activations, spread over samples, as in most RMSNorms."""
    weight, activations = (input, other) if get_part(input) is not None else (other, input)
    output = function(input, other)
    return _tap_broadcast(tracker, output, activations, [(weight, weight.shape, lambda x: x)])


def apply_add(tracker: Tracker, function: Function, input: Any, other: Any) -> Tensor:
    """Activations + weight, spread over samples, as biases and learnt positions are added."""
    weight, activations = (input, other) if get_part(input) is not None else (other, input)
    return _tap_broadcast(tracker, function(input, other), activations, [(weight, weight.shape, lambda _: 1)])


def _tap_broadcast(
    tracker: Tracker,
    output: Tensor,
    inputs: Any,
    operands: list[tuple[Tensor, tuple[int, ...], Function]],
) -> Tensor:
    """Taps weights spread over the samples; each comes with a shape to spread and its factor, a function of inputs."""
    _refuse_tracked(inputs)
    num_samples = tracker.num_samples
    if (
        not isinstance(inputs, Tensor)
        or len(output) % num_samples
        or inputs.shape != output.shape
        or hasattr(inputs, ROWS)
    ):
        raise NotSeparableError("a weight is combined with something that is not divided by the samples")
    collectors: list[Collector] = []
    for weight, spread, factor in operands:
        place = tracker.find_place(weight)
        if place is None:
            continue
        shape = (1,) * (output.ndim - len(spread)) + tuple(spread)
        if shape[0] != 1:
            raise NotSeparableError(f"{place.name!r} has a share for each sample of the batch")
        collectors.append((place, partial(_use_broadcast, num_samples, shape, place.shape, factor)))
    return tracker.tap(output, [inputs], collectors)


def _use_broadcast(
    num_samples: int,
    shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    factor: Function,
    gradient: Tensor,
    inputs: Tensor,
) -> DirectUse:
    product = (_widen(gradient) * factor(inputs)).unflatten(0, (num_samples, -1))
    sums = product.sum_to_size(num_samples, 1, *shape[1:])
    return DirectUse(sums.reshape(num_samples, weight_shape[0], math.prod(weight_shape[1:])))


def apply_multi_head_attention(tracker: Tracker, function: Function, query: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Torch's attention: its parts are linear layers, over inputs (positions, samples, columns)."""
    if query.ndim != 3 or query.shape[1] != tracker.num_samples:  # noqa: PLR2004 - positions, samples, columns
        raise NotSeparableError(f"multi-head attention over {tuple(query.shape)} does not have the samples second")
    opened = open_function(function)
    was_second, tracker.is_second = tracker.is_second, True
    try:
        with tracker:
            return opened(query, *args, **kwargs)
    finally:
        tracker.is_second = was_second


def _refuse_tracked(inputs: object) -> None:
    part = get_part(inputs)
    if part is not None:
        raise NotSeparableError(f"{part.name!r} is an input of a layer, for which there is no rule")


def _keep(weights: Tensor) -> Tensor:
    return weights


def _put_channels_last(kernels: Tensor) -> Tensor:
    return kernels.movedim(1, -1)


def _split_images(tensor: Tensor, num_samples: int) -> Tensor:
    images: Tensor = tensor.unflatten(0, (num_samples, -1))
    return images


def _freeze(number: Any) -> Any:
    return number if isinstance(number, (int, str)) else tuple(number)


def _channels_of(inputs: Tensor) -> tuple[int, ...]:
    return (inputs.shape[1], *[1] * (inputs.ndim - 2))


def _widen(tensor: Tensor) -> Tensor:
    """Returns 16-bit floats as float32, so that sums keep their digits."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


RULES: Final[dict[str, Rule]] = {
    "linear": apply_linear,
    "matmul": apply_matmul,
    "__matmul__": apply_matmul,
    "mm": apply_matmul,
    "addmm": apply_addmm,
    "grouped_mm": apply_grouped_mm,
    "_grouped_mm": apply_grouped_mm,
    "conv1d": apply_convolution,
    "conv2d": apply_convolution,
    "conv3d": apply_convolution,
    "embedding": apply_embedding,
    "layer_norm": apply_layer_norm,
    "rms_norm": apply_rms_norm,
    "group_norm": apply_group_norm,
    "batch_norm": apply_batch_norm,
    "mul": apply_mul,
    "__mul__": apply_mul,
    "__rmul__": apply_mul,
    "multiply": apply_mul,
    "add": apply_add,
    "__add__": apply_add,
    "__radd__": apply_add,
    "multi_head_attention_forward": apply_multi_head_attention,
}
"""By the name of the torch function."""
