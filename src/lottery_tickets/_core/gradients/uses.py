"""What one call of a torch function with a weight adds to that weight's per-sample gradients.

A weight of shape (O, ...) is seen as a matrix of O rows; `block` gives the gradients of some samples and some rows as a
tensor (samples, rows, columns). So nothing ever holds the gradients of all samples.
"""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, final

import torch
from torch import Tensor

from lottery_tickets._core.gradients.arithmetic.correlations import (
    Window,
    add_squares_of_channels,
    correlate,
    prefers_planes,
    prefers_side_by_side,
)
from lottery_tickets._core.gradients.arithmetic.products import multiply


@dataclass(frozen=True)
class Use(ABC):
    """A weight's share in one call, once the gradient of the call's output is known.

    Attributes:
        gradients: Of the call's outputs, the samples first.
    """

    gradients: Tensor

    @property
    def num_samples(self) -> int:
        """Returns the number of samples."""
        return self.gradients.shape[0]

    @property
    def num_elements(self) -> int:
        """Returns the number of elements of the weight."""
        return math.prod(self.shape)

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Returns rows and columns of the weight."""

    @property
    def num_scratch(self) -> int:
        """Returns the number of elements that `take` or a block needs for each sample, beside its gradients."""
        return 0

    @property
    def left(self) -> Tensor | None:
        """Returns (samples, rows, inner) where the gradients are products of this with something, one a sample."""
        return None

    def take(self, samples: slice) -> "Use":
        """Returns the share of some samples, with the copies made that their blocks have in common."""
        if len(range(self.num_samples)[samples]) == self.num_samples:
            return self
        tensors = {key: value for key, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **{key: value[samples] for key, value in tensors.items()})

    def blocks(self, rows: slice, step: int) -> Iterator[Tensor]:
        """Yields per-sample gradients, shape (samples, rows, columns), of `step` samples at a time."""
        for start in range(0, self.num_samples, step):
            yield self.block(slice(start, start + step), rows)

    @abstractmethod
    def block(self, samples: slice, rows: slice) -> Tensor:
        """Returns per-sample gradients, shape (samples, rows, columns)."""


@final
@dataclass(frozen=True)
class ProductUse(Use):
    """`outputs = inputs @ weight.T`: the gradient of a sample is a sum of outer products over its positions.

    Attributes:
        gradients: Of the outputs, shape (samples, positions, rows).
        inputs: Shape (samples, positions, columns).
    """

    inputs: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return self.gradients.shape[-1], self.inputs.shape[-1]

    @property
    def left(self) -> Tensor:
        return self.gradients.mT

    def blocks(self, rows: slice, step: int) -> Iterator[Tensor]:
        return multiply(self.left[:, rows], self.inputs, step)

    def block(self, samples: slice, rows: slice) -> Tensor:
        return torch.bmm(self.left[samples, rows], self.inputs[samples])


@final
@dataclass(frozen=True)
class ConvolutionUse(Use):
    """A convolution: a product with the patches of its inputs, which are cut out for one block at a time.

    The columns of its weight are (*kernel, channels): channels last.

    Attributes:
        gradients: Of the outputs, shape (samples, rows, images * positions).
        inputs: With the zeros around them, channels last: (samples, images, *input size, channels).
        window: Of its kernel; its padding is there already.
        output_size: One number a spatial dimension.
        groups: Channels are joined within groups only.
    """

    inputs: Tensor
    window: Window
    output_size: tuple[int, ...]
    groups: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.gradients.shape[1], self.inputs.shape[-1] // self.groups * math.prod(self.window.kernel_size)

    @property
    def num_scratch(self) -> int:
        (rows, columns), num_positions = self.shape, self.gradients.shape[2]
        return columns * (num_positions if self.groups == 1 else max(rows, self.groups * num_positions))

    @property
    def left(self) -> Tensor | None:
        return self.gradients if self.groups == 1 else None

    def take(self, samples: slice) -> Use:
        if self.groups > 1:
            return super().take(samples)
        patches = self._cut_patches(self.inputs[samples])
        return ProductUse(self.gradients[samples].mT, patches.flatten(2))

    def block(self, samples: slice, rows: slice) -> Tensor:
        if self.groups == 1:
            return self.take(samples).block(slice(None), rows)
        patches = self._cut_patches(self.inputs[samples])  # (samples, positions, kernel places, channels)
        grouped = patches.unflatten(3, (self.groups, -1)).movedim(3, 1).flatten(3)
        products = torch.matmul(self.gradients[samples].unflatten(1, (self.groups, -1)), grouped)
        return products.flatten(1, 2)[:, rows]

    def _cut_patches(self, inputs: Tensor) -> Tensor:
        """Returns what each kernel place sees at each position: a view with overlapping strides, then one copy."""
        spatial = inputs.stride()[2:-1]
        view = inputs.as_strided(
            (*inputs.shape[:2], *self.output_size, *self.window.kernel_size, inputs.shape[-1]),
            (
                *inputs.stride()[:2],
                *(step * stride for step, stride in zip(spatial, self.window.stride, strict=True)),
                *(step * dilation for step, dilation in zip(spatial, self.window.dilation, strict=True)),
                1,
            ),
        )
        return view.reshape(len(inputs), -1, math.prod(self.window.kernel_size), inputs.shape[-1])


@final
@dataclass(frozen=True)
class GroupedConvolutionUse(Use):
    """A convolution of few channels at many positions: the samples of a block are the groups of one convolution.

    On a CPU this is faster than patches from about a hundred positions on, and far slower below. Where each channel
    has a group of its own, planes are correlated instead, if that is faster.

    Attributes:
        gradients: Of the outputs, shape (samples, images, rows, *output size).
        inputs: Shape (samples, images, channels, *input size).
        window: Of its kernel.
        groups: Channels are joined within groups only.
    """

    inputs: Tensor
    window: Window
    groups: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.gradients.shape[2], self.inputs.shape[2] // self.groups * math.prod(self.window.kernel_size)

    def block(self, samples: slice, rows: slice) -> Tensor:
        gradients, inputs = self.gradients[samples], self.inputs[samples]
        if self.groups == 1:
            gradients, rows = gradients[:, :, rows], slice(None)
        if self._is_depthwise and prefers_planes(gradients, inputs, self.window):
            return correlate(gradients[:, :, rows], inputs[:, :, rows], self.window).flatten(3).sum(1)
        products = self._convolve(gradients, inputs)
        sums: Tensor = products.sum(1) if products.shape[1] > 1 else products.squeeze(1)
        return sums[:, rows]

    @property
    def _is_depthwise(self) -> bool:
        return self.groups == self.gradients.shape[2] == self.inputs.shape[2]

    @property
    def has_small_planes(self) -> bool:
        """Returns whether `add_squares` is the best way to add the squares, and can."""
        has_one_image = self.gradients.shape[1] == 1
        return has_one_image and self._is_depthwise and prefers_side_by_side(self.gradients, self.inputs, self.window)

    def add_squares(self, sums: Tensor, watched: int | None) -> Tensor | None:
        """Adds the squares over the samples, without the gradients; returns those of one that is watched.

        Args:
            sums: Shape (rows, columns), contiguous.
            watched: The number of that sample.
        """
        return add_squares_of_channels(sums, self.gradients[:, 0], self.inputs[:, 0], self.window, watched)

    def _convolve(self, gradients: Tensor, inputs: Tensor) -> Tensor:
        """Returns the gradients of each image, shape (samples, images, rows, columns)."""
        num_images, window = gradients.shape[:2].numel(), self.window
        size = (num_images * gradients.shape[2], inputs.shape[2] // self.groups, *window.kernel_size)
        one, other = (tensor.reshape(1, -1, *tensor.shape[3:]) for tensor in (gradients, inputs))
        found = differentiate_kernels(one, other, size, window, num_images * self.groups)
        return found.view(*gradients.shape[:3], -1)


@final
@dataclass(frozen=True)
class LookupUse(Use):
    """An embedding: each position adds its gradient to the row that it looked up.

    Attributes:
        gradients: Of the outputs, shape (samples, positions, columns).
        indices: Rows, shape (samples, positions).
        num_rows: Of the weight.
    """

    indices: Tensor
    num_rows: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.num_rows, self.gradients.shape[-1]

    def block(self, samples: slice, rows: slice) -> Tensor:
        gradients, indices = self.gradients[samples], self.indices[samples]
        start, stop, _ = rows.indices(self.num_rows)
        # What was looked up outside of these rows is added to one more row, which is cut off.
        local = torch.where((indices >= start) & (indices < stop), indices - start, stop - start)
        result = gradients.new_zeros(len(indices), stop - start + 1, self.shape[1])
        result.scatter_add_(1, local.unsqueeze(-1).expand_as(gradients), gradients)
        return result[:, :-1]

    def gather_rows(self) -> tuple[Tensor, Tensor]:
        """Returns the gradients of the rows that each sample looked up, (found, columns), and sample * rows + row."""
        samples = torch.arange(self.num_samples, device=self.indices.device).unsqueeze(1)
        keys, places = torch.unique(samples * self.num_rows + self.indices, return_inverse=True)
        sums = self.gradients.new_zeros(len(keys), self.shape[1])
        sums.index_add_(0, places.flatten(), self.gradients.flatten(0, 1))
        return sums, keys


@final
@dataclass(frozen=True)
class DirectUse(Use):
    """A small weight (of a norm, a bias), whose per-sample gradients are at hand.

    Attributes:
        gradients: Shape (samples, rows, columns).
    """

    @property
    def shape(self) -> tuple[int, int]:
        return self.gradients.shape[1], self.gradients.shape[2]

    def block(self, samples: slice, rows: slice) -> Tensor:
        return self.gradients[samples, rows]


def pad_channels_last(inputs: Tensor, padding: Sequence[tuple[int, int]]) -> Tensor:
    """Returns inputs (images, channels, *size) with zeros around them, channels last: what is copied lies together."""
    size = inputs.shape[2:]
    sizes = [n + before + after for n, (before, after) in zip(size, padding, strict=True)]
    padded = inputs.new_zeros(len(inputs), *sizes, inputs.shape[1])
    inside = [slice(before, before + n) for n, (before, _) in zip(size, padding, strict=True)]
    padded[:, *inside] = inputs.movedim(1, -1)
    return padded


def differentiate_kernels(
    gradients: Tensor, inputs: Tensor, shape: Sequence[int], window: Window, groups: int
) -> Tensor:
    """Returns torch's gradient of a convolution's weight.

    Args:
        gradients: Of the outputs, shape (images, rows, *output size).
        inputs: Shape (images, channels, *input size).
        shape: Of the weight.
        window: Of its kernels.
        groups: Channels are joined within groups only.
    """
    found: Tensor = torch.ops.aten.convolution_backward(
        gradients,
        inputs,
        inputs.new_empty(shape),  # stands for the weight, of which only the shape counts here
        None,
        window.stride,
        window.padding,
        window.dilation,
        False,  # noqa: FBT003 - not transposed
        [0] * len(window.kernel_size),
        groups,
        [False, True, False],
    )[1]
    return found


class Geometry(NamedTuple):
    """How a convolution's kernel goes over its inputs.

    Attributes:
        window: Of its kernel, with the zeros before the inputs.
        sides: The zeros before and after them, in each spatial dimension.
        is_even: Whether they are as many.
        is_point: Whether each output is of the one input where it lies.
    """

    window: Window
    sides: tuple[tuple[int, int], ...]
    is_even: bool
    is_point: bool


@functools.lru_cache(maxsize=1024)  # because layers are alike, and this takes as long as a small one's sum
def find_geometry(
    kernel_size: tuple[int, ...],
    stride: int | tuple[int, ...],
    padding: int | tuple[int, ...] | str,
    dilation: int | tuple[int, ...],
) -> Geometry:
    """Returns what torch makes of a convolution's arguments."""
    strides, dilations = (_spread(number, len(kernel_size)) for number in (stride, dilation))
    if padding == "same":
        totals = [step * (size - 1) for step, size in zip(dilations, kernel_size, strict=True)]
        sides = tuple((total // 2, total - total // 2) for total in totals)
    else:
        widths = _spread(0 if isinstance(padding, str) else padding, len(kernel_size))
        sides = tuple((width, width) for width in widths)
    window = Window(kernel_size, strides, tuple(before for before, _ in sides), dilations)
    is_even = all(before == after for before, after in sides)
    return Geometry(window, sides, is_even, {*kernel_size, *strides} == {1} and not any(map(sum, sides)))


def _spread(number: int | tuple[int, ...], num_dims: int) -> tuple[int, ...]:
    numbers = (number,) if isinstance(number, int) else number
    return numbers * num_dims if len(numbers) == 1 else numbers
