"""A real Orthanc that sends to ``agseg listen``: killed once, started again, a corrected study, the same once more.

Run by ``test_listen.py`` in a network namespace of its own; prints what happened as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.io.pacs.orthanc import DICOM, OURS, orthanc
from tests.tiny_weights import write_site_manifest
from tests.workflows.night_studies import GOOD, REFILED, RIGHT, ROOT_UID, make_study, night_studies
from tests.workflows.orthanc_night import ask, put, read_back, results

QUIET_S = 2.0


def site_file(folder: Path) -> Path:
    path = folder / "site.yaml"
    path.write_text(f"""incoming: in
output: out
archives:
  main: {{pacs: "dicom://ORTHANC@127.0.0.1:{DICOM}", timeout: 20}}
segment:
  manifest: {write_site_manifest(folder / "weights")}
  organ: [pancreas, kidney_left]
  output-type: [nifti, dicom-seg, dicom-sr, sc, pdf]
  device: cpu
  preview: false
  offline: true
listen:
  port: {OURS}
  host: 127.0.0.1
  allow: [ORTHANC@127.0.0.1]
  quiet: {QUIET_S}s
  send-to: main
""")
    return path


def start(site: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "agseg", "listen", "--config", str(site)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AGSEG")} | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    assert "listening" in process.stderr.readline()
    return process


def send_all() -> None:
    ask("POST", "/modalities/agseg/store", json=ask("GET", "/studies"))


def wait_until(reached: Callable[[], bool], *, seconds: float = 200.0) -> None:
    limit = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > limit:
            raise RuntimeError(f"not reached: {json.dumps(results())}")
        time.sleep(0.2)


def with_results() -> int:
    return sum(all(study.get(kind) for kind in ("SEG", "SR", "OT", "DOC")) for study in results().values())


def main(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    site = site_file(folder)
    with orthanc(folder / "orthanc"):
        for datasets in night_studies():
            put(datasets)
        killed = start(site)
        send_all()
        wait_until(lambda: bool(list((folder / "out").glob("main/*/*/study.json"))))
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        facts["killed"] = killed.returncode
        process = start(site)
        wait_until(lambda: with_results() == GOOD + 1)
        facts["first"] = results()
        refiled = f"{ROOT_UID}.{REFILED}"
        studies = {study["MainDicomTags"]["StudyInstanceUID"]: study["ID"] for study in ask("GET", "/studies?expand")}
        ask("DELETE", f"/studies/{studies[refiled]}")
        put(make_study(REFILED, RIGHT))
        send_all()
        wait_until(lambda: with_results() == GOOD + 1)
        facts["second"], facts["instances_second"] = results(), ask("GET", "/statistics")["CountInstances"]
        send_all()
        time.sleep(3 * QUIET_S)
        before = (folder / "out" / "night.json").stat().st_mtime_ns
        wait_until(lambda: (folder / "out" / "night.json").stat().st_mtime_ns >= before)
        facts["third"], facts["instances_third"] = results(), ask("GET", "/statistics")["CountInstances"]
        facts["read_back"] = read_back(folder / "out")
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
        facts["terminated"], facts["said"] = process.returncode, said.splitlines()
    return facts


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
