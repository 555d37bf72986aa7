"""The sections on a mask: which layers it thins out."""

from statistical_report_generator.document import MaskWord, Points, Section, Table, Verdicts
from statistical_report_generator.figures.layers import choose_layers
from statistical_report_generator.schemas.masks import Ticket
from statistical_report_generator.sections.costs import add_costs
from statistical_report_generator.sections.layers import draw_sparsities, list_collapsed, list_missed
from statistical_report_generator.sections.making import describe_making, find_asked, list_unknown
from statistical_report_generator.sections.words import MOST_ROWS, form, list_names, make_table, name_cell, percent
from statistical_report_generator.sources import Source


def describe_ticket(source: Source) -> list[Section]:
    """Returns the sections on a mask.

    Args:
        source: What `compute_layerwise_magnitude_ticket` saved, or what a mask says of itself.
    """
    found: Ticket = source.results
    sparsities, collapsed = found["layer_sparsities"], found["collapsed_layers"]
    word: MaskWord = "collapsed" if collapsed else "whole"
    kept = f"it keeps nothing of {list_names(collapsed)}" if collapsed else "every layer keeps weights"
    answer = (
        f"The mask removes {percent(found['actual_sparsity'])} % of the weights of {len(sparsities):,} layers; {kept}."
    )
    made = "Nothing was trained: a mask by magnitude" if "thresholds" in found else "A mask by itself"
    threats = [
        *list_collapsed({**sparsities, **dict.fromkeys(collapsed, 1.0)}),
        *list_missed(find_asked(source), found["actual_sparsity"]),
        f"{made} is no winning ticket until it has won against its controls.",
        *list_unknown(source),
    ]
    return [
        Section(
            "What was found",
            [Verdicts(((word, answer),)), draw_sparsities(source, sparsities, found["actual_sparsity"])],
        ),
        Section("By layer", [_tabulate(source, found)]),
        describe_making(source, {"target_sparsity": asked} if (asked := find_asked(source)) is not None else {}),
        Section("Threats to validity", [Points(tuple(threats))]),
    ]


def _tabulate(source: Source, found: Ticket) -> Table:
    sparsities, thresholds = found["layer_sparsities"], found.get("thresholds")
    far = {name: abs(sparsity - found["actual_sparsity"]) for name, sparsity in sparsities.items()}
    names = choose_layers(far, MOST_ROWS)
    rows: list[tuple[str, ...]] = [(name_cell(name), percent(sparsities[name])) for name in names]
    left_out = (
        f"The {len(rows)} layers farthest from the whole, of {len(sparsities):,}." if len(rows) < len(far) else ""
    )
    headings: tuple[str, ...] = ("layer", "removed, %")
    caption = "Share of each layer's weights that is removed."
    if thresholds is not None:
        cells = (form(thresholds[name], ".4g", "keeps nothing") for name in names)
        rows = [(*row, cell) for row, cell in zip(rows, cells, strict=True)]
        headings = (*headings, "least magnitude kept")
        caption = "The threshold of a layer is the least magnitude that it keeps."
    table = make_table(f"{source.slug}-thresholds", caption, headings, rows, left_out=left_out)
    return add_costs(table, source, ({name: sparsities[name]} for name in names), of_layers=True)
