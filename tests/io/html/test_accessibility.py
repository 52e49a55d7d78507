"""The page and the viewer for everybody: contrast, keyboard, texts of pictures; and what they show."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from agseg.grid import Grid
from agseg.io.html.page import render_report, write_report
from agseg.io.html.viewer import MOST_SLICES, VIEWER_HTML, write_viewer
from agseg.labels import LabelSet
from agseg.report import Measurement, OrganStatus, StudyReport, StudyStatus
from agseg.study import Source
from agseg.volume import LabelMask, Volume
from tests.io.html.test_page import REVIEW, browser, report  # noqa: F401 - the fixture

pytestmark = pytest.mark.slow

HOSTILE = '</script><script>document.title="owned"</script>'

CONTRAST = """() => {
  const light = colour => {
    const part = colour.map(v => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
  };
  const numbers = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const behind = element => {
    for (; element; element = element.parentElement) {
      const colour = numbers(getComputedStyle(element).backgroundColor);
      if (colour.length === 3 || colour[3] > 0.99) { return colour; }
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.getClientRects().length || ["SCRIPT", "STYLE"].includes(element.tagName)) { continue; }
    const style = getComputedStyle(element);
    const ink = element instanceof SVGElement ? style.fill : style.color;
    const a = light(numbers(ink)), b = light(behind(element.closest("svg") || element));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) { low.push(`${element.tagName}.${element.className} "${element.textContent.slice(0, 30)}" ${ratio}`); }
  }
  return low;
}"""
"""Texts with less contrast than 4.5 : 1 (WCAG 2.2, success criterion 1.4.3)."""

NAMELESS = """() => [...document.querySelectorAll("img, svg, button, input, select, a[href], [role=region], dialog")]
  .filter(e => e.getClientRects().length)
  .filter(e => !(e.alt || e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.textContent.trim()
    || (e.labels && e.labels.length) || e.querySelector("img[alt]:not([alt=''])")
    || e.closest("svg[aria-label]") || e.id === "over"))
  .map(e => e.outerHTML.slice(0, 80))"""
"""Pictures and controls that no screen reader can name. The viewer's mask lies over a picture whose text names its organs."""


def patient_report() -> Any:
    """The report of the page's tests, and a patient who came twice."""

    def visit(name: str, date: str, ml: float) -> StudyReport:
        organs = (
            Measurement("liver", OrganStatus.PRESENT, ml),
            Measurement("spleen", OrganStatus.CUT_OFF, 90.0, touches_border=True),
        )
        return StudyReport(name, StudyStatus.DONE, output=name, organs=organs, source=Source("P-AAAABBBB22", date))

    return report(visit("second", "2026-03-01", 1100.0), visit("first", "2026-01-05", 1000.0))


@pytest.fixture
def pages(tmp_path: Path) -> tuple[Path, Path]:
    write_report(tmp_path / "report.html", patient_report(), review=REVIEW)
    grid = Grid((40, 30, 12), np.diag([2.0, 2.0, 3.0, 1.0]))
    labels = np.zeros(grid.shape, dtype=np.uint8)
    labels[5:15, 5:15, 3:9] = 1
    mask = LabelMask(labels, grid, LabelSet.from_mapping({1: "liver", 2: "spleen"}))
    write_viewer(tmp_path, Volume(np.full(grid.shape, 40, dtype=np.int16), grid), mask, title=HOSTILE)
    return tmp_path / "report.html", tmp_path / VIEWER_HTML


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:  # noqa: F811
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    page.trouble = []
    page.on("console", lambda message: page.trouble.append(message.text))
    page.on("pageerror", lambda error: page.trouble.append(str(error)))
    yield page
    assert page.trouble == []
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_and_every_control_has_a_name(pages: tuple[Path, Path], tab: Any, scheme: str) -> None:
    tab.emulate_media(color_scheme=scheme)
    for path in pages:
        tab.goto(path.as_uri())
        assert tab.evaluate(CONTRAST) == [], path.name
        assert tab.evaluate(NAMELESS) == [], path.name
        assert tab.evaluate("document.documentElement.lang") == "en"
        headings = tab.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(h => Number(h.tagName[1]))")
        assert headings[0] == 1
        assert all(after <= before + 1 for before, after in pairwise(headings))


def test_the_keyboard_reaches_every_control_and_shows_where_it_is(pages: tuple[Path, Path], tab: Any) -> None:
    tab.goto(pages[0].as_uri())
    wanted = tab.evaluate(
        "[...document.querySelectorAll('a[href], button, input, select')].filter(e => e.getClientRects().length).length"
    )
    reached = set()
    for _ in range(3 * wanted):
        tab.keyboard.press("Tab")
        found = tab.evaluate(
            "(() => { const e = document.activeElement; const s = getComputedStyle(e);"
            " return [[...document.querySelectorAll('*')].indexOf(e), e.matches('a[href], button, input, select'),"
            " s.outlineStyle !== 'none' || e.classList.contains('skip')]; })()"
        )
        if found[1]:
            assert found[2], "what has the focus is outlined"
            reached.add(found[0])
    assert len(reached) >= wanted


def test_the_viewer_goes_through_the_slices_by_keyboard_and_wheel(pages: tuple[Path, Path], tab: Any) -> None:
    tab.goto(pages[1].as_uri())
    assert tab.title() == f"agseg viewer, {HOSTILE}"
    assert "liver" in tab.locator("#shown").inner_text()
    before = tab.locator("#slice").input_value()
    tab.locator("#stage").focus()
    tab.keyboard.press("ArrowUp")
    assert int(tab.locator("#slice").input_value()) == int(before) + 1
    tab.keyboard.press("PageDown")
    assert tab.locator("#slice").input_value() == "0"
    assert "no organ found" in tab.locator("#base").get_attribute("alt")
    assert tab.locator("#base").evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    tab.locator("#opacity").fill("0")
    assert tab.locator("#over").evaluate("image => getComputedStyle(image).opacity") == "0"


def test_the_viewer_shows_contours_and_says_which_side_is_which(pages: tuple[Path, Path], tab: Any) -> None:
    tab.goto(pages[1].as_uri())
    data = json.loads(tab.locator("#slices").text_content())
    picture = PIL.Image.open(BytesIO(base64.b64decode(data[5]["over"]))).convert("RGBA")
    alpha = np.asarray(picture)[:, :, 3]
    inside, contour = alpha[(alpha > 0) & (alpha < 128)], alpha[alpha > 128]
    assert inside.size > contour.size > 0  # a tinge that leaves the image visible, in a line that does not
    columns = np.nonzero(alpha > 128)[1]
    # The liver lies at small x, on the patient's left, which is on the right of the picture.
    assert columns.mean() > alpha.shape[1] / 2
    places = {side: tab.locator(f".side.{side.lower()}").bounding_box() for side in "RLAP"}
    stage = tab.locator("#stage").bounding_box()
    middle_x, middle_y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    assert places["R"]["x"] < middle_x < places["L"]["x"]
    assert places["A"]["y"] < middle_y < places["P"]["y"]


def test_a_long_scan_is_thinned_out(tmp_path: Path) -> None:
    grid = Grid((8, 8, MOST_SLICES + 100), np.eye(4))
    mask = LabelMask(np.zeros(grid.shape, dtype=np.uint8), grid, LabelSet.from_mapping({1: "liver"}))
    write_viewer(tmp_path, Volume(np.zeros(grid.shape, dtype=np.int16), grid), mask, title="long")
    assert (tmp_path / VIEWER_HTML).read_text().count('"position"') == MOST_SLICES


def test_one_patients_volumes_stand_together_oldest_first() -> None:
    page = render_report(patient_report())
    section = page[page.index("One patient") : page.index("<footer>")]
    assert section.index("2026-01-05") < section.index("2026-03-01")
    assert "1100.0 (+10 %)" in section
    assert "90.0 *" in section
    assert "90.0 * (" not in section
    once = patient_report()
    alone = replace(once, studies=once.studies[:-1])
    assert "One patient" not in render_report(alone)
