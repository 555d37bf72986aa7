"""`lottery-tickets mask`: make a mask from a checkpoint, or look into a mask file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Create:
    """Make a magnitude mask from a checkpoint's weights: exact counts, ties by position, one bit a weight.

    A checkpoint has no modules, so weights are chosen by name: tensors of two or more dimensions called *.weight, but
    no embeddings, norms or language-model heads. Name them yourself with --include and --exclude.

    Attributes:
        checkpoint: A .safetensors file, or a torch file with a state dict (read with weights_only).
        output: Where the mask goes.
        sparsity: Fraction removed, in [0, 1].
        scope: "global", "layer", "row", "erk", "lamp", or N:M such as "2:4".
        include: Glob patterns of parameter names to prune instead of the default choice.
        exclude: Glob patterns of parameter names to leave dense.
    """

    checkpoint: Annotated[Path, tyro.conf.Positional]
    output: Annotated[Path, tyro.conf.Positional]
    sparsity: float
    scope: str = "global"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def run(self) -> int:
        """Writes the mask and shows it; returns the exit code."""
        from lottery_tickets.magnitude_pruning import create_magnitude_mask
        from lottery_tickets.storage import load_weights

        weights = load_weights(self.checkpoint)
        mask = create_magnitude_mask(
            weights,
            self.sparsity,
            scope=self.scope,
            include=list(self.include) or None,
            exclude=list(self.exclude) or None,
        )
        mask.provenance["checkpoint"] = self.checkpoint.name
        mask.save(self.output)
        return Show(self.output).run()


@dataclass(frozen=True)
class Show:
    """Show what a mask file holds: how it was made, its sparsity over all and by layer.

    Attributes:
        mask: The file.
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
