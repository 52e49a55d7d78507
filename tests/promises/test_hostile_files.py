"""The promises about files that mean harm: who opens them, what they may cost, and what is left when something dies."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import mutations, phantoms
from tests.io.dicom import test_jpeg_lossy
from tests.promises.conftest import ROOT, prepare, write_good
from tests.ultrasound import scans
from tests.ultrasound.plane_weights import NAME, write_plane_weights

WATCHED = """
import json, os, sys
root, log, arguments = os.path.realpath(sys.argv[1]), sys.argv[2], sys.argv[3:]
opened = []
def hook(event, args):
    if event == "open" and isinstance(args[0], (str, bytes, os.PathLike)):
        path = os.path.realpath(os.fsdecode(args[0]))
        if path.startswith(root + os.sep) and not os.path.isdir(path):
            opened.append(path)
sys.addaudithook(hook)
sys.argv = ["agseg", *arguments]
from agseg.cli.app import main
try:
    code = main()
except SystemExit as end:
    code = end.code
with open(log, "w") as stream:
    json.dump({"opened": opened, "code": code}, stream)
"""


@dataclass(frozen=True)
class Place:
    """Where a test runs commands: nothing in their environment but what they need, and tiny weights."""

    root: Path
    manifest: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"LANG": "C.UTF-8", "PYTHONPATH": str(ROOT), "AGSEG_HOME": str(self.root / "home")}

    def segment(self, source: Path, out: Path, *more: object) -> list[str]:
        tiny = ("--manifest", self.manifest, "--weights", "tiny", "--precision", "fp32")
        return [*map(str, ("segment", source, "-o", out, *tiny, *more))]

    def classify(self, source: Path, out: Path) -> list[str]:
        manifest = write_plane_weights(self.root / "planes")
        return [*map(str, ("classify-us", source, "-o", out, "--weights", NAME, "--manifest", manifest, "--device", "cpu"))]

    def run(self, *arguments: object) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "agseg", *map(str, arguments)]
        return subprocess.run(command, env=self.environment, capture_output=True, timeout=280)

    def watched(
        self, source: Path, *arguments: object, more: dict[str, str] | None = None, until: Path | None = None
    ) -> dict[str, Any]:
        """Run a command in a process that notes every file below ``source`` which it opens itself.

        ``more`` goes into its environment; once the file ``until`` is there it is sent SIGTERM.
        """
        log = self.root / "audit.json"
        command = [sys.executable, "-c", WATCHED, str(source), str(log), *map(str, arguments)]
        silence: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, cwd=self.root, env={**self.environment, **(more or {})}, **silence) as process:
            while until is not None and not until.exists():
                assert process.poll() is None
                time.sleep(0.05)
            if until is not None:
                process.terminate()
            process.wait(timeout=280)
        return json.loads(log.read_bytes())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, prepare(tmp_path))


def fill(source: Path) -> None:
    """Sound and broken files of every format."""
    write_good(source / "axial")
    phantoms.write_nifti(
        source / "a.nii.gz", mutations.voxels(), phantoms.coded_affine("RAS", mutations.SHAPE, mutations.SPACING)
    )
    for kind, name in ((mutations.metaimage, "b.mha"), (mutations.nrrd, "c.nrrd")):
        header, body = kind()
        (source / name).write_bytes(header + body)
        (source / f"cut-{name}").write_bytes(header + body[:-1])
    (source / "broken.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 64)
    (source / "study.json").write_text("{}")
    (source / "note.txt").write_text("hello")


@pytest.mark.slow
def test_promise_45_the_runs_own_process_opens_no_input_file(place: Place, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    fill(source)
    commands = {
        "inspect": ("inspect", source, "--json"),
        "dry run": place.segment(source, out, "--dry-run", "--json"),
        "run": place.segment(source, out, "--include-identifiers", "--json"),
        "second run": place.segment(source, out, "--json"),
    }
    for name, arguments in commands.items():
        told = place.watched(source, *arguments)
        assert told["opened"] == [], name
        assert told["code"] in (0, 3), name
    record = json.loads((out / "run.json").read_bytes())
    assert {study["input"]: study["status"] for study in record["studies"]}["axial"] == "skipped"


@pytest.mark.slow
def test_promise_45_a_job_a_night_and_a_listener_open_none_either(place: Place, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    codes = phantoms.coded_affine("RAS", mutations.SHAPE, mutations.SPACING)
    phantoms.write_nifti(source / "a.nii.gz", mutations.voxels(), codes)
    (source / "broken.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 64)
    weights = {"manifest": str(place.manifest), "weights": ["tiny"], "precision": "fp32"}
    site = {"incoming": str(source), "output": str(out), "archives": {"down": {"pacs": "dicom://A@127.0.0.1:1", "retries": 0}}}
    (tmp_path / "night.yaml").write_text(json.dumps({**site, "segment": weights}))
    told = place.watched(source, "night", "--config", tmp_path / "night.yaml")
    own = [path for path in told["opened"] if not Path(path).name.startswith(".agseg.")]  # the lock of what it pulls
    assert (own, told["code"]) == ([], 3)
    assert {study["status"] for study in json.loads((out / "run.json").read_bytes())["studies"]} == {"done", "rejected"}
    settings = {f"AGSEG_SEGMENT_{name.upper()}": "".join(value) for name, value in weights.items()}
    job = place.watched(source, "module", source, tmp_path / "job", more=settings)
    assert (job["opened"], job["code"]) == ([], 3)
    listen = {"incoming": str(tmp_path / "arrived"), "output": str(tmp_path / "heard"), "segment": weights}
    listen["listen"] = {"watch": str(source), "quiet": "1s"}
    (tmp_path / "listen.yaml").write_text(json.dumps(listen))
    ready = tmp_path / "heard" / "night.json"
    heard = place.watched(source, "listen", "--config", tmp_path / "listen.yaml", until=ready)
    assert (heard["opened"], heard["code"]) == ([], 143)


@pytest.mark.slow
def test_promise_45_a_cohort_is_checked_by_a_child(place: Place, tmp_path: Path) -> None:
    source = tmp_path / "cohort"
    affine = phantoms.coded_affine("RAS", mutations.SHAPE, mutations.SPACING)
    for case in ("a", "b"):
        phantoms.write_nifti(source / "imagesTr" / f"{case}_0000.nii.gz", mutations.voxels() + len(case), affine)
        phantoms.write_nifti(source / "labelsTr" / f"{case}.nii.gz", np.ones(mutations.SHAPE, dtype=np.uint8), affine)
    (source / "imagesTr" / "b_0000.nii.gz").write_bytes(b"no image")
    described = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".nii.gz"}
    (source / "dataset.json").write_text(json.dumps(described))
    told = place.watched(source, "dataset", "check", source, "--json")
    assert (told["opened"], told["code"]) == ([], 3)


def test_promise_45_the_watch_sees_an_open_file(place: Place, tmp_path: Path) -> None:
    source = tmp_path / "in"
    fill(source)
    told = place.watched(source, "classify-us", source, "-o", tmp_path / "out", "--config", source / "note.txt")
    assert told["opened"] == [str((source / "note.txt").resolve())]


@pytest.mark.slow
def test_promise_45_clips_are_opened_by_a_child_too(place: Place, tmp_path: Path) -> None:
    source = tmp_path / "in"
    fill(source)
    scans.write_cine(source / "cine.dcm", np.stack([scans.fan_frame((64, 48), box=(10, 5, 50, 45), text=False)] * 2))
    told = place.watched(source, *place.classify(source, tmp_path / "out"))
    assert told["opened"] == []
    assert (tmp_path / "out" / "cine" / "planes.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("kind", mutations.KINDS)
def test_promise_46_every_changed_header_ends_in_a_record(place: Place, kind: str) -> None:
    """A few of the ten thousand that ``benchmarks/mutations.py`` tries."""
    script = ROOT / "benchmarks" / "mutations.py"
    command = [sys.executable, str(script), "--count", "25", "--kind", kind, "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=place.environment)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_promise_48_a_run_that_is_killed_leaves_a_record_that_says_so(place: Place, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    write_good(source / "axial")
    assert place.run(*place.segment(source, out)).returncode == 0
    assert json.loads((out / "run.json").read_bytes())["exit_code"] == 0
    last = (out / "run.json").stat().st_mtime_ns
    command = [sys.executable, "-m", "agseg", *place.segment(source, out, "--overwrite")]
    process = subprocess.Popen(command, env=place.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while (out / "run.json").stat().st_mtime_ns == last:
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    process.wait()
    record = json.loads((out / "run.json").read_bytes())
    assert record["finished"] is None
    assert record["exit_code"] == 1
    assert {study["status"] for study in record["studies"]} == {"deferred"}
    assert "has not finished" in (out / "report.html").read_text()


@pytest.mark.slow
def test_promise_49_no_control_character_reaches_a_terminal_a_log_or_a_table(place: Place, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    write_good(source / "a\x1b[2Jb\r=1+1")
    (source / "x\x07\x9b.nii").write_bytes(b"no image")
    said = b""
    for arguments in (
        ("inspect", source, "-v"),
        place.segment(source, out, "-v"),
        place.segment(source / "\x1b[31m", out),
        (*place.classify(source, tmp_path / "clips"), "-v"),
    ):
        done = place.run(*arguments)
        said += done.stdout + done.stderr
    for path in (out / "run.json", out / "volumes.csv", out / "report.html"):
        said += path.read_bytes()
    text = said.decode()
    assert r"a\x1b[2Jb\x0d=1+1" in text
    assert {character for character in text if not character.isprintable()} <= set("\n\t")


@pytest.mark.slow
def test_what_a_decoder_prints_of_a_file_reaches_neither_terminal_nor_mail(place: Place, tmp_path: Path) -> None:
    """libjpeg writes its warnings to the standard error of whatever process it is in."""
    pytest.importorskip("gdcm")
    test_jpeg_lossy.write(tmp_path / "in" / "ct", keep=0.5)
    here = (
        "import sys; from tests.io.dicom.test_jpeg_lossy import outcome; from pathlib import Path; outcome(Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", here, str(tmp_path / "in" / "ct")]
    aloud = subprocess.run(command, cwd=ROOT, env=place.environment, capture_output=True, timeout=280)
    assert b"premature end" in aloud.stderr
    done = place.run("inspect", tmp_path / "in", "--json")
    assert done.stderr == b""
    assert json.loads(done.stdout)["studies"][0]["code"] == "E_TRUNCATED"
