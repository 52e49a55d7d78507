"""report.html as text, and as a person meets it in a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from agseg.errors import Code, ExitCode
from agseg.io.html.assets import STYLE
from agseg.io.html.clock import local_time
from agseg.io.html.page import render_report, write_report
from agseg.report import DISCLAIMER, BatchReport, Measurement, OrganStatus, StudyReport, StudyStatus, WeightsRef
from agseg.volume import Warned

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
HOSTILE = 'x"><script>document.title="owned"</script><img src=x onerror=alert(1)>'


def organ(name: str, ml: float | None, *review: str) -> Measurement:
    return Measurement(name, OrganStatus.ABSENT if ml is None else OrganStatus.PRESENT, ml, None, 40.0, review=review)


def report(*more: StudyReport) -> BatchReport:
    def done(name: str, liver: float, *review: str, output: str | None = None) -> StudyReport:
        organs = (organ("liver", liver, *review), organ("kidney_left", None))
        return StudyReport(
            name, StudyStatus.DONE, output or name, organs=organs, files=("liver.nii.gz", "preview.png"),
            shape=(5, 6, 7), spacing_mm=(1, 1, 2), modality="CT", seconds={"total": 1.0},
            warnings=(Warned(Code.MODALITY_ASSUMED, "CT is assumed"),),
        )  # fmt: skip

    studies = (
        done("alpha", 900.0),
        done("beta", 10000.0, "implausible volume (10000 ml)"),
        done("gamma", 1500.0),
        done(HOSTILE, 1200.0, output="hostile"),
        StudyReport("delta", StudyStatus.REJECTED, code=Code.MISSING_SLICES, message="a <slice> is missing"),
        *more,
    )
    weights = WeightsRef("w", "s", "attention-unet3d", "Apache-2.0")
    files = {"found": 9, "used": 8, "skipped": {"not_an_image": 1}}
    return BatchReport(
        "1.2.3",
        "2026-01-02T01:00:00",
        "2026-01-02T02:00:00",
        ExitCode.SOME_NOT_DONE,
        (weights,),
        {},
        {"device": "cpu"},
        studies,
        files,
    )


REVIEW = {"beta": ("liver: implausible volume (10000 ml)",)}


class Page(HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    for name in ("alpha", "beta", "gamma", "hostile"):
        (tmp_path / name).mkdir()
        PIL.Image.new("RGB", (1120, 500), (20, 60, 90)).save(tmp_path / name / "preview.png")
    earlier = report().to_dict()
    earlier["finished"] = "2026-01-01T02:00:00"
    earlier["studies"][0]["organs"][0]["volume_ml"] = 880.0
    write_report(tmp_path / "report.html", report(), review=REVIEW, earlier=(earlier,))
    return tmp_path / "report.html"


def test_everything_is_said_without_a_script(written: Path) -> None:
    text = written.read_text()
    for said in (
        DISCLAIMER, "exit code 3", "E_MISSING_SLICES", "a &lt;slice&gt; is missing", "900.0", "implausible volume",
        "W_MODALITY_ASSUMED", "attention-unet3d", "not_an_image", "Trend of volumes", "880.0 ml", "left kidney",
    ):  # fmt: skip
        assert said in text, said
    assert text.index("Review list") < text.index("Volumes</h2>") < text.index('<article id="study-')


def test_nothing_foreign_becomes_markup(written: Path) -> None:
    assert "<slice>" not in written.read_text()
    page = Page(written.read_text())
    assert len(page.all("script")) == 1
    assert not [a for _, a in page.tags for name in a if name.startswith("on") or name == "style"]
    assert all((a["src"] or "").startswith("data:image/jpeg;base64,") for a in page.all("img"))
    assert all((a["href"] or "")[:1] in "#." for a in page.all("a"))


def test_every_picture_has_a_text_and_every_label_its_field(written: Path) -> None:
    page = Page(written.read_text())
    assert len(page.all("img")) == 4
    assert all(a.get("alt") for a in page.all("img"))
    assert all(a.get("aria-label") for a in page.all("svg"))
    ids = {a["id"] for _, a in page.tags if "id" in a}
    assert {a["for"] for a in page.all("label")} <= ids
    assert {(a["href"] or "")[1:] for a in page.all("a") if (a["href"] or "").startswith("#")} <= ids
    assert page.all("html")[0]["lang"] == "en"


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa(scheme: int) -> None:
    block = STYLE.split(":root{")[1:][scheme].split("}")[0]
    named = dict(re.findall(r"--(\w+):#([0-9a-f]{3,6})", block))
    named = {name: value if len(value) == 6 else "".join(c * 2 for c in value) for name, value in named.items()}
    for ink in ("ink", "soft", "link", "good", "bad", "warn"):
        for paper in ("paper", "band", "note", "field"):
            light, dark = sorted((luminance(named[ink]), luminance(named[paper])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, paper)


def test_absent_unknown_and_not_asked_for_look_different() -> None:
    unknown = Measurement("gallbladder", OrganStatus.NOT_IN_WEIGHTS)
    study = StudyReport("epsilon", StudyStatus.SKIPPED, "epsilon", organs=(organ("liver", 900.0), unknown))
    page = render_report(report(study))
    (row,) = re.findall(r'<tr data-study="epsilon".*</tr>', page)
    assert re.findall(r"<td[^>]*>([^<]*)</td>", row) == ["done earlier", "900.0", "–", "unknown"]
    (row,) = re.findall(r'<tr data-study="alpha".*</tr>', page)
    assert re.findall(r"<td[^>]*>([^<]*)</td>", row) == ["done", "900.0", "absent", "–"]


@pytest.mark.parametrize(
    ("status", "said"), [(StudyStatus.DONE, "done, nothing found"), (StudyStatus.SKIPPED, "done earlier, nothing found")]
)
def test_a_study_in_which_nothing_was_found_does_not_look_like_any_other(status: StudyStatus, said: str) -> None:
    page = render_report(report(StudyReport("neck", status, "neck", organs=(organ("liver", None), organ("spleen", None)))))
    (row,) = re.findall(r'<tr data-study="neck".*</tr>', page)
    assert f">{said}<" in row
    assert page.count("nothing found<") == 2  # in the table and at the study itself


def test_ultrasound_that_a_run_for_scans_refuses_is_no_row_of_a_table_of_planes() -> None:
    refused = StudyReport("clip", StudyStatus.REJECTED, code=Code.MODALITY, message="the series is US", modality="US")
    page = render_report(report(refused))
    assert "Ultrasound planes" not in page
    assert page.count("the series is US") == 2  # among what is not done, and at the study itself
    only = replace(report(), studies=(refused,))
    assert "Ultrasound planes" in render_report(only)


def test_reasons_of_a_study_are_a_list() -> None:
    page = Page(render_report(report(), review={"beta": ("liver: wrong side (x)", "liver: a trace (0.1 ml)")}))
    (attributes,) = [found for found in page.all("ul") if found.get("class") == "look"]
    assert attributes
    assert len(page.all("li")) == 2 + len(report().counts)


def test_a_run_without_anything_is_a_page_too() -> None:
    empty = BatchReport("1", "a", "b", ExitCode.NO_STUDY, (), {}, {}, (), {})
    text = render_report(empty)
    assert "no study was found" in text
    assert "Trend of volumes" not in text


def test_a_page_that_would_not_open_is_cut_to_what_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agseg.io.html.page.STUDIES_SHOWN", 2)
    page = Page(render_report(report(), review=REVIEW))
    assert [a["data-study"] for a in page.all("article")] == ["beta", "delta"]
    assert "3 more studies are listed in volumes.csv" in render_report(report(), review=REVIEW)


def test_a_preview_that_is_no_picture_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "alpha").mkdir()
    (tmp_path / "alpha" / "preview.png").write_bytes(b"not a picture")
    assert "<img" not in render_report(report(), root=tmp_path)


# -- in a browser ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if not CHROMIUM.exists():
        pytest.skip("needs Chromium (apt-get install chromium)")
    with sync.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def seen(browser: Any, written: Path) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.trouble = []
    page.on("console", lambda message: page.trouble.append(message.text))
    page.on("pageerror", lambda error: page.trouble.append(str(error)))
    page.on(
        "request", lambda request: page.trouble.append(request.url) if not request.url.startswith(("data:", "file:")) else None
    )
    page.goto(written.as_uri())
    yield page
    assert page.trouble == []
    page.close()


def rows(page: Any) -> list[str]:
    return [row.locator("th").inner_text() for row in page.locator("#volumes tbody tr").all() if row.is_visible()]


def test_a_person_sees_counts_review_and_pictures(seen: Any) -> None:
    assert seen.title() == f"agseg report, {local_time('2026-01-02T02:00:00')}"
    assert "4\ndone" in seen.locator(".counts").inner_text()
    assert seen.locator("[aria-labelledby=h-review] a").all_inner_texts() == ["beta"]
    seen.locator("[aria-labelledby=h-review] a").click()
    assert seen.locator("article img").first.evaluate("image => image.naturalWidth") == 840
    assert seen.evaluate("document.querySelector('#study-1').getBoundingClientRect().top") < 900


def test_a_click_sorts_and_a_word_filters(seen: Any) -> None:
    seen.locator("#volumes th button", has_text="liver").click()
    assert rows(seen) == ["alpha", HOSTILE, "gamma", "beta", "delta"]
    seen.locator("#volumes th button", has_text="liver").click()
    assert rows(seen)[:2] == ["beta", "gamma"]
    assert seen.locator("#volumes th", has_text="liver").get_attribute("aria-sort") == "descending"
    seen.fill("#filter-text", "ALPH")
    assert rows(seen) == ["alpha"]
    assert seen.locator("#shown").inner_text() == "1 of 5 studies shown"
    assert seen.locator("article:visible").count() == 1
    seen.fill("#filter-text", "")
    seen.select_option("#filter-status", "rejected")
    assert rows(seen) == ["delta"]
    seen.select_option("#filter-status", "")
    seen.check("#filter-look")
    assert rows(seen) == ["beta"]


def test_the_keyboard_reaches_what_the_mouse_reaches(seen: Any) -> None:
    seen.locator("#volumes th button", has_text="study").focus()
    seen.keyboard.press("Enter")
    seen.keyboard.press("Enter")
    assert rows(seen)[-1] == "alpha"


@pytest.mark.slow
def test_it_can_be_read_without_javascript_and_printed_whole(browser: Any, written: Path) -> None:
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(written.as_uri())
    assert not page.locator("#controls").is_visible()
    assert page.locator("article:visible").count() == 5
    page.emulate_media(media="print")
    assert page.locator("article:visible").count() == 5
    assert page.pdf().startswith(b"%PDF")
    page.close()


def test_a_click_enlarges_a_picture_and_escape_closes_it(seen: Any) -> None:
    seen.locator("article img").first.click()
    assert seen.locator("dialog img").is_visible()
    assert seen.locator("dialog img").get_attribute("alt")
    seen.keyboard.press("Escape")
    assert not seen.locator("dialog").is_visible()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_systems_colours(seen: Any, scheme: str) -> None:
    seen.emulate_media(color_scheme=scheme)
    colour = seen.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (colour == "rgb(255, 255, 255)") == (scheme == "light")


@pytest.mark.slow
def test_it_fits_a_narrow_screen(seen: Any) -> None:
    seen.set_viewport_size({"width": 380, "height": 800})
    assert seen.evaluate("document.documentElement.scrollWidth") <= 380
