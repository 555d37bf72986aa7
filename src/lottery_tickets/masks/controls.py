"""What the controls of a ticket are made of: random and shuffled masks, and fresh weights."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lottery_tickets._core.bits import pack_bits
from lottery_tickets._core.determinism import derive_seed, seeded
from lottery_tickets._core.names import COMPILED, unwrap
from lottery_tickets._core.prunable_weights import Choices, find_prunable_weights
from lottery_tickets._core.selection.largest import select_largest
from lottery_tickets._core.selection.scopes import select_in_scope
from lottery_tickets._core.sharding.fsdp import reshard
from lottery_tickets._core.sharding.whole_parameters import whole_parameters
from lottery_tickets._core.weights import Weight, Weights, WeightSource
from lottery_tickets.masks.draws import draw_weights
from lottery_tickets.masks.fitting import find_masked_weights
from lottery_tickets.masks.mask import Mask, as_mask
from lottery_tickets.masks.strata import MANTISSA_BITS, find_codes


def create_random_mask(
    model_or_mask: nn.Module | Mapping[str, Tensor] | WeightSource,
    sparsity: float,
    seed: int,
    *,
    scope: str = "global",
    include: Choices | None = None,
    exclude: Choices | None = None,
) -> Mask:
    """Returns a mask that keeps weights drawn uniformly at random.

    Args:
        model_or_mask: A model, a `CheckpointWeights`, or a mask whose names and shapes are taken.
        sparsity: Fraction removed, in [0, 1]; exactly round(sparsity * n) weights go.
        seed: Same seed, same mask.
        scope: As in `create_magnitude_mask`: "global" draws over all weights, "layer" the same share of
            each layer, "erk" shares by layer size.
        include: Replaces the default choice of a model's weights: names, glob patterns or module types.
        exclude: Removes from the choice.

    Raises:
        ValueError: When the sparsity or the scope is not allowed.

    Examples:
        >>> create_random_mask(nn.Linear(10, 10), 0.75, seed=0).num_kept
        25
    """
    if isinstance(model_or_mask, nn.Module | WeightSource):
        weights = find_prunable_weights(model_or_mask, include=include, exclude=exclude)
        shapes, output_dims, shards = weights.whole_shapes, weights.output_dims, weights.shards
    else:
        mask = as_mask(model_or_mask)
        shapes, output_dims, shards = dict(mask.shapes), {}, mask.shards
    scores = draw_weights(shapes, output_dims, derive_seed(seed, "random mask"), shards)
    bits = select_in_scope(scores, sparsity, scope=scope)
    provenance = {"method": "random", "sparsity": sparsity, "scope": scope, "seed": seed}
    return Mask(bits, scores.shapes, provenance, shards)


def shuffle_mask(
    mask: Mapping[str, Tensor],
    seed: int,
    *,
    given: nn.Module | Mapping[str, Tensor] | WeightSource | None = None,
    keeping: Mapping[str, Sequence[int]] | None = None,
) -> Mask:
    """Returns a mask that keeps as many weights of each layer as `mask`, at random places.

    Args:
        mask: The mask to scramble.
        seed: Same seed, same result.
        given: Weights, of a model, a mapping or a checkpoint: as many are kept of each exponent in each layer too.
        keeping: By name flat positions of weights that are always kept, at the cost of others of their layer.

    Raises:
        ValueError: When `given` has not the weights of the mask, the mask keeps too few of a layer for `keeping`, or
            both are given.

    Examples:
        >>> import torch
        >>> mask = Mask.from_tensors({"weight": torch.eye(4)})
        >>> shuffle_mask(mask, seed=0).num_kept
        4
    """
    original = as_mask(mask)
    scores = draw_weights(original.shapes, {}, derive_seed(seed, "shuffled mask"), original.shards)
    provenance: dict[str, object] = {"method": "shuffled", "seed": seed, "of": original.provenance}
    if given is not None:
        if keeping is not None:
            raise ValueError("a mask is shuffled within exponents, or keeping some weights, not both; leave one out")
        weights = find_masked_weights(given, original)
        bits = {name: _draw_by_exponent(weights[name], original[name], scores[name]) for name in original}
        return Mask(bits, scores.shapes, {**provenance, "within": "exponents"})
    bits = {}
    for name, num_kept in original.count_kept().items():
        drawn, positions = scores.part([name]), (keeping or {}).get(name, ())
        bits |= select_largest(_raise_scores(drawn, positions, num_kept) if positions else drawn, num_kept)
    return Mask(bits, scores.shapes, provenance, original.shards)


def _draw_by_exponent(weight: Weight, kept: Tensor, scores: Weight) -> Tensor:
    """Returns packed bits that keep as many weights of each exponent as a mask does, those of the largest scores."""
    exponents = torch.from_numpy(find_codes(weight.read(0, weight.size)) >> MANTISSA_BITS)
    kept, drawn, chosen = kept.flatten(), scores.read(0, weight.size), torch.zeros(weight.size, dtype=torch.bool)
    for exponent in exponents[kept].unique():
        places = (exponents == exponent).nonzero().view(-1)
        order = drawn[places].argsort(descending=True, stable=True)
        chosen[places[order[: int(kept[places].sum())]]] = True
    return pack_bits(chosen)


def _raise_scores(drawn: Weights, positions: Sequence[int], num_kept: int) -> Weights:
    """Returns the scores of one layer, those at some positions above all others."""
    [(name, weight)] = drawn.items()
    if len(set(positions)) > num_kept or not all(0 <= position < weight.size for position in positions):
        raise ValueError(
            f"weights that are always kept must be among the {weight.size} of {name!r}, at most {num_kept} as the mask "
            f"keeps, but are {len(set(positions))}, from {min(positions)} to {max(positions)}"
        )
    scores = weight.read(0, weight.size).clone()
    scores[list(positions)] = 2.0
    return Weights.from_tensors({name: scores.view(weight.shape)})


def reinitialise_(model: nn.Module, seed: int) -> None:
    """Draws a model's parameters anew, in place, by each module's own `reset_parameters`; returns nothing.

    The global random state is left as it was.

    Args:
        model: The model. A sharded one gets the weights that one process would draw; each process holds those of one
            module whole at a time.
        seed: Same seed, same weights.

    Raises:
        ValueError: When a parameter belongs to a module without `reset_parameters`, so that it would keep its old
            values.
    """
    reshard(unwrap(model))
    check_reinitialisable(model)
    with seeded(seed):
        for module in model.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset) and not hasattr(module, COMPILED):  # that would call the one inside twice
                with whole_parameters(module):
                    reset()


def check_reinitialisable(model: nn.Module) -> None:
    """Raises a ValueError when a parameter belongs to a module without `reset_parameters`."""
    modules = dict(model.named_modules())
    for name, _ in model.named_parameters():
        owner = modules[name.rpartition(".")[0]]
        if not callable(getattr(owner, "reset_parameters", None)):
            message = (
                f"every parameter must belong to a module with reset_parameters() to be drawn anew, but {name!r} "
                f"belongs to {type(owner).__name__}; pass initialise_fn(model)"
            )
            raise ValueError(message)
