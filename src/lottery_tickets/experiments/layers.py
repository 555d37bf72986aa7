"""What a training left of each layer: how many of its weights are kept, and how many of these it moved."""

from collections.abc import Mapping
from typing import Any, Final, NotRequired, TypedDict

from torch import Tensor

from lottery_tickets._core.measuring.displacement import measure_displacement, sum_displacements
from lottery_tickets._core.weights import Weights
from lottery_tickets.masks.mask import Mask

LAYERS: Final = "layers"  # of a record; those of earlier versions have none


class LayerCounts(TypedDict):
    """One layer of a training.

    Attributes:
        num_weights: There are.
        num_kept: Of them by the mask.
        num_moved: Of the kept ones, those that ended at another value than they started from; absent of a simulation.
        dtype: What the weights are stored in, such as "bfloat16", which loses steps smaller than it resolves; absent
            of a simulation.
    """

    num_weights: int
    num_kept: int
    num_moved: NotRequired[int]
    dtype: NotRequired[str]


def count_kept(mask: Mask) -> dict[str, LayerCounts]:
    """Returns by layer how many weights there are and how many a mask keeps."""
    return {
        name: {"num_weights": mask.shapes[name].numel(), "num_kept": num_kept}
        for name, num_kept in mask.count_kept().items()
    }


def count_layers(mask: Mask, start: Mapping[str, Tensor], end: Mapping[str, Tensor]) -> dict[str, LayerCounts]:
    """Returns by layer what `LayerCounts` has, read in blocks where the weights lie, over all processes.

    Args:
        mask: What the training was held to.
        start: The state that it started from, under the mask, on the CPU.
        end: The state that it left, on any device.
    """
    weights = Weights.from_tensors({name: end[name] for name in mask})
    before = weights.with_values(start)
    moved = sum_displacements(weights, {n: measure_displacement(weight, before[n]) for n, weight in weights.items()})
    return {  # what is pruned is the same at both ends, so whatever moved is kept
        name: {
            **counts,
            "num_moved": moved[name].num_moved,
            "dtype": str(end[name].dtype).removeprefix("torch."),
        }
        for name, counts in count_kept(mask).items()
    }


def find_share_moved(layers: Mapping[str, LayerCounts]) -> float:
    """Returns the share of the kept weights of all layers that a training moved."""
    counted = layers.values()
    return sum(layer["num_moved"] for layer in counted) / max(1, sum(layer["num_kept"] for layer in counted))


def find_odd_layers(
    found: Any,  # noqa: ANN401 - JSON
    mask: Mask,
    start: Mapping[str, Tensor] | None,
    end: Mapping[str, Tensor],
) -> str:
    """Returns in words what is wrong with the counts that a record states; nothing when they are those of the files.

    Args:
        found: As in the record.
        mask: As in `count_layers`.
        start: As in `count_layers`; None where it is not known, and then what moved can only be possible or not.
        end: As in `count_layers`.
    """
    expected: Any = count_layers(mask, end if start is None else start, end)
    if not isinstance(found, dict) or found.keys() != expected.keys():
        return f"it counts {sorted(found)[:3]} and so on, not the {len(expected)} layers of its mask"
    for name, layer in expected.items():
        given = dict(found[name])
        moved = given.get("num_moved")
        if start is None and type(moved) is int and 0 <= moved <= layer["num_kept"]:
            layer["num_moved"] = moved
        if given != layer:
            return f"of {name!r} it states {given}, but its files have {layer}"
    return ""
