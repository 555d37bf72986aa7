"""What a network costs: sections of its own, and columns of every table that says how sparse a mask is."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal

from statistical_report_generator.document import Points, Section, Table, Text
from statistical_report_generator.figures.layers import choose_layers
from statistical_report_generator.schemas.costs import Cost, Costs, WeightCost
from statistical_report_generator.sections.making import describe_making, list_unknown
from statistical_report_generator.sections.words import MOST_ROWS, count, make_table, name_cell, percent
from statistical_report_generator.sources import Source

Figure = Literal["parameters", "disk_bytes", "forward_flops", "step_flops"]
Sparsities = Mapping[str, float]

BITS_PER_BYTE: Final = 8
FORMS: Final = ("dense", "masked", "shrunk")
COLUMNS: Final[Mapping[Figure, str]] = {
    "parameters": "parameters",
    "disk_bytes": "bytes, packed",
    "step_flops": "FLOPs of a step, zeros skipped",
}
HEADINGS: Final = ("form", "parameters", "bytes in memory", "bytes on disk", "FLOPs, forward", "FLOPs of a step")


def add_costs(table: Table, source: Source, rows: Iterable[Sparsities | None], *, of_layers: bool = False) -> Table:
    """Returns a table with what the network of each row costs, where the report has the costs of the network.

    Columns are parameters, bytes of a ticket's file, and FLOPs of a step if zeros were skipped.

    Args:
        table: Says how sparse masks are, or layers of one.
        source: The results that it is about, with the costs that are in the report.
        rows: For each row of the table the sparsities of layers by name, none of a dense network; None where they are
            not known.
        of_layers: Whether rows are about these layers alone, and not about the whole network with them pruned.
    """
    listed = list(rows)
    costs = _find_costs(source, {name for sparsities in listed for name in sparsities or ()})
    if costs is None:
        return table
    cells = [_tell(costs, sparsities, of_layers=of_layers) for sparsities in listed]
    width = len(table.headings)
    return replace(
        table,
        caption=f"{table.caption} A step over a batch of {count(costs['num_samples'])} takes "
        f"{count(costs['dense']['step_flops'])} FLOPs, and PyTorch, which skips no zeros, computes them all.",
        headings=(*table.headings, *COLUMNS.values()),
        rows=tuple((*row, *added) for row, added in zip(table.rows, cells, strict=True)),
        numeric=table.numeric | set(range(width, width + len(COLUMNS))),
    )


def _find_costs(source: Source, names: set[str]) -> Costs | None:
    """Returns the costs of the network that has these layers; None where the report has none, or several."""
    found = [costs for costs in source.costs if names and names <= costs["weights"].keys()]
    return found[0] if len(found) == 1 else None


def _tell(costs: Costs, sparsities: Sparsities | None, *, of_layers: bool) -> tuple[str, ...]:
    if sparsities is None:
        return ("",) * len(COLUMNS)
    return tuple(count(round(_leave(costs, sparsities, figure, of_layers=of_layers))) for figure in COLUMNS)


def _leave(costs: Costs, sparsities: Sparsities, figure: Figure, *, of_layers: bool) -> float:
    """Returns what is left of a figure when these shares of the layers are neither stored nor multiplied by."""
    weights = costs["weights"]
    left = float(sum(weights[name][figure] for name in sparsities) if of_layers else costs["dense"][figure])
    left -= sum(sparsity * weights[name][figure] for name, sparsity in sparsities.items())
    if figure == "disk_bytes":  # which of them are kept, one bit each
        left += sum(-(-weights[name]["parameters"] // BITS_PER_BYTE) for name in sparsities)
    return left


def describe_costs(source: Source) -> list[Section]:
    """Returns the sections on what a network costs.

    Args:
        source: What `compute_costs` saved.
    """
    found: Costs = source.results
    threats = [
        f"FLOPs of a batch of {count(found['num_samples'])}, counted and not timed: seconds need not follow them.",
        *([f"No smaller network was made: {found['no_units']}"] if "no_units" in found else []),
        *list_unknown(source),
    ]
    return [
        Section("What was found", [Text(_answer(found))]),
        Section("By form and by weight", [_tabulate_forms(source, found), _tabulate_weights(source, found)]),
        describe_making(source, {"num_samples": found["num_samples"]}),
        Section("Threats to validity", [Points(tuple(threats))]),
    ]


def _answer(found: Costs) -> str:
    dense = found["dense"]
    words = (
        f"The network has {count(dense['parameters'])} parameters in {count(dense['memory_bytes'])} bytes, and a "
        f"training step takes {count(dense['step_flops'])} FLOPs."
    )
    if "masked" in found:
        words += (
            f" If pruned weights were skipped, {_share(found['masked'], dense)} % of these FLOPs would be left; "
            "PyTorch skips none, so the mask alone saves neither memory nor time."
        )
    if "shrunk" in found:
        words += f" The smaller network without what the mask empties takes {_share(found['shrunk'], dense)} %."
    return words


def _share(part: Cost, whole: Cost) -> str:
    return percent(part["step_flops"] / whole["step_flops"] if whole["step_flops"] else None, ".1f", "no")


def _tabulate_forms(source: Source, found: Costs) -> Table:
    forms: Sequence[tuple[str, Cost]] = [(form, found[form]) for form in FORMS if form in found]
    rows = [
        (
            name,
            count(cost["parameters"]),
            count(cost["memory_bytes"]),
            count(cost["disk_bytes"]),
            count(cost["forward_flops"]),
            count(cost["step_flops"]),
        )
        for name, cost in forms
    ]
    caption = f"What each form costs; FLOPs of a batch of {count(found['num_samples'])}. Masked: if zeros were skipped."
    return make_table(f"{source.slug}-costs", caption, HEADINGS, rows)


def _tabulate_weights(source: Source, found: Costs) -> Table:
    weights: Mapping[str, WeightCost] = found["weights"]
    names = choose_layers({name: float(cost["step_flops"]) for name, cost in weights.items()}, MOST_ROWS)
    rows = [
        (
            name_cell(name),
            count(weights[name]["parameters"]),
            count(weights[name]["disk_bytes"]),
            count(weights[name]["forward_flops"]),
            count(weights[name]["step_flops"]),
        )
        for name in names
    ]
    num = len(weights)
    left_out = f"The {len(rows)} with the most FLOPs, of {num:,}." if len(rows) < num else ""
    headings = ("weight", "parameters", "bytes", "FLOPs, forward", "FLOPs of a step")
    caption = "What each weight is part of: FLOPs of what is multiplied by it, and of its gradient."
    return make_table(f"{source.slug}-weights", caption, headings, rows, left_out=left_out)
