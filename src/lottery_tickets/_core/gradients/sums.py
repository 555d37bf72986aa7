"""Sums over samples, laid out as the weights they belong to, and how the gradients of a batch are added to them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from lottery_tickets._core.gradients.places import Place
from lottery_tickets._core.gradients.products import prefers_single_samples
from lottery_tickets._core.gradients.uses import LookupUse, ProductUse, Use
from lottery_tickets._core.gradients.values import SQUARE, Value

# Gradients worked on at once: a few samples of a small layer stay in a core's cache; a GPU wants more work a call.
CPU_BLOCK: Final = 2**19
LARGEST_CPU_BLOCK: Final = 2**20  # more would be read from memory again to be squared
GPU_BLOCK: Final = 2**24  # and never less than one sample of one layer
# From this many gradients a sample on, one call a sample is cheaper than a copy of the block.
SQUARE_IN_PLACE: Final = 2**13


@dataclass(frozen=True)
class ValueSums:
    """The sums over samples of one value.

    Attributes:
        value: What is summed.
        totals: By parameter name, laid out as the parameter.
    """

    value: Value
    totals: Mapping[str, Tensor]


def add_uses(
    sums: Sequence[ValueSums],
    place: Place,
    uses: Sequence[Use],
    weight: Tensor,
    block_elements: int | None,
    *,
    watched: int | None = None,
) -> Tensor | None:
    """Adds the values of a batch to their sums; returns the square norm of one sample's gradient, where one is watched.

    Args:
        sums: One for each value.
        place: Of the weight.
        uses: Of the weight; their per-sample gradients add up before any value is taken.
        weight: The parameter.
        block_elements: The most gradients to work on at once; None for what suits the device.
        watched: The number of that sample.
    """
    matrix = place.of(weight)
    matrix = matrix.reshape(len(matrix), -1)
    # A layer's sums are collected in one piece on the device of its weights, then added to their place.
    targets = {item.value: _find_target(place.of(item.totals[place.name]), matrix) for item in sums}
    first, norm = uses[0], None
    if len(uses) == 1 and isinstance(first, LookupUse):
        _add_lookup(targets, first, matrix)
    elif len(uses) == 1 and isinstance(first, ProductUse) and first.inputs.shape[1] == 1:
        _add_products(targets, first, matrix, block_elements)
    else:
        norm = _add_blocks(targets, uses, matrix, block_elements, watched)
    if watched is not None and norm is None:
        norm = compute_square_norms([use.take(slice(watched, watched + 1)) for use in uses], block_elements)
    for item in sums:
        total = place.of(item.totals[place.name])
        if total.data_ptr() != targets[item.value].data_ptr():
            total.add_(targets[item.value].view(total.shape).to(total.device))
    return norm


def compute_square_norms(uses: Sequence[Use], block_elements: int | None) -> Tensor:
    """Returns for each sample the sum of the squares of its gradient of one weight, shape (samples,)."""
    first = uses[0]
    if len(uses) == 1 and isinstance(first, LookupUse):
        gradients, keys = first.gather_rows()
        norms = _sum_of_squares(gradients)
        return norms.new_zeros(first.num_samples).index_add_(0, keys // first.num_rows, norms)
    if len(uses) == 1 and isinstance(first, ProductUse) and first.inputs.shape[1] == 1:
        # With one position a gradient is an outer product, whose norm is the product of the norms.
        return _sum_of_squares(first.gradients) * _sum_of_squares(first.inputs)
    parts: dict[int, list[Tensor]] = {}
    for _, rows, block in iterate_blocks(uses, block_elements):
        parts.setdefault(rows.start, []).append(_sum_of_squares(block))
    return torch.stack([torch.cat(part) for part in parts.values()]).sum(0)


def iterate_blocks(uses: Sequence[Use], block_elements: int | None) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yields samples, rows and their per-sample gradients (samples, rows, columns), a few of both at a time."""
    num_samples, (num_rows, num_columns) = uses[0].num_samples, uses[0].shape
    scratch = max(use.num_scratch for use in uses)
    limit = _find_limit(uses[0].gradients.device, block_elements, num_rows * num_columns)
    num_block_rows = min(num_rows, max(1, limit // num_columns))
    num_taken = min(num_samples, max(1, limit // max(scratch, num_block_rows * num_columns)))
    single = all(prefers_single_samples(use.gradients, num_block_rows, use.num_inner, num_columns) for use in uses)
    num_block_samples = 1 if single else num_taken
    for start in range(0, num_samples, num_taken):
        taken = [use.take(slice(start, start + num_taken)) for use in uses]
        for row in range(0, num_rows, num_block_rows):
            rows = slice(row, row + num_block_rows)
            for sample in range(0, taken[0].num_samples, num_block_samples):
                samples = slice(sample, sample + num_block_samples)
                block = taken[0].block(samples, rows)
                for use in taken[1:]:
                    block = block + use.block(samples, rows)
                yield slice(start + sample, start + samples.stop), rows, block


def _add_blocks(
    targets: Mapping[Value, Tensor],
    uses: Sequence[Use],
    matrix: Tensor,
    block_elements: int | None,
    watched: int | None = None,
) -> Tensor | None:
    norms = []
    for samples, rows, block in iterate_blocks(uses, block_elements):
        for value, target in targets.items():
            part, gradients = target[rows], block.to(target.dtype)
            if value is SQUARE and (len(gradients) == 1 or part.numel() >= SQUARE_IN_PLACE):
                for sample in gradients:
                    part.addcmul_(sample, sample)
            else:
                part += value.of_block(gradients, matrix[rows].to(target.dtype)).sum(0)
        if watched is not None and samples.start <= watched < samples.stop:
            place = watched - samples.start
            norms.append(_sum_of_squares(block[place : place + 1]))
    return torch.stack(norms).sum(0) if norms else None


def _add_products(targets: Mapping[Value, Tensor], use: ProductUse, matrix: Tensor, block_elements: int | None) -> None:
    """Adds the values of samples of one position each: one matrix product for all of them, where a value allows it."""
    rest = {value: target for value, target in targets.items() if value.of_factor is None}
    if rest:
        _add_blocks(rest, [use], matrix, block_elements)
    step = max(1, _find_limit(use.inputs.device, block_elements, use.num_scratch) // use.shape[1])
    for value, target in targets.items():
        if value.of_factor is None:
            continue
        gradients, inputs = (value.of_factor(t[:, 0].to(target.dtype)) for t in (use.gradients, use.inputs))
        for start in range(0, len(target), step):
            target[start : start + step].addmm_(gradients[:, start : start + step].mT, inputs)


def _add_lookup(targets: Mapping[Value, Tensor], use: LookupUse, matrix: Tensor) -> None:
    gradients, keys = use.gather_rows()
    rows = keys % use.num_rows
    for value, target in targets.items():
        values = value.of_block(gradients.to(target.dtype).unsqueeze(0), matrix[rows].to(target.dtype))
        target.index_add_(0, rows, values[0].expand(gradients.shape))


def _find_target(total: Tensor, matrix: Tensor) -> Tensor:
    """Returns the sums of a weight as a matrix on its device: themselves if possible, else zeros to be added later."""
    if total.device == matrix.device and total.is_contiguous():
        return total.view(matrix.shape)
    return torch.zeros(matrix.shape, dtype=total.dtype, device=matrix.device)


def _find_limit(device: torch.device, block_elements: int | None, num_elements: int) -> int:
    if block_elements is not None:
        return block_elements
    if device.type == "cpu":
        return min(max(num_elements, CPU_BLOCK), LARGEST_CPU_BLOCK)
    return max(num_elements, GPU_BLOCK)


def _sum_of_squares(tensor: Tensor) -> Tensor:
    flat = tensor.flatten(1)
    # A norm squared, because it widens and squares while it reads.
    norms: Tensor = torch.linalg.vector_norm(flat, dim=1, dtype=torch.promote_types(flat.dtype, torch.float32))
    return norms.square()
