"""Throughput of a run against the number of Dask workers, with a model that only waits: ``python -m benchmarks.scale``.

What is measured is everything but pixels and networks: discovery, decisions, tasks through a real scheduler to real worker
processes on this machine, a small volume read and handed over, a small mask written with fsync and published, the answer taken.
Writes benchmarks/scale.json and docs/scale.png.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from agseg.batch import BatchEvent, BatchJob, EventKind, Limits, StudyFolder, StudyTask, claim_output, run_batch
from agseg.batch.arrival import FileState
from agseg.batch.cluster import Cluster
from agseg.batch.dask_executor import DaskExecutor
from agseg.grid import Grid
from agseg.report import Measurement, OrganStatus, StudyReport, WeightsRef
from agseg.study import Study, StudyKind
from agseg.volume import Volume

ROOT = Path(__file__).resolve().parents[1]
SHAPE = (32, 32, 32)
WEIGHTS = WeightsRef(id="waits", sha256="0" * 64, architecture="none", licence="Apache-2.0")


def read(study: Study) -> Volume:
    """A volume without a decoder's work; the file's bytes are read."""
    for path in study.files:
        path.read_bytes()
    return Volume(np.zeros(SHAPE, np.int16), Grid(SHAPE, np.diag([1.0, 1.0, 1.0, 1.0])))


@dataclass(frozen=True)
class Waits:
    """A model that holds its device for so long and computes nothing."""

    seconds: float

    def __call__(self) -> Waits:
        return self

    @property
    def environment(self) -> dict[str, Any]:
        return {"device": "none"}

    def process(self, task: StudyTask, volume: Volume, stage: Callable[[str], None]) -> StudyReport:
        stage("predict")
        time.sleep(self.seconds)
        with StudyFolder(task) as folder:
            (folder.path / "organ.bin").write_bytes(volume.voxels.tobytes())
            return folder.publish(volume, organs=(Measurement("organ", OrganStatus.PRESENT, 1.0, 1000, 50.0),))


def measure(scheduler: str, folder: Path, *, studies: int, seconds: float) -> float:
    """Studies per second."""
    import nibabel

    source = folder / "in"
    source.mkdir(parents=True)
    image = nibabel.Nifti1Image(np.zeros((8, 8, 8), np.int16), np.eye(4))
    nibabel.save(image, folder / "one.nii.gz")
    content = (folder / "one.nii.gz").read_bytes()
    for number in range(studies):
        (source / f"study{number:05}.nii.gz").write_bytes(content)
    ends: list[float] = []

    def note(event: BatchEvent) -> None:
        if event.kind is EventKind.FINISHED:
            ends.append(time.monotonic())

    from benchmarks import scale

    job = BatchJob(
        inputs=(source,), model=scale.Waits(seconds), weights=WEIGHTS, parameters={}, read=scale.read, limits=Limits(ahead=2)
    )
    with claim_output(folder / "out") as output:
        report = run_batch(job, output, on_event=note, executor=partial(DaskExecutor, cluster=Cluster.parse(scheduler)))
    assert report.counts["done"] == studies, report.counts
    # Without the first quarter, while workers are starting their processes; a line through the steps, as workers end together.
    later = ends[len(ends) // 4 :]
    return float(np.polyfit(later, np.arange(len(later)), 1)[0])


def processor_ms(cluster: Any, folder: Path, *, studies: int) -> dict[str, float]:
    """Processor time per study of the run's own process, of the scheduler and of a worker (its readers and model left out)."""
    watched = {"scheduler": psutil.Process(cluster.scheduler.pid), "worker": psutil.Process(cluster.workers[0].pid)}

    def spent() -> dict[str, float]:
        own = os.times()
        found = {"run": own.user + own.system}
        for name, process in watched.items():
            times = process.cpu_times()
            found[name] = times.user + times.system
        return found

    before = spent()
    measure(cluster.address, folder, studies=studies, seconds=0.0)
    after = spent()
    return {name: round(1000 * (after[name] - before[name]) / studies, 2) for name in before}


def payload_bytes(slices: int) -> int:
    """Size of one study's task for the scheduler, as a DICOM series of so many files."""
    files = tuple(Path(f"/archive/2026/studies/case-000123/series-4/IM{number:06}.dcm") for number in range(slices))
    states = tuple(FileState("case-000123/series-4/" + path.name, 526_000, 1_767_225_600_000_000_000) for path in files)
    study = Study("case-000123/series-4", Path("/archive/2026/studies"), files, StudyKind.DICOM)
    provenance = {"key": "0" * 64, "fingerprint": "0" * 64, "run": "0" * 16, "weights": WEIGHTS.to_dict(), "parameters": {}}
    return len(pickle.dumps(StudyTask(study, Path("/archive/results"), "case-000123/series-4", provenance, states)))


def scheduler_rate(address: str, *, tasks: int, size: int) -> float:
    """Dask tasks per second that carry so many bytes and do nothing: what the scheduler and one client can do."""
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        began = time.perf_counter()
        futures = [client.submit(len, os.urandom(size), pure=False) for _ in range(tasks)]
        assert set(client.gather(futures)) == {size}
        return tasks / (time.perf_counter() - began)


def draw(result: dict[str, Any], target: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.5, 3.6), dpi=110, layout="constrained")
    for series in result["runs"]:
        workers = [point["workers"] for point in series["points"]]
        rates = [point["studies_per_s"] for point in series["points"]]
        (line,) = axes.plot(workers, rates, "o-", label=f"model waits {series['wait_s']:g} s")
        if series["wait_s"]:
            ideal = [count / series["wait_s"] for count in workers]
            axes.plot(workers, ideal, ":", color=line.get_color(), label=f"workers / {series['wait_s']:g} s")
    axes.set(xlabel="Dask workers (processes on one machine)", ylabel="studies per second", xscale="log", yscale="log")
    axes.set_xticks(workers, [str(count) for count in workers])
    axes.set_xticks([], minor=True)
    axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), fontsize=8, loc="outside right")
    axes.set_title(f"{result['machine']['cores']} cores, load {result['machine']['load']:.0f} while measured", fontsize=9)
    figure.savefig(target)


def main() -> None:
    from tests.batch.farm import farm

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--waits", type=float, nargs="+", default=[2.0, 0.5, 0.0])
    parser.add_argument(
        "--repeats", type=int, default=3, help="of the runs without a wait, which are short; their median counts"
    )
    parser.add_argument("--out", type=Path, default=ROOT)
    given = parser.parse_args()
    result: dict[str, Any] = {"runs": [{"wait_s": wait, "points": []} for wait in given.waits]}
    with tempfile.TemporaryDirectory() as scratch, farm(Path(scratch) / "farm") as cluster:
        for count in given.workers:
            while len(cluster.workers) < count:
                cluster.add_worker()
            wait_for(cluster.address, count)
            if count == 1:
                result["processor_ms_per_study"] = processor_ms(cluster, Path(scratch) / "processor", studies=300)
                print(result["processor_ms_per_study"], flush=True)
            for series in result["runs"]:
                wait = series["wait_s"]
                studies = 120 if not wait else count * (8 if wait > 1 else 16)
                rates = [
                    measure(cluster.address, Path(scratch) / f"{count}-{wait}-{number}", studies=studies, seconds=wait)
                    for number in range(1 if wait else given.repeats)
                ]
                rate = statistics.median(rates)
                series["points"].append({"workers": count, "studies": studies, "studies_per_s": round(rate, 2)})
                print(count, wait, *(round(each, 2) for each in rates), flush=True)
        size = payload_bytes(500)
        result["task_bytes"] = {"nifti": payload_bytes(1), "dicom_500_slices": size}
        result["scheduler_tasks_per_s"] = {
            str(n): round(scheduler_rate(cluster.address, tasks=1000, size=n), 1) for n in (100, size)
        }
    result["machine"] = {"cores": os.cpu_count(), "load": os.getloadavg()[1], "python": platform.python_version()}
    (given.out / "benchmarks" / "scale.json").write_text(json.dumps(result, indent=2) + "\n")
    draw(result, given.out / "docs" / "scale.png")


def wait_for(address: str, count: int) -> None:
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=120)


if __name__ == "__main__":
    main()
