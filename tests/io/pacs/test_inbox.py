"""Laws of what is sent to us: hidden until it is complete, never overwritten by other bytes, bounded, and kept over a crash."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset

from agseg.io.discover import discover
from agseg.io.pacs import inbox as inbox_module
from agseg.io.pacs.inbox import Inbox
from tests.io.ct_series import SLICES, make_series
from tests.io.pacs.running import as_file, write_results

LARGE = 1 << 30


class Clock:
    now_s = 1e9

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def made(root: Path, clock: Clock, *, most_bytes: int = LARGE) -> Inbox:
    return Inbox(root, quiet_s=60.0, most_bytes=most_bytes, clock=clock)


def headers(patient_id: str = "ph-1") -> list[Dataset]:
    found = make_series().headers
    for header in found:
        header.PatientID = patient_id
    return found


def test_a_study_appears_once_it_has_been_quiet(tmp_path: Path, clock: Clock) -> None:
    inbox = made(tmp_path, clock)
    for header in headers():
        assert inbox.take(as_file(header)) == 0
        clock.now_s += 30
    assert (inbox.show_complete(), discover([tmp_path]).studies) == ([], ())
    clock.now_s += 31
    assert len(inbox.show_complete()) == 1
    assert [len(study.files) for study in discover([tmp_path]).studies] == [SLICES]
    assert inbox.show_complete() == []


def test_what_is_arriving_is_not_overwritten_and_sending_again_is_no_error(tmp_path: Path, clock: Clock) -> None:
    inbox = made(tmp_path, clock)
    first = headers()[0]
    assert [inbox.take(as_file(first)), inbox.take(as_file(first))] == [0, 0]
    first.PixelData = bytes(len(first.PixelData))
    assert inbox.take(as_file(first)) == 0x0111
    assert inbox.take(b"x" * 500) == 0xC000


def test_images_that_come_later_join_their_series_and_a_corrected_study_replaces_it(tmp_path: Path, clock: Clock) -> None:
    inbox = made(tmp_path, clock)
    for group in (headers()[:3], headers()[3:], headers("ph-right")):
        for header in group:
            assert inbox.take(as_file(header)) == 0
        clock.now_s += 61
        inbox.show_complete()
    paths = list(tmp_path.rglob("*.dcm"))
    assert len(paths) == SLICES
    assert {pydicom.dcmread(path).PatientID for path in paths} == {"ph-right"}
    assert inbox.n_bytes == sum(path.stat().st_size for path in paths)


def test_a_study_that_is_sent_again_as_it_was_changes_nothing(tmp_path: Path, clock: Clock) -> None:
    inbox = made(tmp_path, clock)
    states = []
    for _ in range(2):
        for header in headers():
            assert inbox.take(as_file(header)) == 0
        clock.now_s += 61
        inbox.show_complete()
        states.append([(path, path.stat().st_mtime_ns, path.stat().st_ino) for path in sorted(tmp_path.rglob("*.dcm"))])
    assert states[0] == states[1]
    assert inbox.n_bytes == sum(path.stat().st_size for path, *_ in states[0])


def test_what_was_arriving_when_it_crashed_goes_on_arriving(tmp_path: Path) -> None:
    first = Inbox(tmp_path, quiet_s=0.0, most_bytes=LARGE)
    for header in headers():
        first.take(as_file(header))
    again = Inbox(tmp_path, quiet_s=0.0, most_bytes=LARGE)
    assert again.n_bytes == first.n_bytes > 0
    assert len(again.show_complete()) == 1
    assert len(discover([tmp_path]).studies) == 1


def test_a_full_inbox_asks_to_try_later_and_makes_room_from_what_is_done(tmp_path: Path, clock: Clock) -> None:
    size = len(as_file(headers()[0]))
    inbox = made(tmp_path, clock, most_bytes=SLICES * size + size // 2)
    for header in headers():
        assert inbox.take(as_file(header)) == 0
    other = headers()[0]
    other.StudyInstanceUID, other.SOPInstanceUID = "1.2.3", "1.2.3.4"
    assert inbox.take(as_file(other)) == 0xA700
    clock.now_s += 61
    inbox.show_complete()
    assert inbox.make_room(lambda _name: False) == 0
    assert inbox.make_room(lambda _name: True) == 1
    assert inbox.take(as_file(other)) == 0
    assert inbox.n_bytes == len(as_file(other))


def test_a_disk_that_runs_full_is_left_some_room(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "LEAST_FREE_BYTES", 1 << 62)
    assert made(tmp_path, clock).take(as_file(headers()[0])) == 0xA700


def test_results_are_taken_and_never_become_images(tmp_path: Path, clock: Clock) -> None:
    write_results(tmp_path / "out")
    inbox = made(tmp_path / "in", clock)
    for name in ("seg.dcm", "sr.dcm", "rtstruct.dcm"):
        assert inbox.take((tmp_path / "out" / name).read_bytes()) == 0
    assert list((tmp_path / "in").rglob("*.dcm")) == []
