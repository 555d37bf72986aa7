"""What one call of a torch function with a weight adds to that weight's per-sample gradients.

A weight of shape (O, ...) is seen as a matrix of O rows; `block` gives the gradients of some samples and some rows as a
tensor (samples, rows, columns). So nothing ever holds the gradients of all samples.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor


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
        return len(self.gradients)

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Returns rows and columns of the weight."""

    @property
    def num_scratch(self) -> int:
        """Returns the number of elements that a block needs for each sample."""
        return math.prod(self.shape)

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

    def block(self, samples: slice, rows: slice) -> Tensor:
        return torch.bmm(self.gradients[samples, :, rows].mT, self.inputs[samples])


@final
@dataclass(frozen=True)
class ConvolutionUse(Use):
    """A convolution: a product with the patches of its inputs, which are cut out for one block at a time.

    The columns of its weight are (*kernel, channels): channels last.

    Attributes:
        gradients: Of the outputs, shape (samples, images, rows, *output size).
        inputs: Shape (samples, images, channels, *input size).
        kernel_size, stride, dilation: One number a spatial dimension.
        padding: Zeros before and after each spatial dimension.
        groups: Channels are joined within groups only.
    """

    inputs: Tensor
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    groups: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.gradients.shape[2], self.inputs.shape[2] // self.groups * math.prod(self.kernel_size)

    @property
    def num_scratch(self) -> int:
        rows, columns = self.shape
        positions = self.gradients.shape[1] * math.prod(self.gradients.shape[3:])
        return columns * max(rows, self.groups * positions)

    def block(self, samples: slice, rows: slice) -> Tensor:
        gradients = self.gradients[samples].movedim(2, 1).flatten(2)  # (samples, rows, positions)
        patches = self._cut_patches(self.inputs[samples])  # (samples, positions, kernel places, channels)
        if self.groups == 1:
            return torch.bmm(gradients[:, rows], patches.flatten(2))
        grouped = patches.unflatten(3, (self.groups, -1)).movedim(3, 1).flatten(3)
        products = torch.matmul(gradients.unflatten(1, (self.groups, -1)), grouped)
        return products.flatten(1, 2)[:, rows]

    def _cut_patches(self, inputs: Tensor) -> Tensor:
        """Returns what each kernel place sees at each position: a view with overlapping strides, then one copy."""
        padded = self._pad(inputs)  # channels last, so that what is copied lies together
        spatial = padded.stride()[2:-1]
        view = padded.as_strided(
            (*padded.shape[:2], *self.gradients.shape[3:], *self.kernel_size, padded.shape[-1]),
            (
                *padded.stride()[:2],
                *(step * stride for step, stride in zip(spatial, self.stride, strict=True)),
                *(step * dilation for step, dilation in zip(spatial, self.dilation, strict=True)),
                1,
            ),
        )
        return view.reshape(len(inputs), -1, math.prod(self.kernel_size), padded.shape[-1])

    def _pad(self, inputs: Tensor) -> Tensor:
        """Returns the inputs with zeros around them, shape (samples, images, *padded size, channels)."""
        size = inputs.shape[3:]
        sizes = [n + before + after for n, (before, after) in zip(size, self.padding, strict=True)]
        padded = inputs.new_zeros(*inputs.shape[:2], *sizes, inputs.shape[2])
        inside = [slice(before, before + n) for n, (before, _) in zip(size, self.padding, strict=True)]
        padded[:, :, *inside] = inputs.movedim(2, -1)
        return padded


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

    @property
    def num_scratch(self) -> int:
        return 0

    def block(self, samples: slice, rows: slice) -> Tensor:
        return self.gradients[samples, rows]


def find_padding(
    padding: tuple[int, ...] | str, kernel_size: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    """Returns how many zeros a convolution with this padding sees before and after each spatial dimension."""
    if padding == "same":
        totals = [step * (size - 1) for step, size in zip(dilation, kernel_size, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    if isinstance(padding, str):
        return ((0, 0),) * len(kernel_size)
    return tuple((width, width) for width in padding)
