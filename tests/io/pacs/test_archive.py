"""Laws of pulling from and pushing to an archive, with both protocols, against archives made in the test."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from typer.testing import CliRunner

from agseg.cli.app import app
from agseg.errors import ExitCode, LockedError, PacsError, UsageError
from agseg.io.discover import discover
from agseg.io.pacs import archive as pacs_archive
from agseg.io.pacs.address import Credentials, PacsAddress
from agseg.io.pacs.connect import open_archive
from agseg.io.pacs.contexts import IMAGE_CLASSES, RESULT_CLASSES, SCREEN_CLASSES, retrieved
from agseg.io.pacs.folder import arriving
from agseg.io.pacs.limits import PacsLimits
from agseg.io.pacs.query import PacsQuery
from agseg.workflows.pacs import PacsStatus
from agseg.workflows.pull import pull
from agseg.workflows.push import push
from tests.io.ct_series import SLICES, make_series
from tests.io.pacs.archives import Shelf, WebShelf, dimse_archive, web_archive
from tests.io.pacs.orthanc import in_a_namespace
from tests.io.pacs.running import DAY, Running, as_file, fill, make_certificate, series_in, write_results


@pytest.mark.slow
def test_the_round_trip_adds_nothing_the_second_time(archive: Running, tmp_path: Path) -> None:
    make_series().write(tmp_path / "ct")
    there = archive.open()
    sent = push(there, paths=[tmp_path / "ct"], everything=True)
    assert (sent.exit_code, sent.counts["pushed"]) == (ExitCode.OK, SLICES)
    got = pull(there, query=DAY, output=tmp_path / "incoming")
    assert [(r.status, r.instances) for r in got.records] == [(PacsStatus.PULLED, SLICES)]
    found = discover([tmp_path / "incoming"])
    assert [len(study.files) for study in found.studies] == [SLICES]
    write_results(tmp_path / "out")
    assert push(there, paths=[tmp_path / "out"]).counts["pushed"] == 3
    held, attempts = len(archive.shelf.held), archive.shelf.sent
    assert held == SLICES + 3
    again = push(there, paths=[tmp_path / "out"])
    assert (again.exit_code, again.counts["present"], again.counts["pushed"]) == (ExitCode.OK, 3, 0)
    assert (len(archive.shelf.held), archive.shelf.sent) == (held, attempts)
    # Results of the same study are there now, and are not taken in again.
    more = pull(there, query=DAY, output=tmp_path / "incoming")
    assert [r.status for r in more.records] == [PacsStatus.PRESENT]
    assert len(list((tmp_path / "incoming").rglob("*.dcm"))) == SLICES


def test_pulled_files_hold_what_was_sent(archive: Running, tmp_path: Path) -> None:
    fill(archive.shelf)
    pull(archive.open(), query=DAY, output=tmp_path)
    originals = {str(h.SOPInstanceUID): h for h in make_series().headers}
    for path in tmp_path.rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        assert dataset.PixelData == originals[str(dataset.SOPInstanceUID)].PixelData
        assert dataset.PatientName == originals[str(dataset.SOPInstanceUID)].PatientName


def test_no_name_and_no_output_holds_anything_from_a_header(archive: Running, tmp_path: Path) -> None:
    fill(archive.shelf)
    outcome = CliRunner().invoke(
        app, ["pacs", "pull", "--pacs", archive.address, "-o", str(tmp_path / "in"), "--date", "20260102", "--json", "-v"]
    )
    assert outcome.exit_code == 0
    assert json.loads(outcome.stdout)["counts"]["pulled"] == 1
    said = outcome.output + "".join(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*"))
    for private in ("1.2.826", "Phantom", "ph-1", "acc-5"):
        assert private not in said
    for path in (tmp_path / "in").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0


def test_hostile_instance_uids_never_become_paths(archive: Running, tmp_path: Path) -> None:
    series = make_series()
    if isinstance(archive.shelf, WebShelf):
        archive.shelf.say_uid = "../../../etc"
        for header in series.headers:
            archive.shelf.put(header)
        with pytest.raises(PacsError):
            pull(archive.open(), query=DAY, output=tmp_path / "in")
        assert not any(".." in request.split("?")[0] for request in archive.shelf.requests)
    else:
        series.headers[0].SOPInstanceUID = "../../evil"
        for header in series.headers:
            archive.shelf.put(header)
        record = pull(archive.open(), query=DAY, output=tmp_path / "in").records[0]
        assert record.status is PacsStatus.FAILED
    assert not list(tmp_path.rglob("*.dcm"))
    assert {p.name for p in tmp_path.iterdir()} <= {"in"}, (
        "nothing beside the output, which is taken back where all was refused"
    )


def test_an_incomplete_series_does_not_appear(archive: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(archive.shelf)
    there = archive.open()
    real = there.instances
    monkeypatch.setattr(there, "fetch", lambda series, instances, accept: accept(as_file(make_series().headers[0])))
    monkeypatch.setattr(there, "instances", real)
    report = pull(there, query=DAY, output=tmp_path)
    assert (report.exit_code, report.records[0].status) == (ExitCode.NONE_DONE, PacsStatus.FAILED)
    assert not list(tmp_path.rglob("*.dcm"))


@pytest.mark.slow
def test_a_series_that_grew_is_pulled_anew(archive: Running, tmp_path: Path) -> None:
    headers = make_series().headers
    for header in headers[:-1]:
        archive.shelf.put(header)
    assert pull(archive.open(), query=DAY, output=tmp_path).records[0].instances == SLICES - 1
    archive.shelf.put(headers[-1])
    assert pull(archive.open(), query=DAY, output=tmp_path).records[0].status is PacsStatus.PULLED
    assert len(list(tmp_path.rglob("*.dcm"))) == SLICES


@pytest.mark.slow
@pytest.mark.parametrize("lost", [True, False])
def test_a_series_whose_images_were_replaced_or_withdrawn_is_pulled_anew(archive: Running, tmp_path: Path, lost: bool) -> None:
    fill(archive.shelf)
    assert pull(archive.open(), query=DAY, output=tmp_path).records[0].status is PacsStatus.PULLED
    first = archive.shelf.held.pop(next(iter(archive.shelf.held)))
    if not lost:
        first.SOPInstanceUID = first.file_meta.MediaStorageSOPInstanceUID = f"{first.SOPInstanceUID}.99"
        archive.shelf.put(first)
    again = pull(archive.open(), query=DAY, output=tmp_path).records[0]
    assert (again.status, again.instances) == (PacsStatus.PULLED, len(archive.shelf.held))
    assert len(list(tmp_path.rglob("*.dcm"))) == len(archive.shelf.held)
    assert pull(archive.open(), query=DAY, output=tmp_path).records[0].status is PacsStatus.PRESENT


def test_another_series_than_asked_for_is_refused(archive: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(archive.shelf)
    headers = make_series().headers
    headers.append(make_series().headers[0])
    headers[-1].SeriesInstanceUID, headers[-1].SOPInstanceUID = "1.2.3", "1.2.3.4"
    there = archive.open()
    monkeypatch.setattr(there, "fetch", lambda series, instances, accept: [accept(as_file(header)) for header in headers])
    record = pull(there, query=DAY, output=tmp_path).records[0]
    assert (record.status, record.message) == (PacsStatus.FAILED, "the archive sent an image of another series")
    assert not list(tmp_path.rglob("*.dcm"))


def test_own_results_in_a_series_are_left_out(archive: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(archive.shelf)
    write_results(tmp_path / "out")
    ours = pydicom.dcmread(tmp_path / "out" / "seg.dcm")
    ours.SeriesInstanceUID = make_series().headers[0].SeriesInstanceUID
    archive.shelf.put(ours)
    there = archive.open()
    sent = [as_file(dataset) for dataset in (*make_series().headers, ours)]
    monkeypatch.setattr(there, "fetch", lambda series, instances, accept: [accept(content) for content in sent])
    assert pull(there, query=DAY, output=tmp_path / "in").records[0].instances == SLICES


@pytest.mark.slow
def test_what_a_killed_pull_left_is_swept_away(archive: Running, tmp_path: Path) -> None:
    fill(archive.shelf)
    there = archive.open()
    series = series_in(there)[0]
    killed = arriving(tmp_path, series, there.instances(series.study_uid, series.series_uid))
    killed.__enter__().accept(as_file(make_series().headers[0]))
    assert [p.name[0] for p in tmp_path.iterdir() if p.is_dir() and list(p.glob("*.dcm"))] == ["."]
    assert discover([tmp_path]).studies == ()
    pull(there, query=DAY, output=tmp_path)
    assert not [p for p in tmp_path.iterdir() if p.is_dir() and p.name.startswith(".")]
    assert len(list(tmp_path.rglob("*.dcm"))) == SLICES


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynetdicom", None)
    with pytest.raises(UsageError) as caught:
        Running(Shelf(), "dicom://A@127.0.0.1:1").open()
    assert caught.value.hint == "pip install 'agseg[pacs]'"


def test_nothing_matches(archive: Running, tmp_path: Path) -> None:
    fill(archive.shelf)
    assert pull(archive.open(), query=PacsQuery(dates="19990101"), output=tmp_path).exit_code is ExitCode.NO_STUDY


@pytest.mark.parametrize("query", [PacsQuery(accession="acc-5"), PacsQuery(patient_id="ph-1"),
                                   PacsQuery(study_uid="1.2.826.0.1.3680043.8.498.77.2"),
                                   PacsQuery(series_uid="1.2.826.0.1.3680043.8.498.77.3", dates="20260102")])  # fmt: skip
def test_every_key_finds_the_series(archive: Running, query: PacsQuery) -> None:
    fill(archive.shelf)
    assert len(series_in(archive.open(), query)) == 1


def test_a_dry_run_moves_nothing(archive: Running, tmp_path: Path) -> None:
    fill(archive.shelf)
    assert pull(archive.open(), query=DAY, output=tmp_path / "in", dry_run=True).counts["would"] == 1
    assert not (tmp_path / "in").exists()
    write_results(tmp_path / "out")
    assert push(archive.open(), paths=[tmp_path / "out"], dry_run=True).counts["would"] == 3
    assert archive.shelf.sent == 0


def test_push_sends_our_results_and_nothing_else(archive: Running, tmp_path: Path) -> None:
    write_results(tmp_path / "out")
    make_series().headers[0].save_as(tmp_path / "out" / "image.dcm", enforce_file_format=True)
    make_series().headers[0].save_as(tmp_path / "out" / "seg-of-another.dcm", enforce_file_format=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "out" / "seg.dcm").rename(tmp_path / "outside" / "seg.dcm")
    (tmp_path / "out" / "seg.dcm").symlink_to(tmp_path / "outside" / "seg.dcm")
    shutil.copy(tmp_path / "out" / "sr.dcm", tmp_path / "out" / ".sr.dcm")
    report = push(archive.open(), paths=[tmp_path / "out"])
    assert sorted(Path(r.path).name for r in report.records) == ["rtstruct.dcm", "sr.dcm"]


NOT_CURRENT = (None, "{", "[]", '{"status": "outdated", "files": ["sr.dcm"]}', '{"status": "done", "files": ["x"]}')


@pytest.mark.slow
@pytest.mark.parametrize("everything", [False, True])
def test_results_that_no_finished_record_names_stay_here(archive: Running, tmp_path: Path, everything: bool) -> None:
    aside = tmp_path / "out" / "outdated-0123456789ab"
    write_results(tmp_path / "out")
    write_results(aside)
    there = archive.open()
    for record in NOT_CURRENT:
        (aside / "study.json").unlink(missing_ok=True)
        if record is not None:
            (aside / "study.json").write_text(record)
        report = push(there, paths=[tmp_path / "out"], everything=everything)
        assert (report.exit_code, report.counts["outdated"], len(report.records)) == (ExitCode.OK, 3, 6)
        assert all((aside == Path(each.path).parent) == (each.status is PacsStatus.OUTDATED) for each in report.records)
        assert push(there, paths=[aside], everything=everything).exit_code is ExitCode.NO_STUDY
        # A file that was named itself needs no record, but must not contradict the one that is there.
        named = push(there, paths=[aside / "sr.dcm"], everything=everything, dry_run=True)
        assert named.counts["outdated"] == (record is not None)
    assert len(archive.shelf.held) == 3


def test_a_refused_object_is_reported_and_the_others_are_sent(archive: Running, tmp_path: Path) -> None:
    write_results(tmp_path / "out")
    archive.shelf.refuse = 0xC000
    report = push(archive.open(), paths=[tmp_path / "out"])
    assert (report.exit_code, report.counts["failed"]) == (ExitCode.NONE_DONE, 3)
    assert archive.shelf.sent == 3


def test_nothing_to_push(archive: Running, tmp_path: Path) -> None:
    assert push(archive.open(), paths=[tmp_path]).exit_code is ExitCode.NO_STUDY
    with pytest.raises(UsageError):
        push(archive.open(), paths=[tmp_path / "nowhere"])


def test_echo(archive: Running) -> None:
    archive.open().echo()
    assert CliRunner().invoke(app, ["pacs", "echo", "--pacs", archive.address]).exit_code == 0


def test_promise_39_an_archive_that_is_not_there_costs_bounded_attempts() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for address in (f"http://127.0.0.1:{port}/dicom-web", f"dicom://ARCHIVE@127.0.0.1:{port}"):
        with pytest.raises(PacsError, match=rf"at 127\.0\.0\.1:{port} does not answer: the connection is refused, after 2 att"):
            Running(Shelf(), address).open().echo()


@pytest.mark.parametrize("address", ["https://archive.invalid/dicom-web", "dicom://SECRET@archive.invalid:104"])
def test_an_archive_whose_name_is_unknown_is_said_to_be_so(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_args: object, **_more: object) -> None:
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(PacsError, match=r"at archive\.invalid:\d+ does not answer: its name is not known here") as caught:
        Running(Shelf(), address).open().echo()
    assert "SECRET" not in caught.value.sentence()


@pytest.mark.parametrize("scheme", ["https://127.0.0.1:{}/dicom-web", "dicoms://ARCHIVE@127.0.0.1:{}"])
def test_an_archive_without_tls_is_said_to_be_so(scheme: str) -> None:
    with web_archive(WebShelf()) as plain:
        port = plain.split(":")[2].split("/")[0]
        with pytest.raises(PacsError, match=f":{port} does not answer: TLS handshake failed: no common protocol or cipher"):
            Running(Shelf(), scheme.format(port)).open().echo()


def test_promise_39_an_archive_that_says_nothing_times_out() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        port = silent.getsockname()[1]
        for address in (f"http://127.0.0.1:{port}/dicom-web", f"dicom://ARCHIVE@127.0.0.1:{port}"):
            with pytest.raises(PacsError, match=rf":{port} does not answer: (no answer within 0\.5 s|it accepts)"):
                Running(Shelf(), address).open(PacsLimits(timeout_s=0.5, retries=1)).echo()


def test_promise_39_a_busy_archive_is_asked_again_but_not_for_ever() -> None:
    shelf = WebShelf()
    with web_archive(shelf) as address:
        there = Running(shelf, address)
        shelf.failures = [503, 429]
        there.open(PacsLimits(retries=2)).echo()
        assert len(shelf.requests) == 3
        shelf.failures, shelf.requests = [503] * 50, []
        with pytest.raises(PacsError, match="503"):
            there.open(PacsLimits(retries=2)).echo()
        assert len(shelf.requests) == 3
        shelf.failures, shelf.requests = [403], []
        with pytest.raises(PacsError, match="403"):
            there.open(PacsLimits(retries=5)).echo()
        assert len(shelf.requests) == 1


def test_pauses_between_attempts_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(pacs_archive, "sleep", pauses.append)

    def fail() -> None:
        raise pacs_archive.TransientPacsError("busy")

    with pytest.raises(PacsError):
        pacs_archive.with_retries(fail, PacsLimits(retries=8))
    assert pauses[:3] == [0.5, 1.0, 2.0]
    assert max(pauses) == pacs_archive.LONGEST_PAUSE_S


def test_redirections_are_not_followed() -> None:
    shelf = WebShelf()
    with web_archive(shelf) as address:
        shelf.redirect = "http://127.0.0.1:9/elsewhere"
        with pytest.raises(PacsError, match="redirects the request"):
            Running(shelf, address).open().echo()


def test_a_server_that_ignores_offsets_does_not_hold_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from agseg.io.pacs import web

    monkeypatch.setattr(web, "PAGE", 2)
    shelf = WebShelf()
    fill(shelf)
    with web_archive(shelf) as address:
        there = Running(shelf, address).open()
        series = series_in(there)[0]
        assert len(there.instances(series.study_uid, series.series_uid)) == SLICES
        shelf.ignores_offset = True
        assert len(there.instances(series.study_uid, series.series_uid)) == 2


def test_promise_39_certificates_are_verified_and_credentials_sent(tmp_path: Path) -> None:
    shelf = WebShelf()
    with web_archive(shelf, ssl_context=make_certificate(tmp_path)) as address:
        there = Running(shelf, address)
        with pytest.raises(PacsError, match="certificate"):
            there.open(credentials=Credentials("me", "secret")).echo()
        assert shelf.requests == []
        trusting = PacsLimits(timeout_s=3, retries=0, ca_file=tmp_path / "cert.pem")
        there.open(trusting, Credentials("me", "secret")).echo()
        there.open(trusting, Credentials(token="t0ken")).echo()
    assert shelf.authorizations == ["Basic bWU6c2VjcmV0", "Bearer t0ken"]


def test_promise_39_credentials_come_from_a_private_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pacs.yaml"
    path.write_text("user: me\npassword: secret\n")
    path.chmod(0o640)
    with pytest.raises(UsageError, match="others may read"):
        Credentials.from_file(path)
    path.chmod(0o600)
    assert Credentials.from_file(path) == Credentials("me", "secret")
    assert "secret" not in repr(Credentials.from_file(path))
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(UsageError):
        Credentials.from_file(tmp_path / "link")
    path.write_text("user: me\nhost: x\n")
    with pytest.raises(UsageError, match="no credentials"):
        Credentials.from_file(path)
    shelf = WebShelf()
    monkeypatch.setenv("AGSEG_PACS_USER", "me")
    monkeypatch.setenv("AGSEG_PACS_PASSWORD", "secret")
    with web_archive(shelf) as address:
        monkeypatch.setenv("AGSEG_PACS", address)
        assert CliRunner().invoke(app, ["pacs", "echo"]).exit_code == 0
    assert set(shelf.authorizations) == {"Basic bWU6c2VjcmV0"}


@pytest.mark.parametrize(
    "address",
    [
        "ftp://x/y",
        "ftp://me:secret@host",
        "https://",
        "https://me:secret@host/dicom-web",
        "https://me:secret@host:port/y",
        "https://host:99999/x",
        "dicom://host:104",
        "dicom://TITLE@host",
        "dicom://me:secret@host:104",
        "dicom://A_TITLE_THAT_IS_TOO_LONG@host:104",
        "nonsense",
    ],
)
def test_addresses_that_are_none_are_refused(address: str) -> None:
    with pytest.raises(UsageError) as caught:
        PacsAddress.parse(address)
    assert "secret" not in caught.value.sentence()


def test_plain_http_stays_on_this_machine_unless_allowed() -> None:
    address = PacsAddress.parse("http://archive.example/dicom-web")
    with pytest.raises(UsageError, match="plain http"):
        open_archive(address, credentials=Credentials(), limits=PacsLimits())
    open_archive(address, credentials=Credentials(), limits=PacsLimits(allow_plain_http=True))
    with pytest.raises(UsageError, match="credentials"):
        open_archive(address, credentials=Credentials("me", "x"), limits=PacsLimits(allow_plain_http=True))


@pytest.mark.parametrize(
    "make",
    [
        PacsQuery,
        lambda: PacsQuery(dates="today"),
        lambda: PacsQuery(dates="20261341"),
        lambda: PacsQuery(dates="20260101-20260230"),
        lambda: PacsQuery(dates="20260201-20260101"),
        lambda: PacsQuery(study_uid="1.2/../3"),
        lambda: PacsQuery(dates="20260101", modalities=("SEG",)),
        lambda: PacsLimits(timeout_s=0),
        lambda: PacsLimits(calling_aet="two words"),
    ],
)
def test_questions_that_make_no_sense_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(UsageError):
        make()


def test_c_move_receives_on_our_port(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shelf = Shelf()
    fill(shelf)
    with dimse_archive(shelf, mover_port=port) as server:
        there = Running(shelf, f"dicom://ARCHIVE@127.0.0.1:{server}").open(PacsLimits(timeout_s=5, retries=0, move_port=port))
        report = pull(there, query=DAY, output=tmp_path)
    assert report.records[0].instances == SLICES


def test_a_wrong_ae_title_is_rejected_at_once() -> None:
    with dimse_archive(Shelf()) as port, pytest.raises(PacsError, match="rejected"):
        Running(Shelf(), f"dicom://OTHER@127.0.0.1:{port}").open().echo()


def test_dimse_over_tls_verifies_the_certificate(tmp_path: Path) -> None:
    from pynetdicom import AE, evt

    context = make_certificate(tmp_path)
    entity = AE(ae_title="ARCHIVE")
    entity.add_supported_context("1.2.840.10008.1.1")
    server = entity.start_server(
        ("127.0.0.1", 0), block=False, ssl_context=context, evt_handlers=[(evt.EVT_C_ECHO, lambda _event: 0)]
    )
    try:
        there = Running(Shelf(), f"dicoms://ARCHIVE@127.0.0.1:{server.socket.getsockname()[1]}")
        with pytest.raises(PacsError, match="certificate"):
            there.open(PacsLimits(timeout_s=3, retries=0)).echo()
        there.open(PacsLimits(timeout_s=3, retries=0, ca_file=tmp_path / "cert.pem")).echo()
    finally:
        server.shutdown()


def test_a_second_pull_into_one_folder_is_locked_out(archive: Running, tmp_path: Path) -> None:
    from agseg.batch.output import claim_output

    fill(archive.shelf)
    with claim_output(tmp_path), pytest.raises(LockedError):
        pull(archive.open(), query=DAY, output=tmp_path)


@pytest.mark.slow
def test_a_real_orthanc_round_trip(tmp_path: Path) -> None:
    """Everything above, with a real archive in a network of its own (Debian's Orthanc listens on all interfaces)."""
    facts = in_a_namespace(Path(__file__).with_name("orthanc_round_trip.py"), tmp_path, timeout_s=120)
    assert facts["push_ct"] == {"pushed": SLICES}
    for way in ("web", "get", "move"):
        assert facts[f"pull_{way}"] == {"pulled": 1}, way
        assert facts[f"files_{way}"] == SLICES, way
    assert facts["push_results"] == {"pushed": 3}
    assert facts["modalities_of_the_study"] == ["CT", "RTSTRUCT", "SEG", "SR"]
    assert facts["count_after_first"] == SLICES + 3
    assert facts["push_again_web"] == facts["push_again_dimse"] == {"present": 3}
    # Even an archive that is not asked first keeps one copy.
    assert facts["count_after_second"] == facts["count_after_forced"] == SLICES + 3
    assert facts["pull_again"] == {"present": 1}
    assert facts["wrong_password"] == "HTTP status 401"
    # An archive that does not know our AE title answers an echo all the same.
    web, get, move = ("QIDO-RS", "WADO-RS", "STOW-RS"), ("C-FIND", "C-GET", "C-STORE"), ("C-FIND", "C-MOVE", "C-STORE")
    assert facts["granted"] == [dict.fromkeys(services, True) for services in (web, get, move)]
    assert facts["granted_empty"][0]["WADO-RS"] is False
    assert set(facts["stranger"]) == {"C-FIND", "C-GET"}
    assert all("may not know our AE title NOBODY" in hint for hint in facts["stranger"].values())


def test_all_that_is_asked_back_fits_into_one_association() -> None:
    contexts = retrieved((*RESULT_CLASSES, *SCREEN_CLASSES, *IMAGE_CLASSES))
    assert len(contexts) + 1 <= 128  # and the query itself
    assert len(contexts) == len(set(contexts))
    assert {storage for storage, _ in contexts} == {*RESULT_CLASSES, *SCREEN_CLASSES, *IMAGE_CLASSES}
