"""What several kinds say of layers: their sparsities in figures and tables, layer collapse, sparsity missed."""

from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Final

from statistical_report_generator.document import Figure, Section, Table
from statistical_report_generator.figures.layers import MOST_BARS, choose_layers, draw_layer_sparsities
from statistical_report_generator.schemas.experiments import Experiment, Layer, Training
from statistical_report_generator.sections.words import (
    MOST_ROWS,
    count,
    list_names,
    make_table,
    name_cell,
    percent,
)
from statistical_report_generator.sources import Source

Layers = Mapping[str, Layer]
MOST_RUNS: Final = 30  # columns of a table
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


def describe_kept(source: Source) -> list[Section]:
    """Returns the section on what the sparsest tickets of an experiment keep of each layer; none where that is unknown.

    Args:
        source: The experiment.
    """
    results: Experiment = source.results
    pruned = [row for row in results["trainings"] if row["level"] and row["branch"] in ("ticket", "simulated")]
    last = max((row["level"] for row in pruned), default=0)
    runs = {row["replicate"]: row["layers"] for row in pruned if row["level"] == last and row.get("layers")}
    names = next(iter(runs.values()), {})
    runs = {replicate: layers for replicate, layers in runs.items() if layers.keys() == names.keys()}
    if not runs:
        return []
    shares = {name: [_find_sparsity([layers[name]]) for layers in runs.values()] for name in names}
    sparsities = {name: fmean(values) for name, values in shares.items()}
    overall = fmean(_find_sparsity(layers.values()) for layers in runs.values())
    least, most = (choose(sparsities, key=lambda name: sparsities[name]) for choose in (min, max))
    ends = " and ".join(f"{percent(sparsities[name])} % of {list_names([name])}" for name in (least, most))
    how = "one bar a layer, faint points are single runs" if len(shares) <= MOST_BARS else "bars count layers"
    figure = Figure(
        name=f"{source.slug}-layers",
        caption=f"Share of each layer's weights that the tickets of level {last} remove: means of {len(runs)} "
        f"{'run' if len(runs) == 1 else 'runs'}, {how}. Hatched layers keep nothing in any run.",
        alternative=f"Of {len(shares):,} layers the tickets of level {last} remove between {ends}.",
        draw=lambda: draw_layer_sparsities(sparsities, overall, source.name, shares),
    )
    far = {name: abs(sparsity - overall) for name, sparsity in sparsities.items()}
    return [Section("By layer", [figure, _tabulate_kept(source, last, runs, choose_layers(far, MOST_ROWS))])]


def average_sparsities(source: Source, level: int, branch: str) -> dict[str, float] | None:
    """Returns by layer the mean sparsity of the trainings of one level and branch; None where they do not say.

    Args:
        source: The experiment.
        level: 0 is the dense network, which has none.
        branch: "ticket" or a control.
    """
    if level == 0:
        return {}
    rows: list[Training] = source.results["trainings"]
    runs = [row.get("layers") or {} for row in rows if (row["level"], row["branch"]) == (level, branch)]
    if not all(runs) or len({frozenset(layers) for layers in runs}) != 1:
        return None
    return {name: fmean(_find_sparsity([layers[name]]) for layers in runs) for name in runs[0]}


def _tabulate_kept(source: Source, level: int, runs: Mapping[int, Layers], names: list[str]) -> Table:
    shown = dict(list(runs.items())[:MOST_RUNS])
    first = next(iter(shown.values()))
    rows = [
        (name_cell(name), count(first[name]["num_weights"]), *(count(one[name]["num_kept"]) for one in shown.values()))
        for name in names
    ]
    notes = [f"The {len(names)} layers farthest from the whole, of {len(first):,}."] if len(names) < len(first) else []
    notes += [f"The first {len(shown)} of {len(runs):,} runs."] if len(shown) < len(runs) else []
    return make_table(
        f"{source.slug}-kept",
        f"Weights that the tickets of level {level} keep of each layer.",
        ("layer", "weights", *(f"kept, run {replicate}" for replicate in shown)),
        rows,
        left_out=" ".join(notes),
    )


def _find_sparsity(layers: Iterable[Layer]) -> float:
    counted = list(layers)
    return 1 - sum(one["num_kept"] for one in counted) / max(1, sum(one["num_weights"] for one in counted))


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
