"""Sums over samples, laid out as the weights they belong to, and how the gradients of a batch are added to them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from lottery_tickets._core.gradients.places import Place
from lottery_tickets._core.gradients.uses import LookupUse, ProductUse, Use
from lottery_tickets._core.gradients.values import SQUARE, Value

# Gradients worked on at once: a few samples of a small layer stay in a core's cache; a GPU wants more work a call.
# Never less than one sample of one layer, unless the caller says so.
CPU_BLOCK: Final = 2**18
GPU_BLOCK: Final = 2**24


@dataclass(frozen=True)
class ValueSums:
    """The sums over samples of one value.

    Attributes:
        value: What is summed.
        totals: By parameter name, laid out as the parameter.
        weights: The parameters themselves.
        block_elements: The most gradients to work on at once; None for what suits the device.
    """

    value: Value
    totals: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]
    block_elements: int | None

    def add(self, place: Place, uses: Sequence[Use]) -> None:
        """Adds the values of a batch, of the sample-wise sum of what the uses of one weight contribute."""
        total = place.of(self.totals[place.name])
        device = place.of(self.weights[place.name]).device
        # With sums kept elsewhere, a layer's are collected on the device of its weights and moved once.
        target = total if total.device == device else torch.zeros_like(total, device=device)
        first = uses[0]
        if len(uses) == 1 and isinstance(first, LookupUse):
            self._add_lookup(target, place, first)
        elif len(uses) == 1 and isinstance(first, ProductUse) and first.inputs.shape[1] == 1 and self.value.of_factor:
            self._add_products(target, first)
        else:
            self._add_blocks(target, place, uses)
        if target is not total:
            total.add_(target.to(total.device))

    def _add_blocks(self, target: Tensor, place: Place, uses: Sequence[Use]) -> None:
        weights = place.of(self.weights[place.name])
        for rows, block in iterate_blocks(uses, self.block_elements):
            part = target[rows]
            gradients = block.to(part.dtype)
            if self.value is SQUARE:
                for sample in gradients:  # one pass over the sum, nothing in between
                    part.addcmul_(sample.view(part.shape), sample.view(part.shape))
            else:
                values = self.value.of_block(gradients, weights[rows].to(part.dtype).reshape(gradients.shape[1:]))
                part.add_(_shape_as(values.sum(0), part))

    def _add_products(self, target: Tensor, use: ProductUse) -> None:
        """Adds the values of samples of one position each: one matrix product for all of them."""
        if self.value.of_factor is None:
            return
        gradients = self.value.of_factor(use.gradients[:, 0].to(target.dtype))
        inputs = self.value.of_factor(use.inputs[:, 0].to(target.dtype))
        step = max(1, _find_limit(use.inputs.device, self.block_elements, use.num_scratch) // use.shape[1])
        for start in range(0, len(target), step):
            rows = slice(start, start + step)
            target[rows] += (gradients[:, rows].mT @ inputs).view(target[rows].shape)

    def _add_lookup(self, target: Tensor, place: Place, use: LookupUse) -> None:
        weights = place.of(self.weights[place.name])
        gradients, keys = use.gather_rows()
        rows = keys % use.num_rows
        values = self.value.of_block(gradients.to(target.dtype).unsqueeze(0), weights[rows].to(target.dtype))
        target.index_add_(0, rows, values[0].expand(gradients.shape))


def compute_square_norms(uses: Sequence[Use], block_elements: int | None) -> Tensor:
    """Returns for each sample the sum of the squares of its gradient of one weight, shape (samples,)."""
    first = uses[0]
    if len(uses) == 1 and isinstance(first, LookupUse):
        gradients, keys = first.gather_rows()
        norms = _sum_of_squares(gradients)
        return norms.new_zeros(first.num_samples).index_add_(0, keys // first.num_rows, norms)
    if len(uses) == 1 and isinstance(first, ProductUse) and first.inputs.shape[1] == 1:
        return _sum_of_squares(first.gradients) * _sum_of_squares(first.inputs)
    parts: dict[int, list[Tensor]] = {}
    for rows, block in iterate_blocks(uses, block_elements):
        parts.setdefault(rows.start, []).append(_sum_of_squares(block))
    return torch.stack([torch.cat(part) for part in parts.values()]).sum(0)


def iterate_blocks(uses: Sequence[Use], block_elements: int | None) -> Iterator[tuple[slice, Tensor]]:
    """Yields rows and the per-sample gradients (samples, rows, columns) of a few samples and rows at a time."""
    num_samples, (num_rows, num_columns) = uses[0].num_samples, uses[0].shape
    scratch = max(use.num_scratch for use in uses)
    limit = _find_limit(_device_of(uses[0]), block_elements, num_rows * num_columns)
    num_block_rows = min(num_rows, max(1, limit // num_columns))
    num_block_samples = min(num_samples, max(1, limit // max(scratch, num_block_rows * num_columns)))
    for row in range(0, num_rows, num_block_rows):
        rows = slice(row, row + num_block_rows)
        for sample in range(0, num_samples, num_block_samples):
            samples = slice(sample, sample + num_block_samples)
            block = uses[0].block(samples, rows)
            for use in uses[1:]:
                block = block + use.block(samples, rows)
            yield rows, block


def _find_limit(device: torch.device, block_elements: int | None, num_elements: int) -> int:
    if block_elements is not None:
        return block_elements
    return max(num_elements, CPU_BLOCK if device.type == "cpu" else GPU_BLOCK)


def _device_of(use: Use) -> torch.device:
    return use.gradients.device


def _sum_of_squares(tensor: Tensor) -> Tensor:
    flat = tensor.flatten(1)
    return flat.to(torch.promote_types(flat.dtype, torch.float32)).square().sum(1)


def _shape_as(values: Tensor, part: Tensor) -> Tensor:
    """Returns (rows, columns) in the shape of the part, (rows, 1) so that it spreads over it."""
    if values.numel() == part.numel():
        return values.view(part.shape)
    return values.view(len(values), *[1] * (part.ndim - 1))
