"""`lottery-tickets diff`: what trainings changed of a checkpoint, and what their changes share beyond chance."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import tyro

from unified_model_analysis.held_results import check_place
from unified_model_analysis.options import list_settings
from unified_model_analysis.stored_weights import find_num_bytes, open_weights, showing_bytes
from unified_model_analysis.terminal import say

NULLS: Final = {
    "naive": "one density over all weights",
    "layer": "one in each layer",
    "exponent": "one for each exponent in each layer",
    "value": "one for each exponent and seven bits of mantissa",
}


@dataclass(frozen=True)
class Diff:
    """Show what trainings changed: how many weights, by how much, and what several trainings have in common.

    Checkpoints may be larger than memory: they are read block by block. Which weights count is as for `lottery-tickets
    mask create`. What two trainings have in common stands beside four kinds of chance, each finer than the one before;
    the verdict is on the finest. How to read that: docs/changes.md.

    Example: `lottery-tickets diff trained.safetensors other.safetensors --output changes.json`

    Attributes:
        before: The weights that training began from: a .safetensors file, or what else `lottery-tickets mask create`
            takes.
        after: What they became, a checkpoint for each training.
        by: Which changes the masks keep: "stored", all; "delta", the largest; "relative", the largest in proportion.
        sparsity: Fraction removed, in [0, 1], for the largest changes.
        scope: "global", "layer", "row", "erk", "lamp", or N:M such as "2:4"; for the largest changes.
        include: Glob patterns of parameter names to compare instead of the default choice.
        exclude: Glob patterns of parameter names to leave out.
        layers: Whether to show each layer and not each kind alone.
        output: A JSON file to write; the masks go beside it.
        force: Replace a file that exists.
    """

    before: Annotated[Path, tyro.conf.Positional]
    after: Annotated[tuple[Path, ...], tyro.conf.Positional]
    by: Literal["stored", "delta", "relative"] = "stored"
    sparsity: float | None = None
    scope: str = "global"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    layers: bool = False
    output: Path | None = None
    force: bool = False

    def run(self) -> int:
        """Compares, shows and saves; returns the exit code."""
        from lottery_tickets import compute_changes
        from lottery_tickets.storage import Record

        names = _name_briefly(self.after)
        if not names or len(set(names)) < len(names):
            raise ValueError("there must be one checkpoint or more after training, each named once")
        record = Record("changes", list_settings(self))
        if self.output is not None:
            check_place(self.output, force=self.force)
            record.find_file(self.output)
        before, *after = (open_weights(path) for path in (self.before, *self.after))
        include, exclude = list(self.include) or None, list(self.exclude) or None
        with contextlib.ExitStack() as stack:
            for weights in (before, *after):
                stack.enter_context(showing_bytes(weights, find_num_bytes(weights, include, exclude)))
            found = compute_changes(
                before,
                dict(zip(names, after, strict=True)),
                by=self.by,
                sparsity=self.sparsity,
                scope=self.scope,
                include=include,
                exclude=exclude,
            )
        say(*_describe(found, by_layer=self.layers))
        if self.output is not None:
            record.save(found, self.output)
            print(f"results: {self.output}, and a mask for each training beside it")
        return 0


def _name_briefly(paths: Sequence[Path]) -> list[str]:
    """Returns the names of paths below the folder that all lie in."""
    folders = [path.absolute().parent for path in paths]
    common = os.path.commonpath(folders) if folders else ""
    return [str(path.absolute().relative_to(common)) for path in paths]


def _describe(found: Mapping[str, Any], *, by_layer: bool) -> Iterator[str]:
    from statistical_report_generator.rows import format_rows

    for name, update in found["updates"].items():
        yield f"{name}: {_tell(update['overall'])} ({', '.join(update['dtypes'])})"
        headings = ("weights", "changed, %", "hidden, %", "sign flips", "norm", "in largest 1 %", "")
        rows = [_list_figures(figures, row) for row, figures in update["layers" if by_layer else "kinds"].items()]
        yield from format_rows([headings, *rows], align=">>>>>><").splitlines()
    for pair in (found["overlaps"] or {}).get("pairs", ()):
        yield from _describe_pair(pair)


def _tell(figures: Mapping[str, Any]) -> str:
    changed = (
        f"{figures['num_changed']:,} of {figures['num_weights']:,} weights changed, {figures['share_changed']:.4%}"
    )
    if figures["share_hidden"] is None:
        return changed
    return f"{changed}; of these bfloat16 would hide {figures['share_hidden']:.2%}"


def _list_figures(figures: Mapping[str, Any], name: str) -> tuple[str, ...]:
    shares = (figures["share_changed"], figures["share_hidden"])
    return (
        f"{figures['num_weights']:,}",
        *("-" if share is None else f"{100 * share:.4f}" for share in shares),
        f"{figures['num_sign_flips']:,}",
        f"{figures['norm']:.3g}",
        "-" if figures["largest_share"] is None else f"{figures['largest_share']:.1%}",
        name,
    )


def _describe_pair(pair: Mapping[str, Any]) -> Iterator[str]:
    from statistical_report_generator.rows import format_rows

    yield (
        f"{pair['first']} and {pair['second']}: {pair['verdict']}, with an error rate of {pair['error_rate']:.2g} on "
        "either side; weights that both changed, over those expected:"
    )
    rows = [("expected", "ratio", "interval", "densities that chance keeps")]
    for name, null in pair["nulls"].items():
        known = null["ratio"] is not None
        interval = f"{null['low']:.3f} to {null['high']:.3f}" if known else "-"
        rows.append((f"{null['expected_both']:,.1f}", f"{null['ratio']:.3f}" if known else "-", interval, NULLS[name]))
    yield from format_rows(rows, align=">>><").splitlines()
