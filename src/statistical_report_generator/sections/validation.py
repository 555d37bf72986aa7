"""The sections on whether a model is pruned as its mask says."""

from collections.abc import Mapping
from typing import Any, Final

from statistical_report_generator.document import Points, PrunedWord, Section, Table, Text, Verdicts
from statistical_report_generator.schemas.performance import Validation, list_checks
from statistical_report_generator.sections.making import describe_making, list_unknown
from statistical_report_generator.sections.words import count, form, list_names, make_table, name_cell
from statistical_report_generator.sources import Source

RESULTS: Final = {True: "passed", False: "failed", None: "not checked"}
MEANINGS: Final[Mapping[str, str]] = {
    "shapes": "names and shapes of the mask are the model's",
    "binary": "the mask holds 0 and 1 only",
    "zeros": "pruned weights are exactly zero",
    "unchanged": "everything else is as before pruning",
    "no_dead_layer": "each layer keeps a weight",
    "gradient_flow": "each layer's kept weights get a finite gradient",
    "finite_outputs": "losses and outputs are finite",
    "performance": "it does about as well as before",
}


def describe_validation(source: Source) -> list[Section]:
    """Returns the sections on the checks of a pruned model.

    Args:
        source: What `validate_pruning_correctness` saved.
    """
    found: Validation = source.results
    checks = list_checks(found)
    failed = [name for name, check in checks.items() if check["passed"] is False]
    word: PrunedWord = "valid" if found["valid"] else "not valid"
    how = "The model is pruned as its mask says" if found["valid"] else "The model is not pruned as its mask says"
    answer = f"{how}: {len(checks) - len(failed)} of {len(checks)} checks did not fail"
    answer += f"; failed: {list_names(failed)}." if failed else "."
    performs = {
        True: "It does about as well as before pruning.",
        False: "It does worse than before pruning, which a rightly pruned model may.",
        None: "Whether it does as well as before pruning was not checked.",
    }[found.get("performs_well")]
    open_checks = [
        f"Not checked: {name_cell(name)}. {_reason(check)}" for name, check in checks.items() if check["passed"] is None
    ]
    threats = [
        *open_checks,
        *(
            ["The mask is not applied: the model was looked at as it would prune it."]
            if found.get("applied") is False
            else []
        ),
        "Correct is not good: a rightly pruned model may do badly, and a mask is no ticket until it was trained.",
        *list_unknown(source),
    ]
    return [
        Section("What was found", [Verdicts(((word, answer),)), Text(performs)]),
        Section("Check by check", [_tabulate(source, checks)]),
        describe_making(source),
        Section("Threats to validity", [Points(tuple(threats))]),
    ]


def _reason(check: Mapping[str, Any]) -> str:
    return str(check.get("reason", ""))


def _tabulate(source: Source, checks: Mapping[str, Any]) -> Table:
    rows = tuple(
        (name_cell(name), RESULTS[check["passed"]], MEANINGS.get(name, ""), _list_figures(check))
        for name, check in checks.items()
    )
    headings = ("check", "result", "what must hold", "figures")
    return make_table(f"{source.slug}-checks-made", "What was checked.", headings, rows, words=range(4))


def _list_figures(check: Mapping[str, Any]) -> str:
    figures = []
    for name, value in check.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        figures.append(f"{name_cell(name)} {count(value) if isinstance(value, int) else form(value)}")
    return ", ".join(figures)
