"""How results were made: command, settings, versions; the same for all kinds."""

from collections.abc import Mapping
from typing import Any, Final

from statistical_report_generator.document import Section, Table, Text
from statistical_report_generator.figures.words import shorten
from statistical_report_generator.schemas.common import Provenance
from statistical_report_generator.sections.words import form
from statistical_report_generator.sources import Source

MOST_SETTINGS: Final = 5000
LONGEST_VALUE: Final = 600
MADE: Final = "How it was made"


def describe_making(source: Source, settings: Mapping[str, Any] | None = None) -> Section:
    """Returns the section on how results were made: what they say of it themselves, and their settings.

    Args:
        source: The results.
        settings: That they hold outside of their provenance.
    """
    provenance: Provenance = source.results.get("provenance") or Provenance()
    told = {
        name: provenance.get(name)
        for name in ("started", "wall_seconds", "command", "commit")
        if provenance.get(name) is not None
    }
    groups: dict[str, Any] = {
        **told,
        "settings": {**(provenance.get("settings") or {}), **(settings or {})},
        "environment": provenance.get("environment") or {},
        "hardware": provenance.get("hardware") or {},
    }
    blocks: list[Text | Table] = []
    if provenance.get("command"):
        took = provenance.get("wall_seconds")
        lasted = "" if took is None else f" It took {form(took, '.3g')} seconds."
        blocks.append(Text(f"Made by: {provenance['command']}.{lasted} The same command makes it again."))
    else:
        blocks.append(Text("The results do not say which command made them."))
    if rows := flatten(groups):
        blocks.append(tabulate_settings(source, rows))
    return Section(MADE, blocks, technical=True)


def tabulate_settings(source: Source, rows: list[tuple[str, str]]) -> Table:
    """Returns the table of settings.

    Args:
        source: The results.
        rows: Names with values.
    """
    left_out = len(rows) - MOST_SETTINGS
    words = f" {left_out:,} more are in the file." if left_out > 0 else ""
    return Table(
        f"{source.slug}-{source.kind}-settings",
        f"What was asked for, and what computed it.{words}",
        ("setting", "value"),
        tuple(rows[:MOST_SETTINGS]),
    )


def flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Returns names with values, those of inner objects behind the name of the outer.

    Args:
        values: Of any depth.
        prefix: Before each name.
    """
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += flatten(value, f"{prefix}{name}.")
        else:
            words = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            found.append((shorten(f"{prefix}{name}", LONGEST_VALUE), shorten(words, LONGEST_VALUE)))
    return found


def list_unknown(source: Source) -> list[str]:
    """Returns what results do not say of how they were made, in sentences.

    Args:
        source: The results.
    """
    provenance = source.results.get("provenance") or {}
    if provenance.get("environment"):
        return []
    return ["The results do not say which versions and which machine computed them."]


def find_asked(source: Source, name: str = "target_sparsity") -> float | None:
    """Returns a number that was asked for, where the results say it; None where they do not.

    Args:
        source: The results.
        name: Of the setting.
    """
    settings = (source.results.get("provenance") or {}).get("settings") or {}
    asked = source.results.get(name, settings.get(name))
    return float(asked) if isinstance(asked, int | float) and not isinstance(asked, bool) else None
