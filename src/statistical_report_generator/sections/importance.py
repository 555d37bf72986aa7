"""The sections on scores: where the important weights are, and how far the scores can be trusted."""

from collections.abc import Mapping
from typing import Final

from statistical_report_generator.document import Block, Figure, MaskWord, Points, Section, Table, Text, Verdicts
from statistical_report_generator.figures.importance import choose_maps, draw_importance
from statistical_report_generator.figures.layers import choose_layers
from statistical_report_generator.schemas.masks import Importance, Scores
from statistical_report_generator.sections.costs import add_costs
from statistical_report_generator.sections.layers import draw_sparsities, list_collapsed, list_missed
from statistical_report_generator.sections.making import describe_making, list_unknown
from statistical_report_generator.sections.words import (
    MOST_ROWS,
    count,
    form,
    list_names,
    make_table,
    name_cell,
    percent,
)
from statistical_report_generator.sources import Source

SCOPES: Final = {"global": "with each other", "layer": "within each layer", "row": "within each row"}
FEW_SAMPLES: Final = 200
NOISY: Final = 0.5  # of a mean score, what its standard error is at most
HEADINGS: Final = ("layer", "shape", "mean", "standard deviation", "median", "largest", "mean standard error")


def describe_importance(source: Source) -> list[Section]:
    """Returns the sections on the scores of a network's weights.

    Args:
        source: What the command `score` or the analyzer saved, or `save_results` of `importance`.
    """
    found: Importance = source.results
    scores = found["importance"]
    blocks: list[Block] = [*_answer(found), *_draw(source, scores)]
    sparsities = found.get("layer_sparsities")
    if sparsities:
        blocks.append(draw_sparsities(source, sparsities, found.get("actual_sparsity", found.get("sparsity"))))
    return [
        Section("What was found", blocks),
        Section("By layer", [_tabulate(source, found)]),
        describe_making(source, {"report": scores["report"], "scope": found.get("scope")}),
        Section("Threats to validity", [Points(tuple(_list_threats(source, found)))]),
    ]


def _answer(found: Importance) -> list[Block]:
    report, scores = found["importance"]["report"], found["importance"]["scores"]
    means = {name: summary.get("mean") for name, summary in scores.items()}
    largest = _find_largest(means)
    num = report.get("num_samples")
    samples = "" if num is None else f", averaged over {count(num)} samples"
    words = (
        f"Scores are {report['score']}{samples}. Of {len(scores):,} layers {name_cell(largest)} has the largest mean "
        f"score, {form(means[largest], '.3g', 'unknown')}."
    )
    if found.get("sparsity") is not None:
        words += f" The mask of the largest removes {percent(found['sparsity'], '.4g')} % of the weights"
        scope = found.get("scope")
        words += f", compared {SCOPES.get(scope, f'by scope {name_cell(scope)}')}." if scope else "."
    blocks: list[Block] = [Text(words)]
    settling = report.get("settling")
    if report.get("settled") is not None and settling:
        last = settling[-1]
        changed = (
            f"the last doubling, to {count(last['num_samples'])} samples, changed {percent(last['changed'])} % of it"
        )
        word: MaskWord = "settled" if report["settled"] else "not settled"
        blocks.append(Verdicts(((word, f"The mask of the largest scores: {changed}."),)))
    return blocks


def _find_largest(means: Mapping[str, float | None]) -> str:
    known = {name: float("-inf") if mean is None else mean for name, mean in means.items()}
    return max(known, key=known.__getitem__)


def _draw(source: Source, scores: Scores) -> list[Figure]:
    names = choose_maps(scores["scores"])
    if not names:
        return []
    num, left_out = len(scores["scores"]), len(scores["scores"]) - len(names)
    rest = f" {left_out:,} layers with smaller means, or without rows and columns, are left out." if left_out else ""
    means = {name: scores["scores"][name].get("mean") for name in names}
    largest = _find_largest(means)
    return [
        Figure(
            name=f"{source.slug}-heat-maps",
            caption=f"Mean score of blocks of weights, {len(names)} of {num:,} layers, rows are outputs and columns "
            f"inputs; all on one scale, grey is 0.{rest}",
            alternative=f"Heat maps of the scores of {len(names)} layers; the largest mean, "
            f"{form(means[largest], '.3g', 'unknown')}, is that of {name_cell(largest)}.",
            draw=lambda: draw_importance(scores["scores"], source.name),
        )
    ]


def _tabulate(source: Source, found: Importance) -> Table:
    scores, errors = found["importance"]["scores"], found["importance"].get("standard_errors") or {}
    names = choose_layers({name: summary.get("mean") for name, summary in scores.items()}, MOST_ROWS)
    sparsities = found.get("layer_sparsities") or {}
    rows = []
    for name in names:
        summary = scores[name]
        quantiles = summary.get("quantiles", {})
        cells = (
            name_cell(name),
            "x".join(map(str, summary["shape"])),
            form(summary.get("mean"), ".3e", ""),
            form(summary.get("std"), ".3e", ""),
            form(quantiles.get("0.5"), ".3e", ""),
            form(quantiles.get("1.0"), ".3e", ""),
            form(errors[name].get("mean") if name in errors else None, ".3e", ""),
        )
        rows.append((*cells, percent(sparsities.get(name), missing="")) if sparsities else cells)
    headings = (*HEADINGS, "removed, %") if sparsities else HEADINGS
    left_out = f"The {len(rows)} layers with the largest means, of {len(scores):,}." if len(rows) < len(scores) else ""
    table = make_table(f"{source.slug}-scores", "Scores by layer.", headings, rows, words=(0, 1), left_out=left_out)
    shown = ({name: sparsities[name]} if name in sparsities else None for name in names)
    return add_costs(table, source, shown, of_layers=True)


def _list_threats(source: Source, found: Importance) -> list[str]:
    report, scores = found["importance"]["report"], found["importance"]["scores"]
    num = report.get("num_samples")
    threats = []
    if num is not None and num < FEW_SAMPLES:
        threats.append(f"Only {count(num)} samples: scores of others may rank the weights differently.")
    if report.get("settled") is False:
        threats.append("The ranking had not settled: with more samples the mask would still change.")
    if num is not None and report.get("settled") is None:
        threats.append('Whether the ranking has settled was not measured: num_samples="auto" does.')
    threats += _doubt_errors(found["importance"], has_samples=num is not None)
    for name, words in (("num_nonfinite_samples", "left out, not finite"), ("num_clipped_samples", "clipped")):
        if number := report.get(name):
            threats.append(f"Gradients of {count(number)} samples were {words}.")  # type: ignore[arg-type]  # a count
    actual = found.get("actual_sparsity")
    return [
        *threats,
        *list_collapsed(found.get("layer_sparsities") or {}),
        *list_missed(found.get("sparsity"), actual),
        *(
            [f"{list_names(empty)} has no weight."]
            if (empty := [n for n, s in scores.items() if 0 in s["shape"]])
            else []
        ),
        "A score says what one weight is worth while all others stay: together they may be worth more or less.",
        "Nothing was trained: a mask from scores is no winning ticket until it has won against its controls.",
        *list_unknown(source),
    ]


def _doubt_errors(scores: Scores, *, has_samples: bool) -> list[str]:
    errors = scores.get("standard_errors")
    if not errors:
        return ["Scores have no standard errors, so it is not known how far chance moved them."] if has_samples else []
    noisy = [
        name
        for name, error in errors.items()
        if name in scores["scores"]
        and (mean := scores["scores"][name].get("mean")) is not None
        and (spread := error.get("mean")) is not None
        and spread > NOISY * abs(mean)
    ]
    if not noisy:
        return []
    return [f"Standard errors are more than half of the scores in {list_names(noisy)}: their ranks are mostly chance."]
