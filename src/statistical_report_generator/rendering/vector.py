"""Figures inside a page: matplotlib's SVG made small, with letters that all figures share."""

import re
import xml.etree.ElementTree as ET
import zlib
from base64 import b64encode
from typing import Final, final

from markupsafe import Markup

from statistical_report_generator.document import Figure
from statistical_report_generator.figures.pictures import Picture

MOST_BYTES: Final = 1_000_000  # of figures that are there at once; those after them are packed
LETTERS: Final = "DejaVu"  # how the ids of letters begin
NUMBER: Final = re.compile(r"-?\d+\.\d+")
REFERENCE: Final = re.compile(r"#([\w-]+)\)?$")


@final
class Drawer:
    """Draws the figures of one page.

    Those beyond `MOST_BYTES` are packed to a sixth, and the page's script unpacks them: without it, as where scripts
    are forbidden, they are seen in the PDF and in the files beside the page alone.
    """

    def __init__(self) -> None:
        self._letters: dict[str, str] = {}
        self._num_bytes = 0

    @property
    def letters(self) -> Markup:
        """The shapes of the letters that the figures use."""
        return Markup("").join(Markup(shape) for _, shape in sorted(self._letters.items()))  # noqa: S704 - serialised

    def draw(self, figure: Figure, picture: Picture) -> Markup:
        """Returns the element that shows a figure.

        Args:
            figure: What it shows in words.
            picture: How it looks.
        """
        root = ET.fromstring(picture.svg)  # noqa: S314 - drawn by matplotlib a moment ago
        for element in root.iter():
            _shorten(element)
        self._take_letters(root)
        _drop_unused(root)
        _share_styles(root)
        root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": figure.alternative}
        lines = ET.tostring(root, encoding="unicode", short_empty_elements=True).replace(" />", "/>")
        if self._num_bytes + len(lines) > MOST_BYTES:
            packed = b64encode(zlib.compress(lines.encode(), 9)).decode()
            return Markup('<img class="packed" data-packed="{}" alt="{}">').format(packed, figure.alternative)
        self._num_bytes += len(lines)
        return Markup(lines)  # noqa: S704 - serialised, so its words are escaped

    def _take_letters(self, root: ET.Element) -> None:
        """Moves the shapes of letters, which are the same in each figure, to where all find them."""
        for parent in root.iter():
            for shape in [child for child in parent if child.get("id", "").startswith(LETTERS)]:
                parent.remove(shape)
                self._letters[shape.attrib["id"]] = ET.tostring(shape, encoding="unicode").replace(" />", "/>")


def _shorten(element: ET.Element) -> None:
    """Drops namespaces, spaces and digits that nobody sees: a hundredth is a seventieth of a pixel."""
    element.tag = element.tag.rpartition("}")[2]
    element.text = element.tail = None  # letters are shapes, so there are no words
    element.attrib = {name.rpartition("}")[2]: _shorten_value(name, value) for name, value in element.attrib.items()}
    for child in [child for child in element if child.tag.endswith(("}metadata", "}style"))]:
        element.remove(child)


def _shorten_value(name: str, value: str) -> str:
    if name in {"id", "transform"}:  # a scale of 0.015625 is no 0.02
        return value
    return NUMBER.sub(lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), " ".join(value.split()))


def _drop_unused(root: ET.Element) -> None:
    """Drops names that nothing refers to, and parts that are empty."""
    used = {
        found[1] for element in root.iter() for value in element.attrib.values() if (found := REFERENCE.search(value))
    }
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
    for parent in root.iter():
        for child in [child for child in parent if child.tag in {"g", "defs"} and not len(child)]:
            parent.remove(child)


def _share_styles(root: ET.Element) -> None:
    """Says once what many points of a line look like; but for opacity, which would be that of all points together."""
    for parent in root.iter("g"):
        styles = {child.get("style", "") if child.tag == "use" else "" for child in parent}
        if len(parent) > 1 and len(styles) == 1 and (style := styles.pop()) and not re.search(r"(^|\s)opacity", style):
            parent.set("style", style)
            for child in parent:
                del child.attrib["style"]
