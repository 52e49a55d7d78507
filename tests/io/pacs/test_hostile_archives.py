"""Laws for archives that misbehave, for strangers on the network, and for objects that are not what they seem."""

from __future__ import annotations

import copy
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import Dataset
from pynetdicom import AE, evt

from agseg.errors import ExitCode, PacsError, UsageError
from agseg.io.exchange import Pace
from agseg.io.pacs.address import Credentials, PacsAddress
from agseg.io.pacs.archive import Need, UnreachablePacsError
from agseg.io.pacs.association import associated
from agseg.io.pacs.connect import open_archive
from agseg.io.pacs.folder import Arrival
from agseg.io.pacs.limits import PacsLimits
from agseg.io.pacs.listener import Listener, Received
from agseg.io.pacs.query import RemoteSeries
from agseg.io.pacs.senders import Sender
from agseg.io.pacs.stow import AlreadyHeldError, taken
from agseg.workflows.pacs import PacsStatus
from agseg.workflows.pull import pull
from agseg.workflows.push import push
from tests.io.ct_series import SLICES, make_series
from tests.io.pacs.archives import BOUNDARY, Shelf, dimse_archive
from tests.io.pacs.running import DAY, QUICK, Running, as_file, fill, make_certificate, series_in, write_results

CT = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT = "1.2.840.10008.1.2"


# -- lists of matches -----------------------------------------------------------------------------------------------------


def test_promise_43_an_archive_that_answers_in_short_pages_is_asked_until_it_has_no_more(web: Running, tmp_path: Path) -> None:
    fill(web.shelf)
    web.shelf.most_matches = 2  # type: ignore[attr-defined]
    assert pull(web.open(), query=DAY, output=tmp_path).records[0].instances == SLICES


def test_a_list_shorter_than_the_archive_counts_is_a_failure(web: Running, tmp_path: Path) -> None:
    fill(web.shelf)
    web.shelf.most_matches, web.shelf.ignores_offset, web.shelf.counts = 2, True, True  # type: ignore[attr-defined]
    report = pull(web.open(), query=DAY, output=tmp_path)
    assert (report.exit_code, len(list(tmp_path.rglob("*.dcm")))) == (ExitCode.NONE_DONE, 0)
    assert "fewer images" in str(report.records[0].message)


NONSENSE = [
    b"[1,2]", b'{"a": 1}', b"null", b'"x"', b"\xff\xfe\x00", b"[" * 100_000, b"<html>", b'[{"0020000D": "x"}]',
    b'[{"0020000D": {"vr": "UI", "Value": {"a": 1}}}]', b'[{"0020000D": {"vr": "UI", "Value": [{"a": 1}]}}]',
    b'[{"0020000D": null}]',
    b'[{"0020000D": {"vr": "UI", "Value": ["1.2"]}, "00201206": {"Value": ["many", 1e999]}}]', b"[[]]", b"[{}]",
]  # fmt: skip


@pytest.mark.parametrize("answer", NONSENSE)
def test_whatever_a_search_is_answered_with_is_the_archives_fault(web: Running, tmp_path: Path, answer: bytes) -> None:
    web.shelf.says = answer  # type: ignore[attr-defined]
    try:
        code = pull(web.open(), query=DAY, output=tmp_path).exit_code
    except PacsError as error:
        code = error.exit_code
    assert code is not ExitCode.OK


MARK = f"--{BOUNDARY}".encode()


@pytest.mark.parametrize(
    "answer",
    [b"", b"DICM", MARK, MARK + b"\r\n\r\n", MARK + b"\r\n\r\nDICM", MARK + b"\r\n\r\n" + bytes(200) + b"\r\n" + MARK + b"--",
     MARK + b"\r\n\r\na\r\n" + MARK + b"\r\n\r\nb\r\n" + MARK + b"--", b"\xff" * 1000],
)  # fmt: skip
def test_whatever_comes_as_an_image_is_an_image_or_the_archives_fault(web: Running, tmp_path: Path, answer: bytes) -> None:
    fill(web.shelf)
    web.shelf.image = answer  # type: ignore[attr-defined]
    report = pull(web.open(), query=DAY, output=tmp_path)
    assert (report.exit_code, list(tmp_path.rglob("*.dcm"))) == (ExitCode.NONE_DONE, [])


def test_a_find_that_is_answered_without_a_data_set_is_the_archives_fault() -> None:
    entity = AE("ARCHIVE")
    entity.add_supported_context("1.2.840.10008.5.1.4.1.2.2.1")

    def find(_event: object) -> Iterator[tuple[int, Dataset]]:
        odd = Dataset()
        odd.StudyInstanceUID = "no uid"
        yield 0xFF00, odd

    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, find)])
    try:
        with pytest.raises(PacsError):
            Running(Shelf(), f"dicom://ARCHIVE@127.0.0.1:{server.server_address[1]}").open().find_studies(DAY)
    finally:
        server.shutdown()


# -- which series, whose series -------------------------------------------------------------------------------------------


def other_study(patient_id: str) -> list[Dataset]:
    headers = make_series().headers
    for number, header in enumerate(headers):
        header.StudyInstanceUID, header.PatientID = "1.2.3.4.5", patient_id
        header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.4.5.{number}"
    return headers


def test_two_studies_whose_series_share_a_uid_are_both_pulled(archive: Running, tmp_path: Path) -> None:
    fill(archive.shelf)
    for header in other_study("ph-2"):
        archive.shelf.put(header)
    report = pull(archive.open(), query=DAY, output=tmp_path)
    assert [r.status for r in report.records] == [PacsStatus.PULLED] * 2
    assert len(list(tmp_path.rglob("*.dcm"))) == 2 * SLICES


@pytest.mark.slow
def test_a_study_that_was_filed_under_the_right_patient_is_pulled_anew(archive: Running, tmp_path: Path) -> None:
    fill(archive.shelf)
    pull(archive.open(), query=DAY, output=tmp_path)
    for header in archive.shelf.held.values():
        header.PatientID = "ph-right"
    assert pull(archive.open(), query=DAY, output=tmp_path).records[0].status is PacsStatus.PULLED
    assert {pydicom.dcmread(path).PatientID for path in tmp_path.rglob("*.dcm")} == {"ph-right"}
    assert pull(archive.open(), query=DAY, output=tmp_path).records[0].status is PacsStatus.PRESENT


def arrival(folder: Path, headers: list[Dataset]) -> Arrival:
    first = headers[0]
    series = RemoteSeries(str(first.StudyInstanceUID), str(first.SeriesInstanceUID), "CT")
    return Arrival(folder, series, frozenset(str(header.SOPInstanceUID) for header in headers))


def test_what_has_come_is_not_overwritten_and_what_was_not_listed_is_refused(tmp_path: Path) -> None:
    headers = make_series().headers
    arriving = arrival(tmp_path, headers[:-1])
    arriving.accept(as_file(headers[0]))
    arriving.accept(as_file(headers[0]))  # a retry
    forged = copy.deepcopy(headers[0])
    forged.PixelData = bytes(len(forged.PixelData))
    with pytest.raises(PacsError, match="two different images"):
        arriving.accept(as_file(forged))
    with pytest.raises(PacsError, match="not listed"):
        arriving.accept(as_file(headers[-1]))
    with pytest.raises(PacsError, match="no DICOM object"):
        arriving.accept(b"x" * 500)
    assert [path.read_bytes() for path in tmp_path.glob("*.dcm")] == [as_file(headers[0])]


# -- who may send ---------------------------------------------------------------------------------------------------------


def send(
    port: int, datasets: list[Dataset], *, aet: str, called: str = "AGSEG", tls: ssl.SSLContext | None = None
) -> list[int]:
    entity = AE(ae_title=aet)
    entity.acse_timeout = entity.network_timeout = entity.dimse_timeout = 3
    entity.add_requested_context(CT, "1.2.840.10008.1.2.1")
    association = entity.associate("127.0.0.1", port, ae_title=called, tls_args=None if tls is None else (tls, "127.0.0.1"))
    try:
        return [association.send_c_store(d).Status for d in datasets] if association.is_established else []
    finally:
        if association.is_established:
            association.release()


@pytest.mark.parametrize(
    ("sender", "aet", "called", "is_let_in"),
    [
        ("SCANNER@127.0.0.1", "SCANNER", "AGSEG", True),
        ("SCANNER@127.0.0.0/8", "SCANNER", "AGSEG", True),
        ("SCANNER@localhost", "SCANNER", "AGSEG", True),
        ("SCANNER@127.0.0.1", "EVIL", "AGSEG", False),
        ("SCANNER@127.0.0.1", "SCANNER", "OTHER", False),
        ("SCANNER@192.0.2.1", "SCANNER", "AGSEG", False),
    ],
)
def test_only_those_who_may_send_are_listened_to(sender: str, aet: str, called: str, is_let_in: bool) -> None:
    came: list[Received] = []
    senders = (Sender.parse(sender), Sender("NEIGHBOUR", "127.0.0.1"))
    with Listener(
        0, aet="AGSEG", senders=senders, contexts=[(CT, ["1.2.840.10008.1.2.1"])], take=lambda r: came.append(r) or 0
    ) as listener:
        statuses = send(listener.port, make_series().headers[:1], aet=aet, called=called)
    assert (statuses, len(came)) == (([0], 1) if is_let_in else ([], 0))


def test_a_stranger_without_tls_or_a_certificate_is_not_listened_to(tmp_path: Path) -> None:
    make_certificate(tmp_path)
    limits = PacsLimits(ca_file=tmp_path / "cert.pem", tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem")
    came: list[Received] = []
    bare = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    with Listener(
        0, aet="AGSEG", senders=(Sender("SCANNER", "127.0.0.1"),), contexts=[(CT, ["1.2.840.10008.1.2.1"])],
        take=lambda r: came.append(r) or 0, tls=limits.server_context(), silence_s=2.0,
    ) as listener:  # fmt: skip
        assert send(listener.port, make_series().headers[:1], aet="SCANNER") == []
        assert send(listener.port, make_series().headers[:1], aet="SCANNER", tls=bare) == []
        assert came == []
        assert send(listener.port, make_series().headers[:1], aet="SCANNER", tls=limits.client_context()) == [0]


def test_images_never_come_back_without_tls_from_an_archive_that_has_it(tmp_path: Path) -> None:
    address = PacsAddress.parse("dicoms://ARCHIVE@127.0.0.1:2762")
    with pytest.raises(UsageError, match="without TLS"):
        open_archive(address, credentials=Credentials(), limits=PacsLimits(move_port=11113))
    make_certificate(tmp_path)
    limits = PacsLimits(move_port=11113, tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem")
    open_archive(address, credentials=Credentials(), limits=limits)


def test_a_sender_is_an_ae_title_at_an_address() -> None:
    for text in ("SCANNER", "@10.0.0.1", "SCANNER@", "TWO WORDS@10.0.0.1", "A_TITLE_THAT_IS_TOO_LONG@h"):
        with pytest.raises(UsageError):
            Sender.parse(text)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


# -- what counts as sent, and as present ----------------------------------------------------------------------------------

UID = "1.2.3"
NAMED = json.dumps({"00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [UID]}}]}}).encode()
NAMED_XML = (
    b'<?xml version="1.0"?><NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM">'
    b'<DicomAttribute tag="00081199" vr="SQ"><Item number="1"><DicomAttribute tag="00081155" vr="UI">'
    b'<Value number="1">1.2.3</Value></DicomAttribute></Item></DicomAttribute></NativeDicomModel>'
)
DUPLICATE = json.dumps({"00081198": {"Value": [{"00081155": {"Value": [UID]}, "00081197": {"Value": [0x0111]}}]}}).encode()


def test_promise_44_an_object_counts_as_taken_only_if_the_answer_names_it() -> None:
    taken(NAMED, "application/dicom+json", UID)
    taken(NAMED_XML, "application/dicom+xml", UID)
    with pytest.raises(AlreadyHeldError):
        taken(DUPLICATE, "application/dicom+json", UID)
    for answer in (b"", b"{}", b"[]", b"3", NAMED.replace(b"1.2.3", b"1.2.4"), DUPLICATE.replace(b"273", b"272")):
        with pytest.raises(PacsError):
            taken(answer, "application/dicom+json", UID)
    with pytest.raises(PacsError):
        taken(b'<!DOCTYPE a [<!ENTITY b "c">]>' + NAMED_XML, "application/dicom+xml", UID)


@pytest.mark.parametrize("answer", [b"", b"{}", b"[1]", b"\xff", b"[" * 100_000, NAMED, DUPLICATE])
def test_an_archive_that_does_not_say_so_has_not_taken_it(web: Running, tmp_path: Path, answer: bytes) -> None:
    write_results(tmp_path / "out")
    web.shelf.stow_answer, web.shelf.refuse = answer, 1  # type: ignore[attr-defined]
    report = push(web.open(), paths=[tmp_path / "out"])
    assert (report.exit_code, report.counts["failed"]) == (ExitCode.NONE_DONE, 3)


def change_patient(dataset: Dataset) -> None:
    dataset.PatientID = "somebody-else"


def change_pixels(dataset: Dataset) -> None:
    dataset.PixelData = bytes(b ^ 0xFF for b in dataset.PixelData)


def correct_name(dataset: Dataset) -> None:
    dataset.PatientName, dataset.AccessionNumber = "Corrected^Name", "acc-6"


def make_again(dataset: Dataset) -> None:
    dataset.ContentTime, dataset.SeriesTime, dataset.InstanceCreationTime = "235959", "235959", "235959"


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (correct_name, PacsStatus.PRESENT),
        (make_again, PacsStatus.PRESENT),
        (change_patient, PacsStatus.FAILED),
        (change_pixels, PacsStatus.FAILED),
    ],
)
def test_present_means_the_same_patient_and_the_same_object(
    archive: Running,
    tmp_path: Path,
    change: Callable[[Dataset], None],
    status: PacsStatus,
) -> None:
    write_results(tmp_path / "out")
    theirs = pydicom.dcmread(tmp_path / "out" / "seg.dcm")
    change(theirs)
    archive.shelf.put(theirs)
    report = push(archive.open(), paths=[tmp_path / "out" / "seg.dcm"])
    assert report.records[0].status is status
    assert archive.shelf.sent == 0


def test_what_an_archive_confirmed_is_not_fetched_back_each_night(web: Running, tmp_path: Path) -> None:
    write_results(tmp_path / "out")
    assert push(web.open(), paths=[tmp_path / "out"]).counts["pushed"] == 3
    web.shelf.requests.clear()  # type: ignore[attr-defined]
    assert push(web.open(), paths=[tmp_path / "out"]).counts["present"] == 3
    assert not [r for r in web.shelf.requests if "/instances/" in r]  # type: ignore[attr-defined]
    # But the archive must still have it, and under the same patient.
    for held in web.shelf.held.values():
        held.PatientID = "somebody-else"
    assert push(web.open(), paths=[tmp_path / "out"]).counts["failed"] == 3
    web.shelf.held.clear()
    assert push(web.open(), paths=[tmp_path / "out"]).counts["pushed"] == 3


def test_results_of_a_study_that_waits_to_be_done_again_stay_here(archive: Running, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_results(out / "case")
    record = json.loads((out / "case" / "study.json").read_text())
    (out / "case" / "study.json").write_text(json.dumps({**record, "input": "case"}))
    for status, key in (("deferred", "outdated"), ("skipped", "pushed")):
        (out / "run.json").write_text(json.dumps({"studies": [{"input": "case", "status": status}]}))
        assert push(archive.open(), paths=[out]).counts[key] == 3


def test_a_result_that_was_changed_or_comes_from_elsewhere_is_not_sent(archive: Running, tmp_path: Path) -> None:
    write_results(tmp_path / "out")
    changed = pydicom.dcmread(tmp_path / "out" / "seg.dcm")
    changed.PixelData = bytes(len(changed.PixelData))
    changed.save_as(tmp_path / "out" / "seg.dcm")
    report = push(archive.open(), paths=[tmp_path / "out"])
    assert {Path(r.path).name: r.status.value for r in report.records} == {
        "seg.dcm": "outdated", "sr.dcm": "pushed", "rtstruct.dcm": "pushed"
    }  # fmt: skip


def test_results_go_to_no_study_of_another_patient_and_to_none_that_was_withdrawn(archive: Running, tmp_path: Path) -> None:
    write_results(tmp_path / "out")
    assert push(archive.open(), paths=[tmp_path / "out"], only_known_studies=True).counts["outdated"] == 3
    fill(archive.shelf)
    for header in archive.shelf.held.values():
        header.PatientID = "somebody-else"
    report = push(archive.open(), paths=[tmp_path / "out"], only_known_studies=True)
    assert (report.counts["failed"], archive.shelf.sent) == (3, 0)
    for header in archive.shelf.held.values():
        header.PatientID = "ph-1"
    assert push(archive.open(), paths=[tmp_path / "out"], only_known_studies=True).counts["pushed"] == 3


def test_an_archive_of_implicit_vr_alone_takes_our_results(tmp_path: Path) -> None:
    came = []
    entity = AE("ARCHIVE")
    for sop_class in ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.481.3"):
        entity.add_supported_context(sop_class, [IMPLICIT])
    entity.add_supported_context("1.2.840.10008.5.1.4.1.2.2.1")

    def store(event: evt.Event) -> int:
        came.append(event.context.transfer_syntax)
        return 0

    handlers: list[Any] = [(evt.EVT_C_STORE, store), (evt.EVT_C_FIND, lambda _event: iter(()))]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        write_results(tmp_path / "out")
        report = push(
            Running(Shelf(), f"dicom://ARCHIVE@127.0.0.1:{server.server_address[1]}").open(), paths=[tmp_path / "out"]
        )
    finally:
        server.shutdown()
    assert report.counts["pushed"] == 3
    assert came == [IMPLICIT] * 3


# -- archives that are down, slow, or do not let us in --------------------------------------------------------------------


def test_an_archive_that_is_down_is_asked_once_not_for_every_object(tmp_path: Path) -> None:
    write_results(tmp_path / "out")
    asked = 0

    class Down:
        place = "down"

        def find_patient(self, *_: object, **__: object) -> None:
            nonlocal asked
            asked += 1
            raise UnreachablePacsError("the archive does not answer")

    report = push(Down(), paths=[tmp_path / "out"])  # type: ignore[arg-type]
    assert (asked, report.counts["failed"], len(report.problems)) == (1, 3, 1)


def test_an_archive_that_drips_ends_with_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:

        def drip() -> None:
            connection, _ = listening.accept()
            with closing(connection):
                connection.recv(4096)
                for byte in b"\x02\x00\x00\x00\x10\x00" + bytes(100):
                    try:
                        connection.sendall(bytes([byte]))
                    except OSError:
                        return
                    time.sleep(0.2)

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        monkeypatch.setattr(PacsLimits, "pace", property(lambda self: Pace(self.timeout_s, 2.0)))
        address = PacsAddress.parse(f"dicom://ARCHIVE@127.0.0.1:{listening.getsockname()[1]}")
        with pytest.raises(PacsError):
            open_archive(address, credentials=Credentials(), limits=PacsLimits(timeout_s=1.0, retries=0)).echo()
        thread.join(timeout=10)
        assert not thread.is_alive()


def test_matches_that_never_end_end_with_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    entity = AE("ARCHIVE")
    entity.add_supported_context("1.2.840.10008.5.1.4.1.2.2.1")

    def find(event: evt.Event) -> Iterator[tuple[int, Dataset]]:
        number = 0
        while not event.is_cancelled:
            number += 1
            match = Dataset()
            match.StudyInstanceUID = f"1.2.3.{number}"
            yield 0xFF00, match
            time.sleep(0.2)

    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, find)])
    monkeypatch.setattr(PacsLimits, "pace", property(lambda self: Pace(self.timeout_s, 2.0)))
    try:
        with pytest.raises(PacsError, match="too slowly"):
            Running(Shelf(), f"dicom://ARCHIVE@127.0.0.1:{server.server_address[1]}").open(PacsLimits(3.0, 0)).find_studies(DAY)
    finally:
        server.shutdown()


def test_a_rejection_says_on_which_side_the_name_is_wrong() -> None:
    entity = AE("ARCHIVE")
    entity.add_supported_context("1.2.840.10008.1.1")
    entity.require_called_aet, entity.require_calling_aet = True, ["FRIEND"]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_ECHO, lambda _event: 0)])
    port = server.server_address[1]
    try:
        with pytest.raises(PacsError, match="does not know our AE title AGSEG"):
            Running(Shelf(), f"dicom://ARCHIVE@127.0.0.1:{port}").open().echo()
        with pytest.raises(PacsError, match="it is not called WRONG"):
            Running(Shelf(), f"dicom://WRONG@127.0.0.1:{port}").open(PacsLimits(calling_aet="FRIEND")).echo()
        friend = Running(Shelf(), f"dicom://ARCHIVE@127.0.0.1:{port}").open(PacsLimits(calling_aet="FRIEND", retries=0))
        friend.echo()
        # It answers an echo, and offers nothing else.
        assert [answer.problem is not None for answer in friend.check(tuple(Need))] == [True, True, True]
    finally:
        server.shutdown()


def test_an_archive_that_grants_everything_is_said_to(archive: Running) -> None:
    fill(archive.shelf)
    answers = archive.open().check(tuple(Need))
    assert [(answer.problem, answer.is_known) for answer in answers] == [(None, True)] * 3
    assert archive.shelf.sent == 0


@pytest.mark.parametrize("status", [401, 403, 404, 405, 501])
def test_a_web_archive_that_refuses_to_store_is_said_to(web: Running, status: int) -> None:
    web.shelf.failures = [status]  # type: ignore[attr-defined]
    answers = web.open(PacsLimits(retries=0)).check((Need.STORE,))
    assert f"HTTP status {status}" in str(answers[0].problem)


def test_an_association_without_the_service_is_no_bug() -> None:
    with dimse_archive(Shelf()) as port:
        address = PacsAddress.parse(f"dicom://ARCHIVE@127.0.0.1:{port}")
        with (
            pytest.raises(PacsError, match="does not offer C-FIND"),
            associated(address, QUICK, [("1.2.840.10008.1.1", None)], service="C-FIND") as association,
        ):
            list(association.find(Dataset(), "1.2.840.10008.5.1.4.1.2.2.1"))


def test_series_are_in_a_stable_order(archive: Running) -> None:
    fill(archive.shelf)
    for header in other_study("ph-2"):
        archive.shelf.put(header)
    found = series_in(archive.open())
    assert [s.study_uid for s in found] == sorted(s.study_uid for s in found)
