"""Sums over samples, laid out as the weights they belong to, and how the gradients of a batch are added to them."""

import functools
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast, final

import torch
from torch import Tensor

from lottery_tickets._core.gradients.arithmetic.marks import mark
from lottery_tickets._core.gradients.arithmetic.products import prefers_single_samples
from lottery_tickets._core.gradients.arithmetic.squares import add_squares, has_few_terms, has_long_rows, mark_products
from lottery_tickets._core.gradients.places import Place
from lottery_tickets._core.gradients.uses import DirectUse, GroupedConvolutionUse, LookupUse, ProductUse, Use
from lottery_tickets._core.gradients.values import SQUARE, Value

# Gradients worked on at once: on a CPU so few that they are still in its cache when they are squared and added; a GPU
# wants more work a call, and never less than one sample of one layer.
CPU_BLOCK: Final = 2**19
GPU_BLOCK: Final = 2**24
CPU_SCRATCH: Final = 2**21  # elements of patches, which are cut for all blocks of rows
# From this many gradients a sample on, one call a sample is cheaper than a copy of the block.
SQUARE_IN_PLACE: Final = 2**13


@final
class Totals(dict[str, Tensor]):
    """Sums over samples by parameter name, laid out as the parameter; each is made when it is first asked for.

    So zeros are still in the cache when the first block is added to them.

    Args:
        weights: By parameter name.
        device: Where sums lie; beside their weights by default.
    """

    def __init__(self, weights: Mapping[str, Tensor], device: torch.device | None) -> None:
        super().__init__()
        self._weights, self._device = weights, device

    def __missing__(self, name: str) -> Tensor:
        return self.make_room(name).zero_()

    def make_room(self, name: str) -> Tensor:
        """Returns the sums of a weight that has none yet, with whatever lies there: whoever asks must fill them."""
        weight = self._weights[name]
        dtype = torch.promote_types(weight.dtype, torch.float32)
        self[name] = torch.empty_like(weight, dtype=dtype, device=self._device)
        return self[name]

    def complete(self) -> dict[str, Tensor]:
        """Returns the sums of all weights, in their order."""
        return {name: self[name] for name in self._weights}


@dataclass(frozen=True)
class ValueSums:
    """The sums over samples of one value.

    Attributes:
        value: What is summed.
        totals: Those that are not all zero; others are made when they are asked for.
    """

    value: Value
    totals: Totals


def add_uses(
    sums: Sequence[ValueSums],
    place: Place,
    uses: Sequence[Use],
    weight: Tensor,
    block_elements: int | None,
    *,
    watched: int | None = None,
) -> Tensor | None:
    """Adds the values of a batch to their sums; returns the marks of one sample's gradient, where one is watched.

    Args:
        sums: One for each value.
        place: Of the weight.
        uses: Of the weight; their per-sample gradients add up before any value is taken.
        weight: The parameter.
        block_elements: The most gradients to work on at once; None for what suits the device.
        watched: The number of that sample.
    """
    first, marks, are_squares = uses[0], None, [item.value for item in sums] == [SQUARE]
    if are_squares and len(uses) == 1 and isinstance(first, GroupedConvolutionUse) and first.has_small_planes:
        return _add_planes(sums[0].totals, place, first, weight, watched)
    if are_squares and _have_loop(uses):
        _add_by_loop(sums[0].totals, place, first, weight, block_elements)
        return None if watched is None else compute_marks([first.take(slice(watched, watched + 1))], block_elements)
    matrix, totals = place.of(weight), {item.value: place.of(item.totals[place.name]) for item in sums}
    if len(uses) == 1 and isinstance(first, LookupUse):
        _add_lookup(totals, first, matrix)
    elif len(uses) == 1 and isinstance(first, ProductUse) and first.inputs.shape[1] == 1:
        _add_products(totals, first, matrix, block_elements)
    else:
        marks = _add_blocks(totals, uses, matrix, block_elements, None if _are_few(uses) else watched)
    if watched is not None and marks is None:
        marks = compute_marks([use.take(slice(watched, watched + 1)) for use in uses], block_elements)
    return marks


def compute_marks(uses: Sequence[Use], block_elements: int | None) -> Tensor:
    """Returns for each sample what its gradient of one weight is known by, shape (samples, 2); see `marks`."""
    first = uses[0]
    if len(uses) == 1 and isinstance(first, DirectUse):
        return mark(first.gradients)  # which are there already
    if len(uses) == 1 and isinstance(first, LookupUse):
        gradients, keys = first.gather_rows()
        found = mark(gradients)
        return found.new_zeros(first.num_samples, 2).index_add_(0, keys // first.num_rows, found)
    if len(uses) == 1 and isinstance(first, ProductUse) and first.inputs.shape[1] == 1:
        return mark(first.gradients) * mark(first.inputs)  # of an outer product both are the products
    if _are_few(uses):
        products = _iterate_products(first, block_elements)
        return torch.cat([mark_products(product.left, product.inputs) for product in products])
    parts: dict[int, list[Tensor]] = {}
    for _, rows, blocks in iterate_blocks(uses, block_elements):
        parts.setdefault(rows.start, []).extend(map(mark, blocks))
    return _add_all([torch.cat(part) for part in parts.values()])


def iterate_blocks(uses: Sequence[Use], block_elements: int | None) -> Iterator[tuple[int, slice, Iterator[Tensor]]]:
    """Yields a first sample, rows, and the gradients (samples, rows, columns) from there on, a few at a time."""
    num_samples, (num_rows, num_columns) = uses[0].num_samples, uses[0].shape
    limit = _find_limit(uses[0].gradients.device, block_elements, uses[0].num_elements)
    num_block_rows = min(num_rows, max(1, limit // num_columns))
    num_block_samples = _share_out(num_samples, limit // (num_block_rows * num_columns))
    lefts = [use.left for use in uses]
    if all(left is not None and prefers_single_samples(left, num_block_rows, num_columns) for left in lefts):
        num_block_samples = 1
    for start, taken in _iterate_shares(uses, block_elements, limit):
        for row in range(0, num_rows, num_block_rows):
            rows = slice(row, row + num_block_rows)
            yield start, rows, _add_up([use.blocks(rows, num_block_samples) for use in taken])


def _iterate_shares(uses: Sequence[Use], block_elements: int | None, limit: int) -> Iterator[tuple[int, list[Use]]]:
    """Yields a first sample and the uses of some samples from there on: as many as there is scratch for."""
    num_samples, scratch = uses[0].num_samples, max(1, *(use.num_scratch for use in uses))
    num_taken = _share_out(num_samples, (block_elements or max(limit, CPU_SCRATCH)) // scratch)
    for start in range(0, num_samples, num_taken):
        yield start, [use.take(slice(start, start + num_taken)) for use in uses]


def _add_up(shares: Sequence[Iterator[Tensor]]) -> Iterator[Tensor]:
    if len(shares) == 1:  # nearly always, and then nothing here holds a block while the next one is made
        return shares[0]
    return (functools.reduce(operator.add, blocks) for blocks in zip(*shares, strict=True))


def _add_blocks(
    totals: Mapping[Value, Tensor],
    uses: Sequence[Use],
    matrix: Tensor,
    block_elements: int | None,
    watched: int | None = None,
) -> Tensor | None:
    marks = []
    for start, rows, blocks in iterate_blocks(uses, block_elements):
        parts = [_Part(total[rows], matrix[rows], value) for value, total in totals.items()]
        first = start
        for block in blocks:
            for part in parts:
                part.add(block)
            size = block.shape[0]  # not its length, which takes longer to ask for
            if watched is not None and first <= watched < first + size:
                marks.append(mark(block[watched - first : watched - first + 1]))
            first += size
        for part in parts:
            part.finish()
    return _add_all(marks) if marks else None


@final
class _Part:
    """Some rows of the sums of a weight, as a matrix on its device: themselves, or zeros that are added to them."""

    def __init__(self, total: Tensor, weight: Tensor, value: Value) -> None:
        self.total, self.value = total, value
        self.is_apart = total.device != weight.device or not total.is_contiguous()
        shape = (len(total), math.prod(total.shape[1:]))
        self.sums = torch.zeros(shape, dtype=total.dtype, device=weight.device) if self.is_apart else total.view(shape)
        # A copy where the weight is laid out otherwise, so not made for nothing.
        self.weight = weight.reshape(shape).to(total.dtype) if value.needs_weights else self.sums

    def add(self, gradients: Tensor) -> None:
        """Adds the values of a block."""
        if gradients.dtype != self.sums.dtype:  # a call that changes nothing takes as long as a small layer's sum
            gradients = gradients.to(self.sums.dtype)
        if self.value is SQUARE and (gradients.shape[0] == 1 or self.sums.numel() >= SQUARE_IN_PLACE):
            for sample in gradients.unbind():
                self.sums.addcmul_(sample, sample)
        else:
            self.sums.add_(self.value.of_block(gradients, self.weight).sum(0))

    def finish(self) -> None:
        """Adds what was collected apart to the sums."""
        if self.is_apart:
            self.total.add_(self.sums.view(self.total.shape).to(self.total.device))


def _add_products(totals: Mapping[Value, Tensor], use: ProductUse, matrix: Tensor, block_elements: int | None) -> None:
    """Adds the values of samples of one position each: one matrix product for all of them, where a value allows it."""
    rest = {value: total for value, total in totals.items() if value.of_factor is None}
    if rest:
        _add_blocks(rest, [use], matrix, block_elements)
    step = max(1, _find_limit(use.inputs.device, block_elements, use.num_elements) // use.shape[1])
    for value, total in totals.items():
        if value.of_factor is None:
            continue
        gradients, inputs = (value.of_factor(t[:, 0].to(total.dtype)) for t in (use.gradients, use.inputs))
        for start in range(0, len(total), step):
            rows = slice(start, start + step)
            part = _Part(total[rows], matrix[rows], value)
            part.sums.addmm_(gradients[:, rows].mT, inputs)
            part.finish()


def _are_few(uses: Sequence[Use]) -> bool:
    return len(uses) == 1 and has_few_terms(uses[0].left)


def _have_loop(uses: Sequence[Use]) -> bool:
    first = uses[0]
    is_long = isinstance(first, ProductUse) and has_long_rows(first.left, first.inputs)
    return len(uses) == 1 and (is_long or has_few_terms(first.left))


def _add_by_loop(totals: Totals, place: Place, use: Use, weight: Tensor, block_elements: int | None) -> None:
    """Adds the squares of samples of few positions each, or of many, without their gradients."""
    is_unfilled = place.name not in totals and math.prod(place.shape) == weight.numel()
    total = place.of(totals.make_room(place.name) if is_unfilled else totals[place.name])
    part = _Part(total, place.of(weight), SQUARE)
    if is_unfilled and part.is_apart:
        total.zero_()
        is_unfilled = False
    for product in _iterate_products(use, block_elements):
        add_squares(part.sums, product.left, product.inputs, is_unfilled=is_unfilled)
        is_unfilled = False
    part.finish()


def _add_planes(
    totals: Totals, place: Place, use: GroupedConvolutionUse, weight: Tensor, watched: int | None
) -> Tensor | None:
    """Adds the squares of a depthwise convolution over small maps; returns the marks of the sample that is watched."""
    part = _Part(place.of(totals[place.name]), place.of(weight), SQUARE)
    gradients = use.add_squares(part.sums, watched)
    part.finish()
    return None if gradients is None else mark(gradients.unsqueeze(0))


def _iterate_products(use: Use, block_elements: int | None) -> Iterator[ProductUse]:
    """Yields a use with a left factor as products, of some samples at a time."""
    for _, [taken] in _iterate_shares([use], block_elements, CPU_BLOCK):
        yield cast("ProductUse", taken)


def _add_lookup(totals: Mapping[Value, Tensor], use: LookupUse, matrix: Tensor) -> None:
    gradients, keys = use.gather_rows()
    rows = keys % use.num_rows
    for value, total in totals.items():
        part = _Part(total, matrix, value)
        values = value.of_block(gradients.to(total.dtype).unsqueeze(0), part.weight[rows])
        part.sums.index_add_(0, rows, values[0].expand(gradients.shape))
        part.finish()


def _share_out(number: int, most: int) -> int:
    """Returns how many of a number to take at a time, so that it is nearly the same each time, and `most` at most."""
    return math.ceil(number / math.ceil(number / max(1, most)))


def _find_limit(device: torch.device, block_elements: int | None, num_elements: int) -> int:
    if block_elements is not None:
        return block_elements
    if device.type == "cpu":
        return CPU_BLOCK
    return max(num_elements, GPU_BLOCK)


def _add_all(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(list(parts)).sum(0)
