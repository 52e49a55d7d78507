"""Nights against a real Orthanc: killed once, run to the end, after a correction, and once more with nothing to do.

Run by ``test_night.py`` in a network namespace of its own; prints what happened as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import pydicom
from pydicom.uid import EncapsulatedPDFStorage as PDF
from pydicom.uid import SecondaryCaptureImageStorage as SC

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.io.pacs.orthanc import DICOM, LOGIN, ROOT, orthanc
from tests.tiny_weights import write_site_manifest
from tests.workflows.night_studies import REFILED, RIGHT, ROOT_UID, as_file, make_study, night_studies


def ask(method: str, path: str, **more: Any) -> Any:
    answer = httpx2.request(method, f"{ROOT}{path}", auth=LOGIN, timeout=20, **more)
    answer.raise_for_status()
    return answer.json()


def put(datasets: list[Any]) -> None:
    for dataset in datasets:
        ask("POST", "/instances", content=as_file(dataset))


def results() -> dict[str, dict[str, Any]]:
    """Per study of the archive: patient, and how many series of which modality."""
    found = {}
    for study in ask("GET", "/studies?expand"):
        series = [ask("GET", f"/series/{one}") for one in study["Series"]]
        uid = study["MainDicomTags"]["StudyInstanceUID"].removeprefix(f"{ROOT_UID}.")
        counted = Counter(one["MainDicomTags"]["Modality"] for one in series)
        found[f"{uid} {study['PatientMainDicomTags']['PatientID']}"] = dict(sorted(counted.items()))
    return dict(sorted(found.items()))


def read_back(out: Path) -> dict[str, int]:
    """Every picture and every PDF that the archive holds, element by element as the file that was sent; how many of each."""
    aside = ("earlier-", "outdated-")
    files = [pydicom.dcmread(path) for path in out.rglob("*.dcm") if not path.parent.name.startswith(aside)]
    sent = {ds.SOPInstanceUID: ds for ds in files if ds.SOPClassUID in (SC, PDF)}
    found: Counter[str] = Counter()
    for one in ask("GET", "/instances?expand"):
        uid = one["MainDicomTags"]["SOPInstanceUID"]
        if uid not in sent:
            continue
        answer = httpx2.get(f"{ROOT}/instances/{one['ID']}/file", auth=LOGIN, timeout=20)
        held = pydicom.dcmread(BytesIO(answer.raise_for_status().content))
        if held != sent[uid]:
            raise RuntimeError(f"{uid} is not what was sent")
        if held.SOPClassUID == PDF:
            content = held.EncapsulatedDocument[: held.EncapsulatedDocumentLength]
            assert content.startswith(b"%PDF-")
            assert content.rstrip().endswith(b"%%EOF")
            found["pdf"] += 1
        else:
            assert held.pixel_array.std() > 10  # a picture, not an empty sheet
            found["sc"] += 1
    if sum(found.values()) != len(sent):
        raise RuntimeError(f"{len(sent)} were made, the archive holds {sum(found.values())}")
    return dict(found)


def site_file(folder: Path) -> Path:
    path = folder / "site.yaml"
    path.write_text(f"""incoming: in
output: out
archives:
  main:
    pacs: dicom://ORTHANC@127.0.0.1:{DICOM}
    modality: [CT, MR, US]
    timeout: 20
segment:
  manifest: {write_site_manifest(folder / "weights")}
  organ: [pancreas, kidney_left]
  output-type: [nifti, dicom-seg, dicom-sr, sc, pdf]
  device: cpu
  preview: false
  offline: true
""")
    return path


def start(site: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "agseg", "night", "--config", str(site), "--since", "today"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AGSEG")} | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def night(site: Path) -> dict[str, Any]:
    started = time.monotonic()
    process = start(site)
    said, _ = process.communicate(timeout=600)
    record = json.loads((site.parent / "out" / "night.json").read_text())
    return {"exit": process.returncode, "said": said.splitlines(), "counts": record["counts"], "results": results(),
            "instances": int(ask("GET", "/statistics")["CountInstances"]), "seconds": round(time.monotonic() - started, 1),
            "failures": [[f["code"], f["new"]] for f in record["failures"]]}  # fmt: skip


def main(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    site = site_file(folder)
    with orthanc(folder / "orthanc"):
        for datasets in night_studies():
            put(datasets)
        killed = start(site)
        while killed.poll() is None and not list((folder / "out").glob("main/*/*/study.json")):
            time.sleep(0.02)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        facts["killed"] = {"signal": killed.returncode, "done": len(list((folder / "out").glob("main/*/*/study.json")))}
        facts["first"] = night(site)
        wrong = next(
            s for s in ask("GET", "/studies?expand") if s["MainDicomTags"]["StudyInstanceUID"] == f"{ROOT_UID}.{REFILED}"
        )
        ask("DELETE", f"/studies/{wrong['ID']}")
        put(make_study(REFILED, RIGHT))
        facts["second"] = night(site)
        facts["third"] = night(site)
        facts["read_back"] = read_back(folder / "out")
    return facts


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
