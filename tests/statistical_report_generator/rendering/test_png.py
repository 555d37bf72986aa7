"""PNG files show what the SVG shows, at the size that was promised."""

import io

import numpy as np
from PIL import Image

from statistical_report_generator.figures.pictures import make_picture
from statistical_report_generator.figures.style import DOTS_PER_INCH, Drawing, create_figure, render_figure
from statistical_report_generator.rendering.png import render_pngs


def draw(colour: str, width: float) -> Drawing:
    figure = create_figure(width, 2)
    figure.add_subplot().set_facecolor(colour)
    return figure


def read(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"), dtype=int)


def test_each_picture_is_under_its_name_in_its_size() -> None:
    for colours in ({"one": "red"}, {"a": "red", "b": "lime", "c": "blue"}):
        drawings = {name: draw(colour, 2 + place) for place, (name, colour) in enumerate(colours.items())}
        pngs = render_pngs({name: make_picture(drawing, name) for name, drawing in drawings.items()})
        assert list(pngs) == list(drawings)
        for (name, drawing), colour in zip(drawings.items(), ((255, 0, 0), (0, 255, 0), (0, 0, 255)), strict=False):
            pixels = read(pngs[name])
            assert pixels.shape[:2] == (2 * DOTS_PER_INCH, drawing.get_figwidth() * DOTS_PER_INCH)
            assert tuple(pixels[DOTS_PER_INCH, pixels.shape[1] // 2]) == colour
            drawn = read(render_figure(drawing, f"{name}.png"))  # by matplotlib, after the SVG
            assert drawn.shape == pixels.shape
            assert np.abs(drawn - pixels).mean() < 2  # edges differ
    assert render_pngs({}) == {}
