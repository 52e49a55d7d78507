"""Files that kill, hang or bloat whoever looks at them cost themselves; the parent opens nothing, and believes no nonsense."""

from __future__ import annotations

import gc
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agseg.batch import intake as module
from agseg.batch.calls import CallLimits, Calls, Lost
from agseg.batch.found import discovery_from_json, discovery_to_json
from agseg.batch.intake import Intake
from agseg.errors import AgsegError, Code, InputError, UsageError
from agseg.io import discover as discovering
from agseg.io.discover import discover
from agseg.io.walk import listed
from agseg.study import Rejected
from tests import phantoms

SHAPE, SPACING = (12, 10, 6), (3.0, 3.0, 5.0)


def write_good(path: Path) -> Path:
    affine = phantoms.coded_affine("RAS", SHAPE, SPACING)
    return phantoms.write_nifti(path, phantoms.sampled(phantoms.linear_hu, SHAPE, affine), affine)


# -- what the child is told to call; by name, so at the top of a module ----------------------------------------------------


def broken_find(files, skipped, modalities, lost, *, note: Callable[[int], None]):
    """Discovery in which names of files say what becomes of who opens them."""
    real = discovering._looked_at

    def look(file):
        if "kill" in file.path.name:
            os.kill(os.getpid(), signal.SIGKILL)
        if "abort" in file.path.name:
            os.abort()
        if "hang" in file.path.name:
            time.sleep(600)
        if "busy" in file.path.name:
            while True:
                pass
        if "memory" in file.path.name:
            return bytearray(8 << 30)
        if "raise" in file.path.name:
            raise ZeroDivisionError(phantoms.CANARIES[0])
        return real(file)

    discovering._looked_at = look
    try:
        return module._found(files, skipped, modalities, lost, note=note)
    finally:
        discovering._looked_at = real


def collection(*, note):
    return gc.isenabled(), gc.get_freeze_count()


def echo(value, *, note):
    return value


def die(*, note):
    note(7)
    os.kill(os.getpid(), signal.SIGKILL)


def stall(*, note):
    time.sleep(600)


def fail(*, note):
    raise ZeroDivisionError(phantoms.CANARIES[0])


def nonsense(files, skipped, modalities, lost, *, note):
    return {"studies": [{"id": "x", "files": [99]}], "skipped": []}


def dies_between_files(files, skipped, modalities, lost, *, note):
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_child_finds_what_is_found_here(tmp_path):
    write_good(tmp_path / "a.nii.gz")
    affine = phantoms.dicom_affine("axial", SHAPE, SPACING)
    phantoms.write_dicom(tmp_path / "ct", phantoms.sampled(phantoms.linear_hu, SHAPE, affine), affine)
    (tmp_path / "ct" / os.fsdecode(b"\xff.dcm")).write_bytes(b"")
    (tmp_path / "note.txt").write_text("spec")
    (tmp_path / "link").symlink_to(tmp_path / "note.txt")
    with Intake() as intake:
        found = intake.discover([tmp_path])
        assert found == discover([tmp_path])
        assert intake.discover([tmp_path], exclude=["ct"]) == discover([tmp_path], exclude=["ct"])
        with pytest.raises(UsageError):
            intake.discover([tmp_path / "nothing"])


@pytest.mark.slow
def test_promise_46_a_file_that_kills_hangs_or_bloats_costs_itself_and_the_next_child_goes_on(tmp_path, monkeypatch):
    names = {
        "a-kill": Code.CRASHED,
        "b-abort": Code.CRASHED,
        "c-hang": Code.TIMEOUT,
        "d-busy": Code.TIMEOUT,
        "e-memory": Code.OUT_OF_MEMORY,
        "f-raise": Code.HEADER_INVALID,
        "g-good": None,
    }
    for name in names:
        write_good(tmp_path / f"{name}.nii")
    monkeypatch.setattr(module, "_found", broken_find)
    monkeypatch.setattr(module, "FILE_CPU_S", 0.3)
    with Intake() as intake:
        intake._calls._limits = CallLimits(2 << 30, file_s=12.0)
        found = intake.discover([tmp_path])
    told = {study.id: None if study.rejected is None else study.rejected.code for study in found.studies}
    assert told == names
    assert phantoms.CANARIES[0] not in str(found)


@pytest.mark.slow
def test_a_child_that_ends_between_files_ends_the_run_in_words(tmp_path, monkeypatch):
    write_good(tmp_path / "a.nii")
    monkeypatch.setattr(module, "_found", dies_between_files)
    with Intake() as intake, pytest.raises(AgsegError) as caught:
        intake.discover([tmp_path])
    assert caught.value.code is Code.CRASHED


def test_an_answer_that_names_other_files_is_not_believed(tmp_path, monkeypatch):
    write_good(tmp_path / "a.nii")
    monkeypatch.setattr(module, "_found", nonsense)
    with Intake() as intake, pytest.raises(AgsegError):
        intake.discover([tmp_path])


@pytest.mark.parametrize(
    "change",
    [
        {"files": [-100]},
        {"files": []},
        {"rejected": ["E_NO_SUCH_CODE", "x"]},
        {"warnings": [["W_NO_SUCH_CODE", "x"]]},
        {"warnings": 5},
    ],
)
def test_every_part_of_an_answer_is_checked(tmp_path, change):
    write_good(tmp_path / "a.nii")
    files, skipped = listed([tmp_path])
    told = discovery_to_json(discover([tmp_path]), files)
    assert discovery_from_json(told, files, skipped) == discover([tmp_path])
    told["studies"][0].update(change)
    with pytest.raises((IndexError, TypeError, ValueError)):
        discovery_from_json(told, files, skipped)


def test_calls_answer_and_go_on_after_a_death():
    calls = Calls(CallLimits(1 << 30))
    try:
        assert calls.ask(echo, {"a": [1, "ä", None]}) == {"a": [1, "ä", None]}
        with pytest.raises(Lost) as lost:
            calls.ask(die)
        assert (lost.value.number, lost.value.code) == (7, Code.CRASHED)
        assert calls.ask(echo, 1) == 1
        with pytest.raises(Lost) as lost:
            calls.ask(stall, limit_s=0.3)
        assert lost.value.code is Code.TIMEOUT
        with pytest.raises(AgsegError) as failed:
            calls.ask(fail)
        assert phantoms.CANARIES[0] not in str(failed.value)
        assert calls.ask(echo, 2) == 2
    finally:
        calls.close()


def test_a_child_that_serves_collects_its_garbage_and_none_of_its_imports():
    with Intake() as intake:
        collects, frozen = intake.ask(collection)
    assert collects
    assert frozen > 0


def test_a_question_about_one_study_ends_as_its_reason():
    with Intake() as intake:
        with pytest.raises(InputError) as caught:
            intake.ask(die)
        assert caught.value.code is Code.CRASHED


def test_a_pipe_in_a_files_place_hangs_nothing(tmp_path):
    write_good(tmp_path / "a.nii")
    write_good(tmp_path / "b.nii")
    files, skipped = listed([tmp_path])
    (tmp_path / "a.nii").unlink()
    os.mkfifo(tmp_path / "a.nii")
    first, second = discovering.find_studies(files, skipped).studies
    assert first.rejected is not None
    assert first.rejected.code is Code.UNREADABLE_FILE
    assert second.rejected is None
    with Intake() as intake:
        assert intake.fingerprint((tmp_path / "a.nii",), ()) is None


def test_memory_is_limited_for_a_while():
    before = resource.getrlimit(resource.RLIMIT_AS)
    with module.memory_limited(64 << 20), pytest.raises(MemoryError):
        bytearray(512 << 20)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert len(bytearray(512 << 20)) == 512 << 20


def test_lost_files_are_not_examined_again(tmp_path):
    write_good(tmp_path / "a.nii")
    files, skipped = listed([tmp_path])
    why = Rejected(Code.TIMEOUT, "it took long")
    (study,) = discovering.find_studies(files, skipped, watch=discovering.Watch(lost={0: why})).studies
    assert study.rejected == why
