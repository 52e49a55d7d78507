"""An earlier result whose study is now refused, or fails, is not lost and does not pass as current."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from agseg.batch import StudyFolder, StudyTask, claim_output, run_batch
from agseg.batch.folder import RETIRED_JSON
from agseg.batch.outdated import OUTDATED, set_aside
from agseg.batch.provenance import Provenance
from agseg.errors import Code
from agseg.io.read import read_volume
from agseg.report import BatchReport, StudyReport, StudyStatus
from agseg.study import Study, StudyKind
from tests import phantoms
from tests.batch.fakes import MakeThreshold, job, read_well, write_study


def run(source: Path, target: Path, **changes: Any) -> BatchReport:
    with claim_output(target) as output:
        return run_batch(job(source, **changes), output)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def results(folder: Path) -> dict[str, bytes]:
    """The files but for the record, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != "study.json"}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "status"), [("read-reject", StudyStatus.REJECTED), ("read-kill", StudyStatus.FAILED)])
def test_a_result_whose_changed_input_is_not_segmented_steps_aside(tmp_path: Path, name: str, status: StudyStatus) -> None:
    path = write_study(tmp_path / "in" / f"{name}.nii.gz")
    folder = tmp_path / "out" / name
    assert run(tmp_path / "in", tmp_path / "out", read=read_well).counts["done"] == 1
    before = results(folder)
    (folder / "corrected.nii.gz").write_bytes(b"by hand")
    write_study(path, seed=7)
    (study,) = run(tmp_path / "in", tmp_path / "out").studies
    assert study.status is status
    assert sorted(entry.name for entry in folder.iterdir()) == ["corrected.nii.gz", study.extra[OUTDATED]]
    aside = folder / study.extra[OUTDATED]
    assert results(aside) == before
    record = json.loads((aside / "study.json").read_bytes())
    assert record["status"] == OUTDATED
    assert all((aside / file).is_file() for file in record["files"])
    assert all(entry.stat().st_mode & 0o077 == 0 for entry in (aside, *aside.iterdir()))
    # Once it can be segmented again, the new result is current and the old one still there.
    assert run(tmp_path / "in", tmp_path / "out", read=read_well, overwrite=True).counts["done"] == 1
    assert json.loads((folder / "study.json").read_bytes())["status"] == "done"
    assert results(aside) == before


@pytest.mark.slow
def test_a_series_that_lost_a_slice_since_steps_aside_too(tmp_path: Path) -> None:
    affine = phantoms.dicom_affine("axial", (20, 20, 6), (20.0, 20.0, 5.0))
    slices = phantoms.write_dicom(tmp_path / "in" / "ct", phantoms.sampled(phantoms.body_hu, (20, 20, 6), affine), affine)
    assert run(tmp_path / "in", tmp_path / "out", read=read_volume).counts["done"] == 1
    slices[3].unlink()
    for again in (False, True):
        (study,) = run(tmp_path / "in", tmp_path / "out", read=read_volume).studies
        assert (study.status, study.code, study.new) == (StudyStatus.REJECTED, Code.MISSING_SLICES, not again)
        assert not (tmp_path / "out" / "ct" / "study.json").exists()
        assert len(list((tmp_path / "out" / "ct").glob("outdated-*/liver.nii.gz"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("what", ["truncated", "link"])
def test_a_result_of_a_series_that_turns_out_to_be_longer_steps_aside(tmp_path: Path, what: str) -> None:
    """The slices that it was made of are the same, but now it is known that one was missing."""
    affine = phantoms.dicom_affine("axial", (20, 20, 6), (20.0, 20.0, 5.0))
    slices = phantoms.write_dicom(tmp_path / "in" / "ct", phantoms.sampled(phantoms.body_hu, (20, 20, 6), affine), affine)
    last = slices[-1].rename(tmp_path / slices[-1].name)
    assert run(tmp_path / "in", tmp_path / "out", read=read_volume).counts["done"] == 1
    if what == "link":
        slices[-1].symlink_to(last)
    else:
        slices[-1].write_bytes(last.read_bytes()[:200])
    (study,) = run(tmp_path / "in", tmp_path / "out", read=read_volume).studies
    assert study.status is StudyStatus.REJECTED
    assert not (tmp_path / "out" / "ct" / "study.json").exists()
    slices[-1].unlink()
    assert run(tmp_path / "in", tmp_path / "out", read=read_volume).counts["done"] == 1


@pytest.mark.slow
def test_a_half_replaced_result_steps_aside_too(tmp_path: Path) -> None:
    path = write_study(tmp_path / "in" / "read-reject.nii.gz")
    run(tmp_path / "in", tmp_path / "out", read=read_well)
    folder = tmp_path / "out" / "read-reject"
    # What a kill leaves while a new result takes the old one's place.
    (folder / "study.json").rename(folder / RETIRED_JSON)
    write_study(path, seed=7)
    (study,) = run(tmp_path / "in", tmp_path / "out").studies
    assert study.status is StudyStatus.REJECTED
    assert [entry.name for entry in folder.iterdir()] == [study.extra[OUTDATED]]


@pytest.mark.slow
def test_a_dry_run_moves_nothing(tmp_path: Path) -> None:
    affine = phantoms.dicom_affine("axial", (20, 20, 6), (20.0, 20.0, 5.0))
    slices = phantoms.write_dicom(tmp_path / "in" / "ct", phantoms.sampled(phantoms.body_hu, (20, 20, 6), affine), affine)
    run(tmp_path / "in", tmp_path / "out", read=read_volume)
    slices[3].unlink()
    before = files_of(tmp_path / "out")
    with claim_output(tmp_path / "out", dry_run=True) as output:
        assert run_batch(job(tmp_path / "in", dry_run=True), output).counts["rejected"] == 1
    assert files_of(tmp_path / "out") == before


@pytest.mark.slow
@pytest.mark.parametrize("what", ["same key", "same files, failed", "unreadable", "weights"])
def test_a_result_that_still_holds_stays(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "read-kill" if what == "same files, failed" else "well" if what == "weights" else "read-reject"
    path = write_study(tmp_path / "in" / f"{name}.nii.gz")
    run(tmp_path / "in", tmp_path / "out", read=read_well)
    before = files_of(tmp_path / "out" / name)
    changes: dict[str, Any] = {"overwrite": True}
    if what == "same files, failed":
        changes = {"shaping": {"overlap": 0.25}}
    elif what == "unreadable":

        def fails(*_given: object) -> str:
            raise OSError

        monkeypatch.setattr("agseg.batch.decide.input_fingerprint", fails)
    elif what == "weights":
        write_study(path, seed=7)
        changes = {"model": MakeThreshold("weights")}
    (study,) = run(tmp_path / "in", tmp_path / "out", **changes).studies
    assert study.status in (StudyStatus.REJECTED, StudyStatus.FAILED)
    assert OUTDATED not in study.extra
    assert files_of(tmp_path / "out" / name) == before


def test_a_full_disk_is_not_the_studys_fault_and_its_result_stays(tmp_path: Path) -> None:
    path = write_study(tmp_path / "in" / "write-full.nii.gz")
    (tmp_path / "out").mkdir()
    publish(tmp_path / "out", "liver.nii.gz", source=path, name="write-full")
    before = files_of(tmp_path / "out" / "write-full")
    (study,) = run(tmp_path / "in", tmp_path / "out").studies
    assert (study.status, study.code) == (StudyStatus.FAILED, Code.DISK_FULL)
    assert files_of(tmp_path / "out" / "write-full") == before


def test_a_link_in_the_output_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "study.json").write_text(json.dumps({"status": "done", "files": ["study.json"], "key": "old"}))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").symlink_to(elsewhere)
    assert set_aside(tmp_path / "out", "x", refused("x")) is None
    assert [path.name for path in elsewhere.iterdir()] == ["study.json"]


class Killed(BaseException):
    """Stands for kill -9."""


def refused(name: str) -> StudyReport:
    return StudyReport(name, StudyStatus.REJECTED, extra={"key": "new", "fingerprint": "new"})


def publish(root: Path, *files: str, source: Path | None = None, name: str = "x") -> None:
    """A result with these files."""
    study = Study(name, root, (source or root.parent / "x.nii.gz",), StudyKind.NIFTI)
    volume = read_well(study)
    with StudyFolder(StudyTask(study, root, name, Provenance("r", "1", (), {}, "f", (), "k"))) as folder:
        for name in files:
            (folder.path / name).parent.mkdir(exist_ok=True)
            (folder.path / name).write_text(f"{len(files)} {name}")
        folder.publish(volume)


def killed_at(step: int, monkeypatch: pytest.MonkeyPatch, root: Path) -> bool:
    """Set the result aside and die before the given change of the folder; whether there was such a step."""
    left = [step]

    def counted(plain: Any) -> Any:
        def call(*given: Any, **more: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return plain(*given, **more)

        return call

    with monkeypatch.context() as patched:
        for name in ("rename", "replace", "unlink", "rmdir", "mkdir"):
            patched.setattr(Path, name, counted(getattr(Path, name)))
        patched.setattr(os, "replace", counted(os.replace))
        try:
            set_aside(root, "x", refused("x"))
        except Killed:
            return True
    return False


def visible(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in files_of(folder).items() if not Path(name).name.startswith(".")}


FILES = ("liver.nii.gz", "seg.dcm", "attention/gate1.nii.gz")


def test_a_kill_at_any_step_loses_nothing_and_leaves_no_finished_looking_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(tmp_path / "x.nii.gz")
    steps = 0
    while True:
        root = tmp_path / f"out{steps}"
        root.mkdir()
        publish(root, *FILES)
        (root / "x" / "by-hand.txt").write_text("mine")
        before = {content for name, content in visible(root / "x").items() if not name.endswith("study.json")}
        was_killed = killed_at(steps, monkeypatch, root)
        assert before <= set(visible(root / "x").values())
        for record in (root / "x").rglob("study.json"):
            assert all((record.parent / name).is_file() for name in json.loads(record.read_bytes())["files"])
        if steps % 2 and was_killed:
            # The next run segments it: nothing of the old result stays beside the new one.
            publish(root, "liver.nii.gz")
            current = {name for name in files_of(root / "x") if not name.startswith(OUTDATED)}
            assert current == {"liver.nii.gz", "study.json", "by-hand.txt"}
        else:
            set_aside(root, "x", refused("x"))
            (aside,) = (root / "x").glob("outdated-*")
            assert {name for name in files_of(aside) if not name.startswith(".")} == {*FILES, "study.json"}
            assert {path.name for path in (root / "x").iterdir()} == {aside.name, "by-hand.txt"}
        steps += 1
        if not was_killed:
            break
    assert steps > 8
