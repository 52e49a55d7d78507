"""report.html on paper and on narrow screens: nothing is cut, broken or scattered over sheets."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from agseg.errors import Code
from agseg.io.html.page import write_report
from agseg.report import DISCLAIMER, StudyReport, StudyStatus
from agseg.volume import Warned
from tests.io.html.test_page import HOSTILE, browser, organ, report  # noqa: F401 - the fixture

pytestmark = pytest.mark.slow

PLANES = ("Abdominal", "Brain (Cb.)", "Femur", "Kidneys", "LVOT", "Profile", "Spine (cor.)")


def clip(folder: Path) -> StudyReport:
    """Seven stills, each with its plane."""
    (folder / "stills" / "attention").mkdir(parents=True)
    PIL.Image.new("RGB", (1200, 340), (240, 240, 240)).save(folder / "stills" / "timeline.png")
    best = []
    for number, plane in enumerate(PLANES):
        PIL.Image.new("RGB", (975, 735), (20, 60, 90)).save(folder / "stills" / "attention" / f"{plane}.png")
        best.append({"plane": plane, "file": f"{plane}.tiff", "frame": number, "time_s": None, "probability": 0.9,
                     "box": [1, 2, 3, 4], "picture": f"best/{plane}.png"})  # fmt: skip
    extra = {"frames": 7, "states": {"plane": 7, "background": 0, "unsure": 0}, "best_frames": best}
    files = ("timeline.png", *(f"attention/{plane}.png" for plane in PLANES))
    return StudyReport("stills", StudyStatus.DONE, "stills", files=files, modality="US", extra=extra)


def under_the_last_line(path: Path) -> list[str]:
    """Words that lie where a sheet's last line does: the disclaimer must hide none."""
    done = subprocess.run(["pdftotext", "-bbox", path, "-"], capture_output=True, text=True, check=True)
    hidden = []
    for sheet in done.stdout.split("<page ")[1:]:
        words = re.findall(r'yMin="([\d.]+)" xMax="[\d.]+" yMax="([\d.]+)">([^<]*)<', sheet)
        lowest = max(float(low) for low, _, _ in words)
        own = set(DISCLAIMER.split())
        hidden += [word for low, high, word in words if float(high) > lowest + 0.5 and word not in own]
    return hidden


BROKEN_WORDS = """() => {
  const broken = [];
  for (const cell of document.querySelectorAll("td, th")) {
    const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
    for (let node; (node = walker.nextNode());) {
      for (const word of node.textContent.matchAll(/[A-Za-z_]+/g)) {
        const range = document.createRange();
        range.setStart(node, word.index);
        range.setEnd(node, word.index + word[0].length);
        const lines = new Set([...range.getClientRects()].map(box => Math.round(box.top)));
        if (lines.size > 1) { broken.push(word[0]); }
      }
    }
  }
  return broken;
}"""

TOO_WIDE = """width => document.documentElement.scrollWidth <= width ? [] : [...document.querySelectorAll("*")]
  .filter(e => e.getBoundingClientRect().right > width && !e.closest(".wide")).map(e => e.outerHTML.slice(0, 200))"""


def test_every_column_and_the_disclaimer_are_printed(browser: Any, tmp_path: Path) -> None:  # noqa: F811
    if shutil.which("pdftotext") is None:
        pytest.skip("needs pdftotext (apt-get install poppler-utils)")
    names = [f"structure_number_{number}" for number in range(20)]
    organs = tuple(organ(name, 100.0 + number) for number, name in enumerate(names))
    studies = [
        StudyReport(f"a-study-with-a-long-name-{n:02}/of-the-archive", StudyStatus.DONE, organs=organs) for n in range(30)
    ]
    write_report(tmp_path / "report.html", report(*studies))
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    page.pdf(path=str(tmp_path / "report.pdf"), prefer_css_page_size=True)
    page.close()
    done = subprocess.run(["pdftotext", "-layout", tmp_path / "report.pdf", "-"], capture_output=True, text=True, check=True)
    sheets = done.stdout.split("\f")[:-1]
    assert len(sheets) > 3
    assert all(DISCLAIMER in sheet for sheet in sheets)
    tables = done.stdout[done.stdout.index("Volumes in ml") : done.stdout.index("look twice")]
    assert all(f"{100.0 + number:.1f}" in tables for number in range(20))


def test_a_study_is_printed_on_one_sheet_with_its_pictures_and_its_table(browser: Any, tmp_path: Path) -> None:  # noqa: F811
    if shutil.which("pdftotext") is None:
        pytest.skip("needs pdftotext (apt-get install poppler-utils)")
    names = ("pancreas", "liver", "spleen", "kidney_left", "kidney_right")
    organs = tuple(
        organ(name, 100.0, "uneven density (21 % of its voxels are more than 60 HU from its median)") for name in names
    )
    studies = []
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        PIL.Image.new("RGB", (1120, 495), (20, 60, 90)).save(tmp_path / name / "preview.png")
        PIL.Image.new("RGB", (1136, 1103), (20, 60, 90)).save(tmp_path / name / "mosaic.png")
        warnings = (Warned(Code.MODALITY_ASSUMED, "CT is assumed"),)
        studies.append(
            StudyReport(name, StudyStatus.DONE, name, organs=organs, files=("mosaic.png", "preview.png"), warnings=warnings)
        )
    reasons = {name: tuple(f"{o.name}: {o.review[0]}" for o in organs) for name in ("one", "two", "three")}
    write_report(tmp_path / "report.html", replace(report(), studies=tuple(studies)), review=reasons)
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    page.pdf(path=str(tmp_path / "report.pdf"), prefer_css_page_size=True)
    page.close()
    done = subprocess.run(["pdftotext", "-layout", tmp_path / "report.pdf", "-"], capture_output=True, text=True, check=True)
    sheets = [sheet for sheet in done.stdout.split("\f") if "Files:" in sheet]
    assert len(sheets) == 3
    for sheet in sheets:
        assert "Look first" in sheet
        assert sheet.count("right kidney") == 1


@pytest.mark.parametrize("width", [380, 700, 1200])
def test_no_word_of_a_table_is_broken_and_no_row_is_a_column(browser: Any, tmp_path: Path, width: int) -> None:  # noqa: F811
    reasons = ("uneven density (21 % of its voxels are more than 60 HU from its median, usually at most 20 %)",) * 2
    seen = StudyReport("epsilon", StudyStatus.DONE, organs=(organ("kidney_right", 100.0, *reasons), organ("liver", None)))
    zipped = StudyReport("patient.zip", StudyStatus.REJECTED, code=Code.UNSUPPORTED_INPUT, message="an archive of images")
    one = report(seen, zipped)
    studies = tuple(study for study in one.studies if study.input != HOSTILE)
    left_out = [{"file": "b/scan.dcm", "reason": "other_modality", "detail": "MR"}]
    one = replace(one, studies=studies, files={**one.files, "skipped": {"other_modality": 1}, "left_out": left_out})
    write_report(tmp_path / "report.html", one, review={"epsilon": tuple(f"right kidney: {reason}" for reason in reasons)})
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto((tmp_path / "report.html").as_uri())
    assert page.evaluate(BROKEN_WORDS) == []
    assert page.evaluate("Math.max(...[...document.querySelectorAll('tr')].map(row => row.offsetHeight))") < 350
    assert page.evaluate(TOO_WIDE, width) == []
    page.close()


def test_planes_of_a_clip_stand_beside_each_other_and_share_a_sheet_or_two(browser: Any, tmp_path: Path) -> None:  # noqa: F811
    write_report(tmp_path / "report.html", replace(report(), studies=(clip(tmp_path),)))
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto((tmp_path / "report.html").as_uri())
    tops = page.evaluate("[...document.querySelectorAll('article img')].map(e => Math.round(e.getBoundingClientRect().top))")
    assert len(tops) == 8
    assert tops[0] < tops[1] == tops[2] == tops[3]
    page.pdf(path=str(tmp_path / "report.pdf"), prefer_css_page_size=True)
    page.close()
    assert len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "report.pdf").read_bytes())) <= 3


def test_the_line_at_the_foot_of_each_sheet_hides_nothing(browser: Any, tmp_path: Path) -> None:  # noqa: F811
    if shutil.which("pdftotext") is None:
        pytest.skip("needs pdftotext (apt-get install poppler-utils)")
    message = "a line of its own " * 9
    warnings = tuple(Warned(Code.MODALITY_ASSUMED, f"{message} {number}") for number in range(60))
    write_report(tmp_path / "report.html", report(StudyReport("long", StudyStatus.DONE, warnings=warnings)))
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    page.pdf(path=str(tmp_path / "report.pdf"), prefer_css_page_size=True)
    page.close()
    assert under_the_last_line(tmp_path / "report.pdf") == []
