"""Masks and early-bird watches in checkpoints of `torch.distributed.checkpoint`, for any number of processes.

>>> import torch.distributed.checkpoint as dcp
>>> from lottery_tickets.integrations.distributed_checkpoint import MaskState
>>> from lottery_tickets import create_magnitude_mask
>>> model = torch.nn.Linear(4, 4)
>>> mask = create_magnitude_mask(model, 0.5)
>>> dcp.save({"mask": MaskState(model, mask)}, checkpoint_id=folder)  # doctest: +SKIP
>>> state = MaskState(model)
>>> dcp.load({"mask": state}, checkpoint_id=folder)  # doctest: +SKIP
>>> state.mask == mask  # doctest: +SKIP
True

Everything that is saved is a copy that no training changes, so a saver that works in the background stores what was
there when it was called; each weight is stored with a fingerprint, and checked against it when it is loaded.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from lottery_tickets._core.bits import pack_bits, unpack_bits
from lottery_tickets._core.prunable_weights import Choices, find_prunable_weights
from lottery_tickets._core.sharding.dtensors import see_local, wrap
from lottery_tickets._core.sharding.fingerprints import compute_fingerprints
from lottery_tickets._core.weights import Weights
from lottery_tickets.integrations.watch import MakeWatcher, SavedWatch, take_up
from lottery_tickets.masks.mask import Mask

LABEL: Final = "label"
RANKS: Final = "ranks."


@final
class MaskState:
    """A mask as a part of what is saved.

    Args:
        model: That it is of, sharded as it is now; also where the mask is loaded.
        mask: What is saved; None where it is to be loaded.
        include: As the mask was made, where it is loaded.
        exclude: Likewise.

    Attributes:
        mask: As given or loaded; its bits are of what lies in this process.
    """

    def __init__(
        self,
        model: nn.Module,
        mask: Mask | None = None,
        *,
        include: Choices | None = None,
        exclude: Choices | None = None,
    ) -> None:
        self._weights = find_prunable_weights(model, include=include, exclude=exclude)
        self.mask = mask

    def state_dict(self) -> dict[str, Any]:
        """Returns what `torch.distributed.checkpoint` saves, or loads into."""
        if self.mask is None:
            return {"kept": _make_empty(self._weights), LABEL: ""}
        placed = self.mask.placed(None if self._weights.shards is None else self._weights.part(self.mask).shards)
        kept = dict(placed)
        label = {"names": list(placed), "provenance": placed.provenance, "num_kept": placed.num_kept}
        return {"kept": kept, LABEL: json.dumps({**label, "fingerprints": compute_fingerprints(kept)})}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes the mask from what was loaded.

        Raises:
            ValueError: When the checkpoint is of a mask over other weights, or was altered.
        """
        label, kept = json.loads(state[LABEL]), state["kept"]
        if label["names"] != list(kept):
            odd = sorted(set(label["names"]) ^ set(kept)) or list(kept)
            raise ValueError(
                f"the checkpoint must have a mask of the weights of this model, but they differ in {odd}; give "
                "include= and exclude= as they were when it was made"
            )
        _check_fingerprints(kept, label["fingerprints"])
        mask = Mask.from_tensors(kept)
        mask.provenance = label["provenance"]
        self.mask = mask


@final
class WatchState:
    """A watch with its starting weights, as a part of what is saved.

    Args:
        model: That is watched; its weights now are the starting ones, unless a watch is loaded.
        make_watcher: Given the model, makes its watcher, such as `EarlyBirdWatcher`.

    Attributes:
        watcher: Made here, and made anew when a watch is loaded.
        step: Steps so far; to be set before the watch is saved.
    """

    def __init__(self, model: nn.Module, make_watcher: MakeWatcher) -> None:
        self._model, self._make_watcher = model, make_watcher
        self.watcher = make_watcher(model)
        self.step = 0

    def state_dict(self) -> dict[str, Any]:
        """Returns what `torch.distributed.checkpoint` saves, or loads into."""
        watcher = self.watcher
        told, names = watcher.state(), watcher.describe()["weights"]
        weights = Weights.from_tensors(watcher.starting_weights).part(names)
        empty = _make_empty(weights)
        tensors = {f"{prefix}{name}": empty[name] for prefix in self._list_prefixes() for name in names}
        tensors |= {name: _lay_out(name, tensor, weights) for name, tensor in told.items() if _find_weight(name)}
        start = dict(watcher.starting_weights)
        label = {
            "names": [name for name in told if _find_weight(name)],
            "others": {name: [_name(t.dtype), t.tolist()] for name, t in told.items() if not _find_weight(name)},
            "step": self.step,
            "checkpoints": watcher.checkpoints,
            "settings": watcher.describe(),
            "fingerprints": compute_fingerprints(start),
        }
        return {"start": start, "watch": tensors, LABEL: json.dumps(label, allow_nan=False)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what was loaded; the model holds the starting weights for a moment.

        Raises:
            ValueError: When the checkpoint is of a watch with other settings, or was altered.
        """
        label = json.loads(state[LABEL])
        _check_fingerprints(state["start"], label["fingerprints"])
        watch = {name: _pack(name, state["watch"][name]) for name in label["names"]}
        watch |= {name: torch.tensor(v, dtype=getattr(torch, dtype)) for name, (dtype, v) in label["others"].items()}
        saved: SavedWatch = {
            "step": label["step"],
            "start": dict(state["start"]),
            "watch": watch,
            "checkpoints": label["checkpoints"],
            "settings": label["settings"],
        }
        self.watcher = take_up(self._model, label["step"], saved, self._make_watcher)
        self.step = label["step"]

    def _list_prefixes(self) -> list[str]:
        """Returns what the names of all masks begin with that a watch may have; those that it has not are empty."""
        return [*(f"queue.{place}." for place in range(max(1, self.watcher.rule.queue_length - 1))), "ticket."]


def _make_empty(weights: Weights) -> dict[str, Tensor]:
    """Returns booleans of the shapes of weights, shared out as these are."""
    pieces = {} if weights.shards is None else weights.shards.pieces
    empty = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in weights.shapes.items()}
    return {name: wrap(tensor, pieces[name]) if name in pieces else tensor for name, tensor in empty.items()}


def _find_weight(name: str) -> str | None:
    """Returns the weight that a tensor of a watch has a value for each element of; None where it is no such tensor."""
    kind, _, rest = name.partition(".")
    return {"queue": rest.partition(".")[2], "ticket": rest, "ranks": rest}.get(kind)


def _lay_out(name: str, tensor: Tensor, weights: Weights) -> Tensor:
    """Returns such a tensor in the shape of its weight, shared out as this is."""
    weight = weights[_find_weight(name) or ""]
    local = tensor if name.startswith(RANKS) else unpack_bits(tensor, weight.shape)
    return local if weight.piece is None else wrap(local, weight.piece)


def _pack(name: str, tensor: Tensor) -> Tensor:
    return see_local(tensor) if name.startswith(RANKS) else pack_bits(see_local(tensor))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _check_fingerprints(tensors: Mapping[str, Tensor], expected: Mapping[str, int]) -> None:
    found = compute_fingerprints(tensors)
    if found != expected:
        altered = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        raise ValueError(
            f"what is loaded must be what was saved, but the fingerprints of {altered[:5]} differ; was the checkpoint "
            "altered, or cut short?"
        )
