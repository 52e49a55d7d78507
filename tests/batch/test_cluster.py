"""What --cluster names, and what a worker must see before it gets work."""

from __future__ import annotations

import inspect
import logging
import os
import sys
from functools import partial
from importlib import import_module
from pathlib import Path

import psutil
import pytest

import agseg.batch.cluster as module
from agseg.batch import claim_output, run_batch
from agseg.batch.arrival import states_of
from agseg.batch.cluster import Cluster, ClusterKind
from agseg.batch.dask_executor import DaskExecutor
from agseg.batch.job import StudyTask
from agseg.batch.probe import Probe
from agseg.batch.provenance import Provenance
from agseg.errors import UsageError
from agseg.study import Study, StudyKind
from tests.batch.fakes import job, write_study
from tests.batch.farm import ROOT, farm


@pytest.mark.parametrize(
    ("text", "kind", "address", "workers"),
    [
        ("tcp://scheduler:8786", ClusterKind.SCHEDULER, "tcp://scheduler:8786", 1),
        ("tls://[::1]:8786", ClusterKind.SCHEDULER, "tls://[::1]:8786", 1),
        ("local", ClusterKind.LOCAL, "", os.cpu_count()),
        ("local:3", ClusterKind.LOCAL, "", 3),
    ],
)
def test_the_forms_of_cluster(text: str, kind: ClusterKind, address: str, workers: int) -> None:
    found = Cluster.parse(text)
    assert (found.kind, found.address, found.workers) == (kind, address, workers)


@pytest.mark.parametrize(
    "text", ["", "scheduler:8786", "tcp://scheduler", "http://scheduler:8786", "local:0", "local:x", "slurm:2"]
)
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="invalid value for"):
        Cluster.parse(text)


def test_a_configuration_must_fit(tmp_path: Path) -> None:
    given = tmp_path / "cluster.yaml"
    given.write_text("cores: 4\njobs: 2\n")
    assert Cluster.parse("slurm", config=given).settings == {"cores": 4, "jobs": 2}
    with pytest.raises(UsageError, match="needs its arguments"):
        Cluster.parse("slurm")
    with pytest.raises(UsageError, match="does not go with"):
        Cluster.parse("local", config=given)
    with (
        pytest.raises(UsageError, match="does not fit a scheduler"),
        Cluster.parse("tls://x:1", config=given).connect(tmp_path),
    ):
        pass
    given.write_text("- a list\n")
    with pytest.raises(UsageError, match="line 1: a mapping"):
        Cluster.parse("slurm", config=given)
    with pytest.raises(UsageError, match="cannot be read"):
        Cluster.parse("slurm", config=tmp_path / "nothing.yaml")


def test_without_the_extra_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError) as caught, Cluster.parse("local").connect(tmp_path):
        pass
    assert caught.value.hint == "pip install 'agseg[cluster]'"


def test_a_scheduler_that_is_not_there_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_S", 0.5)
    with pytest.raises(UsageError, match="no Dask scheduler answers"), Cluster.parse("tcp://127.0.0.1:9").connect(tmp_path):
        pass


@pytest.fixture
def probe(tmp_path: Path) -> Probe:
    (tmp_path / "out").mkdir()
    marker = tmp_path / "out" / "marker"
    marker.write_text("token")
    study = Study("a", tmp_path, (write_study(tmp_path / "a.nii.gz"),), StudyKind.NIFTI)
    return Probe(
        marker, "token", StudyTask(study, tmp_path / "out", "a", Provenance("run", "0", (), {}, None, (), ""), states_of(study))
    )


def test_a_worker_that_sees_the_same_may_take_part(probe: Probe) -> None:
    before = sorted(probe.marker.parent.iterdir())
    assert probe.problem() is None
    assert sorted(probe.marker.parent.iterdir()) == before


def test_a_worker_must_see_the_output_the_input_and_the_same_version(probe: Probe) -> None:
    file = probe.sample.study.files[0]
    os.utime(file, (0, 0))
    assert "input" in str(probe.problem())
    file.unlink()
    assert "input" in str(probe.problem())
    probe.marker.write_text("another")
    assert "another folder" in str(probe.problem())
    probe.marker.unlink()
    assert "cannot use the output folder" in str(probe.problem())
    assert "runs agseg" in str(Probe(probe.marker, "", probe.sample, version="0.0.0").problem())


@pytest.mark.slow
def test_workers_of_our_own_listen_on_the_loopback_with_tls(tmp_path: Path) -> None:
    with Cluster.parse("local:1").connect(tmp_path) as client:
        client.wait_for_workers(1, timeout=60)
        assert client.scheduler.address.startswith("tls://127.0.0.1:")
        assert all(address.startswith("tls://127.0.0.1:") for address in client.scheduler_info()["workers"])
        here = psutil.Process()
        listening = {
            link.laddr.ip
            for process in [here, *here.children(recursive=True)]
            for link in process.net_connections()
            if link.status == psutil.CONN_LISTEN
        }
        assert listening == {"127.0.0.1"}
    assert not [child for child in psutil.Process().children(recursive=True) if "distributed" in " ".join(child.cmdline())]


SBATCH = """#!/bin/sh
# Takes a job script as Slurm's does (a copy: the caller deletes its own), and runs it at once; its number is its process id.
script=$(mktemp "{log}.XXXXXX") && cat "$1" > "$script"
setsid sh "$script" >> "{log}" 2>&1 &
echo "Submitted batch job $!"
"""

SCANCEL = """#!/bin/sh
for job in "$@"; do kill -TERM "-$job"; done
"""


@pytest.mark.slow
def test_slurm_jobs_do_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dask_jobqueue")
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(text.format(log=tmp_path / "jobs.log") if name == "sbatch" else text)
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    config = tmp_path / "slurm.yaml"
    config.write_text(
        f"cores: 1\nmemory: 2GB\nprocesses: 1\njobs: 2\nlocal_directory: {tmp_path}\ninterface: lo\nlog_directory: {tmp_path}\n"
    )
    for number in range(6):
        write_study(tmp_path / "in" / f"model-slow{number}.nii.gz", seed=number)
    executor = partial(DaskExecutor, cluster=Cluster.parse("slurm", config=config))
    with claim_output(tmp_path / "out") as output:
        report = run_batch(job(tmp_path / "in"), output, executor=executor)
    assert report.counts["done"] == 6
    # The second job may begin when all is done.
    assert report.environment["cluster"] in [{"kind": "slurm", "workers": count} for count in (1, 2)]
    # Nothing stays: no job, no certificate.
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")) == [".agseg.lock"]


@pytest.mark.slow
def test_a_tls_scheduler_takes_only_those_with_its_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed.security import Security

    made = Security.temporary().get_tls_config_for_role("client")
    files = {name: tmp_path / f"{name}.pem" for name in ("ca_file", "cert", "key")}
    for name, path in files.items():
        path.write_text(made[name])
    config = tmp_path / "tls.yaml"
    config.write_text(f"tls_ca_file: {files['ca_file']}\ntls_client_cert: {files['cert']}\ntls_client_key: {files['key']}\n")
    options = ("--tls-ca-file", str(files["ca_file"]), "--tls-cert", str(files["cert"]), "--tls-key", str(files["key"]))
    write_study(tmp_path / "in" / "a.nii.gz")
    with farm(tmp_path / "farm", workers=1, options=("--protocol", "tls", *options)) as started:
        assert started.address.startswith("tls://")
        executor = partial(DaskExecutor, cluster=Cluster.parse(started.address, config=config))
        with claim_output(tmp_path / "out") as output:
            assert run_batch(job(tmp_path / "in"), output, executor=executor).counts["done"] == 1
        monkeypatch.setattr(module, "CONNECT_S", 2)
        for address in (started.address, started.address.replace("tls", "tcp")):
            with pytest.raises(UsageError, match="no Dask scheduler answers"), Cluster.parse(address).connect(tmp_path):
                pass


def _worker_says(message: str) -> None:
    logging.getLogger("distributed.worker").error(message)


@pytest.mark.slow
def test_what_a_local_worker_says_is_heard_but_for_its_own_end(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A worker that ends between two heartbeats calls the silence of its scheduler an error; cron would mail that."""
    of_its_end = ("Failed to communicate with scheduler during heartbeat", "Scheduler was unaware of this worker")
    dask = inspect.getsource(import_module("distributed.worker"))
    assert all(f'"{message}' in dask for message in of_its_end)
    with Cluster.parse("local:1").connect(tmp_path) as client:
        for message in (*of_its_end, "Event loop is stuck"):
            client.run(_worker_says, message)
    heard = capfd.readouterr().err.splitlines()
    assert [line.rpartition(" - ")[2] for line in heard] == ["Event loop is stuck"]
