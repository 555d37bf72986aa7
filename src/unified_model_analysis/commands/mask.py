"""`lottery-tickets mask`: make a mask from a checkpoint, or look into a mask file."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from unified_model_analysis.held_results import check_place
from unified_model_analysis.options import FileOutput
from unified_model_analysis.own_networks import call_source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn


@dataclass(frozen=True)
class Create(FileOutput):
    """Make a magnitude mask from a checkpoint's weights: exact counts, ties by position, one bit a weight.

    A checkpoint has no modules, so weights are chosen by name: tensors of two or more dimensions called *.weight, but
    no embeddings, norms or language-model heads. Name them yourself with --include and --exclude; or name the network
    with --from, and its modules decide.

    Example: `lottery-tickets mask create trained.safetensors --sparsity 0.8 --output a.mask`

    Attributes:
        checkpoint: A .safetensors file, or a torch file with a state dict (read with weights_only). Not needed with
            --from, whose network has weights.
        source: "module:function", which returns a model and its batches; see `lottery-tickets score --help`.
        output: The mask file to write, .safetensors.
        sparsity: Fraction removed, in [0, 1].
        scope: "global", "layer", "row", "erk", "lamp", or N:M such as "2:4".
        include: Glob patterns of parameter names to prune instead of the default choice.
        exclude: Glob patterns of parameter names to leave dense.
    """

    sparsity: float
    checkpoint: Annotated[Path | None, tyro.conf.Positional] = None
    source: Annotated[str | None, tyro.conf.arg(name="from")] = None
    scope: str = "global"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def run(self) -> int:
        """Writes the mask and shows it; returns the exit code."""
        from lottery_tickets.magnitude_pruning import create_magnitude_mask

        check_place(self.output, force=self.force)
        mask = create_magnitude_mask(
            self._load(),
            self.sparsity,
            scope=self.scope,
            include=list(self.include) or None,
            exclude=list(self.exclude) or None,
        )
        mask.provenance["checkpoint"] = self.source if self.checkpoint is None else self.checkpoint.name
        mask.save(self.output)
        return Show(self.output).run()

    def _load(self) -> "nn.Module | Mapping[str, Tensor]":
        from lottery_tickets.storage import load_into, load_weights

        if self.source is None:
            if self.checkpoint is None:
                raise ValueError("there must be weights to prune; name a checkpoint, or a network with --from")
            return load_weights(self.checkpoint)
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
            print(f"  {key}: {value}")
        for name, sparsity in mask.layer_sparsity().items():
            print(f"  {sparsity:8.4%} removed  {name} {tuple(mask.shapes[name])}")
        return 0


@dataclass(frozen=True)
class MaskCommand:
    """Make a mask from a checkpoint, or look into a mask file.

    Attributes:
        action: What to do.
    """

    action: tyro.conf.OmitArgPrefixes[
        Annotated[Create, tyro.conf.subcommand("create", prefix_name=False)]
        | Annotated[Show, tyro.conf.subcommand("show", prefix_name=False)]
    ]

    def run(self) -> int:
        """Runs the action; returns the exit code."""
        return self.action.run()
