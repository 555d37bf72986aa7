"""Figures as PNG, made of their SVG by typst: all at once, and much faster than drawn a second time."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import typst

from statistical_report_generator.figures.pictures import Picture
from statistical_report_generator.figures.style import DOTS_PER_INCH

NAMES: Final = "names.json"
PAGES: Final = f"""#set page(width: auto, height: auto, margin: 0pt)
#for name in json("{NAMES}") {{ page(image(name)) }}
"""


def render_pngs(pictures: Mapping[str, Picture]) -> dict[str, bytes]:
    """Returns each picture as a PNG at 150 dots an inch, by name.

    Args:
        pictures: By name.
    """
    if not pictures:
        return {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        files = [f"{number}.svg" for number in range(len(pictures))]
        for file, picture in zip(files, pictures.values(), strict=True):
            (folder / file).write_bytes(picture.svg)
        (folder / NAMES).write_text(json.dumps(files), encoding="utf-8")
        (folder / "pages.typ").write_text(PAGES, encoding="utf-8")
        made: Any = typst.compile(
            str(folder / "pages.typ"), root=place, format="png", ppi=DOTS_PER_INCH, ignore_system_fonts=True
        )
    pages = made if isinstance(made, list) else [made]  # a list for more than one page, as its type does not say
    return dict(zip(pictures, pages, strict=True))
