"""report.html of an evaluation: the worst cases first, with pictures, for everybody, offline."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from agseg.measure.overlap import Overlap
from agseg.report import DISCLAIMER
from agseg.training.evaluation import Evaluation, read_evaluation, write_evaluation
from agseg.training.frame_table import FrameTable
from agseg.training.scoring import CaseScore, FrameScore
from agseg.workflows.evaluate_folders import evaluate_folders
from agseg.workflows.evaluation_report import write_results
from agseg.workflows.frame_page import write_frame_page
from agseg.workflows.pool_folds import pool_folds
from agseg.workflows.worst_cases import WorstCases, gathered
from tests.io.html.test_accessibility import CONTRAST, NAMELESS
from tests.io.html.test_page import Page, browser  # noqa: F401 - the fixture

pytestmark = pytest.mark.slow

HOSTILE = "</title><script>document.title='owned'</script>"
"""A method's name, as somebody may give it."""

AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), path)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cases: found, half found, one without the tumour that the prediction has, and one that has no prediction."""
    root = tmp_path_factory.mktemp("page")
    labels = {"background": 0, "liver": 1, "tumour": 2}
    (root / "dataset.json").write_text(json.dumps({"labels": labels}))
    truth = np.zeros((40, 30, 12), dtype=np.uint8)
    truth[5:25, 5:25, 2:10] = 1
    truth[10:15, 10:15, 4:8] = 2
    half, none = truth.copy(), truth.copy()
    half[15:25] = 0
    none[none == 2] = 1
    scan = np.where(truth > 0, 60, -1000).astype(np.int16)
    for case, reference, found in (("a", truth, truth), ("b", truth, half), ("c", none, truth), ("x<y", truth, None)):
        save(root / f"labelsTr/{case}.nii.gz", reference)
        save(root / f"imagesTr/{case}_0000.nii.gz", scan)
        if found is not None:
            save(root / f"pred/{case}.nii.gz", found)
    evaluate_folders(root / "labelsTr", root / "pred", output=root / "other", name="first")
    evaluate_folders(
        root / "labelsTr", root / "pred", output=root / "out", name=f"my method {HOSTILE}", against=[root / "other"]
    )
    return root / "out"


def test_the_worst_come_first_and_all_is_said_without_a_script(out: Path) -> None:
    text = (out / "report.html").read_text()
    for said in (
        DISCLAIMER,
        "Not scored",
        "x&lt;y",
        "invented: the reference has none",
        "Holm",
        "NSD, by area",
    ):
        assert said in text, said
    order = [text.index(f"<h3>{title}") for title in ("c: tumour", "b: liver", "a: liver")]
    assert order == sorted(order)
    assert text.index("Not scored</h2>") < text.index("Worst first</h2>") < text.index("Cases, worst first</h2>")
    assert text.index("Scores</h2>") < text.index("Tests</h2>")
    told = read_evaluation(out).about["pictures"]
    assert [(p["case"], p["organ"]) for p in told[:2]] == [("c", "tumour"), ("b", "liver")]
    assert sorted(path.name for path in (out / "worst").iterdir()) == [f"{n:02d}.png" for n in range(1, len(told) + 1)]


def test_nothing_foreign_becomes_markup_and_nothing_is_fetched(out: Path) -> None:
    page = Page((out / "report.html").read_text())
    assert len(page.all("script")) == 1
    assert not [a for _, a in page.tags for name in a if name.startswith("on") or name == "style"]
    assert all((a["src"] or "").startswith("data:image/jpeg;base64,") for a in page.all("img"))
    assert all((a["href"] or "")[:1] in "#." for a in page.all("a"))
    assert len(page.all("img")) == len(list((out / "worst").iterdir())) == 6
    assert all("Dice" in (a.get("alt") or "") for a in page.all("img"))
    ids = {a["id"] for _, a in page.tags if "id" in a}
    assert {a["for"] for a in page.all("label")} <= ids
    assert {(a["href"] or "")[1:] for a in page.all("a") if (a["href"] or "").startswith("#")} <= ids


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:  # noqa: F811
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    page.trouble = []
    page.on("console", lambda message: page.trouble.append(message.text))
    page.on("pageerror", lambda error: page.trouble.append(str(error)))
    page.on(
        "request", lambda request: page.trouble.append(request.url) if not request.url.startswith(("file:", "data:")) else None
    )
    yield page
    assert page.trouble == []
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_and_every_control_has_a_name(out: Path, tab: Any, scheme: str) -> None:
    tab.emulate_media(color_scheme=scheme)
    tab.goto((out / "report.html").as_uri())
    assert tab.title() == f"agseg evaluation, my method {HOSTILE} on labelsTr"
    assert tab.evaluate(CONTRAST) == []
    assert tab.evaluate(NAMELESS) == []
    headings = tab.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(h => Number(h.tagName[1]))")
    assert headings[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(headings))


def test_it_is_filtered_sorted_and_enlarged(out: Path, tab: Any) -> None:
    tab.goto((out / "report.html").as_uri())
    assert tab.locator("#shown").inner_text() == "6 of 6 rows shown"
    tab.locator("#filter-status").select_option("invented")
    assert tab.locator("#shown").inner_text() == "1 of 6 rows shown"
    assert tab.locator("article:visible").count() == 1
    tab.locator("#filter-status").select_option("")
    tab.locator("#cases thead button", has_text="DSC").click()
    first = tab.locator("#cases tbody tr").first
    assert first.locator("td").nth(2).inner_text() == "0.000"
    tab.locator("a.picture").first.click()
    assert tab.locator("#large img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 500


def score(case: str, dice: float, organ: str = "liver") -> CaseScore:
    hits = round(100 * dice)
    return CaseScore(case, organ, Overlap(hits, 100 - hits, 100 - hits, 1000), 1.0, 1.0, 2.0, 0.001)


def test_only_what_is_among_the_worst_is_drawn(tmp_path: Path) -> None:
    from PIL import Image

    drawn: list[str] = []
    worst = WorstCases(most=2)
    empty = CaseScore("e", "liver", Overlap(0, 0, 0, 10), np.nan, np.nan, np.nan, 0.001)
    for entry in (score("a", 0.9), score("b", 0.5), empty, score("c", 0.95), score("d", 0.1)):

        def draw(organ: str, case: str = entry.case) -> Any:
            drawn.append(case)
            return Image.new("RGB", (9, 9))

        worst([entry], draw)
    assert drawn == ["a", "b", "d"]
    (tmp_path / "worst").mkdir()
    for left in ("07.png", "mine.png"):
        (tmp_path / "worst" / left).write_bytes(b"")
    assert [told["case"] for told in worst.save(tmp_path)] == ["d", "b"]
    assert sorted(p.name for p in (tmp_path / "worst").iterdir()) == ["01.png", "02.png", "mine.png"]


def test_folds_put_their_worst_pictures_together(tmp_path: Path) -> None:
    folders = []
    for fold, dice in ((0, 0.6), (1, 0.3)):
        folder = tmp_path / f"fold-{fold}"
        pictures = [{"case": f"case-{fold}", "organ": "liver", "file": "worst/01.png"}]
        (folder / "worst").mkdir(parents=True)
        (folder / "worst/01.png").write_bytes(bytes([fold]))
        about = {"recipe": "mine", "split": "3-fold", "fold": fold, "folds": 2, "pictures": pictures}
        write_evaluation(folder, Evaluation("", "mine", "data", (score(f"case-{fold}", dice),), None, about))
        folders.append(folder)
    pool_folds(folders, output=tmp_path / "all")
    assert [told["case"] for told in read_evaluation(tmp_path / "all").about["pictures"]] == ["case-1", "case-0"]
    assert (tmp_path / "all/worst/01.png").read_bytes() == bytes([1])
    assert "case-1" in (tmp_path / "all/report.html").read_text()


def test_a_picture_is_taken_from_the_folder_of_pictures_alone(tmp_path: Path) -> None:
    """An evaluation.json from elsewhere names no file of ours."""
    (tmp_path / "01.png").write_bytes(b"secret")
    (tmp_path / "fold/worst").mkdir(parents=True)
    (tmp_path / "fold/worst/02.png").symlink_to(tmp_path / "01.png")
    named = ("../01.png", str(tmp_path / "01.png"), "worst/02.png", "worst/../../01.png")
    told = {"pictures": [{"case": "a", "organ": "liver", "file": file} for file in named]}
    evaluation = Evaluation("", "m", "d", (score("a", 0.5),), None, told)
    assert gathered([tmp_path / "fold"], [evaluation], tmp_path / "out") == []


def test_without_pictures_the_page_says_so(tmp_path: Path) -> None:
    write_results(tmp_path, Evaluation("", "m", "d", (score("a", 0.5),)), files={})
    assert "There are no pictures" in (tmp_path / "report.html").read_text()


def test_frames_that_were_surely_taken_for_another_class_come_first(tmp_path: Path) -> None:
    rows = (("a/1", "Femur", "Femur", 0.9), ("a/2", "Femur", "Brain", 0.6), ("b/1", "Brain", "Femur", 0.99))
    table = FrameTable("net", ("Femur", "Brain"), tuple(FrameScore(*row) for row in rows))
    write_frame_page(tmp_path, table, data="us", read=lambda case: np.full((40, 60), 80, dtype=np.uint8))
    text = (tmp_path / "report.html").read_text()
    order = [text.index(f"<h3>{title}") for title in ("b/1: Brain", "a/2: Femur")]
    assert order == sorted(order)
    assert "taken for Femur" in text
    assert "a/1: Femur" not in text
    page = Page(text)
    assert [bool(a.get("alt")) for a in page.all("img")] == [True, True]
    assert [path.name for path in sorted((tmp_path / "worst").iterdir())] == ["01.png", "02.png"]
    write_frame_page(tmp_path, table, data="us")
    assert "the frames themselves are not at hand" in (tmp_path / "report.html").read_text()
    assert list((tmp_path / "worst").iterdir()) == []
