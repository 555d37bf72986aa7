"""The sections on a network as it is, and under a mask, not retrained."""

from typing import Final

from statistical_report_generator.document import Points, Section, Table, Text, Verdicts
from statistical_report_generator.schemas.performance import ModelPerformance, Quality
from statistical_report_generator.sections.costs import add_costs
from statistical_report_generator.sections.layers import list_missed
from statistical_report_generator.sections.making import describe_making, find_asked, list_unknown
from statistical_report_generator.sections.words import count, figure_of, form, make_table, percent
from statistical_report_generator.sources import Source

FEW_PREDICTIONS: Final = 1000


def describe_quality(source: Source) -> list[Section]:
    """Returns the sections on what a mask costs a network as it is; the ticket trained again has sections of its own.

    Args:
        source: What `compute_lottery_ticket_quality` saved.
    """
    found: Quality = source.results
    metric, retention = found["metric"], found["performance_retention"]
    before, after = (figure_of(metric, found[key]) for key in ("baseline_performance", "ticket_performance"))
    kept = "the ratio of both has no meaning" if retention is None else f"{percent(retention, '.1f')} % is kept"
    answer = (
        f"At sparsity {percent(found['sparsity'])} %, not retrained, {metric} goes from {before} to {after}; {kept}."
    )
    return [
        Section("What was found", [Verdicts((("post-hoc", answer),))]),
        Section("Before and after", [_tabulate(source, found)]),
        describe_making(source, {"metric": metric, "kind": found.get("kind", "post-hoc")}),
        Section("Threats to validity", [Points(tuple(_list_threats(source, found)))]),
    ]


def _tabulate(source: Source, found: Quality) -> Table:
    cells = [("loss", form(found["baseline_loss"]), form(found["ticket_loss"]))]
    baseline, ticket = found.get("baseline", {}), found.get("ticket", {})
    for name in ("accuracy", "perplexity"):
        if baseline.get(name) is not None:
            scaled = percent if name == "accuracy" else form
            label = "accuracy, %" if name == "accuracy" else name
            cells.append((label, scaled(baseline.get(name)), scaled(ticket.get(name))))  # type: ignore[arg-type]  # numbers
    if found["metric"] not in ("loss", "accuracy", "perplexity"):
        cells.append((found["metric"], form(found["baseline_performance"]), form(found["ticket_performance"])))
    headings, before, after = zip(*cells, strict=True)
    rows = [("as it is", percent(0.0), *before), ("under the mask", percent(found["sparsity"]), *after)]
    caption = "The network as it is, and with the mask on its present weights; one measurement each."
    table = make_table(f"{source.slug}-quality", caption, ("network", "sparsity, %", *headings), rows)
    return add_costs(table, source, ({}, found.get("layer_sparsities")))


def _list_threats(source: Source, found: Quality) -> list[str]:
    num = found.get("baseline", {}).get("num_predictions")
    threats = [
        "Post-hoc: nothing was retrained, so this says what pruning costs now, and nothing about a ticket.",
    ]
    if isinstance(num, int) and num < FEW_PREDICTIONS:
        threats.append(f"Measured on {count(num)} predictions alone, once, without an interval.")
    if found["ticket_performance"] is None or found["ticket_loss"] is None:
        threats.append("Under the mask the network's outputs are not finite.")
    return [
        *threats,
        *list_missed(find_asked(source), found["sparsity"]),
        "No random mask of the same sparsity was measured beside it: see the robustness for one.",
        *list_unknown(source),
    ]


def describe_performance(source: Source) -> list[Section]:
    """Returns the sections on how well a network does without a mask.

    Args:
        source: What `compute_performance` saved.
    """
    found: ModelPerformance = source.results
    figures = figure_of(found["metric"], found["performance"])
    num_predictions = count(found["num_predictions"])
    answer = f"As it is, the network has {found['metric']} {figures}, over {num_predictions} predictions."
    threats = ["One measurement of one network, without an interval over trainings."]
    if found["num_predictions"] < FEW_PREDICTIONS:
        threats.append(f"Measured on {num_predictions} predictions alone.")
    return [
        Section("What was found", [Text(answer)]),
        Section("Figures", [_tabulate_performance(source, found)]),
        describe_making(source, {"metric": found["metric"]}),
        Section("Threats to validity", [Points((*threats, *list_unknown(source)))]),
    ]


def _tabulate_performance(source: Source, found: ModelPerformance) -> Table:
    values = {"loss": found["loss"], "accuracy": found.get("accuracy"), "perplexity": found.get("perplexity")}
    values = {name: value for name, value in values.items() if name == "loss" or value is not None}
    rows = [(name, figure_of(name, value)) for name, value in {**values, found["metric"]: found["performance"]}.items()]
    return make_table(f"{source.slug}-performance", "The network as it is.", ("figure", "value"), rows)
