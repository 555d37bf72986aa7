"""`lottery-tickets mask`: masks from checkpoints of any size, what is in a mask, checkpoints from masks."""

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from unified_model_analysis.held_results import check_place
from unified_model_analysis.options import FileOutput
from unified_model_analysis.own_networks import call_source
from unified_model_analysis.stored_weights import find_num_bytes, name_briefly, open_weights, showing_bytes
from unified_model_analysis.terminal import say

if TYPE_CHECKING:
    from unified_model_analysis.stored_weights import AnyWeights


@dataclass(frozen=True)
class Create(FileOutput):
    """Make a magnitude mask from a checkpoint's weights: exact counts, ties by position, one bit a weight.

    A safetensors checkpoint may be larger than memory: it is read block by block. The modules that its config.json
    describes say which weights count. Without one, weights are chosen by name: tensors of two or more dimensions called
    *.weight, but no embeddings, norms or language-model heads. Name them yourself with --include and --exclude; or name
    the network with --from, and its modules decide.

    Example: `lottery-tickets mask create trained.safetensors --sparsity 0.8 --output a.mask`

    Attributes:
        checkpoint: A .safetensors file, a folder as save_pretrained writes it, a model's name in a hub's cache on this
            machine, or a torch file with a state dict (read with weights_only). Not needed with --from, whose network
            has weights.
        source: "module:function", which returns a model and its batches; see `lottery-tickets score --help`.
        output: The mask file to write, .safetensors.
        sparsity: Fraction removed, in [0, 1].
        scope: "global", "layer", "row", "erk", "lamp", or N:M such as "2:4".
        include: Glob patterns of parameter names to prune instead of the default choice.
        exclude: Glob patterns of parameter names to leave dense.
        name_base: Note in the mask the hash of each tensor of a safetensors checkpoint, so that it is applied to this
            one only: one more pass over the files.
    """

    sparsity: float
    checkpoint: Annotated[Path | None, tyro.conf.Positional] = None
    source: Annotated[str | None, tyro.conf.arg(name="from")] = None
    scope: str = "global"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    name_base: bool = False

    def run(self) -> int:
        """Writes the mask and shows it; returns the exit code."""
        from lottery_tickets.checkpoints import CheckpointWeights
        from lottery_tickets.magnitude_pruning import create_magnitude_mask

        check_place(self.output, force=self.force)
        weights = self._load()
        if self.name_base and not isinstance(weights, CheckpointWeights):
            raise ValueError("--name-base is for safetensors checkpoints, whose tensors lie in files; leave it out")
        include, exclude = list(self.include) or None, list(self.exclude) or None
        with showing_bytes(weights, find_num_bytes(weights, include, exclude)):
            mask = create_magnitude_mask(weights, self.sparsity, scope=self.scope, include=include, exclude=exclude)
        mask.provenance["checkpoint"] = self.source if self.checkpoint is None else self.checkpoint.name
        if self.name_base and isinstance(weights, CheckpointWeights):
            with showing_bytes(weights, weights.num_bytes):
                mask = weights.name_base(mask)
        mask.save(self.output)
        return Show(self.output).run()

    def _load(self) -> "AnyWeights":
        from lottery_tickets.storage import load_into

        if self.source is None:
            if self.checkpoint is None:
                raise ValueError("there must be weights to prune; name a checkpoint, or a network with --from")
            return open_weights(self.checkpoint)
        model = call_source(self.source).model
        if self.checkpoint is not None:
            load_into(model, self.checkpoint)
        return model


@dataclass(frozen=True)
class Show:
    """Show what a mask file holds: how it was made, its sparsity over all and by layer.

    Example: `lottery-tickets mask show a.mask`

    Attributes:
        mask: The mask file.
    """

    mask: Annotated[Path, tyro.conf.Positional]

    def run(self) -> int:
        """Prints the mask; returns the exit code."""
        from lottery_tickets.masks.mask import Mask

        mask = Mask.load(self.mask)
        print(f"{self.mask}: {mask!r}, {mask.nbytes:,} bytes of bits")
        for key, value in mask.provenance.items():
            print(f"  {key}: {name_briefly(value) if key == 'base' else value}")
        for name, sparsity in mask.layer_sparsity().items():
            print(f"  {sparsity:8.4%} removed  {name} {tuple(mask.shapes[name])}")
        return 0


@dataclass(frozen=True)
class Apply:
    """Write a copy of a safetensors checkpoint in which pruned weights are zero, of any size.

    Files, headers, index and what lies beside them are as before, so that whatever loads the checkpoint loads the copy.
    The copy appears whole. When this is stopped, the same command goes on where it was.

    Example: `lottery-tickets mask apply trained.safetensors a.mask --output pruned.safetensors`

    Attributes:
        checkpoint: As for `lottery-tickets mask create`, of .safetensors files; it stays as it is.
        mask: The mask file. A mask that names its base is refused with other checkpoints.
        output: Where the copy goes: a folder, or a file where the checkpoint is one; there must be nothing yet.
    """

    checkpoint: Annotated[Path, tyro.conf.Positional]
    mask: Annotated[Path, tyro.conf.Positional]
    _: KW_ONLY
    output: Path

    def run(self) -> int:
        """Writes the copy; returns the exit code."""
        from lottery_tickets.checkpoints import CheckpointWeights
        from lottery_tickets.masks import Mask, apply_mask

        mask, weights = Mask.load(self.mask), CheckpointWeights(self.checkpoint)
        num_passes = 2 if "base" in mask.provenance else 1
        with showing_bytes(weights, num_passes * weights.num_bytes):
            apply_mask(weights, mask, output=self.output)
        say(f"{self.output} has {mask.num_weights - mask.num_kept:,} of {mask.num_weights:,} weights set to zero")
        return 0


@dataclass(frozen=True)
class Stats:
    """Show statistics of a checkpoint's prunable weights, layer by layer.

    Example: `lottery-tickets mask stats trained.safetensors`

    Attributes:
        checkpoint: A .safetensors file, or what else `lottery-tickets mask create` takes.
        include: Glob patterns of parameter names to show instead of the default choice.
        exclude: Glob patterns of parameter names to leave out.
    """

    checkpoint: Annotated[Path, tyro.conf.Positional]
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def run(self) -> int:
        """Prints the statistics; returns the exit code."""
        from lottery_tickets.checkpoints import compute_layer_statistics

        weights = open_weights(self.checkpoint)
        include, exclude = list(self.include) or None, list(self.exclude) or None
        with showing_bytes(weights, find_num_bytes(weights, include, exclude)):
            layers = compute_layer_statistics(weights, include=include, exclude=exclude)
        print(f"{'weights':>13}  {'zero, %':>8}  {'mean':>9}  {'std':>9}  {'least':>9}  {'greatest':>9}")
        for name, layer in layers.items():
            share = 100 * layer["num_zeros"] / max(layer["num_weights"], 1)
            figures = (layer["mean"], layer["std"], layer["least"], layer["greatest"])
            shown = "  ".join(f"{'' if figure is None else format(figure, '9.2e'):>9}" for figure in figures)
            odd = f", {layer['num_not_finite']:,} NaN or infinite" if layer["num_not_finite"] else ""
            of = f"{name} {tuple(layer['shape'])} {layer['dtype']}{odd}"
            print(f"{layer['num_weights']:13,}  {share:8.4f}  {shown}  {of}")
        return 0


@dataclass(frozen=True)
class MaskCommand:
    """Make a mask from a checkpoint, look into a mask file or a checkpoint, or write a pruned checkpoint.

    Attributes:
        action: What to do.
    """

    action: tyro.conf.OmitArgPrefixes[
        Annotated[Create, tyro.conf.subcommand("create", prefix_name=False)]
        | Annotated[Show, tyro.conf.subcommand("show", prefix_name=False)]
        | Annotated[Apply, tyro.conf.subcommand("apply", prefix_name=False)]
        | Annotated[Stats, tyro.conf.subcommand("stats", prefix_name=False)]
    ]

    def run(self) -> int:
        """Runs the action; returns the exit code."""
        return self.action.run()
