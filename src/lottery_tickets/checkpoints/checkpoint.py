"""`CheckpointWeights`: the weights of a checkpoint's files, which are read block by block and never whole."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from lottery_tickets._core.bits import cut_bits
from lottery_tickets._core.prunable_weights import Choices, choose_stored
from lottery_tickets._core.tensor_files.headers import Entry
from lottery_tickets._core.tensor_files.shards import Shard, StoredWeight
from lottery_tickets._core.weights import Weights, WeightSource
from lottery_tickets.checkpoints.base import BASE, check_stored_base, describe_base
from lottery_tickets.checkpoints.layout import find_layout
from lottery_tickets.checkpoints.writing import Edit, Zeroing, write_edited_checkpoint
from lottery_tickets.masks.mask import Mask, as_mask
from lottery_tickets.workloads.conversion import find_parts
from lottery_tickets.workloads.language import describe_model

logger = logging.getLogger(__name__)


@final
class CheckpointWeights(WeightSource):
    """The weights of a safetensors checkpoint of any size, for functions that take a model's weights.

    `create_magnitude_mask`, `compute_sparsity`, `create_random_mask` and `apply_mask` take it in place of a model, and
    give the same bits. Weights are read in blocks of some megabytes; in memory are the mask, one bit a weight, and what
    is undecided, some bits a weight.

    Which weights are pruned says the model of `config.json`, where transformers knows it, by its modules as in memory;
    else, and for tensors that this model does not have, their names: floating-point tensors of two or more dimensions
    called "*weight", but no embeddings, norms or heads. `choice` says which it was. Weights have the names and shapes
    of the model in memory: what transformers renames as it loads, and experts that files keep apart and it joins.

    The files must stay as they are while this object is used; a change is noticed at the next read.

    Args:
        path: A safetensors file; a folder as `save_pretrained` writes it, with one file or several and an index; a
            model's folder in a hub's cache, or its name there, such as "Qwen/Qwen2.5-14B". Nothing is downloaded.

    Attributes:
        model: What the checkpoint is called: its name on the hub where it lies in a hub's cache, else its folder's.
        revision: The commit in a hub's cache; None elsewhere.
        choice: By what weights are chosen, in words.

    Raises:
        OSError: When there is no such file or folder, or it cannot be read.
        ValueError: When files are missing, damaged, quantised, of another format (GGUF, pickles), or not those of the
            index.

    Examples:
        >>> import tempfile
        >>> from lottery_tickets import create_magnitude_mask
        >>> from lottery_tickets.storage import save_weights
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(torch.nn.Linear(4, 2).state_dict(), f"{folder}/model.safetensors")
        ...     create_magnitude_mask(CheckpointWeights(folder), 0.5).num_kept
        4
    """

    def __init__(self, path: str | Path) -> None:
        self.layout = find_layout(path)
        self.model, self.revision = self.layout.model, self.layout.revision
        self.entries: dict[str, tuple[Shard, Entry]] = dict(
            sorted(
                (name, (shard, entry))
                for shard in self.layout.shards.values()
                for name, entry in shard.header.entries.items()
            )
        )
        folder = self.layout.folder
        self._described = None if folder is None else describe_model(folder)
        self._parts, self._shapes = self._name_tensors()
        kind = type(self._described).__name__
        self.choice = "their names" if self._described is None else f"the modules of {kind}, as config.json says"
        logger.info("%r; weights to prune are chosen by %s", self, self.choice)

    @property
    def num_bytes(self) -> int:
        """How many bytes all tensors take."""
        return sum(entry.num_bytes for _, entry in self.entries.values())

    @property
    def shapes(self) -> dict[str, torch.Size]:
        """The shapes of all tensors by the names that they have in the files."""
        return {name: entry.shape for name, (_, entry) in self.entries.items()}

    @property
    def tensors(self) -> dict[str, StoredWeight]:
        """All tensors, unread, by the names that they have in the model."""
        return {name: self._store(name, name) for name in self._parts}

    def find_prunable(self, include: Choices | None = None, exclude: Choices | None = None) -> Weights:
        """Returns the weights that are pruned, by the names that they have in the model.

        Args:
            include: Replaces the default choice: names, glob patterns or module types.
            exclude: Removes from the choice.

        Raises:
            ValueError: When a pattern matches nothing, nothing is left to prune, a chosen weight is not of a float
                dtype, or configuration and weights are not of one model.
        """
        return Weights(
            self._store(name, place, output_dims)
            for name, (place, output_dims) in self._choose(include, exclude).items()
        )

    def write_pruned(self, mask: Mask, output: Path) -> None:
        """Writes a copy of the checkpoint with pruned weights set to zero; see `apply_mask`.

        Args:
            mask: Whose names are those of the model.
            output: Where to.

        Raises:
            OSError: As `apply_mask`.
            ValueError: As `apply_mask`.
        """
        edits = {name: Zeroing(bits) for name, bits in self.find_bits(mask).items()}
        in_files = {name: StoredWeight(name, [place]) for name, place in self.entries.items()}
        check_stored_base(mask, self.model, in_files | self.tensors)
        self.write_edited(edits, output)

    def write_edited(self, edits: Mapping[str, Edit], output: Path) -> None:
        """Writes a copy of the checkpoint in which some tensors are edited; what is cut off goes on where it was.

        Args:
            edits: By the names of tensors in the files.
            output: Where to.

        Raises:
            OSError: As `apply_mask`.
            ValueError: As `apply_mask`.
        """
        write_edited_checkpoint(self.layout, edits, output)

    def name_base(self, mask: Mapping[str, Tensor]) -> Mask:
        """Returns the mask, which says now that it is for this checkpoint: name, revision, hash of each tensor.

        `apply_mask` looks at the hashes before it writes, and `check_base` at those of a model in memory. So the mask's
        file alone is the ticket, for whoever has the base. Time: one pass over all tensors.

        Args:
            mask: By parameter name, True where a weight is kept.

        Raises:
            ValueError: When the mask does not fit the checkpoint.
        """
        checked = as_mask(mask)
        self.find_places(checked.shapes)
        base = describe_base(self.model, self.revision, self.tensors)
        return Mask(checked.bits, checked.shapes, {**checked.provenance, BASE: base})

    @contextlib.contextmanager
    def telling(self, tell: Callable[[int], object]) -> Iterator[None]:
        """Within the block, `tell` is called with how many bytes were read, block by block, by any thread."""
        shards = list(self.layout.shards.values())
        before = [shard.tell for shard in shards]
        try:
            for shard in shards:
                shard.tell = tell
            yield
        finally:
            for shard, told in zip(shards, before, strict=True):
                shard.tell = told

    def find_places(self, shapes: Mapping[str, torch.Size]) -> dict[str, tuple[str, ...]]:
        """Returns under which names the tensors of a model's weights are stored: mostly one each.

        Args:
            shapes: By the model's names, or by those in the files.

        Raises:
            ValueError: When one is missing or has another shape.
        """
        known = {name: place for name, (place, _) in self._choose("*", None).items()} if shapes else {}
        stored_shapes = self.shapes | self._shapes
        found: dict[str, tuple[str, ...]] = {}
        for name, shape in shapes.items():
            place = known.get(name, name)
            stored = stored_shapes.get(place)
            if stored != shape:
                has = "has none of this name" if stored is None else f"has {tuple(stored)}"
                raise ValueError(
                    f"the mask prunes {name!r} of shape {tuple(shape)}, but the checkpoint {self.model} {has}; was it "
                    "made for another model?"
                )
            found[name] = self._parts.get(place, (place,))
        return found

    def find_bits(self, mask: Mask) -> dict[str, Tensor]:
        """Returns the packed bits of a mask by the names of the tensors in the files.

        Raises:
            ValueError: As `find_places`.
        """
        found: dict[str, Tensor] = {}
        for name, parts in self.find_places(mask.shapes).items():
            stops = list(accumulate(self.entries[part][1].size for part in parts))
            for part, start, stop in zip(parts, [0, *stops], stops, strict=False):
                found[part] = mask.bits[name] if len(parts) == 1 else cut_bits(mask.bits[name], start, stop)
        return found

    def _name_tensors(self) -> tuple[dict[str, tuple[str, ...]], dict[str, torch.Size]]:
        """Returns for each name in the model, and those in the files of what it does not have, its parts and shape."""
        entries = {name: entry for name, (_, entry) in self.entries.items()}
        joined = {} if self._described is None else find_parts(self._described, entries)
        used = {part for parts in joined.values() for part in parts}
        named = dict(sorted(({name: (name,) for name in entries if name not in used} | joined).items()))
        state: dict[str, Tensor] = {} if self._described is None else self._described.state_dict()
        shapes = {
            name: entries[parts[0]].shape if len(parts) == 1 else state[name].shape for name, parts in named.items()
        }
        return named, shapes

    def _store(self, name: str, place: str, output_dims: tuple[int, ...] = (0,)) -> StoredWeight:
        return StoredWeight(name, [self.entries[part] for part in self._parts[place]], output_dims, self._shapes[place])

    def _choose(self, include: Choices | None, exclude: Choices | None) -> dict[str, tuple[str, tuple[int, ...]]]:
        dtypes = {name: self.entries[parts[0]][1].dtype for name, parts in self._parts.items()}
        stored = {name: torch.empty(self._shapes[name], dtype=dtypes[name], device="meta") for name in self._parts}
        return choose_stored(stored, self._described, include, exclude)

    def __str__(self) -> str:
        files = len(self.layout.shards)
        many = "s" if files > 1 else ""
        return f"{self.model}: {len(self.entries)} tensors, {self.num_bytes:,} bytes in {files} file{many}"

    def __repr__(self) -> str:
        return f"CheckpointWeights({self})"
