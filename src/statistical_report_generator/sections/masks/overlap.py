"""The sections on what masks have in common, beside what chance gives."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from scipy import stats

from statistical_report_generator.document import Block, Figure, MaskWord, Points, Section, Table, Text, Verdicts
from statistical_report_generator.figures.layers import MOST_BARS, choose_layers, draw_layer_overlaps
from statistical_report_generator.figures.overlap import draw_overlap_matrix
from statistical_report_generator.schemas.masks import FINEST, Given, GivenPair, LayerOverlap, Overlap, OverlapMatrix
from statistical_report_generator.sections.costs import add_costs
from statistical_report_generator.sections.making import describe_making, list_unknown
from statistical_report_generator.sections.words import MOST_ROWS, count, form, make_table, name_cell, percent
from statistical_report_generator.sources import Source

ALPHA: Final = 0.001  # how often unrelated masks are said to be beyond or below chance, each
NO_CHANCE: Final = "chance gives all"
NO_RATIO: Final = "-"
NULLS: Final = {
    "naive": "of all weights",
    "layer": "of each layer",
    "exponent": "of each exponent in each layer",
    "value": "of each value, to 7 bits, in each layer",
}
MOST_MASKS: Final = 30  # whose pairs have a row each


def describe_overlap(source: Source) -> list[Section]:
    """Returns the sections on what two masks have in common.

    Args:
        source: What `compute_ticket_overlap` saved.
    """
    found: Overlap = source.results
    words = (
        f"The {found['method']} overlap of both masks is {percent(found['overall_overlap'])} %; unrelated masks of the "
        f"same layer densities would have {percent(found['expected_overlap'])} %"
    )
    given = found.get("given")
    p_value = None if given else _compute_p_value(found["layer_overlaps"])
    blocks: list[Block] = [Verdicts((say_given(given, "The masks"),)) if given else Text(f"{words}.")]
    if p_value is not None:
        beyond, below = p_value
        word: MaskWord = "beyond chance" if beyond < ALPHA else "below chance" if below < ALPHA else "at chance"
        chance = f"unrelated masks share as {'few' if word == 'below chance' else 'many'} weights with p = "
        blocks = [Verdicts(((word, f"{words}; {chance}{min(beyond, below) if word != 'at chance' else beyond:.2g}."),))]
    return [
        Section("What was found", [*blocks, *_draw_layers(source, found["layer_overlaps"], found["method"])]),
        *([Section("Beside chance", [_tabulate_nulls(source, [("both", given)])])] if given else []),
        *_tabulate_layers(source, found["layer_overlaps"]),
        describe_making(source, {"method": found["method"]}),
        Section("Threats to validity", [Points(tuple(_list_threats(source)))]),
    ]


def describe_overlap_matrix(source: Source) -> list[Section]:
    """Returns the sections on what many masks have in common, pair by pair.

    Args:
        source: What `compute_overlap_matrix` or the command `compare` saved.
    """
    found: OverlapMatrix = source.results
    num, layers = len(found["names"]), found.get("layers") or {}
    pairs = found.get("pairs", [])
    verdicts = tuple(say_given(pair, name_pair(pair)) for pair in pairs)
    blocks: list[Block] = [Verdicts(verdicts) if pairs else Text(_answer(found)), _draw_matrix(source, found)]
    return [
        Section("What was found", [*blocks, *_draw_layers(source, layers, found["method"])]),
        *describe_nulls(source, pairs),
        Section("By mask and by pair", [_tabulate_masks(source, found), *_tabulate_pairs(source, found)]),
        *_tabulate_layers(source, layers),
        describe_making(source, {"method": found["method"], "masks": num}),
        Section("Threats to validity", [Points(tuple(_list_threats(source)))]),
    ]


def say_given(given: Given, who: str) -> tuple[MaskWord, str]:
    """Returns the verdict on what two masks share, given the weights they were made of, and the sentence on it.

    Args:
        given: Beside the nulls.
        who: The masks, in a sentence.
    """
    finest = given["nulls"][FINEST]
    if finest["ratio"] is None:
        return given["verdict"], f"{who}: no weight is expected in both."
    interval = f"{form(finest['low'], '.3f')} to {form(finest['high'], '.3f')}"
    rate = f"the error rate is {percent(given['error_rate'], '.2g')} % on either side"
    return given["verdict"], (
        f"{who} share {form(finest['ratio'], '.3f')} times as many weights as is expected of independent masks, given "
        f"layer, exponent and value ({interval}; {rate})."
    )


def name_pair(pair: GivenPair) -> str:
    """Returns the names of two masks in a sentence.

    Args:
        pair: Of the results.
    """
    return f"{name_cell(pair['first'])} and {name_cell(pair['second'])}"


def describe_nulls(source: Source, pairs: Sequence[GivenPair]) -> list[Section]:
    """Returns the section on what pairs of masks share beside each null; none where there is no pair.

    Args:
        source: The results.
        pairs: Of the results.
    """
    named = [(name_pair(pair), pair) for pair in pairs]
    return [Section("Beside chance", [_tabulate_nulls(source, named)])] if pairs else []


def _tabulate_nulls(source: Source, pairs: Sequence[tuple[str, Given]]) -> Table:
    rows = [
        (
            name,
            NULLS.get(null, name_cell(null)),
            form(figures["expected_both"], ",.1f"),
            form(figures["ratio"], ".3f", NO_RATIO),
            form(figures["low"], ".3f", NO_RATIO),
            form(figures["high"], ".3f", NO_RATIO),
        )
        for name, given in pairs
        for null, figures in given["nulls"].items()
    ]
    left_out = f"The first {MOST_ROWS} of {len(rows):,} rows." if len(rows) > MOST_ROWS else ""
    caption = "Weights in both masks over those expected, with an interval; the verdict is on the last of each pair."
    headings = ("masks", "chance keeps the density", "expected in both", "ratio", "low", "high")
    shown = rows[:MOST_ROWS]
    return make_table(f"{source.slug}-nulls", caption, headings, shown, words=(0, 1), left_out=left_out)


def _list_pairs(found: OverlapMatrix) -> list[tuple[int, int]]:
    num = len(found["names"])
    return [(row, column) for row in range(num) for column in range(row + 1, num)]


def _answer(found: OverlapMatrix) -> str:
    pairs, names = _list_pairs(found), found["names"]
    if not pairs:
        return f"There is one mask alone, {name_cell(names[0])}: nothing to compare it with."
    overlaps, expected = found["overlaps"], found["expected"]
    most, least = (choose(pairs, key=lambda pair: overlaps[pair[0]][pair[1]]) for choose in (max, min))
    words = [
        f"{which} {name_cell(names[row])} and {name_cell(names[column])} with {percent(overlaps[row][column])} %, "
        f"where unrelated masks would have {percent(expected[row][column])} %"
        for which, (row, column) in (("Most in common have", most), ("least", least))
    ]
    return f"{'; '.join(words[: min(2, len(pairs))])} ({found['method']})."


def _compute_p_value(layers: Mapping[str, LayerOverlap]) -> tuple[float, float] | None:
    """Returns how often unrelated masks share at least, and at most, as many weights; None where counts are missing.

    Of n weights, of which the masks keep a and b, unrelated masks share hypergeometrically many; over layers these add
    up, and their sum is near to normal (Harkness 1965).
    """
    excess, variance = 0.0, 0.0
    for layer in layers.values():
        counts = _read_counts(layer)
        if counts is None:
            return None
        both, first, second, num = counts
        if num > 1:
            excess += both - first * second / num
            variance += first * second / num * (num - first) / num * (num - second) / (num - 1)
    if not variance or not math.isfinite(variance):
        return None
    z = excess / math.sqrt(variance)
    return float(stats.norm.sf(z)), float(stats.norm.cdf(z))


def _read_counts(layer: Any) -> tuple[int, int, int, int] | None:  # noqa: ANN401 - counts may be missing
    both, kept, num = layer.get("num_both"), layer.get("num_kept"), layer.get("num_weights")
    if not isinstance(kept, list) or len(kept) != 2:  # noqa: PLR2004 - of two masks
        return None
    counts = (both, *kept, num)
    if not all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in counts):
        return None
    if both > min(kept) or max(kept) > num:
        return None
    return both, kept[0], kept[1], num


def _draw_matrix(source: Source, found: OverlapMatrix) -> Figure:
    return Figure(
        name=f"{source.slug}-overlap-matrix",
        caption=f"{found['method']} overlap of each pair of {len(found['names']):,} masks, and beside it what "
        "unrelated masks of the same layer densities would have; one value a pair, without intervals.",
        alternative=_answer(found),
        draw=lambda: draw_overlap_matrix(found, source.name),
    )


def _far_from_chance(layers: Mapping[str, LayerOverlap]) -> dict[str, float | None]:
    return {name: abs(layer["overlap"] - layer["expected"]) for name, layer in layers.items()}


def _draw_layers(source: Source, layers: Mapping[str, LayerOverlap], method: str) -> list[Figure]:
    if not layers:
        return []
    shown = {name: layers[name] for name in choose_layers(_far_from_chance(layers), MOST_BARS)}
    rest = f" The {len(shown)} layers farthest from chance, of {len(layers):,}." if len(shown) < len(layers) else ""
    most = max(shown, key=lambda name: shown[name]["overlap"])
    return [
        Figure(
            name=f"{source.slug}-layer-overlaps",
            caption=f"Overlap of two masks by layer, points; bars are what unrelated masks would have.{rest}",
            alternative=f"Of {len(layers):,} layers {name_cell(most)} has most in common, "
            f"{percent(shown[most]['overlap'])} %, where chance gives {percent(shown[most]['expected'])} %.",
            draw=lambda: draw_layer_overlaps(shown, method, source.name),
        )
    ]


def _tabulate_masks(source: Source, found: OverlapMatrix) -> Table:
    rows = [
        (str(number + 1), name_cell(name), percent(density))
        for number, (name, density) in enumerate(zip(found["names"], found["densities"], strict=True))
    ][:MOST_ROWS]
    table = make_table(f"{source.slug}-masks", "The masks.", ("number", "mask", "kept, %"), rows, words=(1,))
    return add_costs(table, source, found.get("layer_sparsities", [None] * len(rows))[:MOST_ROWS])


def _tabulate_pairs(source: Source, found: OverlapMatrix) -> list[Table]:
    pairs = _list_pairs(found)
    shown = sorted(pairs, key=lambda pair: -found["overlaps"][pair[0]][pair[1]])[:MOST_ROWS]
    if not shown:
        return []
    rows = [
        (
            f"{row + 1} and {column + 1}",
            percent(found["overlaps"][row][column]),
            percent(found["expected"][row][column]),
            form(found["adjusted"][row][column], ".3f", NO_CHANCE),
        )
        for row, column in shown
    ]
    left_out = f"The {len(shown)} pairs with most in common, of {len(pairs):,}." if len(shown) < len(pairs) else ""
    caption = "Pairs of masks by number. Beyond chance: 0 is chance, 1 is equal."
    headings = ("masks", "overlap, %", "by chance, %", "beyond chance")
    return [make_table(f"{source.slug}-pairs-of-masks", caption, headings, rows, left_out=left_out)]


def _tabulate_layers(source: Source, layers: Mapping[str, LayerOverlap]) -> list[Section]:
    if not layers:
        return []
    rows = [
        (
            name_cell(name),
            percent(layers[name]["overlap"]),
            percent(layers[name]["expected"]),
            form(layers[name]["adjusted"], ".3f", NO_CHANCE),
        )
        for name in choose_layers(_far_from_chance(layers), MOST_ROWS)
    ]
    left_out = (
        f"The {len(rows)} layers farthest from chance, of {count(len(layers))}." if len(rows) < len(layers) else ""
    )
    headings = ("layer", "overlap, %", "by chance, %", "beyond chance")
    caption = "Two masks by layer. Beyond chance: 0 is chance, 1 is equal."
    return [Section("By layer", [make_table(f"{source.slug}-overlaps", caption, headings, rows, left_out=left_out)])]


def _list_threats(source: Source) -> list[str]:
    return [
        "Overlap beyond chance need not come from training: masks of one start, or of one score, share weights anyway.",
        (
            "Chance here keeps each mask's density in each layer, and scatters it: masks that crowd in the same rows "
            "or columns for other reasons are beyond it too."
        ),
        "An overlap says that masks agree, and not that either of them is a winning ticket.",
        *list_unknown(source),
    ]
