"""Slow, obvious second implementations: by sorting everything at once."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


def kept_by_sorting(scores: Sequence[Tensor], num_kept: int, within: Sequence[Tensor] | None = None) -> list[Tensor]:
    """Boolean tensors of the `num_kept` largest magnitudes; a stable sort keeps equal ones in order of position."""
    if not scores:
        return []
    flat = torch.cat([score.to(torch.float64).abs().flatten() for score in scores])
    if within is not None:
        flat = torch.where(torch.cat([kept.flatten() for kept in within]), flat, -1.0)
    kept = torch.zeros(len(flat), dtype=torch.bool)
    kept[flat.sort(descending=True, stable=True).indices[:num_kept]] = True
    parts = kept.split([score.numel() for score in scores])
    return [part.view(score.shape) for part, score in zip(parts, scores, strict=True)]


def kept_by_rows(score: Tensor, output_dims: Sequence[int], sparsity: float) -> Tensor:
    """Boolean tensor: each output keeps its largest magnitudes, one output at a time."""
    inputs = [dim for dim in range(score.ndim) if dim not in output_dims]
    kept = torch.zeros(score.shape, dtype=torch.bool)
    scores_of_outputs, kept_of_outputs = score.permute(*output_dims, *inputs), kept.permute(*output_dims, *inputs)
    for place in torch.cartesian_prod(*[torch.arange(score.shape[dim]) for dim in output_dims]).view(
        -1, len(output_dims)
    ):
        row = scores_of_outputs[tuple(place)]
        [chosen] = kept_by_sorting([row], row.numel() - round(sparsity * row.numel()))
        kept_of_outputs[tuple(place)] = chosen
    return kept


def kept_in_blocks(score: Tensor, input_dim: int, n: int, m: int) -> Tensor:
    """Boolean tensor: N of each M neighbours along one dimension, one block at a time."""
    kept = torch.zeros(score.shape, dtype=torch.bool)
    rows, kept_rows = score.movedim(input_dim, -1), kept.movedim(input_dim, -1)
    for place in torch.cartesian_prod(*[torch.arange(size) for size in rows.shape[:-1]]).view(-1, rows.ndim - 1):
        for start, stop in pairwise(range(0, rows.shape[-1] + 1, m)):
            [chosen] = kept_by_sorting([rows[tuple(place)][start:stop]], n)
            kept_rows[tuple(place)][start:stop] = chosen
    return kept


def lamp_scores(score: Tensor) -> Tensor:
    """LAMP scores in place of the weights: w_u^2 over the sum of the squares of all that are not less (in order)."""
    flat = score.to(torch.float64).flatten()
    ascending = flat.abs().flip(0).sort(stable=True).indices  # of equal ones the earlier position is the greater
    ascending = len(flat) - 1 - ascending
    squares = flat[ascending].square()
    scores = torch.zeros_like(flat)
    for i in range(len(flat)):
        scores[ascending[i]] = squares[i] / squares[i:].sum()
    return scores.view(score.shape)


def erk_densities(shapes: Mapping[str, Sequence[int]], density: float) -> dict[str, float]:
    """Erdős-Rényi-Kernel densities by the published loop: the layer that exceeds 1 the most becomes dense, repeat."""
    sizes = {name: torch.Size(shape).numel() for name, shape in shapes.items()}
    dense: set[str] = set()
    while True:
        wanted = density * sum(sizes.values()) - sum(sizes[name] for name in dense)
        raw = {name: sum(shape) / sizes[name] for name, shape in shapes.items() if name not in dense}
        if not raw:
            return dict.fromkeys(shapes, 1.0)
        epsilon = wanted / sum(raw[name] * sizes[name] for name in raw)
        worst = max(raw, key=lambda name: raw[name])
        if epsilon * raw[worst] <= 1:
            return {name: 1.0 if name in dense else epsilon * raw[name] for name in shapes}
        dense.add(worst)


class PublishedDetector:
    """The early-bird detector of You et al. (arXiv 1909.11957): one threshold over all batch-norm scales, five masks.

    Their index of the threshold prunes one channel more than asked for; this one prunes as many as asked for.
    """

    def __init__(self, sparsity: float, num_masks: int = 5) -> None:
        self.sparsity, self.num_masks = sparsity, num_masks
        self.masks: list[Tensor] = []
        self.distances: list[float] = []

    def has_emerged(self, model: nn.Module) -> bool:
        """Puts the model's mask into the queue; says whether the newest differs from all others by at most a tenth."""
        scales = torch.cat(
            [m.weight.detach().abs() for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
        )
        threshold = scales.sort().values[int(self.sparsity * len(scales)) - 1]
        self.masks = [*self.masks, scales > threshold][-self.num_masks :]
        if len(self.masks) < self.num_masks:
            return False
        self.distances = [int((self.masks[-1] != mask).sum()) / len(mask) for mask in self.masks[:-1]]
        return all(distance <= 0.1 for distance in self.distances)
