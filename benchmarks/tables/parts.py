"""What tables are made of: a benchmark's figures, rows, intervals."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def load(name: str) -> dict[str, Any]:
    """Returns the figures of a benchmark."""
    content: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    return content


def make_table(*rows: tuple[str, ...]) -> str:
    """Returns a Markdown table; the first row is its head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def format_interval(interval: dict[str, Any], scale: float = 100.0, form: str = ".2f") -> str:
    """Returns a mean and its interval, such as "89.31 [89.10, 89.52]"."""
    mean, low, high = (interval[name] * scale for name in ("mean", "low", "high"))
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]"
