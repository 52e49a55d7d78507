"""An archive that speaks DIMSE: C-ECHO, C-FIND, C-GET or C-MOVE, C-STORE.

C-GET brings the images over the connection we opened. C-MOVE has the archive open one to us: it must know our AE title,
address and port. Source: DICOM PS3.4 (Storage, Query/Retrieve), PS3.7.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from agseg.errors import PacsError
from agseg.io.pacs.address import PacsAddress
from agseg.io.pacs.archive import (
    MOST_MATCHES,
    Accept,
    Need,
    ServiceAnswer,
    TransientPacsError,
    held_against_count,
    understood,
    with_retries,
)
from agseg.io.pacs.association import Association, associated, pynetdicom_or_refusal
from agseg.io.pacs.contexts import IMAGE_CLASSES, IMAGE_SYNTAXES, RESULT_CLASSES, SCREEN_CLASSES, UNCOMPRESSED, retrieved
from agseg.io.pacs.limits import PacsLimits
from agseg.io.pacs.listener import Listener, Received
from agseg.io.pacs.query import PacsQuery, RemoteSeries, RemoteStudy, checked_uid
from agseg.io.pacs.senders import Sender
from agseg.io.pacs.stow import AlreadyHeldError

VERIFICATION = "1.2.840.10008.1.1"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
GET = "1.2.840.10008.5.1.4.1.2.2.3"
"""Study Root Query/Retrieve."""

NOWHERE = "2.25.0"
"""A study that no archive has: what is asked for to see whether one may ask."""

SUCCESS = 0x0000
PENDING = (0xFF00, 0xFF01)
SOME_NOT_SENT = 0xB000
WARNINGS = range(0xB000, 0xC000)
DUPLICATE_INSTANCE = 0x0111
NOT_AUTHORISED = 0x0124
CANNOT_UNDERSTAND = 0xC000
OUT_OF_RESOURCES = range(0xA700, 0xA800)
MOVE_DESTINATION_UNKNOWN = 0xA801
NO_SERVICE = (NOT_AUTHORISED, 0x0112, 0x0122, 0x0211, MOVE_DESTINATION_UNKNOWN)
"""Statuses that refuse a service as such; others only say that the study that no archive has is not there."""

T = TypeVar("T")


class DimseArchive:
    """See :class:`agseg.io.pacs.archive.Archive`."""

    def __init__(self, address: PacsAddress, limits: PacsLimits) -> None:
        pynetdicom_or_refusal()
        self._address, self._limits = address, limits

    @property
    def place(self) -> str:
        """AE title, host and port."""
        return f"dicom://{self._address.called_aet}@{self._address.place}"

    def echo(self) -> None:
        """C-ECHO."""
        self._ask([(VERIFICATION, None)], "C-ECHO", lambda association: association.check(association.echo()))

    def check(self, needs: Sequence[Need]) -> list[ServiceAnswer]:
        """C-FIND, and C-GET or C-MOVE, of a study that nobody has; of C-STORE, whether the archive agrees to our objects."""
        retrieve = "C-GET" if self._limits.move_port is None else "C-MOVE"
        tried: dict[Need, tuple[str, Callable[[], object]]] = {
            Need.FIND: ("C-FIND", lambda: self._find("STUDY", {"StudyInstanceUID": NOWHERE}, ())),
            Need.RETRIEVE: (retrieve, self._try_retrieve),
            Need.STORE: ("C-STORE", self._try_store),
        }
        answers = []
        for need in needs:
            service, attempt = tried[need]
            try:
                attempt()
                answers.append(ServiceAnswer(need, service))
            except PacsError as error:
                answers.append(ServiceAnswer(need, service, error.sentence(), error.hint))
        return answers

    def _try_retrieve(self) -> None:
        model, identifier = (
            (GET if self._limits.move_port is None else MOVE),
            _identifier("STUDY", {"StudyInstanceUID": NOWHERE}),
        )
        service = "C-GET" if model == GET else "C-MOVE"
        contexts: list[tuple[str, str | None]] = [(model, None), (IMAGE_CLASSES[0], UNCOMPRESSED[0])]

        def ask(association: Association) -> None:
            answers = association.get(identifier, model) if model == GET else association.move(identifier, model)
            for status, _ in answers:
                code = association.code(status)
                if code in NO_SERVICE:
                    association.check(status)

        roles = [IMAGE_CLASSES[0]] if model == GET else []
        self._ask(contexts if model == GET else contexts[:1], service, ask, roles=roles)

    def _try_store(self) -> None:
        wanted = [(sop_class, syntax) for sop_class in RESULT_CLASSES for syntax in UNCOMPRESSED]

        def look(association: Association) -> None:
            missing = [RESULT_CLASSES[c] for c in RESULT_CLASSES if not association.accepts(c)]
            if missing:
                raise PacsError(f"the archive does not take {' and '.join(missing)}",
                                hint="Its keeper must allow these storage classes, and us to send them.")  # fmt: skip

        self._ask(wanted, "C-STORE", look)

    def find_studies(self, query: PacsQuery) -> list[RemoteStudy]:
        """C-FIND for studies."""
        studies = {}
        for found in self._find("STUDY", query.study_keys, ("StudyInstanceUID", "PatientID", "NumberOfStudyRelatedSeries")):
            uid = checked_uid(found.get("StudyInstanceUID"))
            patient_id = found.get("PatientID")
            studies[uid] = RemoteStudy(uid, None if patient_id is None else str(patient_id),
                                       _count(found, "NumberOfStudyRelatedSeries"))  # fmt: skip
        return [studies[uid] for uid in sorted(studies)]

    def find_patient(self, study_uid: str) -> str | None:
        """C-FIND for the study."""
        for found in self._find("STUDY", {"StudyInstanceUID": checked_uid(study_uid)}, ("PatientID",)):
            if str(found.get("StudyInstanceUID", "")) == study_uid and found.get("PatientID") is not None:
                return str(found.PatientID)
        return None

    def find_series(self, study: RemoteStudy, query: PacsQuery) -> list[RemoteSeries]:
        """C-FIND for the series of a study."""
        matches = {}
        wanted = ("SeriesInstanceUID", "Modality", "NumberOfSeriesRelatedInstances")
        for found in self._find("SERIES", {"StudyInstanceUID": study.study_uid}, wanted):
            if str(found.get("StudyInstanceUID", study.study_uid)) != study.study_uid:
                raise PacsError("the archive answered with a series of another study")
            series = RemoteSeries(study.study_uid, checked_uid(found.get("SeriesInstanceUID")), str(found.get("Modality", "")),
                                  study.patient_id, _count(found, "NumberOfSeriesRelatedInstances"))  # fmt: skip
            matches[series.series_uid] = series
        held_against_count(len(matches), study.n_series, "series of a study")
        return [series for _, series in sorted(matches.items()) if query.wants(series)]

    def instances(self, study_uid: str, series_uid: str, *, expected: int | None = None) -> frozenset[str]:
        """C-FIND for the instances of a series."""
        keys = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid}
        uids = frozenset(checked_uid(found.get("SOPInstanceUID")) for found in self._find("IMAGE", keys, ("SOPInstanceUID",)))
        held_against_count(len(uids), expected, "images of a series")
        return uids

    def fetch(self, series: RemoteSeries, instances: frozenset[str], accept: Accept) -> None:
        """C-GET, or C-MOVE to our own port."""
        keys = {"StudyInstanceUID": series.study_uid, "SeriesInstanceUID": series.series_uid}
        self._retrieve(_identifier("SERIES", keys), IMAGE_CLASSES, accept)

    def fetch_object(self, study_uid: str, series_uid: str, sop_uid: str, accept: Accept) -> None:
        """C-GET or C-MOVE of one object: an image, or one of the kinds that agseg writes."""
        keys = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid, "SOPInstanceUID": sop_uid}
        self._retrieve(_identifier("IMAGE", keys), (*RESULT_CLASSES, *SCREEN_CLASSES, *IMAGE_CLASSES), accept)

    def store(self, paths: Sequence[Path]) -> dict[Path, PacsError | None]:
        """C-STORE of every file, over one association; one that breaks is made again for what is left."""
        from agseg.io.pacs.objects import uids_of

        kinds = {path: uids_of(path) for path in paths}
        wanted = {(kind.sop_class, kind.transfer_syntax) for kind in kinds.values()}
        # Every archive takes implicit VR (PS3.5, section 10.1); what is not compressed can be sent in it.
        wanted |= {(sop_class, syntax) for sop_class, own in wanted if own in UNCOMPRESSED for syntax in UNCOMPRESSED}
        ended: dict[Path, PacsError | None] = {}

        def send(association: Association) -> None:
            for path in paths:
                if path not in ended:
                    ended[path] = self._store_one(association, path)

        self._ask(sorted(wanted), "C-STORE", send)
        return ended

    @staticmethod
    def _store_one(association: Association, path: Path) -> PacsError | None:
        status = association.code(association.store(path))
        if status in OUT_OF_RESOURCES:
            raise TransientPacsError("the archive is out of resources", value=f"status {status:#06x}")
        if status == DUPLICATE_INSTANCE:
            return AlreadyHeldError("the archive says that it has an object of this UID")
        if status != SUCCESS and status not in WARNINGS:
            return PacsError("the archive refused an object", value=f"status {status:#06x}")
        return None

    def _find(self, level: str, keys: Mapping[str, str], wanted: Sequence[str]) -> list[Any]:
        identifier = _identifier(level, {**dict.fromkeys(wanted, ""), **keys})

        def ask(association: Association) -> list[Any]:
            found = []
            for status, match in association.find(identifier, FIND):
                association.check(status, *PENDING)
                if association.code(status) in PENDING:
                    if match is None:
                        raise PacsError("the archive's answer cannot be understood")
                    found.append(match)
                if len(found) > MOST_MATCHES:
                    raise PacsError("the archive has too many matches", expected=f"at most {MOST_MATCHES}")
            return found

        return self._ask([(FIND, None)], "C-FIND", ask)

    def _retrieve(self, identifier: Any, classes: Sequence[str], accept: Accept) -> None:
        if self._limits.move_port is None:
            self._get(identifier, classes, accept)
        else:
            self._move(identifier, classes, accept, self._limits.move_port)

    def _get(self, identifier: Any, classes: Sequence[str], accept: Accept) -> None:
        contexts: list[tuple[str, str | None]] = [(GET, None)]
        contexts += retrieved(classes)

        def ask(association: Association) -> None:
            receiver = _Receiver(accept)
            association.on_store(lambda event: receiver.take(event.encoded_dataset()))
            _follow(association, association.get(identifier, GET), receiver)

        self._ask(contexts, "C-GET", ask, roles=classes)

    def _move(self, identifier: Any, classes: Sequence[str], accept: Accept, port: int) -> None:
        limits = self._limits
        archive = Sender(self._address.called_aet, self._address.host)
        contexts = [(image, IMAGE_SYNTAXES) for image in classes]

        def ask(association: Association) -> None:
            receiver = _Receiver(accept)

            def take(received: Received) -> int:
                association.alive(len(received.content))
                return receiver.take(received.content)

            # The archive opens this connection, so the port must be open to it, whatever the interface.
            with Listener(
                port, aet=limits.calling_aet, senders=(archive, *limits.senders), contexts=contexts, take=take,
                tls=limits.server_context() if self._address.tls else None, silence_s=limits.timeout_s,
            ):  # fmt: skip
                _follow(association, association.move(identifier, MOVE), receiver)

        self._ask([(MOVE, None)], "C-MOVE", ask)

    def _ask(
        self, contexts: Sequence[tuple[str, str | None]], service: str, action: Callable[[Association], T], *,
        roles: Sequence[str] = (),
    ) -> T:  # fmt: skip
        def once() -> T:
            with associated(self._address, self._limits, contexts, service=service, roles=roles) as association, understood():
                return action(association)

        return with_retries(once, self._limits)


class _Receiver:
    """Takes in what the archive sends during C-GET or C-MOVE, and keeps the first error."""

    def __init__(self, accept: Accept) -> None:
        self._accept = accept
        self._error: Exception | None = None

    def take(self, content: bytes) -> int:
        if self._error is not None:
            return CANNOT_UNDERSTAND
        try:
            self._accept(content)
        except Exception as error:
            self._error = error
            return CANNOT_UNDERSTAND
        return SUCCESS

    def raise_error(self) -> None:
        if self._error is not None:
            raise self._error


def _follow(association: Association, answers: Iterator[tuple[Any, Any]], receiver: _Receiver) -> None:
    """Follow the answers of C-GET or C-MOVE to the end; what went wrong while receiving stands before them."""
    for status, _ in answers:
        receiver.raise_error()
        code = association.code(status)
        if code in OUT_OF_RESOURCES:
            raise TransientPacsError("the archive is out of resources", value=f"status {code:#06x}")
        if code == SOME_NOT_SENT:
            failed = status.get("NumberOfFailedSuboperations")
            raise PacsError(
                "the archive could not send all images of a series", value=f"{failed} failed",
                hint="Their kind or transfer syntax may be one that is not taken in.",
            )  # fmt: skip
        association.check(status, *PENDING)
    receiver.raise_error()


def _count(found: Any, keyword: str) -> int | None:
    try:
        return int(found.get(keyword))
    except (TypeError, ValueError, OverflowError):
        return None


def _identifier(level: str, keys: Mapping[str, str]) -> Any:
    from pydicom import Dataset

    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return identifier
