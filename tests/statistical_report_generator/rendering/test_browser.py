"""The page in a real browser without a network: nothing is asked for, all is seen, and all works by keyboard.

Needs Debian's package chromium; skipped where there is none.
"""

import csv
import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from tests.statistical_report_generator.rendering.reports import write_report

CHROMIUM: Final = shutil.which("chromium")
WIDTHS: Final = (1280, 390)
SCHEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium, Debian's package of that name")


@dataclass
class Visit:
    """A page that is open, with what it complained about and asked for."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pdf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("reports"))


def visit(browser: Browser, pdf: Path, width: int = 1280, scheme: Literal["light", "dark"] = "light") -> Visit:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit = Visit(context.new_page())
    visit.page.on("console", lambda message: visit.complaints.append(message.text))
    visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    visit.page.on("request", lambda request: visit.requests.append(request.url))
    visit.page.goto(pdf.with_suffix(".html").as_uri())
    return visit


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_all_is_seen_and_nothing_is_asked_for(
    browser: Browser, pdf: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    seen = visit(browser, pdf, width, scheme)
    page = seen.page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    figures = page.locator("figure .plot > svg")
    assert figures.count() == page.locator("figure").count() == 6
    for place in range(figures.count()):
        figure = figures.nth(place)
        figure.scroll_into_view_if_needed()
        box = figure.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["height"] > 0.25 * box["width"]  # few layers make a low figure
        assert count_colours(figure.screenshot()) > 20
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert seen.complaints == []
    assert [address for address in seen.requests if not address.startswith(("file:", "data:"))] == []
    assert len([address for address in seen.requests if address.startswith("file:")]) == 1
    page.context.close()


def count_colours(png: bytes) -> int:
    from PIL import Image  # noqa: PLC0415 - comes with matplotlib, needed here alone

    with Image.open(io.BytesIO(png)) as image:
        return len(set(image.convert("RGB").get_flattened_data()))


def read_column(page: Page, table: str, place: int) -> list[str]:
    return page.locator(f"#{table} tbody tr td:nth-child({place + 1})").all_inner_texts()


def test_tables_sort_by_mouse_and_keyboard(browser: Browser, pdf: Path) -> None:
    page = visit(browser, pdf).page
    table = "a-run-levels"
    before = read_column(page, table, 3)
    heading = page.locator(f"#{table} th").nth(3)
    heading.get_by_role("button").click()
    up = read_column(page, table, 3)
    assert heading.get_attribute("aria-sort") == "ascending"
    numbers = [float(cell.split()[0]) for cell in up if cell]
    assert numbers == sorted(numbers)
    assert sorted(before) == sorted(up)
    assert before != up
    page.keyboard.press("Enter")  # the heading has the focus
    assert heading.get_attribute("aria-sort") == "descending"
    numbers = [float(cell.split()[0]) for cell in read_column(page, table, 3) if cell]
    assert numbers == sorted(numbers, reverse=True)
    words = page.locator(f"#{table} th").nth(1)
    words.get_by_role("button").press("Space")
    assert read_column(page, table, 1) == sorted(read_column(page, table, 1))
    assert heading.get_attribute("aria-sort") is None
    page.context.close()


@pytest.mark.parametrize("table", ["a-run-levels", "hostile"])
def test_tables_are_copied_as_they_are_stored(browser: Browser, pdf: Path, table: str) -> None:
    page = visit(browser, pdf).page
    names = [button.get_attribute("data-table") or "" for button in page.locator(".copy").all()]
    name = table if table in names else next(name for name in names if name.endswith("-settings") and "img" in name)
    page.locator(f'[data-table="{name}"]').click()
    page.get_by_text("Copied", exact=True).wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    stored = (pdf.parent / "report-files" / f"{name}.csv").read_text(encoding="utf-8")
    rows, expected = (list(csv.reader(io.StringIO(text, newline=""))) for text in (copied, stored))
    assert rows == expected
    assert len(rows) > 3
    page.context.close()


def test_figures_answer_to_the_mouse(browser: Browser, pdf: Path) -> None:
    page = visit(browser, pdf).page
    plot = page.locator("#a-run-accuracy .plot")
    plot.scroll_into_view_if_needed()
    tip, box = plot.locator(".tip"), plot.bounding_box()
    assert box is not None
    assert not tip.is_visible()
    for left, top, words in plot.evaluate("plot => JSON.parse(plot.dataset.points)"):
        page.mouse.move(box["x"] + left / 1000 * box["width"], box["y"] + top / 1000 * box["height"])
        assert tip.inner_text() == words
        shown = tip.bounding_box()
        assert shown is not None
        assert box["x"] <= shown["x"]
        assert shown["x"] + shown["width"] <= box["x"] + box["width"]
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    page.mouse.move(box["x"] + 2, box["y"] + box["height"] - 2)  # far from every point
    assert not tip.is_visible()
    page.context.close()


def test_figures_are_one_stop_for_the_keyboard_whose_arrows_go_from_point_to_point(browser: Browser, pdf: Path) -> None:
    page = visit(browser, pdf).page
    figure = page.locator("#a-run-accuracy")
    points = [words for _, _, words in figure.locator(".plot").evaluate("plot => JSON.parse(plot.dataset.points)")]
    assert len(points) == 6  # the dense network with two tickets, and three controls
    slider, tip = figure.get_by_role("slider"), figure.locator(".tip")
    for _ in range(100):
        page.keyboard.press("Tab")
        if slider.evaluate("slider => slider === document.activeElement"):
            break
    assert tip.inner_text() == points[0]
    for words in points[1:]:
        page.keyboard.press("ArrowRight")
        assert tip.inner_text() == words
        assert slider.get_attribute("aria-valuetext") == words
    page.keyboard.press("Home")
    assert tip.inner_text() == points[0]
    page.keyboard.press("Tab")
    assert not tip.is_visible()
    assert figure.locator(".link").evaluate("link => link === document.activeElement")
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#a-run-accuracy"
    page.context.close()


def test_each_entry_of_the_contents_leads_to_its_heading(browser: Browser, pdf: Path) -> None:
    page = visit(browser, pdf).page
    links = page.locator("nav a")
    assert links.count() == page.locator("h2").count()
    for place in range(links.count()):
        target = page.locator(links.nth(place).get_attribute("href") or "")
        assert target.inner_text() == links.nth(place).text_content()
    page.context.close()


def test_many_figures_are_packed_and_unpacked(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("statistical_report_generator.rendering.vector.MOST_BYTES", 0)
    seen = visit(browser, write_report(tmp_path))
    figures = seen.page.locator("figure .plot > svg")
    figures.last.wait_for()
    assert figures.count() == 6
    assert seen.page.locator("figure img").count() == 0
    assert count_colours(figures.first.screenshot()) > 20
    assert figures.first.get_attribute("aria-label")
    assert seen.complaints == []
    assert Axe().run(seen.page).violations_count == 0
    seen.page.context.close()
