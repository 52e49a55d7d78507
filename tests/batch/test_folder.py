from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from agseg.batch import run_batch
from agseg.batch.folder import StudyFolder, edited_files, read_record
from agseg.batch.handover import pack, unpack
from agseg.batch.job import StudyTask
from agseg.batch.output import LOCK_NAME, claim_output, make_folders
from agseg.batch.provenance import Provenance
from agseg.errors import Code, LockedError, OutputError, WeightsError
from agseg.grid import Grid
from agseg.study import Study, StudyKind
from agseg.volume import Volume, Warned
from tests.batch.fakes import job, write_study

VOLUME = Volume(np.arange(24, dtype=np.int16).reshape(2, 3, 4), Grid((2, 3, 4), np.diag([-1.0, 2, 3, 1])))


def task(root: Path, name: str = "a/b") -> StudyTask:
    return StudyTask(Study(name, root, (), StudyKind.NIFTI), root, name, Provenance("r", "1", (), {}, "f", (), "k"))


def test_nothing_is_visible_before_publish_and_nothing_is_left_after_an_error(tmp_path: Path) -> None:
    def fail(folder: StudyFolder) -> None:
        (folder.path / "mask").write_bytes(b"x")
        assert [path.name[0] for path in tmp_path.iterdir()] == ["."]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), StudyFolder(task(tmp_path)) as folder:
        fail(folder)
    assert not list(tmp_path.iterdir())


def test_publish_makes_everything_visible_at_once(tmp_path: Path) -> None:
    with StudyFolder(task(tmp_path)) as folder:
        (folder.path / "attention").mkdir()
        (folder.path / "attention" / "gate.png").write_bytes(b"x")
        report = folder.publish(VOLUME, warnings=(Warned(Code.NONFINITE, "not finite"),))
    assert report.files == ("attention/gate.png", "study.json")
    record = read_record(tmp_path / "a" / "b")
    assert record is not None
    assert record["key"] == "k"
    assert record["disclaimer"]
    assert record["warnings"] == [{"code": "W_NONFINITE", "message": "not finite"}]


def test_what_somebody_changed_is_kept_beside_the_new_result_and_said(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    for round_number, names in enumerate((("liver.nii.gz", "old.json"), ("liver.nii.gz",), ("liver.nii.gz",))):
        with StudyFolder(task(tmp_path)) as folder:
            for name in names:
                (folder.path / name).write_text(f"ours {round_number}")
            report = folder.publish(VOLUME)
        assert [warned.code for warned in report.warnings] == ([Code.EDITED] if round_number else [])
        # A correction by hand, of a file that the next run replaces and of one that it does not make any more. Its time says
        # nothing: file systems have ticks of two seconds, and copies keep the old one.
        for name in names:
            before = (target / name).stat()
            (target / name).write_text(f"corrected {round_number}")
            os.utime(target / name, ns=(before.st_atime_ns, before.st_mtime_ns))
    texts = {path.name: path.read_text() for path in target.iterdir() if path.name != "study.json"}
    assert texts == {
        "liver.nii.gz": "corrected 2",
        "liver.edited.nii.gz": "corrected 0",
        "liver.edited-2.nii.gz": "corrected 1",
        "old.edited.json": "corrected 0",
    }


def test_a_rerun_removes_our_stale_files_and_only_those(tmp_path: Path) -> None:
    for names in (("old", "both"), ("both", "new")):
        with StudyFolder(task(tmp_path)) as folder:
            for name in names:
                (folder.path / name).write_text(names[1])
            folder.publish(VOLUME)
        (tmp_path / "a" / "b" / "theirs").write_text("kept")
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == ["both", "new", "study.json", "theirs"]
    assert (tmp_path / "a" / "b" / "both").read_text() == "new"


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, Code.DISK_FULL), (errno.EROFS, Code.OUTPUT_NOT_WRITABLE), (errno.EIO, Code.OUTPUT)]
)
def test_an_os_error_while_writing_is_an_output_error(tmp_path: Path, number: int, code: Code) -> None:
    with pytest.raises(OutputError) as caught, StudyFolder(task(tmp_path)):
        raise OSError(number, "no")
    assert caught.value.code is code


@pytest.mark.parametrize("how", ["cut", "one byte", "swapped for a link", "copied in from elsewhere"])
def test_a_result_is_what_its_record_says_byte_for_byte(tmp_path: Path, how: str) -> None:
    with StudyFolder(task(tmp_path)) as folder:
        (folder.path / "mask").write_bytes(b"0123456789")
        folder.publish(VOLUME)
    mask = tmp_path / "a" / "b" / "mask"
    assert read_record(mask.parent) is not None
    os.utime(mask)
    assert read_record(mask.parent) is not None, "a time alone is no change"
    before = mask.stat()
    if how == "cut":
        mask.write_bytes(b"01234")
    elif how == "one byte":
        mask.write_bytes(b"0123456780")
    else:
        (tmp_path / "other").write_bytes(b"9876543210" if how.startswith("copied") else b"0123456789")
        mask.unlink()
        if how.startswith("copied"):
            (tmp_path / "other").rename(mask)
        else:
            mask.symlink_to(tmp_path / "other")
    if not mask.is_symlink():
        os.utime(mask, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert read_record(mask.parent) is None
    assert edited_files(mask.parent) == ("mask",)


def test_a_record_whose_files_are_gone_or_empty_is_none(tmp_path: Path) -> None:
    with StudyFolder(task(tmp_path)) as folder:
        (folder.path / "mask").write_bytes(b"x")
        folder.publish(VOLUME)
    done = tmp_path / "a" / "b"
    (done / "mask").write_bytes(b"")
    assert read_record(done) is None
    (done / "mask").unlink()
    assert read_record(done) is None
    (done / "study.json").write_text("{")
    assert read_record(done) is None
    assert read_record(tmp_path / "nowhere") is None


@pytest.mark.parametrize("name", ["../x", "a/../../x", "a//x", "/x"])
def test_names_do_not_climb_out(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError) as caught:
        make_folders(tmp_path / "out", name)
    assert caught.value.code is Code.PATH_ESCAPE


def test_a_link_on_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError) as caught, StudyFolder(task(tmp_path)) as folder:
        folder.publish(VOLUME)
    assert caught.value.code is Code.SYMLINK
    assert not list((tmp_path / "elsewhere").iterdir())


def test_the_lock_holds_and_is_given_back(tmp_path: Path) -> None:
    with claim_output(tmp_path / "out"):
        with pytest.raises(LockedError), claim_output(tmp_path / "out"):
            pass
        # Looking is always allowed.
        with claim_output(tmp_path / "out", dry_run=True):
            pass
    with claim_output(tmp_path / "out") as output:
        assert output.root == (tmp_path / "out").resolve()


def test_a_run_that_is_refused_leaves_no_folder_that_it_made(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for place in (tmp_path / "new" / "out", tmp_path / "there"):
        with pytest.raises(WeightsError), claim_output(place):
            raise WeightsError("not here")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    with pytest.raises(WeightsError), claim_output(tmp_path / "out") as output:
        _write_and_fail(output.root / "run.json")
    assert (tmp_path / "out" / "run.json").is_file()


def _write_and_fail(path: Path) -> None:
    path.write_text("{}")
    raise WeightsError("not here")


def test_a_lock_whose_file_is_gone_excludes_nobody_and_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(handle: int, kind: int) -> None:
        (tmp_path / LOCK_NAME).unlink()

    monkeypatch.setattr("agseg.batch.output.fcntl.flock", flock)
    with pytest.raises(LockedError, match="took it back"), claim_output(tmp_path):
        pass


def test_leftovers_of_a_killed_run_are_swept_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / ".agseg-tmp-1-0123456789ab").mkdir()
    (tmp_path / ".agseg-tmp-1-0123456789ab" / "mask").write_bytes(b"x")
    (tmp_path / ".agseg-tmp-1-ba9876543210").write_bytes(b"x")
    (tmp_path / ".mine").write_bytes(b"x")
    with claim_output(tmp_path):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".agseg.lock", ".mine"]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_volume_arrives_as_it_left(order: Any, dtype: type, rng: np.random.Generator) -> None:
    voxels: NDArray[Any] = np.array(rng.normal(size=(3, 4, 5)) * 100, dtype=dtype, order=order)
    sent = Volume(voxels, Grid((3, 4, 5), np.array([[0.1, 0, 0, 1 / 3], [0, 0.7, 0, -2], [0, 0, 5, 9], [0, 0, 0, 1.0]])))
    header, descriptor = pack(sent)
    got = unpack(json.loads(json.dumps(header)), descriptor)
    assert np.array_equal(got.voxels, voxels)
    assert got.voxels.dtype == dtype
    assert got.voxels.flags.f_contiguous == voxels.flags.f_contiguous
    assert got.grid == sent.grid
    got.voxels[0, 0, 0] = 7


def test_records_of_another_user_are_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_study(tmp_path / "in" / "case.nii.gz")
    with claim_output(tmp_path / "out") as output:
        run_batch(job(tmp_path / "in"), output)
    read = Path.read_bytes

    def refusing(path: Path) -> bytes:
        """As for the user of the timer after a run of root's."""
        if path.name == "run.json":
            raise PermissionError(errno.EACCES, "denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refusing)
    match = "records of an earlier run cannot be read"
    with pytest.raises(OutputError, match=match) as said, claim_output(tmp_path / "out") as output:
        run_batch(job(tmp_path / "in"), output)
    assert said.value.code is Code.OUTPUT_NOT_WRITABLE
    assert said.value.hint is not None
    assert "chown" in said.value.hint
