"""The sections on a loss landscape."""

from typing import Final

from statistical_report_generator.document import Block, Figure, Points, Section, Text
from statistical_report_generator.figures.landscape import draw_loss_landscape
from statistical_report_generator.schemas.landscape import Landscape
from statistical_report_generator.sections.making import describe_making, list_unknown
from statistical_report_generator.sections.words import count, form, make_table, percent
from statistical_report_generator.sources import Source

FEW_SAMPLES: Final = 1000


def describe_landscape(source: Source) -> list[Section]:
    """Returns the sections on the losses around a network.

    Args:
        source: What `compute_loss_landscape` or the command `landscape` saved.
    """
    found: Landscape = source.results
    tables: list[Block] = []
    if found.get("sharpness"):
        rows = [
            (form(rise["radius"]), form(rise["mean_rise"], ".4g"), form(rise["largest_rise"], ".4g"))
            for rise in found["sharpness"]
        ]
        caption = "How much the loss rises on ellipses around the network, over 64 directions in the plane."
        headings = ("radius, share of the span", "mean rise", "largest rise")
        tables.append(make_table(f"{source.slug}-sharpness", caption, headings, rows, words=()))
    named = ("mode", "span", "seeds", "normalisation")
    settings = {name: value for name, value in source.results.items() if name in named}
    return [
        Section("What was found", [Text(_answer(found)), _draw(source, found)]),
        *([Section("Sharpness", tables)] if tables else []),
        describe_making(source, {**settings, **(found.get("settings") or {})}),
        Section("Threats to validity", [Points(tuple(_list_threats(source, found)))]),
    ]


def _list_losses(found: Landscape) -> list[float]:
    return [loss for row in found["losses"] for loss in row if loss is not None]


def _answer(found: Landscape) -> str:
    centre, losses = found["centre"]["loss"], _list_losses(found)
    where = "on the line to the other network" if found["mode"] == "line" else "on a plane of two random directions"
    words = f"The loss of the network is {form(centre)}"
    if losses:
        words += f"; {where} it lies between {form(min(losses))} and {form(max(losses))} at {count(len(losses))} points"
    rises = [rise for rise in found.get("sharpness", []) if rise["mean_rise"] is not None]
    if rises:
        last = rises[-1]
        words += (
            f". At {percent(last['radius'], '.3g')} % of the span it is {form(last['mean_rise'])} higher on average, "
            f"and {form(last['largest_rise'])} at most"
        )
    return f"{words}."


def _draw(source: Source, found: Landscape) -> Figure:
    losses = _list_losses(found)
    span = f"between {form(min(losses))} and {form(max(losses))}" if losses else "not finite anywhere"
    caption = (
        "The loss at points around the network, which is the cross; grey is not finite or not measured."
        if min(len(found["x"]), len(found["y"])) > 1
        else "The loss at points on a line; the dashed line is the network itself."
    )
    return Figure(
        name=f"{source.slug}-landscape",
        caption=f"{caption} One measurement a point, without intervals.",
        alternative=f"The loss is {form(found['centre']['loss'])} at the network itself, and {span} around it.",
        draw=lambda: draw_loss_landscape(found),
    )


def _list_threats(source: Source, found: Landscape) -> list[str]:
    num_points, known = len(found["x"]) * len(found["y"]), len(_list_losses(found))
    num_nonfinite, num_measured = found.get("num_nonfinite", 0), found.get("num_measured", num_points)
    threats = []
    if found["mode"] == "plane":
        threats.append(
            "This is one plane of two random directions, of as many dimensions as there are weights: what it shows "
            "need not hold along others; draw it with other seeds."
        )
    if num_nonfinite:
        threats.append(f"At {count(num_nonfinite)} of {count(num_points)} points the loss is not finite.")
    if num_measured < num_points:
        threats.append(f"Only {count(num_measured)} of {count(num_points)} points are measured: it was interrupted.")
    elif known < num_points and not num_nonfinite:
        threats.append(f"{count(num_points - known)} of {count(num_points)} points have no loss.")
    num_samples = found["centre"].get("num_predictions")
    if isinstance(num_samples, int) and num_samples < FEW_SAMPLES:
        threats.append(f"Each point was measured on {count(num_samples)} predictions alone; others move the surface.")
    return [
        *threats,
        "A flat surface does not show that a network generalises: this is the loss of the data it was measured on.",
        *list_unknown(source),
    ]
