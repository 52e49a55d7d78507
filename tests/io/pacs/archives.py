"""Archives made in the test, in memory: one that speaks DIMSE, one that speaks DICOMweb."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pydicom
from pydicom import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, build_context, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    CTImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

LEVEL_UID = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
TRANSFER_SYNTAXES = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]


class Shelf:
    """What an archive holds, by SOPInstanceUID; ``sent`` counts every attempt to store."""

    def __init__(self) -> None:
        self.held: dict[str, Dataset] = {}
        self.sent = 0
        self.refuse: int | None = None

    def put(self, dataset: Dataset) -> None:
        self.held.setdefault(str(dataset.SOPInstanceUID), dataset)

    def matching(self, level: str, keys: dict[str, str]) -> list[Dataset]:
        found: dict[str, Dataset] = {}
        for dataset in self.held.values():
            if all(_matches(dataset, keyword, value) for keyword, value in keys.items() if value):
                found.setdefault(str(dataset[LEVEL_UID[level]].value), dataset)
        return list(found.values())


def _matches(dataset: Dataset, keyword: str, value: str) -> bool:
    mine = str(dataset.get(keyword, ""))
    if keyword == "StudyDate" and "-" in value:
        low, high = value.split("-")
        return (low or "0") <= mine <= (high or "9")
    return mine == value


# -- DIMSE ----------------------------------------------------------------------------------------------------------------


@contextmanager
def dimse_archive(shelf: Shelf, *, title: str = "ARCHIVE", mover_port: int = 0) -> Iterator[int]:
    """A running SCP on a free port of this machine, which is given."""
    entity = AE(ae_title=title)
    entity.require_called_aet = True
    entity.maximum_pdu_size = 0
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(str(context.abstract_syntax), TRANSFER_SYNTAXES, scu_role=True, scp_role=True)
    for model in (
        StudyRootQueryRetrieveInformationModelFind,
        StudyRootQueryRetrieveInformationModelGet,
        StudyRootQueryRetrieveInformationModelMove,
        Verification,
    ):
        entity.add_supported_context(model)

    def keys(identifier: Dataset) -> dict[str, str]:
        return {e.keyword: str(e.value) for e in identifier if e.keyword != "QueryRetrieveLevel" and e.value}

    def find(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        level = str(event.identifier.QueryRetrieveLevel)
        for dataset in shelf.matching(level, keys(event.identifier)):
            answer = Dataset()
            answer.QueryRetrieveLevel = level
            for element in event.identifier:
                if element.keyword != "QueryRetrieveLevel" and element.keyword in dataset:
                    answer.add(dataset[element.keyword])
            yield 0xFF00, answer
        yield 0x0000, None

    def get(event: Any) -> Iterator[Any]:
        found = shelf.matching("IMAGE", keys(event.identifier))
        yield len(found)
        for dataset in found:
            yield 0xFF00, dataset

    def move(event: Any) -> Iterator[Any]:
        yield "127.0.0.1", mover_port, {"contexts": [build_context(CTImageStorage, TRANSFER_SYNTAXES)]}
        yield from get(event)

    def store(event: Any) -> int:
        shelf.sent += 1
        if shelf.refuse is not None:
            return shelf.refuse
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        shelf.put(dataset)
        return 0x0000

    server = entity.start_server(
        ("127.0.0.1", 0),
        block=False,
        evt_handlers=[(evt.EVT_C_FIND, find), (evt.EVT_C_GET, get), (evt.EVT_C_MOVE, move), (evt.EVT_C_STORE, store),
                      (evt.EVT_C_ECHO, lambda _event: 0x0000)],
    )  # fmt: skip
    try:
        yield server.socket.getsockname()[1]
    finally:
        server.shutdown()


# -- DICOMweb -------------------------------------------------------------------------------------------------------------

BOUNDARY = "answer-boundary"


class WebShelf(Shelf):
    """A shelf behind HTTP, with the ways in which a server can be difficult."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[str] = []
        self.authorizations: list[str | None] = []
        self.failures: list[int] = []
        self.redirect = ""
        self.say_uid = ""
        self.ignores_offset = False
        self.most_matches: int | None = None
        self.counts = False
        self.stow_answer: bytes | None = None
        self.says: bytes | None = None
        self.image: bytes | None = None


@contextmanager
def web_archive(shelf: WebShelf, *, ssl_context: Any = None) -> Iterator[str]:
    """A running DICOMweb service on a free port of this machine; its address is given."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self, status: int, content: bytes, kind: str = "application/dicom+json") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            if shelf.redirect:
                self.send_header("Location", shelf.redirect)
            self.end_headers()
            self.wfile.write(content)

        def _is_stopped(self) -> bool:
            shelf.requests.append(f"{self.command} {self.path}")
            shelf.authorizations.append(self.headers.get("Authorization"))
            if shelf.redirect:
                self._answer(302, b"")
            elif shelf.failures:
                self._answer(shelf.failures.pop(0), b"")
            else:
                return False
            return True

        def do_GET(self) -> None:
            if self._is_stopped():
                return
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            path = re.fullmatch(
                r"/dicom-web/studies(?:/([^/]+)(?:/(series)(?:/([^/]+)(?:/(instances)(?:/([^/]+))?)?)?)?)?", parts.path
            )
            assert path is not None, parts.path
            study, series_word, series, instances_word, instance = path.groups()
            keys = {"StudyInstanceUID": study or "", "SeriesInstanceUID": series or "", "SOPInstanceUID": instance or ""}
            if instance:
                if shelf.image is not None:
                    self._answer(200, shelf.image, f'multipart/related; type="application/dicom"; boundary={BOUNDARY}')
                    return
                content = BytesIO()
                shelf.matching("IMAGE", keys)[0].save_as(content, enforce_file_format=True)
                start = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
                body = start + content.getvalue() + f"\r\n--{BOUNDARY}--".encode()
                self._answer(200, body, f'multipart/related; type="application/dicom"; boundary={BOUNDARY}')
                return
            level = "IMAGE" if instances_word else "SERIES" if series_word else "STUDY"
            for key, value in query.items():
                if key not in ("limit", "offset", "includefield"):
                    keys[key] = value
            if shelf.says is not None:
                self._answer(200, shelf.says)
                return
            found = shelf.matching(level, keys)
            start_at = 0 if shelf.ignores_offset else int(query.get("offset", 0))
            length = min(int(query.get("limit", len(found) or 1)), shelf.most_matches or len(found))
            page = found[start_at : start_at + length]
            self._answer(200, json.dumps([self._match(dataset) for dataset in page]).encode())

        @staticmethod
        def _match(dataset: Dataset) -> dict[str, Any]:
            answer = Dataset()
            for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "Modality", "PatientID"):
                answer.add(dataset[keyword])
            if shelf.counts:
                answer.NumberOfSeriesRelatedInstances = len(
                    [d for d in shelf.held.values() if d.SeriesInstanceUID == dataset.SeriesInstanceUID]
                )
            content = answer.to_json_dict()
            if shelf.say_uid:
                content["0020000D"] = {"vr": "UI", "Value": [shelf.say_uid]}
            return content

        def do_POST(self) -> None:
            body = self._body()
            if self._is_stopped():
                return
            boundary = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])
            assert boundary is not None
            answer = Dataset()
            answer.FailedSOPSequence = []
            answer.ReferencedSOPSequence = []
            for part in body.split(f"--{boundary[1]}".encode())[1:-1]:
                shelf.sent += 1
                dataset = pydicom.dcmread(BytesIO(part.split(b"\r\n\r\n", 1)[1][:-2]))
                item = Dataset()
                item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
                if shelf.refuse is None:
                    shelf.put(dataset)
                    answer.ReferencedSOPSequence.append(item)
                else:
                    item.FailureReason = shelf.refuse
                    answer.FailedSOPSequence.append(item)
            self._answer(200, answer.to_json().encode() if shelf.stow_answer is None else shelf.stow_answer)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            pass  # a client that refuses our certificate hangs up

    server = Server(("127.0.0.1", 0), Handler)
    if ssl_context is not None:
        server.socket = ssl_context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http{'s' if ssl_context else ''}://127.0.0.1:{server.server_address[1]}/dicom-web"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
