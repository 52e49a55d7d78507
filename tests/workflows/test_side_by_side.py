"""One output folder holds the organs of all that was asked for; a network runs only for masks that are not there."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from agseg.io.outputs import Outputs
from agseg.report import BatchReport, StudyReport, StudyStatus
from agseg.workflows.options import SegmenterOptions, Shaping
from agseg.workflows.segment import SegmentRequest, segment
from tests import phantoms
from tests.workflows.test_networks import SHAPE, SPACING, two_entries

pytestmark = pytest.mark.slow

D, S = StudyStatus.DONE, StudyStatus.SKIPPED


@pytest.fixture
def site(tmp_path: Path) -> Path:
    two_entries(tmp_path)
    affine = phantoms.dicom_affine("axial", SHAPE, SPACING)
    phantoms.write_dicom(tmp_path / "in" / "ct", phantoms.sampled(phantoms.body_hu, SHAPE, affine), affine)
    return tmp_path


def run(
    site: Path, *organs: str, out: str = "out", weights: tuple[str, ...] = (), overwrite: bool = False, **outputs: object
) -> BatchReport:
    options = SegmenterOptions(
        device="cpu",
        shaping=Shaping(precision="fp32"),
        outputs=Outputs(**{"preview": False, **outputs}),  # type: ignore[arg-type]
    )
    return segment(
        SegmentRequest(
            inputs=(site / "in",), output=site / out, home=site / "home", organs=organs, weights=weights,
            manifest=site / "site.yaml", offline=True, options=options, overwrite=overwrite,
        )
    )  # fmt: skip


def one(report: BatchReport) -> StudyReport:
    (study,) = report.studies
    return study


def ran(study: StudyReport) -> bool:
    """Whether a network saw the study."""
    return study.seconds is not None and "predict" in study.seconds


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != "study.json"
    }


def test_asking_for_the_liver_tomorrow_keeps_todays_pancreas(site: Path) -> None:
    first = run(site, "pancreas")
    pancreas = (site / "out" / "ct" / "pancreas.nii.gz").read_bytes()
    second = run(site, "liver")
    assert (one(second).status, ran(one(second))) == (D, True)
    assert [(o.name, o.weights, o.run) for o in one(second).organs] == [
        ("liver", "other", second.run_id), ("pancreas", "tiny", first.run_id),
    ]  # fmt: skip
    assert (site / "out" / "ct" / "pancreas.nii.gz").read_bytes() == pancreas
    rows = list(csv.DictReader((site / "out" / "volumes.csv").read_text().splitlines()))
    assert {(row["organ"], row["weights"], row["run"]) for row in rows} == {
        ("liver", "other", second.run_id), ("pancreas", "tiny", first.run_id),
    }  # fmt: skip
    # Both in one run make the very same files.
    run(site, "pancreas", "liver", out="both")
    together, apart = files_of(site / "both" / "ct"), files_of(site / "out" / "ct")
    assert {name: together[name] for name in ("pancreas.nii.gz", "liver.nii.gz")} == {
        name: apart[name] for name in ("pancreas.nii.gz", "liver.nii.gz")
    }
    # And both are there: nothing is done again, whatever part of it is asked for.
    for organs in (("pancreas",), ("liver",), ("liver", "pancreas")):
        assert one(run(site, *organs)).status is S
    assert json.loads((site / "out" / "ct" / "statistics.json").read_bytes()).keys() == {"pancreas", "liver"}


@pytest.mark.parametrize("first", [{}, {"multilabel": True}, {"kinds": ("dicom-seg",)}])
def test_an_output_that_is_missing_is_written_from_the_masks_as_a_run_for_it_would_have(
    site: Path, first: dict[str, Any]
) -> None:
    pytest.importorskip("highdicom")
    wanted: dict[str, Any] = {"kinds": ("nifti", "stl", "rtstruct"), "preview": True}
    run(site, "pancreas", "kidney_left", **first)
    assert one(run(site, "pancreas", "kidney_left", **first)).status is S
    later = one(run(site, "pancreas", "kidney_left", **wanted))
    assert (later.status, later.message, ran(later)) == (D, None, False)
    run(site, "pancreas", "kidney_left", out="direct", **wanted)
    direct, converted = files_of(site / "direct" / "ct"), files_of(site / "out" / "ct")
    for name, content in direct.items():
        if not name.endswith(".dcm"):  # they hold the time of day
            assert converted[name] == content, name
    assert "rtstruct.dcm" in converted
    assert one(run(site, "pancreas", "kidney_left", **wanted)).status is S
    # What was there stays.
    assert set(files_of(site / "out" / "ct")) >= set(direct)


def test_a_lost_picture_is_drawn_again_and_a_lost_mask_computed_again(site: Path) -> None:
    run(site, "pancreas", preview=True)
    before = files_of(site / "out" / "ct")
    (site / "out" / "ct" / "preview.png").unlink()
    again = one(run(site, "pancreas", preview=True))
    assert (again.status, ran(again)) == (D, False)
    assert files_of(site / "out" / "ct") == before
    (site / "out" / "ct" / "pancreas.nii.gz").unlink()
    again = one(run(site, "pancreas", preview=True))
    assert (again.status, ran(again)) == (D, True)
    assert files_of(site / "out" / "ct") == before


def test_other_weights_for_the_same_organ_take_its_name_and_the_first_result_stays_beside_it(site: Path) -> None:
    manifest = site / "site.yaml"
    text = manifest.read_text().replace("{1: spleen, 2: liver}", "{1: spleen, 2: pancreas}")
    manifest.write_text(text.replace("[spleen, liver]", "[spleen]"))
    run(site, "pancreas", weights=("tiny",))
    before = (site / "out" / "ct" / "pancreas.nii.gz").read_bytes()
    second = run(site, "pancreas", weights=("other",))
    assert [(o.name, o.weights) for o in one(second).organs] == [("pancreas", "other")]
    assert (site / "out" / "ct" / "pancreas.nii.gz").read_bytes() != before
    (aside,) = (site / "out" / "ct").glob("earlier-*")
    assert (aside / "pancreas.nii.gz").read_bytes() == before
    record = json.loads((aside / "study.json").read_bytes())
    assert (record["status"], [o["weights"] for o in record["organs"]]) == ("earlier", ["tiny"])
    rows = list(csv.DictReader((site / "out" / "volumes.csv").read_text().splitlines()))
    assert sorted((row["organ"], row["weights"]) for row in rows) == [("pancreas", "other"), ("pancreas", "tiny")]


def test_input_that_has_changed_makes_organs_that_were_not_asked_for_again_step_aside(site: Path) -> None:
    run(site, "pancreas")
    before = (site / "out" / "ct" / "pancreas.nii.gz").read_bytes()
    for path in (site / "in" / "ct").iterdir():
        path.touch()
    report = one(run(site, "liver"))
    assert [organ.name for organ in report.organs] == ["liver"]
    (aside,) = (site / "out" / "ct").glob("earlier-*/pancreas.nii.gz")
    assert aside.read_bytes() == before


def test_a_folder_of_before_is_done_again_once(site: Path) -> None:
    run(site, "pancreas")
    path = site / "out" / "ct" / "study.json"
    record = json.loads(path.read_bytes())
    old = {name: value for name, value in record.items() if name not in ("contents", "outputs", "label_values", "networks")}
    path.write_text(json.dumps(old | {"schema": "agseg.study/1"}))
    assert one(run(site, "pancreas")).status is D
    assert one(run(site, "pancreas")).status is S
    assert not list((site / "out" / "ct").glob("earlier-*"))


def test_a_study_that_has_left_the_input_keeps_its_rows(site: Path) -> None:
    first = run(site, "pancreas")
    (site / "in" / "ct").rename(site / "away")
    affine = phantoms.coded_affine("LPI", SHAPE, SPACING)
    phantoms.write_nifti(site / "in" / "new.nii.gz", phantoms.sampled(phantoms.body_hu, SHAPE, affine), affine)
    second = run(site, "pancreas")
    assert [study.input for study in second.studies] == ["new"]
    rows = list(csv.DictReader((site / "out" / "volumes.csv").read_text().splitlines()))
    assert [(row["study"], row["status"], row["run"]) for row in rows] == [
        ("new", "done", second.run_id), ("ct", "skipped", first.run_id),
    ]  # fmt: skip
    assert rows[1]["weights_sha256"] == first.weights[0].sha256
    assert 'id="study-2"' in (site / "out" / "report.html").read_text()
    assert json.loads((site / "out" / "run.json").read_bytes())["counts"]["skipped"] == 0


def test_overwriting_one_organ_leaves_the_others(site: Path) -> None:
    run(site, "pancreas")
    run(site, "liver")
    report = one(run(site, "liver", overwrite=True))
    assert sorted(organ.name for organ in report.organs) == ["liver", "pancreas"]
    assert one(run(site, "pancreas")).status is S
