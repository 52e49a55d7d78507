"""Laws of a run: one record per study, one exit code, nothing done twice, nothing lost."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import pydicom
import pytest

from agseg.batch import EventKind, Limits, Part, claim_output, run_batch
from agseg.batch.exit_code import exit_code_of, united_exit_code
from agseg.errors import Code, ExitCode, UsageError, WeightsError
from agseg.io.read import read_volume
from agseg.io.walk import listed
from agseg.report import BatchReport, StudyReport, StudyStatus
from tests import phantoms
from tests.batch.fakes import NETWORK, MakeThreshold, job, read_well, write_study

D, S, R, F, W = (
    StudyStatus.DONE, StudyStatus.SKIPPED, StudyStatus.REJECTED, StudyStatus.FAILED, StudyStatus.DEFERRED,
)  # fmt: skip


def run(source: Path, target: Path, *, part: Part | None = None, on_event: Any = None, **changes: Any) -> BatchReport:
    with claim_output(target, part=part, dry_run=changes.get("dry_run", False)) as output:
        return run_batch(job(source, **changes), output, on_event=on_event)


def statuses(report: BatchReport) -> dict[str, StudyStatus]:
    return {study.input: study.status for study in report.studies}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for number, name in enumerate(("a", "b", "deep/c")):
        write_study(tmp_path / "in" / f"{name}.nii.gz", seed=number)
    return tmp_path / "in"


@pytest.mark.slow
@pytest.mark.parametrize("whole", [False, True], ids=["a writer behind the model", "the model writes"])
def test_promises_11_12_13_14_every_study_ends_in_one_record_whatever_happens_to_it(tmp_path: Path, whole: bool) -> None:
    troubles = {
        "read-kill": (F, Code.CRASHED),
        "read-segv": (F, Code.CRASHED),
        "read-exit": (F, Code.CRASHED),
        "read-grow": (F, Code.OUT_OF_MEMORY),
        "read-bug": (F, Code.INTERNAL),
        "read-reject": (R, Code.MISSING_SLICES),
        "read-change": (W, Code.CHANGED),
        "model-kill": (F, Code.CRASHED),
        "model-segv": (F, Code.CRASHED),
        "model-grow": (F, Code.OUT_OF_MEMORY),
        "model-bug": (F, Code.INTERNAL),
        "model-infer": (F, Code.INFERENCE),
        "model-reject": (R, Code.MISSING_SLICES),
        "write-kill": (F, Code.CRASHED),
        "write-segv": (F, Code.CRASHED),
        "write-exit": (F, Code.CRASHED),
        "write-grow": (F, Code.OUT_OF_MEMORY),
        "write-bug": (F, Code.INTERNAL),
        "written-kill": (D, None),
    }
    for name in (*troubles, *(f"{name}-well" for name in ("a", "n", "z"))):
        write_study(tmp_path / "in" / f"{name.replace('-well', '')}.nii.gz")
    limits = Limits(study_timeout_s=30, reader_memory_bytes=1 << 30, model_memory_bytes=1 << 29, readers=2, ahead=3)
    report = run(tmp_path / "in", tmp_path / "out", limits=limits, model=MakeThreshold(whole=whole))
    found = {study.input: (study.status, study.code) for study in report.studies}
    assert found == {**troubles, **dict.fromkeys("anz", (D, None))}
    assert len(report.studies) == len(found)
    assert report.exit_code is ExitCode.BUG
    written = json.loads((tmp_path / "out" / "run.json").read_bytes())
    assert [study["input"] for study in written["studies"]] == sorted(found)
    assert "SECRET" not in (tmp_path / "out" / "run.json").read_text()
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".agseg-tmp")]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["read-hang", "model-hang", "write-hang"])
def test_promises_12_13_a_hang_costs_one_study(tmp_path: Path, name: str) -> None:
    for study in ("a", name, "z"):
        write_study(tmp_path / "in" / f"{study}.nii.gz")
    report = run(tmp_path / "in", tmp_path / "out", limits=Limits(study_timeout_s=3))
    assert {study.input: (study.status, study.code) for study in report.studies} == {
        "a": (D, None), name: (F, Code.TIMEOUT), "z": (D, None),
    }  # fmt: skip


def test_the_model_has_the_next_study_while_one_is_written(tmp_path: Path) -> None:
    for study in ("a-waits", "b-waves", "c"):
        write_study(tmp_path / "in" / f"{study}.nii.gz")
    report = run(tmp_path / "in", tmp_path / "out", limits=Limits(study_timeout_s=15))
    assert set(statuses(report).values()) == {D}


class _Noted:
    """An executor that does nothing and notes what it was asked."""

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls
        self.environment: dict[str, Any] = {}

    def __call__(self, job: Any, **_told: Any) -> _Noted:
        return self

    def prepare(self) -> None:
        self.calls.append("prepare")

    def run(self, tasks: Any) -> tuple[None, tuple[()]]:
        self.calls.append(f"run {len(tuple(tasks))}")
        return None, ()

    def close(self) -> None:
        self.calls.append("close")


def test_the_model_starts_before_studies_are_looked_for_unless_there_may_be_none_to_do(source: Path, tmp_path: Path) -> None:
    def asked(**changes: Any) -> list[str]:
        calls: list[str] = []
        note = lambda event: calls.append(str(event.kind))  # noqa: E731
        with claim_output(tmp_path / "out", dry_run=changes.get("dry_run", False)) as output:
            run_batch(job(source, **changes), output, on_event=note, executor=_Noted(calls))
        return list(dict.fromkeys(calls))

    assert asked() == ["prepare", "planned", "run 3", "close"]
    assert asked() == ["planned", "run 3", "close"]  # a folder with a record: perhaps all is done
    assert asked(overwrite=True)[0] == "prepare"
    assert "prepare" not in asked(dry_run=True, overwrite=True)


def test_events_tell_each_study_once(source: Path, tmp_path: Path) -> None:
    events: list[Any] = []
    run(source, tmp_path / "out", on_event=events.append)
    assert events[0].kind is EventKind.PLANNED
    finished = [event.study for event in events if event.kind is EventKind.FINISHED]
    assert sorted(finished) == ["a", "b", "deep/c"]
    assert [event.done for event in events if event.kind is EventKind.FINISHED] == [1, 2, 3]


def test_promise_17_a_second_run_does_nothing_again_and_keeps_the_volumes(source: Path, tmp_path: Path) -> None:
    write_study(source / "read-reject.nii.gz")
    first = run(source, tmp_path / "out")
    mask = (tmp_path / "out" / "a" / "liver.nii.gz").stat()
    # A factory that dies shows that nothing is started where nothing is to be done.
    second = run(source, tmp_path / "out", model=MakeThreshold("kill"))
    assert statuses(second) == {"a": S, "b": S, "deep/c": S, "read-reject": R}
    assert [study.new for study in second.studies] == [False] * 4
    assert second.exit_code is ExitCode.SOME_NOT_DONE
    assert [study.organs for study in second.studies] == [study.organs for study in first.studies]
    assert (tmp_path / "out" / "a" / "liver.nii.gz").stat().st_mtime_ns == mask.st_mtime_ns


@pytest.mark.slow
def test_a_rejection_that_may_pass_is_tried_again_and_one_that_lies_in_the_files_is_not(tmp_path: Path) -> None:
    for name in ("read-codec", "read-eio", "read-reject"):
        write_study(tmp_path / "in" / f"{name}.nii.gz")
    assert run(tmp_path / "in", tmp_path / "out").counts["rejected"] == 3
    assert statuses(run(tmp_path / "in", tmp_path / "out", read=read_well)) == {
        "read-codec": D, "read-eio": D, "read-reject": R,
    }  # fmt: skip
    assert set(statuses(run(tmp_path / "in", tmp_path / "out", read=read_well, overwrite=True)).values()) == {D}


@pytest.mark.slow
@pytest.mark.parametrize(
    "what", ["content", "time", "parameters", "weights", "usage", "version", "file lost", "file cut", "overwrite"]
)
def test_promise_18_what_a_result_depends_on_reruns_it(
    source: Path, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(source, tmp_path / "out")
    changes: dict[str, Any] = {}
    again = {"a": D, "b": D, "deep/c": D}
    alone = {"a": D, "b": S, "deep/c": S}
    if what == "content":
        plain = write_study(source / "a.nii", seed=1)
        (source / "a.nii.gz").unlink()
        run(source, tmp_path / "out")
        before = plain.stat()
        write_study(plain, seed=99)
        os.utime(plain, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert plain.stat().st_size == before.st_size
        again = alone
    elif what == "time":
        os.utime(source / "a.nii.gz")
        again = alone
    elif what == "parameters":
        changes["shaping"] = {"overlap": 0.25}
    elif what == "weights":
        changes["networks"] = (replace(NETWORK, weights=replace(NETWORK.weights, sha256="1" * 64)),)
    elif what == "usage":
        changes["networks"] = (replace(NETWORK, usage_sha256="1" * 64),)
    elif what == "version":
        monkeypatch.setattr("agseg.batch.decide.__version__", "9.9.9")
    elif what == "lost":
        (tmp_path / "out" / "a" / "liver.nii.gz").unlink()
        again = alone
    elif what == "cut":
        mask = tmp_path / "out" / "a" / "liver.nii.gz"
        before = mask.stat()
        mask.write_bytes(mask.read_bytes()[:-9])
        os.utime(mask, ns=(before.st_atime_ns, before.st_mtime_ns))
        again = alone
    else:
        changes["overwrite"] = True
    assert statuses(run(source, tmp_path / "out", **changes)) == again


@pytest.mark.slow
def test_same_input_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        run(source, tmp_path / name)
    for mask in sorted((tmp_path / "one").rglob("*.nii.gz")):
        twin = tmp_path / "two" / mask.relative_to(tmp_path / "one")
        assert nibabel.load(mask).get_fdata().tobytes() == nibabel.load(twin).get_fdata().tobytes()


@pytest.mark.slow
def test_a_corrected_file_in_a_study_folder_survives_a_rerun(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out")
    corrected = tmp_path / "out" / "a" / "liver_corrected.nii.gz"
    corrected.write_bytes(b"by hand")
    run(source, tmp_path / "out", overwrite=True)
    assert corrected.read_bytes() == b"by hand"


@pytest.mark.slow
def test_a_study_above_another_one_keeps_both(tmp_path: Path) -> None:
    write_study(tmp_path / "in" / "x.nii.gz", seed=1)
    write_study(tmp_path / "in" / "x" / "y.nii.gz", seed=2)
    run(tmp_path / "in", tmp_path / "out")
    run(tmp_path / "in", tmp_path / "out", overwrite=True)
    for name in ("x", "x/y"):
        record = json.loads((tmp_path / "out" / name / "study.json").read_bytes())
        assert record["input"] == name
        assert (tmp_path / "out" / name / "liver.nii.gz").is_file()


def test_promise_19_young_files_are_deferred_and_cost_no_exit_code(source: Path, tmp_path: Path) -> None:
    os.utime(source / "b.nii.gz", (time.time() - 600, time.time() - 600))
    report = run(source, tmp_path / "out", limits=Limits(min_age_s=60))
    assert statuses(report) == {"a": W, "b": D, "deep/c": W}
    assert report.exit_code is ExitCode.OK


@pytest.mark.slow
def test_a_time_in_the_future_defers_nothing_for_ever(source: Path, tmp_path: Path) -> None:
    ahead = time.time() + 3600
    os.utime(source / "a.nii.gz", (ahead, ahead))
    assert statuses(run(source, tmp_path / "out")) == {"a": D, "b": D, "deep/c": D}
    # A clock that is wrong by more than the age asked for says nothing about arrival; one that is wrong by less costs a wait.
    (a, *young) = run(source, tmp_path / "aged", limits=Limits(min_age_s=60)).studies
    assert (a.status, [warned.code for warned in a.warnings]) == (D, [Code.CLOCK])
    assert {study.status for study in young} == {W}
    assert set(statuses(run(source, tmp_path / "older", limits=Limits(min_age_s=7200))).values()) == {W}


def test_parts_share_the_studies_and_the_record(source: Path, tmp_path: Path) -> None:
    seen = [statuses(run(source, tmp_path / "out", part=Part(index, 2))) for index in range(2)]
    assert all(seen)
    assert sorted([*seen[0], *seen[1]]) == ["a", "b", "deep/c"]
    together = json.loads((tmp_path / "out" / "run.json").read_bytes())
    assert [study["input"] for study in together["studies"]] == ["a", "b", "deep/c"]
    rows = (tmp_path / "out" / "volumes.csv").read_text().splitlines()
    assert len(rows) == 4
    with pytest.raises(UsageError):
        Part(2, 2)


@pytest.mark.slow
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_record_of_all_parts_has_their_exit_code_whichever_ends_last(tmp_path: Path, order: tuple[int, int]) -> None:
    names = [f"{word}{number}" for word in ("read-reject", "well") for number in range(20)]
    bad = next(name for name in names if name.startswith("read") and Part(0, 2).has(name))
    good = next(name for name in names if name.startswith("well") and Part(1, 2).has(name))
    for name in (bad, good):
        write_study(tmp_path / "in" / f"{name}.nii.gz")
    own = {index: run(tmp_path / "in", tmp_path / "out", part=Part(index, 2)).exit_code for index in order}
    assert own == {0: ExitCode.NONE_DONE, 1: ExitCode.OK}
    together = json.loads((tmp_path / "out" / "run.json").read_bytes())
    assert (together["exit_code"], together["counts"]["rejected"]) == (ExitCode.SOME_NOT_DONE, 1)


@pytest.mark.slow
def test_promise_25_results_never_lie_among_the_files_of_a_study(tmp_path: Path) -> None:
    affine = phantoms.dicom_affine("axial", (20, 20, 6), (20.0, 20.0, 5.0))
    series = tmp_path / "series"
    phantoms.write_dicom(series, phantoms.sampled(phantoms.body_hu, (20, 20, 6), affine), affine)
    before = sorted(series.iterdir())
    with pytest.raises(UsageError, match="among the files"):
        run(series, tmp_path)  # the study is called "series", and so would be its folder of results
    with pytest.raises(UsageError, match="is an input"), claim_output(series, inputs=[series]):
        pass
    assert sorted(series.iterdir()) == before
    with pytest.raises(UsageError, match="among the files"):
        run(tmp_path, series)  # the run's own records would lie there
    assert [path.name for path in sorted(series.iterdir()) if not path.name.startswith(".")] == [path.name for path in before]


@pytest.mark.slow
def test_a_rejection_that_a_neighbour_caused_goes_with_it(tmp_path: Path) -> None:
    affine = phantoms.dicom_affine("axial", (20, 20, 6), (20.0, 20.0, 5.0))
    series = tmp_path / "in" / "series"
    phantoms.write_dicom(series, phantoms.sampled(phantoms.body_hu, (20, 20, 6), affine), affine)
    (series / "broken.dcm").write_bytes(b"")
    for new in (True, False):
        (record,) = run(tmp_path / "in", tmp_path / "out", read=read_volume).studies
        assert (record.status, record.new) == (R, new)
    (series / "broken.dcm").unlink()
    (record,) = run(tmp_path / "in", tmp_path / "out", read=read_volume).studies
    assert record.status is not R


@pytest.mark.slow
def test_a_slice_renamed_while_studies_are_found_defers_its_series_to_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    affine = phantoms.dicom_affine("axial", (20, 20, 6), (20.0, 20.0, 5.0))
    slices = phantoms.write_dicom(tmp_path / "in" / "ct", phantoms.sampled(phantoms.body_hu, (20, 20, 6), affine), affine)
    assert run(tmp_path / "in", tmp_path / "out", read=read_volume).counts["done"] == 1
    before = {path: path.read_bytes() for path in (tmp_path / "out" / "ct").iterdir()}
    partial = slices[-1].rename(tmp_path / "in" / "ct" / "ct.part")

    def list_and_rename(*given: Any, **more: Any) -> Any:
        found = listed(*given, **more)
        if partial.exists():
            partial.rename(slices[-1])
        return found

    with monkeypatch.context() as patched:
        patched.setattr("agseg.batch.intake.listed", list_and_rename)
        report = run(tmp_path / "in", tmp_path / "out", read=read_volume)
    (record,) = report.studies
    assert (record.status, record.code, record.extra, report.exit_code) == (W, Code.CHANGED, {}, ExitCode.OK)
    assert {path: path.read_bytes() for path in (tmp_path / "out" / "ct").iterdir()} == before
    assert statuses(run(tmp_path / "in", tmp_path / "out", read=read_volume)) == {"ct": S}


@pytest.mark.slow
def test_identifiers_stand_in_the_record_only_if_asked_for_and_do_not_stay(tmp_path: Path) -> None:
    affine = phantoms.dicom_affine("axial", (20, 20, 6), (20.0, 20.0, 5.0))
    files = phantoms.write_dicom(tmp_path / "in" / "gap", phantoms.sampled(phantoms.body_hu, (20, 20, 6), affine), affine)
    files[3].unlink()
    uid = str(pydicom.dcmread(files[0]).SeriesInstanceUID)
    for asked in (False, True, False):
        (record,) = run(tmp_path / "in", tmp_path / "out", include_identifiers=asked).studies
        assert record.source.identifiers.get("SeriesInstanceUID") == (uid if asked else None)
        assert (uid in (tmp_path / "out" / "run.json").read_text()) == asked


def test_promise_24_a_dry_run_writes_nothing(source: Path, tmp_path: Path) -> None:
    report = run(source, tmp_path / "out", dry_run=True)
    assert report.exit_code is ExitCode.OK
    assert set(statuses(report).values()) == {W}
    assert not (tmp_path / "out").exists()
    run(source, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    report = run(source, tmp_path / "out", dry_run=True, overwrite=True)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


@pytest.mark.slow
def test_after_the_deadline_the_rest_is_left_for_the_next_run(tmp_path: Path) -> None:
    for number in range(8):
        write_study(tmp_path / "in" / f"model-slow-{number}.nii.gz", seed=number)
    report = run(tmp_path / "in", tmp_path / "out", limits=Limits(deadline_s=1.5))
    counts = report.counts
    assert report.exit_code is ExitCode.DEADLINE
    assert counts["deferred"] >= 1
    assert counts["done"] + counts["deferred"] == 8
    assert {study.code for study in report.studies if study.status is W} == {Code.DEADLINE}
    assert run(tmp_path / "in", tmp_path / "out").counts["done"] == counts["deferred"]


@pytest.mark.slow
def test_what_failed_comes_last_and_what_is_new_first(tmp_path: Path) -> None:
    """A study that fails every night keeps no other from its turn, also where the deadline cuts the night short."""
    order: list[str] = []

    def begun(event: Any) -> None:
        if event.kind is EventKind.STARTED:
            order.append(event.study)

    def night(**changes: Any) -> list[str]:
        order.clear()
        run(tmp_path / "in", tmp_path / "out", on_event=begun, **changes)
        return list(order)

    for name in ("a-model-kill", "b-model-infer"):
        write_study(tmp_path / "in" / f"{name}.nii.gz")
    assert night() == ["a-model-kill", "b-model-infer"]
    write_study(tmp_path / "in" / "c.nii.gz")
    assert night(limits=Limits(deadline_s=0)) == []
    (tmp_path / "in" / "b-model-infer.nii.gz").rename(tmp_path / "in" / "z.nii.gz")
    # z is new; c has waited once; a failed, was not come to, and still comes last.
    assert night() == ["z", "c", "a-model-kill"]
    (failed,) = (study for study in json.loads((tmp_path / "out" / "run.json").read_bytes())["studies"] if "failures" in study)
    assert (failed["input"], failed["failures"]) == ("a-model-kill", 2)


def test_promise_48_a_run_that_dies_leaves_a_record_that_says_so_and_not_the_last_success(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(source, tmp_path / "out").exit_code is ExitCode.OK

    def died(*_given: object, **_more: object) -> None:
        raise SystemError

    with monkeypatch.context() as patched:
        patched.setattr("agseg.batch.intake.Intake.discover", died)
        with pytest.raises(SystemError):
            run(source, tmp_path / "out")
    record = json.loads((tmp_path / "out" / "run.json").read_bytes())
    assert record["exit_code"] == ExitCode.BUG
    assert record["finished"] is None
    assert {study["status"] for study in record["studies"]} == {"deferred"}
    assert "has not finished" in (tmp_path / "out" / "report.html").read_text()
    assert run(source, tmp_path / "out").counts["skipped"] == 3
    assert "has not finished" not in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("part", [Part(), Part(1, 2)])
def test_a_signal_while_studies_are_being_found_loses_no_row(
    source: Path, tmp_path: Path, part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(source / "read-reject.nii.gz")
    for index in range(part.count):
        run(source, tmp_path / "out", part=Part(index, part.count))
    tables = {name: (tmp_path / "out" / name).read_bytes() for name in ("volumes.csv", "report.html")}

    def stopped(*_given: object, **_more: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr("agseg.batch.intake.Intake.discover", stopped)
        assert run(source, tmp_path / "out", part=part).exit_code is ExitCode.TERMINATED
    assert (tmp_path / "out" / "volumes.csv").read_bytes() == tables["volumes.csv"]
    page = (tmp_path / "out" / "report.html").read_text()
    said = re.compile(r"(?<=<main>)<p [^<]*has not finished[^<]*</p>")
    assert said.search(page)
    assert said.sub("", page).encode() == tables["report.html"]
    record = json.loads((tmp_path / "out" / "run.json").read_bytes())
    assert record["exit_code"] == ExitCode.TERMINATED
    assert [study["input"] for study in record["studies"]] == ["a", "b", "deep/c", "read-reject"]
    waiting = {study["input"]: study["status"] for study in record["studies"] if part.has(study["input"])}
    assert waiting == {name: R if name == "read-reject" else W for name in waiting}
    # The next run goes on as if nothing had been.
    again: dict[str, StudyStatus] = {}
    for index in range(part.count):
        again |= statuses(run(source, tmp_path / "out", part=Part(index, part.count), model=MakeThreshold("kill")))
    assert again == {
        "a": S, "b": S, "deep/c": S, "read-reject": R,
    }  # fmt: skip


def test_a_signal_while_studies_are_being_found_for_the_first_time_leaves_a_record(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agseg.batch.intake.Intake.discover", lambda *_given, **_more: os.kill(os.getpid(), signal.SIGTERM))
    assert run(source, tmp_path / "out").exit_code is ExitCode.TERMINATED
    assert json.loads((tmp_path / "out" / "run.json").read_bytes())["exit_code"] == ExitCode.TERMINATED
    assert (tmp_path / "out" / "volumes.csv").is_file()


def test_an_empty_input_is_said(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    report = run(tmp_path / "in", tmp_path / "out")
    assert report.exit_code is ExitCode.NO_STUDY
    assert (tmp_path / "out" / "run.json").is_file()


def test_weights_that_do_not_load_end_the_run_with_7(source: Path, tmp_path: Path) -> None:
    report = run(source, tmp_path / "out", model=MakeThreshold("weights"))
    assert report.exit_code is WeightsError.exit_code
    assert {study.code for study in report.studies} == {Code.WEIGHTS}


@pytest.mark.slow
def test_a_model_that_never_starts_ends_the_run(source: Path, tmp_path: Path) -> None:
    report = run(source, tmp_path / "out", model=MakeThreshold("kill"))
    assert report.exit_code is ExitCode.BUG
    assert set(statuses(report).values()) == {F}


def test_a_device_that_is_not_there_is_a_usage_error_and_nothing_is_written(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        run(source, tmp_path / "out", model=MakeThreshold("usage"))
    assert not (tmp_path / "out" / "run.json").exists()


@pytest.mark.slow
def test_earlier_runs_are_kept_for_the_trend(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out")
    run(source, tmp_path / "out", overwrite=True)
    run(source, tmp_path / "out")
    run(source, tmp_path / "out")
    kept = sorted((tmp_path / "out" / "runs").iterdir())
    # Two runs measured something; the two that found all done are not worth keeping.
    assert len(kept) == 2
    assert all(json.loads(path.read_bytes())["counts"]["done"] == 3 for path in kept)


def _study(status: StudyStatus) -> StudyReport:
    return StudyReport("x", status)


@pytest.mark.parametrize(
    ("studies", "asked", "caught", "expected"),
    [
        ((D,), set(), None, 0),
        ((S, S), set(), None, 0),
        ((D, W), set(), None, 0),
        ((W,), set(), None, 0),
        ((D, R), set(), None, 3),
        ((S, F), set(), None, 3),
        ((R, F), set(), None, 4),
        ((R, W), set(), None, 4),
        ((), set(), None, 5),
        ((D, R), {ExitCode.DEADLINE}, None, 9),
        ((R,), {ExitCode.DEADLINE, ExitCode.WEIGHTS}, None, 7),
        ((R,), {ExitCode.DEADLINE, ExitCode.WEIGHTS, ExitCode.OUTPUT}, None, 8),
        ((D,), {ExitCode.DEADLINE, ExitCode.BUG, ExitCode.OUTPUT}, None, 1),
        ((D, R), {ExitCode.BUG}, ExitCode.TERMINATED, 143),
        ((D,), set(), ExitCode.INTERRUPTED, 130),
    ],
)
def test_promise_15_one_exit_code_the_first_of_1_8_7_9_4_3(
    studies: tuple[StudyStatus, ...], asked: set[ExitCode], caught: ExitCode | None, expected: int
) -> None:
    assert exit_code_of(tuple(map(_study, studies)), asked=asked, caught=caught) == expected


@pytest.mark.parametrize(
    ("studies", "parts", "expected"),
    [
        ((R, D), (4, 0), 3),
        ((D, D), (0, 5), 0),
        ((R, R), (4, 4), 4),
        ((R, W), (3, 9), 9),
        ((R, W), (9, 7), 7),
        ((W, F), (143, 1), 143),
        ((), (5, 5), 5),
    ],
)
def test_parts_together_have_the_exit_code_of_a_single_run(
    studies: tuple[StudyStatus, ...], parts: tuple[int, ...], expected: int
) -> None:
    assert united_exit_code(tuple(map(_study, studies)), map(ExitCode, parts)) == expected
