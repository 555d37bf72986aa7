"""How claims show themselves in a notebook: a row a level, every word escaped."""

from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any, final

from statistical_report_generator.claims.findings import format_difference
from statistical_report_generator.tables import POINTS

HEADINGS = ("weights remaining, %", "against dense", "difference", "winning")
Row = Sequence[str]


@final
class ShownClaims(dict[str, Any]):
    """Claims, a dict like any other, that show themselves as a table; `repr` counts the verdicts."""

    def __repr__(self) -> str:
        counts = Counter(level["verdict"] for level in self["levels"])
        counts["winning"] = sum(level["winning"] == "winning" for level in self["levels"])
        told = (f"{num} {word}" for word, num in counts.items() if num)
        return f"Claims({len(self['levels'])} levels: {', '.join(told) or 'none'})"

    def _repr_html_(self) -> str:
        rows = [
            (
                f"{POINTS * level['density']:.1f}",
                level["verdict"],
                format_difference(level["ticket_minus_dense"], self),  # type: ignore[arg-type] # it holds all of `Claims`
                level["winning"] or "not said: controls are missing",
            )
            for level in self["levels"]
        ]
        lines = "".join([_render("th", HEADINGS), *(_render("td", row) for row in rows)])
        caption = f"{self['metric']}, {self['moment']}, margin {self['margin']:g}"
        return f"<table><caption>{escape(caption)}</caption>{lines}</table>"


def _render(tag: str, cells: Row) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"
