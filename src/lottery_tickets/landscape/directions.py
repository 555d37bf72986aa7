"""Random directions in the space of a model's weights: drawn anew wherever they are used, never stored, never written.

Definition (Li et al., arXiv 1712.09913): a direction has the shape of the weights and standard normal values, and each
of its filters is scaled to the norm of the same filter of the weights. Biases and norms do not move.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, final

import torch
from torch import Tensor, nn

from lottery_tickets._core.bits import unpack_bits
from lottery_tickets._core.determinism import make_generator
from lottery_tickets._core.measuring.stand_ins import ReplacedReads
from lottery_tickets._core.names import clean_name, identify, unwrap
from lottery_tickets._core.selection.zeroing import zero_pruned_
from lottery_tickets._core.weights import Weight, Weights

# Values drawn at once, in whole filters. It is part of what a direction is: with another size there are other values.
BLOCK_SIZE: Final = 1 << 16
KEPT_BYTES: Final = 64 << 20  # models whose moved weights take no more keep what was drawn, instead of drawing it again
NARROWEST: Final = torch.float32  # weights of fewer bits are moved in this dtype, and rounded once


@final
class MovedWeights:
    """A model's weights moved along directions, made where a torch function reads them; none is written.

    A direction is a function of its seed and the parameter's name. It is drawn on the CPU in float32, so that every
    device gets the same numbers, in blocks of whole filters: the memory needed is that of the weight that is read, and
    of a few blocks.

    Args:
        model: The model; a weight that has several names or parameters is moved once, under its first name.
        weights: Those that are moved, as `find_filtered_weights` finds them in the model.
        seeds: One for each direction.
        bits: By name of a parameter of the model, the packed bits of a mask: pruned weights are read as zero and do not
            move, and norms are over what is kept. Needs one byte more a weight of the parameter that is read.
        kept_bytes: If the weights take no more, drawn directions and moved weights are kept. It never changes a bit.
    """

    def __init__(
        self,
        model: nn.Module,
        weights: Weights,
        seeds: Sequence[int],
        bits: Mapping[str, Tensor] | None = None,
        *,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        self._weights, self._seeds = weights, seeds
        self._steps: tuple[float, ...] = (0.0,) * len(seeds)
        named = {
            clean_name(name): parameter for name, parameter in unwrap(model).named_parameters(remove_duplicate=False)
        }
        self._bits = {identify(named[name]): packed for name, packed in (bits or {}).items()}
        first_names = {identify(tensor): name for name, tensor in weights.tensors.items()}
        self._replaced = {
            name: parameter
            for name, parameter in named.items()
            if identify(parameter) in first_names or identify(parameter) in self._bits
        }
        self._first_names = {name: first_names.get(identify(p), name) for name, p in self._replaced.items()}
        self._keeps = sum(tensor.nbytes for tensor in weights.tensors.values()) <= kept_bytes
        self._drawn: dict[tuple[str, int], list[Tensor]] = {}
        self._moved: dict[str, tuple[Tensor, int]] = {}

    def at(self, *steps: float) -> ReplacedReads:
        """Returns the context in which the model's weights are weight + sum of step * direction, one step a seed."""
        if steps != self._steps:
            self._moved.clear()
        self._steps = steps
        return ReplacedReads(self._replaced, self._stand_in, purpose="a landscape is for measuring")

    def make_direction(self, name: str, number: int) -> Tensor:
        """Returns a whole direction of one weight, in the dtype in which it is added."""
        weight = self._weights[name]
        direction = torch.empty_like(weight.tensor.detach(), dtype=_widen(weight.tensor.dtype))
        for place, block in zip(_cut(weight), self._draw(name, number), strict=True):
            _by_filter(direction, weight.output_dims)[place] = block
        return direction

    def _stand_in(self, replaced_name: str, parameter: nn.Parameter) -> Tensor:
        name = self._first_names[replaced_name]
        if name in self._moved:
            made, version = self._moved[name]
            if made._version == version:  # noqa: SLF001 - torch's count of writes: what the model wrote to is not reused
                return made
        made = self._move(name, parameter)
        if self._keeps:
            self._moved[name] = made, made._version  # noqa: SLF001 - as above
        return made

    def _move(self, name: str, parameter: nn.Parameter) -> Tensor:
        moved = parameter.detach().clone()
        bits = self._bits.get(identify(parameter))
        if bits is not None:
            zero_pruned_(moved, bits.to(moved.device))
        used = [number for number, step in enumerate(self._steps) if step]
        if name not in self._weights or not used:
            return moved
        weight = self._weights[name]
        filters, wide = _by_filter(moved, weight.output_dims), _widen(moved.dtype)
        for place, *blocks in zip(_cut(weight), *(self._draw(name, number) for number in used), strict=True):
            shift = blocks[0] * self._steps[used[0]]
            for number, block in zip(used[1:], blocks[1:], strict=True):
                shift += block * self._steps[number]
            filters[place] = shift.add_(filters[place].to(wide))
        return moved

    def _draw(self, name: str, number: int) -> Iterable[Tensor]:
        """Returns the blocks of a direction, in the places that `_cut` gives."""
        if not self._keeps:
            return self._draw_anew(name, number)
        if (name, number) not in self._drawn:
            self._drawn[name, number] = list(self._draw_anew(name, number))
        return self._drawn[name, number]

    def _draw_anew(self, name: str, number: int) -> Iterator[Tensor]:
        weight = self._weights[name]
        tensor = weight.tensor.detach()
        bits = self._bits.get(identify(weight.tensor))
        kept = None if bits is None else _by_filter(unpack_bits(bits, tensor.shape), weight.output_dims)
        filters, wide = _by_filter(tensor, weight.output_dims), _widen(tensor.dtype)
        generator = make_generator(self._seeds[number], name)
        for place in _cut(weight):
            values = filters[place]
            noise = torch.empty(values.shape).normal_(generator=generator)
            if kept is not None:
                pruned = ~kept[place]
                noise.masked_fill_(pruned, 0)
                values = values.masked_fill(pruned.to(values.device), 0)
            norms, scales = _find_norms(noise), _find_norms(values)
            scales = torch.where(norms > 0, scales / norms, 0)
            yield (noise.to(wide) * scales.to(wide)).to(tensor.device)


def _widen(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, NARROWEST)


def _by_filter(tensor: Tensor, output_dims: tuple[int, ...]) -> Tensor:
    """Returns a view whose first dimensions number the filters."""
    return tensor.movedim(output_dims, tuple(range(len(output_dims))))


def _cut(weight: Weight) -> Iterator[tuple[int | slice, ...]]:
    """Yields the places of blocks of whole filters, in the view by filter."""
    shape = _by_filter(weight.tensor, weight.output_dims).shape
    num_dims = len(weight.output_dims)
    step = max(1, BLOCK_SIZE // max(1, shape[num_dims:].numel()))
    for leading in itertools.product(*(range(size) for size in shape[: num_dims - 1])):
        for start in range(0, shape[num_dims - 1], step):
            yield (*leading, slice(start, start + step))


def _find_norms(filters: Tensor) -> Tensor:
    """Returns the norm of each filter on the CPU, in a shape that multiplies the filters."""
    inputs = tuple(range(1, filters.ndim))
    if filters.device.type == "mps":  # it has no float64
        filters = filters.cpu()
    norms: Tensor = torch.linalg.vector_norm(filters, dim=inputs, keepdim=True, dtype=torch.float64)
    return norms.cpu()
