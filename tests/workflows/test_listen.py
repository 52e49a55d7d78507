"""Laws of listening: a run follows when a study has become quiet, and whatever a run ends with, the port stays open."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE

from agseg.errors import AgsegError, ExitCode, LockedError, OutputError, UsageError
from agseg.io.discover import discover
from agseg.io.pacs.objects import find_objects
from agseg.workflows import listen as workflow
from agseg.workflows.listen import ListenPlan, run_listen
from agseg.workflows.night import NightPlan
from agseg.workflows.night_record import NightReport
from agseg.workflows.segment import SegmentRequest
from agseg.workflows.site import ListenSite
from tests.io.ct_series import SLICES, make_series
from tests.io.pacs.orthanc import in_a_namespace
from tests.workflows.night_studies import BROKEN, GOOD, REFILED, RIGHT

CT = "1.2.840.10008.5.1.4.1.1.2"


class Runs:
    """What stands for a night's work: notes what it could see, and ends as it is told."""

    def __init__(self) -> None:
        self.saw: list[int] = []
        self.ends: list[Any] = []

    def __call__(self, plan: NightPlan) -> NightReport:
        self.saw.append(sum(len(study.files) for study in discover(list(plan.request.inputs)).studies))
        ending = self.ends.pop(0) if self.ends else NightReport(started="")
        if isinstance(ending, AgsegError):
            raise ending
        return ending

    def until(self, n_files: int, *, seconds: float = 20.0) -> bool:
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            if n_files in self.saw:
                return True
            time.sleep(0.05)
        return False


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    made = Runs()
    monkeypatch.setattr(workflow, "run_night", made)
    monkeypatch.setattr(workflow, "LOOK_S", 0.05)
    monkeypatch.setattr(workflow, "RETRY_S", 0.2)
    return made


@contextmanager
def listening(folder: Path, **site: Any) -> Iterator[int | None]:
    incoming = folder / "in"
    inputs = (incoming, *([site["watch"]] if "watch" in site else []))
    request = SegmentRequest(inputs=inputs, output=folder / "out", home=folder / "home")
    night = NightPlan({}, incoming, request)
    plan = ListenPlan(ListenSite(host="127.0.0.1", **site), incoming / "received", night, quiet_s=0.5)
    stop, ready, ports, codes = threading.Event(), threading.Event(), list[int | None](), list[ExitCode]()

    def opened(port: int | None) -> None:
        ports.append(port)
        ready.set()

    thread = threading.Thread(target=lambda: codes.append(run_listen(plan, on_ready=opened, stop=stop)))
    thread.start()
    try:
        assert ready.wait(20)
        yield ports[0]
    finally:
        stop.set()
        thread.join(20)
    assert codes == [ExitCode.OK]


def send(port: int, *, aet: str = "SCANNER") -> list[int]:
    entity = AE(ae_title=aet)
    entity.add_requested_context(CT, "1.2.840.10008.1.2.1")
    association = entity.associate("127.0.0.1", port, ae_title="AGSEG")
    try:
        return [association.send_c_store(d).Status for d in make_series().headers] if association.is_established else []
    finally:
        if association.is_established:
            association.release()


def test_a_study_that_was_sent_is_done_once_it_is_quiet(tmp_path: Path, runs: Runs) -> None:
    with listening(tmp_path, port=0, allow=("SCANNER@127.0.0.1",)) as port:
        assert port is not None
        assert send(port, aet="STRANGER") == []
        assert send(port) == [0] * SLICES
        assert runs.until(SLICES)
    assert set(runs.saw) == {0, SLICES}  # never a part


@pytest.mark.parametrize("error", [LockedError("another run"), OutputError("the disk is full")])
def test_a_run_that_fails_is_tried_again_and_the_port_stays_open(tmp_path: Path, runs: Runs, error: AgsegError) -> None:
    runs.ends = [error, error]
    with listening(tmp_path, port=0, allow=("SCANNER@127.0.0.1",)) as port:
        assert port is not None
        assert send(port) == [0] * SLICES
        assert runs.until(SLICES)
    assert len(runs.saw) >= 3


def test_a_watched_folder_is_done_once_it_is_quiet(tmp_path: Path, runs: Runs) -> None:
    watch = tmp_path / "watch"
    watch.mkdir()
    with listening(tmp_path, watch=watch):
        make_series().write(watch / "ct")
        assert runs.until(SLICES)
        seen = len(runs.saw)
        time.sleep(1.0)
        assert len(runs.saw) == seen  # and not again
    assert len(list(watch.rglob("*.dcm"))) == SLICES


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A folder with folders 1200 deep in each other, and an image at the bottom; Python cannot remove them."""
    root, here = tmp_path / "deep", Path.cwd()
    root.mkdir()
    os.chdir(root)
    try:
        for _ in range(1200):
            Path("d").mkdir()
            os.chdir("d")
        make_series().headers[0].save_as("x.dcm", enforce_file_format=True)
        yield root
    finally:
        os.chdir(here)
        subprocess.run(["rm", "-rf", str(root)], check=True)


def test_folders_as_deep_as_anybody_makes_them_end_neither_a_listener_nor_a_push(deep: Path) -> None:
    watched = workflow._Watched(deep, quiet_s=0.0)
    assert watched.has_news()
    assert [found.path.name for found in find_objects([deep], everything=True)] == ["x.dcm"]


def test_a_watched_folder_that_is_gone_for_a_moment_ends_nothing(tmp_path: Path) -> None:
    watched = workflow._Watched(tmp_path / "nowhere", quiet_s=0.0)
    assert not watched.has_news()


def test_a_folder_to_watch_that_was_never_there_is_said_at_once(tmp_path: Path) -> None:
    request = SegmentRequest(inputs=(tmp_path,), output=tmp_path / "out", home=tmp_path / "home")
    plan = ListenPlan(
        ListenSite(watch=tmp_path / "wach"), tmp_path / "in" / "received", NightPlan({}, tmp_path / "in", request), 1.0
    )
    with pytest.raises(UsageError, match="not there") as refused:
        run_listen(plan)
    assert refused.value.path == tmp_path / "wach"
    assert not (tmp_path / "in").exists()


def test_two_listeners_on_one_folder_exclude_each_other(tmp_path: Path, runs: Runs) -> None:
    request = SegmentRequest(inputs=(tmp_path / "in",), output=tmp_path / "out", home=tmp_path)
    night = NightPlan({}, tmp_path / "in", request)
    second = ListenPlan(ListenSite(watch=tmp_path), tmp_path / "in" / "received", night, 1.0)
    with listening(tmp_path, port=0, allow=("SCANNER@127.0.0.1",)), pytest.raises(LockedError):
        run_listen(second)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_listening_to_a_real_orthanc(tmp_path: Path) -> None:
    facts: Any = in_a_namespace(Path(__file__).with_name("orthanc_listen.py"), tmp_path, timeout_s=1150)
    assert facts["killed"] == -9
    whole = {"CT": 1, "DOC": 1, "OT": 1, "SEG": 1, "SR": 1}
    good = {f"{number} {'pat-one' if number < 2 else 'pat-two'}": whole for number in range(GOOD)}
    others = {f"{BROKEN} pat-one": {"CT": 1}, "8 pat-one": {"MR": 1}, "9 pat-two": {"US": 1}}
    assert facts["first"] == good | others | {f"{REFILED} pat-wrong": whole}
    assert facts["second"] == facts["third"] == good | others | {f"{REFILED} {RIGHT}": whole}
    assert facts["instances_second"] == facts["instances_third"]
    # The broken study is told once in all, and nothing else fails.
    assert sum("E_MISSING_SLICES" in line for line in facts["said"]) == 1
    assert not [line for line in facts["said"] if "E_PACS" in line]
    assert facts["read_back"] == {"pdf": GOOD + 1, "sc": 2 * (GOOD + 1)}
    assert facts["terminated"] == 143
