"""Archives that run in a test, what is in them, and results to be sent to them."""

from __future__ import annotations

import atexit
import json
import shutil
import ssl
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

import pydicom
import pytest

from agseg.io.dicom_out.write import DICOM_KINDS, write_from_headers
from agseg.io.finished import CONTENTS, contents_of
from agseg.io.pacs import archive as pacs_archive
from agseg.io.pacs.address import Credentials, PacsAddress
from agseg.io.pacs.connect import open_archive
from agseg.io.pacs.limits import PacsLimits
from agseg.io.pacs.query import PacsQuery, RemoteSeries
from tests.io.ct_series import WEIGHTS, make_mask, make_series, measured
from tests.io.pacs.archives import Shelf

DAY = PacsQuery(dates="20260101-20260131")
QUICK = PacsLimits(timeout_s=3, retries=1)


@dataclass
class Running:
    """An archive that runs, what it holds, and how to reach it."""

    shelf: Shelf
    address: str

    def open(self, limits: PacsLimits = QUICK, credentials: Credentials | None = None) -> pacs_archive.Archive:
        return open_archive(PacsAddress.parse(self.address), credentials=credentials or Credentials(), limits=limits)


@cache
def _results() -> Path:
    """One result of all kinds, made once in this process."""
    folder = Path(tempfile.mkdtemp(prefix="agseg-test-results-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    series = make_series()
    mask = make_mask(series.grid)
    write_from_headers(
        folder, kinds=DICOM_KINDS, headers=series.headers, mask=mask, measurements=measured(mask), weights=WEIGHTS,
        parameters={},
    )  # fmt: skip
    names = ("seg.dcm", "sr.dcm", "rtstruct.dcm")
    record = {"schema": "agseg.study/2", "input": "case", "status": "done", "organs": [], "key": "0" * 64,
              "files": [*names, "study.json"], CONTENTS: contents_of(folder, names)}  # fmt: skip
    (folder / "study.json").write_text(json.dumps(record))
    return folder


def write_results(folder: Path) -> None:
    shutil.copytree(_results(), folder, dirs_exist_ok=True)


def series_in(archive: pacs_archive.Archive, query: PacsQuery = DAY) -> list[RemoteSeries]:
    return [series for study in archive.find_studies(query) for series in archive.find_series(study, query)]


def as_file(dataset: pydicom.Dataset) -> bytes:
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def fill(shelf: Shelf) -> None:
    for header in make_series().headers:
        shelf.put(header)


def make_certificate(folder: Path) -> ssl.SSLContext:
    tool = shutil.which("openssl")
    if tool is None:
        pytest.skip("openssl is not installed")
    subprocess.run(
        [tool, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context
