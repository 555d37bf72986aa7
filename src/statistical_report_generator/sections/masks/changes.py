"""The sections on what trainings changed, and what their changes have in common beyond chance."""

from typing import Final

from statistical_report_generator.document import Block, Figure, Points, Section, Table, Text, Verdicts
from statistical_report_generator.figures.changes import MOST_DRAWN, draw_changes
from statistical_report_generator.schemas.changes import ChangeFigures, Changes
from statistical_report_generator.schemas.masks import GivenPair
from statistical_report_generator.sections.making import describe_making, list_unknown
from statistical_report_generator.sections.masks.overlap import describe_nulls, name_pair, say_given
from statistical_report_generator.sections.words import MOST_ROWS, count, form, make_table, name_cell, percent
from statistical_report_generator.sources import Source

HEADINGS: Final = ("weights", "changed, %", "hidden by bfloat16, %", "sign flips", "norm", "norm^2 in largest 1 %, %")
NONE: Final = "-"


def describe_changes(source: Source) -> list[Section]:
    """Returns the sections on what trainings changed.

    Args:
        source: What `compute_changes` or the command `diff` saved.
    """
    found: Changes = source.results
    pairs = found["overlaps"].get("pairs", []) if found["overlaps"] is not None else []
    told: Block = Verdicts(tuple(say_given(pair, name_pair(pair)) for pair in pairs)) if pairs else Text(_answer(found))
    return [
        Section("What was found", [told, *_draw(source, found, pairs)]),
        Section("By training", [_tabulate_updates(source, found)]),
        *describe_nulls(source, pairs),
        Section("By kind of layer", [_tabulate_kinds(source, found)]),
        describe_making(source, {"by": found["by"]}),
        Section("Threats to validity", [Points(tuple(_list_threats(source, found)))]),
    ]


def _answer(found: Changes) -> str:
    sentences = [
        f"{name_cell(name)} changed {percent(update['overall']['share_changed'], '.4g')} % of "
        f"{count(update['overall']['num_weights'])} weights"
        for name, update in list(found["updates"].items())[:MOST_DRAWN]
    ]
    return f"{'; '.join(sentences)}."


def _draw(source: Source, found: Changes, pairs: list[GivenPair]) -> list[Figure]:
    beside = (
        " Beside it the share that both of two changed, with what is expected of independent changes." if pairs else ""
    )
    return [
        Figure(
            name=f"{source.slug}-changes",
            caption=f"Share of the weights that changed, by the exponent of the weight before.{beside} Counts of all "
            "weights of one training each, without intervals.",
            alternative=_answer(found),
            draw=lambda: draw_changes(found["updates"], pairs, source.name),
        )
    ]


def _list_cells(figures: ChangeFigures) -> tuple[str, ...]:
    return (
        count(figures["num_weights"]),
        percent(figures["share_changed"], ".4f"),
        percent(figures["share_hidden"], ".2f", NONE),
        count(figures["num_sign_flips"]),
        form(figures["norm"], ".3g"),
        percent(figures["largest_share"], ".1f", NONE),
    )


def _tabulate_updates(source: Source, found: Changes) -> Table:
    rows = [(name_cell(name), *_list_cells(update["overall"])) for name, update in found["updates"].items()][:MOST_ROWS]
    caption = "What each training changed, as stored."
    return make_table(f"{source.slug}-trainings", caption, ("training", *HEADINGS), rows)


def _tabulate_kinds(source: Source, found: Changes) -> Table:
    rows = [
        (name_cell(name), name_cell(kind), *_list_cells(figures))
        for name, update in found["updates"].items()
        for kind, figures in update["kinds"].items()
    ]
    left_out = f"The first {MOST_ROWS} of {len(rows):,} rows." if len(rows) > MOST_ROWS else ""
    headings = ("training", "kind of layer", *HEADINGS)
    caption = "What each training changed of each kind of layer: numbers in the names are left out."
    return make_table(f"{source.slug}-kinds", caption, headings, rows[:MOST_ROWS], words=(0, 1), left_out=left_out)


def _list_threats(source: Source, found: Changes) -> list[str]:
    threats = [
        "That a weight changed says that it is stored as another number, and not that the change matters.",
        "In 16 bits small changes of large weights are lost: which weights change depends on their size first.",
    ]
    if found["overlaps"] is not None:
        threats.append(
            "Changes beyond chance may be shared by whole rows or columns, such as units that are never used, and "
            "need not be shared weight by weight."
        )
        threats.append(
            "Chance is right for trainings that began from these weights as stored; where a trainer kept copies in "
            "float32 from before, give those."
        )
    return [*threats, *list_unknown(source)]
