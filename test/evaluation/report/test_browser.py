"""The page in a real browser: what it shows, whether it fits, and how it prints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import chromium, open_browser
from example_run import empty_run, example_frame, example_run

from videogem_ros.evaluation.report import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytest.importorskip("playwright", reason="playwright drives the browser")
if chromium() is None:
    pytest.skip("no Chromium on PATH", allow_module_level=True)

CONTRAST = """() => {
  const rgb = text => text.match(/[0-9.]+/g).map(Number);
  const light = colour => {
    const [r, g, b] = colour.slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!own || element.closest(".unseen, title")) continue;
    const style = getComputedStyle(element);
    const ink = rgb(element instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [light(ink), light(behind(element))].sort((p, q) => q - p);
    if ((a + 0.05) / (b + 0.05) < 4.5) low.push(element.outerHTML.slice(0, 80));
  }
  return low;
}"""
"""Elements whose own text has less contrast than WCAG 2 asks for (1.4.3, level AA)."""

PLACES = """() => [...document.querySelectorAll(".classes tbody tr")].map(row => {
  const bar = row.querySelector(".bar").getBoundingClientRect();
  const plot = row.querySelector("svg.cell").getBoundingClientRect();
  return [bar.width / plot.width, Number(row.querySelector(".number").textContent)];
})"""
"""Of each class the share of the plot that its bar takes, and its accuracy as text."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as started:
        yield started


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(example_run(60), tmp_path_factory.mktemp("report"), example_frame)


def visit(browser: Browser, path: Path, width: int = 1280, scheme: str = "light") -> Page:
    """Opens a page, in which every complaint and every request is collected."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(request.url[:80]))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    return page


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_without_complaints(browser: Browser, report: Path, width: int, scheme: str):
    page = visit(browser, report, width, scheme)
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(overflow) == 0
    sizes = page.evaluate("[...document.images].map(i => [i.naturalWidth, i.naturalHeight])")
    assert sizes == [[320, 240]] * 12
    assert page.evaluate(CONTRAST) == []


def test_a_laptop_needs_no_scrolling_inside_tables(browser: Browser, report: Path):
    page = visit(browser, report)
    cut = "[...document.querySelectorAll('.scroll')].map(e => e.scrollWidth - e.clientWidth)"
    assert set(page.evaluate(cut)) == {0}


def test_plots_stand_where_their_axis_says(browser: Browser, report: Path):
    page = visit(browser, report)
    places = page.evaluate(PLACES)
    assert len(places) == 8
    for share, percent in places:
        assert 100 * share == pytest.approx(percent, abs=0.6)


def test_it_prints_on_paper(browser: Browser, report: Path, tmp_path: Path):
    page = visit(browser, report, scheme="dark")
    pdf = page.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)
    assert pdf.startswith(b"%PDF-")
    assert 3 <= pdf.count(b"/Type /Page\n") <= 8
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_headings_and_regions_have_names(browser: Browser, report: Path):
    page = visit(browser, report)
    assert page.get_by_role("heading", level=1).count() == 1
    for name in ("Results", "Gallery", "Classes", "Timing", "What was left out"):
        assert page.get_by_role("region", name=name, exact=True).count() == 1
    assert page.get_by_role("img", name="verb prompt").count() == 1


def test_an_empty_run_is_a_page_too(browser: Browser, tmp_path: Path):
    page = visit(browser, write_report(empty_run(), tmp_path))
    assert page.get_by_text("No sample with a box was grounded.").is_visible()
