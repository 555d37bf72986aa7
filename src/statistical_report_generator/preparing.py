"""Sections made ready for every renderer: what a style leaves out, names that differ, words that can be shown."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from typing import Any, Final, Literal, TypeVar

from statistical_report_generator.document import Block, Figure, Section, Table
from statistical_report_generator.words import clean

Style = Literal["technical", "summary"]
STYLES: Final[tuple[Style, ...]] = ("technical", "summary")
Made = TypeVar("Made", Section, Block)


def prepare(sections: Iterable[Section], style: Style) -> Iterator[Section]:
    """Yields the sections that are rendered, each when it is asked for.

    Args:
        sections: As they are made of results that may hold anything.
        style: "summary" leaves out what only those who check need.
    """
    names: set[str] = set()
    for section in sections:
        if style == "technical" or not section.technical:
            yield replace(_clean(section), blocks=[_name(_clean(block), names) for block in section.blocks])


def _name(block: Block, names: set[str]) -> Block:
    """Returns a block whose name no earlier one has, however alike the names of two results are."""
    if not isinstance(block, (Figure, Table)):
        return block
    candidates = (f"{block.name}-{number}" if number > 1 else block.name for number in itertools.count(1))
    name = next(name for name in candidates if name not in names)
    names.add(name)
    return replace(block, name=name)


def _clean(made: Made) -> Made:
    changes = {field.name: _clean_words(getattr(made, field.name)) for field in fields(made) if field.name != "blocks"}
    return replace(made, **changes)


def _clean_words(value: Any) -> Any:  # noqa: ANN401 - a field of a block: words, words in tuples, or something else
    if isinstance(value, str):
        return clean(value)
    return tuple(_clean_words(item) for item in value) if isinstance(value, tuple) else value
