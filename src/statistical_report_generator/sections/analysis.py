"""The section on what the analyzer ran: how long each analysis took, and what failed."""

from statistical_report_generator.document import Block, Section, Table, Text, Verdicts
from statistical_report_generator.schemas.analysis import Analysed, Analysis
from statistical_report_generator.sections.making import describe_making
from statistical_report_generator.sections.words import MOST_ROWS, count, form, make_table, name_cell
from statistical_report_generator.sources import Source


def describe_analysis(source: Source) -> list[Section]:
    """Returns the sections on the run itself; what its analyses found has sections of its own.

    Args:
        source: What the analyzer saved as analysis.json.
    """
    found: Analysis = source.results
    entries = found["analyses"]
    blocks: list[Block] = [
        Text(_answer(found)),
        Verdicts(tuple((entry["status"], _tell(entry)) for entry in entries[:MOST_ROWS])),
    ]
    return [
        Section("What was run", blocks),
        Section("How long it took", [_tabulate(source, entries)], technical=True),
        describe_making(source, {"model": found["model"], **(found.get("settings") or {})}),
    ]


def _answer(found: Analysis) -> str:
    model, entries = found["model"], found["analyses"]
    num = sum(entry["status"] == "finished" for entry in entries)
    words = f"{num} of {len(entries)} analyses finished, on {name_cell(model.get('name') or 'a model without a name')}"
    sizes = [
        f"{count(model.get(key))} {what}"  # type: ignore[arg-type]  # a count
        for key, what in (
            ("num_parameters", "parameters"),
            ("num_prunable", "of them prunable"),
            ("num_layers", "layers"),
        )
        if model.get(key) is not None
    ]
    return f"{words} ({', '.join(sizes)})." if sizes else f"{words}."


def _tell(entry: Analysed) -> str:
    words = name_cell(entry["name"])
    if entry["status"] == "finished" and entry.get("conclusion"):
        words += f": {entry['conclusion']}"
    if entry["status"] == "failed":
        words += f": {entry.get('error') or 'without an error that was recorded'}"
    if entry["status"] in ("interrupted", "waiting"):
        words += ": the same call goes on with it"
    return f"{words.rstrip('.')}."


def _tabulate(source: Source, entries: list[Analysed]) -> Table:
    rows = [
        (
            name_cell(entry["name"]),
            name_cell(entry["kind"]),
            entry["status"],
            form(entry.get("seconds"), ".3g", ""),
            form(entry.get("expected_seconds"), ".3g", ""),
        )
        for entry in entries[:MOST_ROWS]
    ]
    headings = ("analysis", "kind", "status", "seconds", "expected seconds")
    left_out = f"The first {MOST_ROWS} of {len(entries):,}." if len(entries) > MOST_ROWS else ""
    return make_table(f"{source.slug}-analyses", "What was run.", headings, rows, words=(0, 1, 2), left_out=left_out)
