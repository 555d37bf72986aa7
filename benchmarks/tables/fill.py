"""The tables of the documentation, made from the JSON that benchmarks write.

`python -m benchmarks.tables.fill` fills them in between `<!-- table NAME -->` and `<!-- end -->`; a test holds
that pages and JSON agree.
"""

import re

from benchmarks.common import ROOT
from benchmarks.tables import (
    changes,
    checkpoints,
    claims,
    connectivity,
    early_bird,
    experiment,
    fisher,
    gpu,
    kills,
    landscape,
    language,
    masks,
    measuring,
    planning,
    reliability,
    reports,
    scores,
    shrinking,
)
from benchmarks.tables.parts import Tables

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MARKED = re.compile(r"(<!-- table (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
DRAWER = (
    changes,
    checkpoints,
    claims,
    connectivity,
    early_bird,
    experiment,
    fisher,
    gpu,
    kills,
    landscape,
    language,
    masks,
    measuring,
    planning,
    reliability,
    reports,
    scores,
    shrinking,
)
TABLES: Tables = {name: make for module in DRAWER for name, make in module.TABLES.items()}


def main() -> None:
    """Fills in every table of every page."""
    for page in PAGES:
        filled = fill_page(page.read_text(encoding="utf-8"))
        page.write_text(filled, encoding="utf-8")


def fill_page(text: str) -> str:
    """Returns a page with its tables made anew."""
    return MARKED.sub(lambda found: f"{found[1]}\n{TABLES[found['name']]()}\n\n{found[3]}", text)


if __name__ == "__main__":
    main()
