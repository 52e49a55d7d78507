"""The promises about the batch, on the product itself; tests/batch holds the ones that need a model that misbehaves."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import nibabel
import numpy as np
import pytest

from tests.promises.conftest import HOSTILE, Night, contents, write_good


def record(night: Night) -> dict:
    return json.loads((night.out / "run.json").read_bytes())


def test_promise_2_the_mask_has_the_sources_affine_and_ml_is_voxels_times_determinant(night: Night) -> None:
    for study in record(night)["studies"]:
        for organ in study["organs"] if study["status"] == "done" else ():
            mask = nibabel.load(night.out / study["output"] / f"{organ['name']}.nii.gz")
            voxels = np.count_nonzero(np.asarray(mask.dataobj))
            assert organ["voxels"] == voxels
            assert organ["volume_ml"] == pytest.approx(voxels * abs(np.linalg.det(mask.affine[:3, :3])) / 1000, rel=1e-6)
    source = nibabel.load(night.source / HOSTILE / "scan.nii.gz")
    mask = nibabel.load(next((night.out / HOSTILE).rglob("pancreas.nii.gz")))
    assert np.abs(source.affine - mask.affine).max() < 1e-4
    assert source.shape == mask.shape


@pytest.mark.slow
def test_promise_3_the_same_input_gives_the_same_bytes(night: Night, again, tmp_path: Path) -> None:
    assert again(out=tmp_path / "out").returncode == 3
    masks = sorted(path.relative_to(night.out) for path in night.out.rglob("*.nii.gz"))
    assert len(masks) == 4
    for mask in masks:
        assert (tmp_path / "out" / mask).read_bytes() == (night.out / mask).read_bytes()


def test_promises_11_14_15_bad_studies_do_not_stop_the_batch_and_each_has_one_record(night: Night) -> None:
    assert night.done.returncode == 3, night.done.stderr
    found = {study["input"]: (study["status"], study["code"]) for study in record(night)["studies"]}
    assert len(found) == len(record(night)["studies"])
    assert {name for name, (status, _) in found.items() if status == "done"} == {"axial", f"{HOSTILE}/scan"}
    assert found["gap"] == ("rejected", "E_MISSING_SLICES")
    assert found["cut"][0] == "rejected"
    files = record(night)["files"]
    assert files["found"] == files["used"] + sum(files["skipped"].values())


def test_promise_17_a_finished_study_is_skipped(night: Night, again) -> None:
    before = contents(night.out / "axial")
    done = again("--json")
    report = json.loads(done.stdout)
    assert done.returncode == 3
    assert report["counts"]["skipped"] == 2
    assert {study["new"] for study in report["studies"]} == {False}
    assert {study["seconds"] for study in report["studies"] if study["status"] == "skipped"} == {None}
    assert contents(night.out / "axial") == before


@pytest.mark.slow
def test_promise_18_a_changed_study_is_done_again(night: Night, again, tmp_path: Path) -> None:
    slices = write_good(tmp_path / "in" / "one")
    write_good(tmp_path / "in" / "two", series=3)
    options = {"source": tmp_path / "in", "out": tmp_path / "out"}
    assert again(**options).returncode == 0
    slices[3].write_bytes(slices[3].read_bytes())
    statuses = {study["input"]: study["status"] for study in json.loads(again("--json", **options).stdout)["studies"]}
    assert statuses == {"one": "done", "two": "skipped"}


@pytest.mark.slow
def test_promise_19_arriving_studies_are_deferred(night: Night, again, tmp_path: Path) -> None:
    write_good(tmp_path / "in" / "fresh")
    done = again("--min-age", "3600", "--json", source=tmp_path / "in", out=tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"]["deferred"] == 1
    assert not (tmp_path / "out" / "fresh").exists()


@pytest.mark.slow
def test_promise_23_unwritable_output_fails_first(night: Night, again, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    done = again(out=tmp_path / "out")
    assert done.returncode == 8
    assert "E_OUTPUT" in done.stderr


def test_promise_24_a_dry_run_writes_nothing(night: Night, again, tmp_path: Path) -> None:
    done = again("--dry-run", "--json", out=tmp_path / "out")
    assert json.loads(done.stdout)["counts"]["deferred"] == 3
    assert not (tmp_path / "out").exists()
    before = contents(night.out)
    again("--dry-run", "--overwrite")
    assert contents(night.out) == before


def test_promise_25_the_input_is_not_modified(night: Night) -> None:
    assert contents(night.source) == night.before


@pytest.mark.slow
def test_promise_27_cron_gets_silence_on_success_and_no_colour(night: Night, again, tmp_path: Path) -> None:
    write_good(tmp_path / "in" / "one")
    done = again(source=tmp_path / "in", out=tmp_path / "out")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "\x1b" not in night.done.stdout + night.done.stderr


def test_promise_30_files_are_0600_and_folders_0700(night: Night) -> None:
    modes = {(path.is_dir(), stat.S_IMODE(path.lstat().st_mode)) for path in night.out.rglob("*")}
    assert modes == {(True, 0o700), (False, 0o600)}
