"""Starts a real Orthanc, sends a CT, pulls it, sends results, sends them again; prints what happened as JSON.

Run by ``test_archive.py`` in a network namespace of its own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import httpx2

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from agseg.errors import PacsError
from agseg.io.dicom.read import read_headers
from agseg.io.dicom_out.write import DICOM_KINDS, write_from_headers
from agseg.io.discover import discover
from agseg.io.pacs.address import Credentials, PacsAddress
from agseg.io.pacs.archive import Archive, Need
from agseg.io.pacs.connect import open_archive
from agseg.io.pacs.limits import PacsLimits
from agseg.io.pacs.query import PacsQuery
from agseg.workflows.pacs import PacsReport
from agseg.workflows.pull import pull
from agseg.workflows.push import push
from tests.io.ct_series import WEIGHTS, make_mask, make_series, measured
from tests.io.pacs.orthanc import DICOM, LOGIN, OURS, ROOT, orthanc


def count() -> int:
    return int(httpx2.get(f"{ROOT}/statistics", auth=LOGIN, timeout=5).json()["CountInstances"])


def counts(report: PacsReport) -> dict[str, int]:
    return {status: number for status, number in report.counts.items() if number}


def granted(*archives: Archive) -> list[dict[str, object]]:
    return [{a.service: a.problem or a.is_known for a in archive.check(tuple(Need))} for archive in archives]


def main(folder: Path) -> dict[str, object]:
    web_address, dimse_address = PacsAddress.parse(f"{ROOT}/dicom-web"), PacsAddress.parse(f"dicom://ORTHANC@127.0.0.1:{DICOM}")
    limits, nobody = PacsLimits(timeout_s=10, retries=1), Credentials()
    query = PacsQuery(dates="20260101-20260131")
    facts: dict[str, object] = {}
    with orthanc(folder / "orthanc"):
        web = open_archive(web_address, credentials=Credentials(*LOGIN), limits=limits)
        dimse = open_archive(dimse_address, credentials=nobody, limits=limits)
        move = open_archive(dimse_address, credentials=nobody, limits=PacsLimits(timeout_s=10, retries=1, move_port=OURS))
        dimse.echo()
        facts["granted_empty"] = granted(web, dimse, move)
        make_series().write(folder / "ct")
        facts["push_ct"] = counts(push(web, paths=[folder / "ct"], everything=True))
        ways: dict[str, Archive] = {"web": web, "get": dimse, "move": move}
        for name, archive in ways.items():
            facts[f"pull_{name}"] = counts(pull(archive, query=query, output=folder / name))
            facts[f"files_{name}"] = len(list((folder / name).rglob("*.dcm")))
        study = discover([folder / "web"]).studies[0]
        mask = make_mask(make_series().grid)
        write_from_headers(
            folder / "out", kinds=DICOM_KINDS, headers=read_headers(study), mask=mask, measurements=measured(mask),
            weights=WEIGHTS, parameters={},
        )  # fmt: skip
        written = [path.name for path in (folder / "out").iterdir()]
        record = {"schema": "agseg.study/2", "input": "case", "status": "done", "organs": [], "key": "0" * 64, "files": written}
        (folder / "out" / "study.json").write_text(json.dumps(record))
        facts["push_results"] = counts(push(web, paths=[folder / "out"]))
        study_uid = make_series().headers[0].StudyInstanceUID
        found = httpx2.get(f"{ROOT}/dicom-web/studies/{study_uid}/series", auth=LOGIN, timeout=5).json()
        facts["modalities_of_the_study"] = sorted({series["00080060"]["Value"][0] for series in found})
        facts["count_after_first"] = count()
        facts["push_again_web"] = counts(push(web, paths=[folder / "out"]))
        facts["push_again_dimse"] = counts(push(dimse, paths=[folder / "out"]))
        facts["count_after_second"] = count()
        web.store(sorted((folder / "out").glob("*.dcm")))
        dimse.store(sorted((folder / "out").glob("*.dcm")))
        facts["count_after_forced"] = count()
        facts["granted"] = granted(web, dimse, move)
        unknown = PacsLimits(timeout_s=10, retries=0, calling_aet="NOBODY")
        answers = open_archive(dimse_address, credentials=nobody, limits=unknown).check(tuple(Need))
        facts["stranger"] = {answer.service: answer.hint for answer in answers if answer.problem is not None}
        facts["pull_again"] = counts(pull(web, query=query, output=folder / "web"))
        try:
            open_archive(web_address, credentials=Credentials(LOGIN[0], "wrong"), limits=limits).echo()
        except PacsError as error:
            facts["wrong_password"] = error.value
    return facts


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
