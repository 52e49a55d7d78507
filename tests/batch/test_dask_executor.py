"""A run on a cluster is the run on one machine: the same records, the same bytes, whatever happens to a worker."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from agseg.batch import BatchEvent, EventKind, Limits, Processor, claim_output, run_batch
from agseg.batch.cluster import Cluster
from agseg.batch.dask_executor import DaskExecutor
from agseg.errors import Code, ExitCode, UsageError
from agseg.report import BatchReport, StudyStatus
from tests.batch.fakes import MakeThreshold, Threshold, WholeThreshold, job, write_study
from tests.batch.farm import ROOT, Farm, children_of, farm

pytest.importorskip("distributed")

pytestmark = pytest.mark.slow

D, R, F, W = StudyStatus.DONE, StudyStatus.REJECTED, StudyStatus.FAILED, StudyStatus.DEFERRED


@pytest.fixture(scope="module")
def shared_farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with farm(tmp_path_factory.mktemp("farm"), workers=2) as started:
        yield started


def run(
    source: Path, target: Path, address: str | None, *, on_event: Callable[[BatchEvent], None] | None = None, **changes: Any
) -> BatchReport:
    with claim_output(target) as output:
        what = job(source, **changes)
        if address is None:
            return run_batch(what, output, on_event=on_event)
        return run_batch(what, output, on_event=on_event, executor=partial(DaskExecutor, cluster=Cluster.parse(address)))


def outcomes(report: BatchReport) -> dict[str, tuple[StudyStatus, Code | None]]:
    assert len({study.input for study in report.studies}) == len(report.studies)
    return {study.input: (study.status, study.code) for study in report.studies}


VOLATILE = {"run", "run_id", "seconds", "started", "finished", "environment"}


def lasting(record: Any) -> Any:
    """A record without times, the run's own name and what it ran on, at any depth."""
    if isinstance(record, dict):
        return {key: lasting(value) for key, value in record.items() if key not in VOLATILE}
    return [lasting(each) for each in record] if isinstance(record, list) else record


def written(target: Path) -> dict[str, Any]:
    """All that a person or script sees, without times, the run's own name and what it ran on."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in target.rglob("*") if path.is_file() and path.name != ".agseg.lock"):
        name = path.relative_to(target).as_posix()
        if path.suffix == ".json":
            found[name] = lasting(json.loads(path.read_bytes()))
        elif path.suffix == ".csv":
            found[name] = [lasting(row) for row in csv.DictReader(path.read_text().splitlines())]
        elif name != "report.html":
            found[name] = path.read_bytes()
    return found


def test_a_cluster_gives_the_records_and_bytes_of_one_machine(shared_farm: Farm, tmp_path: Path) -> None:
    troubles = ("model-segv", "model-reject", "model-infer", "read-kill", "read-bug", "read-reject", "write-kill")
    for number, name in enumerate(("a", "deep/b", "deep/c", "d", *troubles)):
        write_study(tmp_path / "in" / f"{name}.nii.gz", seed=number)
    here = run(tmp_path / "in", tmp_path / "here", None)
    there = run(tmp_path / "in", tmp_path / "there", shared_farm.address)
    assert outcomes(there) == outcomes(here)
    assert there.exit_code is here.exit_code is ExitCode.BUG
    assert Counter(status for status, _ in outcomes(there).values()) == {D: 4, R: 2, F: 5}
    assert written(tmp_path / "there") == written(tmp_path / "here")
    assert there.environment == {"device": "none", "cluster": {"kind": "scheduler", "workers": 2}}
    again = run(tmp_path / "in", tmp_path / "here", shared_farm.address)
    assert again.counts["skipped"] == 4


def test_a_study_that_hangs_is_given_up_on_the_worker(shared_farm: Farm, tmp_path: Path) -> None:
    for name in ("a", "model-hang", "z"):
        write_study(tmp_path / "in" / f"{name}.nii.gz")
    report = run(tmp_path / "in", tmp_path / "out", shared_farm.address, limits=Limits(study_timeout_s=2))
    assert outcomes(report) == {"a": (D, None), "model-hang": (F, Code.TIMEOUT), "z": (D, None)}


@dataclass(frozen=True)
class Counted:
    """A factory that leaves a line for every model it makes."""

    ledger: Path

    def __call__(self) -> Processor:
        with self.ledger.open("a") as stream:
            stream.write(f"{os.getppid()}\n")
        return Threshold()


def test_weights_are_loaded_once_per_worker_and_progress_arrives(shared_farm: Farm, tmp_path: Path) -> None:
    for number in range(8):
        write_study(tmp_path / "in" / f"model-slow{number}.nii.gz", seed=number)
    seen: list[BatchEvent] = []
    ledger = tmp_path / "ledger"
    report = run(tmp_path / "in", tmp_path / "out", shared_farm.address, model=Counted(ledger), on_event=seen.append)
    assert report.counts["done"] == 8
    assert sorted(ledger.read_text().split()) == sorted(str(worker.pid) for worker in shared_farm.workers)
    assert [event.done for event in seen if event.kind is EventKind.FINISHED] == list(range(1, 9))
    stages = Counter((event.study, event.stage) for event in seen if event.kind is EventKind.STAGE)
    assert set(stages.values()) == {1}
    assert {stage for _, stage in stages} == {"read", "segment", "predict", "write"}
    # The next study on its way is read while one is in the model, although a worker has a single thread.
    begun = [event.kind for event in seen if event.kind in (EventKind.STARTED, EventKind.FINISHED)]
    assert begun[:3] == [EventKind.STARTED] * 3


def test_only_workers_that_announce_gpus_get_work_where_there_are_any(tmp_path: Path) -> None:
    for number in range(6):
        write_study(tmp_path / "in" / f"{number}.nii.gz", seed=number)
    with farm(tmp_path / "farm", workers=1) as started:
        gpu = started.add_worker("--no-nanny", "--resources", "GPU=1")
        wait_for_workers(started, 2)
        ledger = tmp_path / "ledger"
        report = run(tmp_path / "in", tmp_path / "out", started.address, model=Counted(ledger))
        assert report.counts["done"] == 6
        assert ledger.read_text().split() == [str(gpu.pid)]


def wait_for_workers(started: Farm, count: int) -> dict[str, int]:
    """Addresses and process ids."""
    from distributed import Client

    with Client(started.address, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=60)
        return dict(client.run(os.getpid))


def test_a_worker_killed_in_the_middle_costs_no_study(tmp_path: Path) -> None:
    for number in range(12):
        write_study(tmp_path / "in" / f"model-slow{number}.nii.gz", seed=number)
    run(tmp_path / "in", tmp_path / "here", None)
    started: Counter[str] = Counter()
    orphans: list[psutil.Process] = []
    with farm(tmp_path / "farm", workers=2) as cluster:
        wait_for_workers(cluster, 2)
        victim = cluster.workers[0]

        def kill(event: BatchEvent) -> None:
            started[event.study] += event.kind is EventKind.STARTED
            if event.kind is EventKind.FINISHED and event.done == 3:
                orphans.extend(children_of(victim))
                victim.kill()

        report = run(tmp_path / "in", tmp_path / "there", cluster.address, on_event=kill)
        assert victim.wait() == -signal.SIGKILL
    assert orphans
    assert not psutil.wait_procs(orphans, timeout=5)[1]
    assert set(outcomes(report).values()) == {(D, None)}
    assert len(report.studies) == 12
    assert report.exit_code is ExitCode.OK
    again = [name for name, times in started.items() if times > 1]
    assert 1 <= len(again) <= 3
    assert written(tmp_path / "there") == written(tmp_path / "here")
    assert not [path for path in (tmp_path / "there").iterdir() if path.name.startswith(".agseg-tmp")]


class KillsItsWorker(Threshold):
    """Ends the Dask worker itself for a study called so, as an out-of-memory killer would."""

    def process(self, task: Any, volume: Any, stage: Any) -> Any:
        if "worker-killer" in task.study.id:
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
        return super().process(task, volume, stage)


@dataclass(frozen=True)
class MakeKiller:
    def __call__(self) -> Processor:
        return KillsItsWorker()


def test_a_study_that_kills_its_workers_fails_alone(tmp_path: Path) -> None:
    for name in ("a", "b", "worker-killer", "x", "y", "z"):
        write_study(tmp_path / "in" / f"{name}.nii.gz")
    with farm(tmp_path / "farm") as cluster:
        cluster.add_worker("--nanny")
        cluster.add_worker("--nanny")
        wait_for_workers(cluster, 2)
        report = run(tmp_path / "in", tmp_path / "out", cluster.address, model=MakeKiller())
    expected = dict.fromkeys("abxyz", (D, None)) | {"worker-killer": (F, Code.CRASHED)}
    assert outcomes(report) == expected
    assert report.exit_code is ExitCode.SOME_NOT_DONE
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".agseg-tmp")]


class DiesWithTheAnswer(WholeThreshold):
    """Publishes the study, then ends its Dask worker before the answer is out."""

    def process(self, task: Any, volume: Any, stage: Any) -> Any:
        report = super().process(task, volume, stage)
        with (task.root.parent / "ledger").open("a") as stream:
            stream.write(f"{os.getppid()}\n")
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
        return report


@dataclass(frozen=True)
class MakeDier:
    def __call__(self) -> Processor:
        return DiesWithTheAnswer()


def test_a_study_that_was_finished_by_a_worker_that_died_is_not_done_again(tmp_path: Path) -> None:
    write_study(tmp_path / "in" / "a.nii.gz")
    run(tmp_path / "in", tmp_path / "here", None)
    with farm(tmp_path / "farm", workers=2) as cluster:
        wait_for_workers(cluster, 2)
        report = run(tmp_path / "in", tmp_path / "there", cluster.address, model=MakeDier())
    assert outcomes(report) == {"a": (D, None)}
    assert len((tmp_path / "ledger").read_text().split()) == 1
    assert written(tmp_path / "there") == written(tmp_path / "here")


def night(source: Path, target: Path, *options: str, start_new_session: bool = False) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.batch.night", str(source), str(target), *options]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=start_new_session
    )


def wait_for(process: subprocess.Popen[str], *lines: str) -> None:
    """Until the run has said all of them, in any order: workers do not wait for each other."""
    assert process.stdout is not None
    left = set(lines)
    for said in process.stdout:
        left.discard(said.strip())
        if not left:
            return
    raise AssertionError(f"the run never said {sorted(left)}")


def assert_workers_are_free(cluster: Farm) -> None:
    end = time.monotonic() + 10
    while any(children_of(worker) for worker in cluster.workers):
        assert time.monotonic() < end, "processes of a run that is over"
        time.sleep(0.1)


def test_sigterm_ends_the_run_within_10_s_with_its_record_and_frees_the_workers(shared_farm: Farm, tmp_path: Path) -> None:
    # The one that hangs comes last: on a slow day one worker does all of them, and what is behind it would never end.
    for name in ("a", "b", "model-hang"):
        write_study(tmp_path / "in" / f"{name}.nii.gz")
    limits = 'limits={"study_timeout_s": 300, "ahead": 1}'
    process = night(tmp_path / "in", tmp_path / "out", f'cluster="{shared_farm.address}"', "tell=true", limits)
    wait_for(process, "finished a", "finished b", "stage model-hang")
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert time.monotonic() - began < 10
    assert process.returncode == 143
    record = json.loads((tmp_path / "out" / "run.json").read_bytes())
    assert {study["input"]: (study["status"], study["code"]) for study in record["studies"]} == {
        "a": ("done", None), "b": ("done", None), "model-hang": ("deferred", "E_INTERRUPTED"),
    }  # fmt: skip
    assert_workers_are_free(shared_farm)
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".agseg-tmp")]


def test_ctrl_c_in_the_terminal_ends_a_local_cluster_in_order_and_quietly(tmp_path: Path) -> None:
    for name in ("a", "model-hang"):
        write_study(tmp_path / "in" / f"{name}.nii.gz")
    process = night(tmp_path / "in", tmp_path / "out", 'cluster="local:2"', "tell=true", start_new_session=True)
    wait_for(process, "finished a")
    children = psutil.Process(process.pid).children(recursive=True)
    # The terminal sends it to every process of the group.
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, "")
    assert not psutil.wait_procs(children, timeout=5)[1]
    record = json.loads((tmp_path / "out" / "run.json").read_bytes())
    assert {study["input"]: study["status"] for study in record["studies"]} == {"a": "done", "model-hang": "deferred"}


def test_a_killed_run_frees_its_workers_and_its_lock(shared_farm: Farm, tmp_path: Path) -> None:
    write_study(tmp_path / "in" / "model-hang.nii.gz")
    process = night(tmp_path / "in", tmp_path / "out", f'cluster="{shared_farm.address}"', "tell=true")
    wait_for(process, "stage model-hang")
    process.kill()
    process.communicate()
    assert_workers_are_free(shared_farm)
    write_study(tmp_path / "in" / "b.nii.gz")
    report = run(tmp_path / "in", tmp_path / "out", shared_farm.address, exclude=("*hang*",))
    assert outcomes(report) == {"b": (D, None)}


def test_after_the_deadline_what_is_in_a_model_ends_and_the_rest_is_deferred(shared_farm: Farm, tmp_path: Path) -> None:
    for number in range(24):
        write_study(tmp_path / "in" / f"model-slow{number:02}.nii.gz", seed=number)
    limits = Limits(study_timeout_s=20, deadline_s=2.0)
    report = run(tmp_path / "in", tmp_path / "out", shared_farm.address, limits=limits)
    found = Counter(outcomes(report).values())
    # How many are done in that time is the machine's affair; none may be lost, and most cannot be done.
    assert found[W, Code.DEADLINE] >= 5
    assert found.total() == found[D, None] + found[W, Code.DEADLINE] == 24
    assert report.exit_code is ExitCode.DEADLINE
    again = run(tmp_path / "in", tmp_path / "out", shared_farm.address)
    assert again.counts["skipped"] == found[D, None]
    assert again.counts["done"] == found[W, Code.DEADLINE]


def test_a_model_that_cannot_be_made_is_a_usage_error(shared_farm: Farm, tmp_path: Path) -> None:
    write_study(tmp_path / "in" / "a.nii.gz")
    with pytest.raises(UsageError, match="no GPU"):
        run(tmp_path / "in", tmp_path / "out", shared_farm.address, model=MakeThreshold("usage"))
    assert not (tmp_path / "out" / "run.json").exists()
    report = run(tmp_path / "in", tmp_path / "out", shared_farm.address, model=MakeThreshold("weights"))
    assert report.exit_code is ExitCode.WEIGHTS
    assert set(outcomes(report).values()) == {(F, Code.WEIGHTS)}


def test_a_full_disk_on_a_worker_ends_the_run_with_8(shared_farm: Farm, tmp_path: Path) -> None:
    for name in ("a", "write-full", "z"):
        write_study(tmp_path / "in" / f"{name}.nii.gz")
    report = run(tmp_path / "in", tmp_path / "out", shared_farm.address)
    assert report.exit_code is ExitCode.OUTPUT
    assert outcomes(report)["write-full"] == (F, Code.DISK_FULL)


def test_a_worker_that_sees_another_output_folder_is_refused_at_the_start(
    shared_farm: Farm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(tmp_path / "in" / "a.nii.gz")
    real = Path.write_text

    def elsewhere(self: Path, text: str, **how: Any) -> int:
        return real(self, "another folder" if self.name.startswith(".agseg-tmp") else text, **how)

    monkeypatch.setattr(Path, "write_text", elsewhere)
    with pytest.raises(UsageError, match="another folder"):
        run(tmp_path / "in", tmp_path / "out", shared_farm.address)
    assert not (tmp_path / "out" / "a").exists()


def test_a_scheduler_that_dies_ends_the_run_with_its_record(tmp_path: Path) -> None:
    for number in range(20):
        write_study(tmp_path / "in" / f"model-slow{number:02}.nii.gz", seed=number)
    with farm(tmp_path / "farm", workers=1) as cluster:
        wait_for_workers(cluster, 1)

        def kill(event: BatchEvent) -> None:
            if event.kind is EventKind.FINISHED and event.done == 2:
                cluster.scheduler.kill()

        report = run(tmp_path / "in", tmp_path / "out", cluster.address, on_event=kill)
        assert_workers_are_free(cluster)
    found = Counter(outcomes(report).values())
    assert found[D, None] >= 2
    assert found[W, Code.CRASHED] >= 10
    assert found.total() == found[D, None] + found[W, Code.CRASHED] == 20
    assert report.exit_code is ExitCode.BUG
    # What was done stays done; the rest is done by the next run.
    again = run(tmp_path / "in", tmp_path / "out", None)
    assert again.counts["skipped"] >= found[D, None]
    assert again.counts["skipped"] + again.counts["done"] == 20


def test_workers_that_answer_before_the_scheduler_knows_of_the_subscription_are_heard(
    shared_farm: Farm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import Client

    at_once = Client._send_to_scheduler

    def late(client: Client, message: dict[str, Any]) -> None:
        if message.get("op") == "subscribe-topic":
            client.loop.add_callback(lambda: client.loop.call_later(1.0, at_once, client, message))
        else:
            at_once(client, message)

    monkeypatch.setattr(Client, "_send_to_scheduler", late)
    monkeypatch.setattr("agseg.batch.dask_executor._SETUP_S", 5.0)
    write_study(tmp_path / "in" / "a.nii.gz")
    assert outcomes(run(tmp_path / "in", tmp_path / "out", shared_farm.address)) == {"a": (D, None)}
