"""What several kinds say of layers: their sparsities in a figure, layer collapse, sparsity missed."""

from collections.abc import Mapping
from typing import Final

from statistical_report_generator.document import Figure
from statistical_report_generator.figures.layers import MOST_BARS, draw_layer_sparsities
from statistical_report_generator.sections.words import list_names, percent
from statistical_report_generator.sources import Source

MISSED: Final = 0.005  # half a point between asked and got


def draw_sparsities(source: Source, sparsities: Mapping[str, float], overall: float | None) -> Figure:
    """Returns the figure of layer sparsities.

    Args:
        source: The results.
        sparsities: By layer; at least one.
        overall: Of all weights together; None where it is not known.
    """
    least, most = (choose(sparsities, key=lambda name: sparsities[name]) for choose in (min, max))
    how = "One bar a layer" if len(sparsities) <= MOST_BARS else "Bars count layers"
    ends = " and ".join(f"{percent(sparsities[name])} % of {list_names([name])}" for name in (least, most))
    return Figure(
        name=f"{source.slug}-{source.kind}-layers",
        caption=f"Share of each layer's weights that the mask removes. {how}, {len(sparsities):,} layers; one mask, "
        "without intervals. Hatched layers keep nothing.",
        alternative=f"Of {len(sparsities):,} layers the mask removes between {ends}.",
        draw=lambda: draw_layer_sparsities(sparsities, overall, source.name),
    )


def list_collapsed(sparsities: Mapping[str, float]) -> list[str]:
    """Returns a sentence on the layers that a mask empties, where there are any.

    Args:
        sparsities: By layer.
    """
    emptied = [name for name, sparsity in sparsities.items() if sparsity == 1]
    if not emptied:
        return []
    return [
        f"Layer collapse: the mask keeps nothing of {list_names(emptied)}, so nothing that enters reaches what follows."
    ]


def list_missed(asked: float | None, actual: float | None) -> list[str]:
    """Returns a sentence on a sparsity that was asked for and not reached, where that is so.

    Args:
        asked: None where it is not known.
        actual: None where it is not known.
    """
    if asked is None or actual is None or abs(asked - actual) <= MISSED:
        return []
    return [f"Sparsity missed: {percent(asked, '.4g')} % was asked for, and {percent(actual, '.4g')} % is removed."]
