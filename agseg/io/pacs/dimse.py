"""An archive that speaks DIMSE: C-ECHO, C-FIND, C-GET or C-MOVE, C-STORE.

C-GET brings the images over the connection we opened. C-MOVE has the archive open one to us: it must know our AE title,
address and port. Source: DICOM PS3.4 (Storage, Query/Retrieve), PS3.7.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agseg.errors import PacsError, UsageError
from agseg.io.pacs.archive import (
    MOST_MATCHES,
    PacsAddress,
    PacsLimits,
    PacsQuery,
    RemoteSeries,
    TransientPacsError,
    checked_uid,
    with_retries,
)
from agseg.io.pacs.unreachable import unreachable

__all__ = ["DimseArchive"]

IMAGE_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2",  # CT
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT
    "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT
    "1.2.840.10008.5.1.4.1.1.4",  # MR
    "1.2.840.10008.5.1.4.1.1.6.1",  # US
    "1.2.840.10008.5.1.4.1.1.3.1",  # US multi-frame
)
"""Storage classes that we take in."""

IMAGE_SYNTAXES = (
    "1.2.840.10008.1.2.1",  # explicit VR little endian
    "1.2.840.10008.1.2",  # implicit VR little endian
    "1.2.840.10008.1.2.4.70",  # JPEG lossless
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.5",  # RLE
)
"""Transfer syntaxes that we take in, each proposed by itself: the archive keeps what it stores as it is."""

SUCCESS = 0x0000
PENDING = (0xFF00, 0xFF01)
WARNINGS = range(0xB000, 0xC000)
DUPLICATE_INSTANCE = 0x0111
REFUSED_OUT_OF_RESOURCES = range(0xA700, 0xA800)
CANNOT_UNDERSTAND = 0xC000


class DimseArchive:
    """See :class:`agseg.io.pacs.archive.Archive`."""

    def __init__(self, address: PacsAddress, limits: PacsLimits) -> None:
        _pynetdicom()
        self._address, self._limits = address, limits

    def echo(self) -> None:
        """C-ECHO."""

        def ask() -> None:
            with self._associated([("1.2.840.10008.1.1", None)]) as association:
                _check_status(association.send_c_echo())

        with_retries(ask, self._limits)

    def find_series(self, query: PacsQuery) -> list[RemoteSeries]:
        """C-FIND for studies, then for the series of each."""
        studies = sorted(
            {checked_uid(f.get("StudyInstanceUID")) for f in self._find("STUDY", query.study_keys, "StudyInstanceUID")}
        )
        matches: dict[str, RemoteSeries] = {}
        for study_uid in studies:
            keys = {"StudyInstanceUID": study_uid}
            for found in self._find("SERIES", keys, "SeriesInstanceUID", "Modality"):
                series = RemoteSeries(study_uid, checked_uid(found.get("SeriesInstanceUID")), str(found.get("Modality", "")))
                if series.modality in query.modalities and query.series_uid in ("", series.series_uid):
                    matches[series.series_uid] = series
        return [matches[uid] for uid in sorted(matches)]

    def instances(self, study_uid: str, series_uid: str) -> frozenset[str]:
        """C-FIND for the instances of a series."""
        keys = {"StudyInstanceUID": study_uid, "SeriesInstanceUID": series_uid}
        return frozenset(checked_uid(found.get("SOPInstanceUID")) for found in self._find("IMAGE", keys, "SOPInstanceUID"))

    def fetch(self, series: RemoteSeries, accept: Callable[[Any], None]) -> None:
        """C-GET, or C-MOVE to our own port."""
        fetch = self._get if self._limits.move_port is None else self._move
        with_retries(lambda: fetch(series, accept), self._limits)

    def store(self, paths: Sequence[Path]) -> None:
        """C-STORE of every file, over one association."""
        from agseg.io.dicom.header import read_header

        headers = [(path, read_header(path)) for path in paths]
        wanted = sorted({(header.sop_class, header.transfer_syntax) for _, header in headers})

        def send() -> None:
            with self._associated(wanted) as association:
                for path, _ in headers:
                    _store_one(association, path)

        with_retries(send, self._limits)

    def _find(self, level: str, keys: dict[str, str], *wanted: str) -> list[Any]:
        return with_retries(lambda: self._find_once(level, keys, wanted), self._limits)

    def _find_once(self, level: str, keys: dict[str, str], wanted: Sequence[str]) -> list[Any]:
        from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as Model  # type: ignore[attr-defined]

        identifier = _identifier(level, {**dict.fromkeys(wanted, ""), **keys})
        found = []
        with self._associated([(Model, None)]) as association:
            for status, match in association.send_c_find(identifier, Model):
                _check_status(status, *PENDING)
                if status.Status in PENDING:
                    found.append(match)
                if len(found) > MOST_MATCHES:
                    raise PacsError("the archive has too many matches", expected=f"at most {MOST_MATCHES}")
        return found

    def _get(self, series: RemoteSeries, accept: Callable[[Any], None]) -> None:
        from pynetdicom import build_role, evt
        from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet as Model  # type: ignore[attr-defined]

        contexts = [(Model, None), *((image, syntax) for image in IMAGE_CLASSES for syntax in IMAGE_SYNTAXES)]
        roles = [build_role(image, scp_role=True) for image in IMAGE_CLASSES]
        receiver = _Receiver(accept)
        with self._associated(contexts, ext_neg=roles, handlers=[(evt.EVT_C_STORE, receiver)]) as association:
            self._drive(association.send_c_get(_series_identifier(series), Model), receiver)

    def _move(self, series: RemoteSeries, accept: Callable[[Any], None]) -> None:
        from pynetdicom import evt
        from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelMove as Model  # type: ignore[attr-defined]

        receiver = _Receiver(accept)
        listener = self._entity()
        listener.require_called_aet = True
        for image in IMAGE_CLASSES:
            listener.add_supported_context(image, list(IMAGE_SYNTAXES))
        try:
            # The archive opens this connection, so the port must be open to it, whatever the interface.
            server = listener.start_server(
                ("", self._limits.move_port), block=False, evt_handlers=[(evt.EVT_C_STORE, receiver)]
            )
        except OSError:
            raise PacsError("the port to receive on is taken", value=self._limits.move_port) from None
        try:
            with self._associated([(Model, None)]) as association:
                answers = association.send_c_move(_series_identifier(series), self._limits.calling_aet, Model)
                self._drive(answers, receiver)
        finally:
            server.shutdown()

    def _drive(self, answers: Iterator[tuple[Any, Any]], receiver: _Receiver) -> None:
        """Follow the answers of C-GET or C-MOVE to the end; what went wrong while receiving stands before them."""
        for status, _ in answers:
            receiver.raise_error()
            if status and status.Status in REFUSED_OUT_OF_RESOURCES:
                raise TransientPacsError("the archive is out of resources", value=f"status {status.Status:#06x}")
            _check_status(status, *PENDING)
        receiver.raise_error()

    def _entity(self) -> Any:
        pynetdicom = _pynetdicom()
        entity = pynetdicom.AE(ae_title=self._limits.calling_aet)
        timeout_s = self._limits.timeout_s
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = timeout_s
        return entity

    @contextmanager
    def _associated(
        self, contexts: Sequence[tuple[str, str | None]], *, ext_neg: Sequence[Any] = (), handlers: Sequence[Any] = ()
    ) -> Iterator[Any]:
        entity = self._entity()
        for service, transfer_syntax in contexts:
            entity.add_requested_context(service, transfer_syntax)
        try:
            association = entity.associate(
                self._address.host,
                self._address.port,
                ae_title=self._address.called_aet,
                ext_neg=list(ext_neg),
                evt_handlers=list(handlers),
                tls_args=self._tls(),
            )
        except OSError as error:  # a name that cannot be resolved
            raise unreachable(self._address, self._limits, error) from None
        try:
            if association.is_rejected:
                raise PacsError(
                    f"the archive at {self._address.place} rejected the association",
                    hint="It must know our AE title; see --aet and the address.",
                )
            if not association.is_established:
                raise unreachable(self._address, self._limits)
            try:
                yield association
            except (RuntimeError, ValueError) as error:
                # pynetdicom says so if the connection broke, or if the archive did not accept a presentation context.
                kind = PacsError if association.is_established else TransientPacsError
                raise kind(f"the archive does not offer this service, or went away ({type(error).__name__})") from None
        finally:
            if association.is_established:
                association.release()

    def _tls(self) -> tuple[ssl.SSLContext, str] | None:
        if not self._address.tls:
            return None
        ca_file = self._limits.ca_file
        return ssl.create_default_context(cafile=None if ca_file is None else str(ca_file)), self._address.host


class _Receiver:
    """Takes in what the archive sends during C-GET or C-MOVE, and keeps the first error."""

    def __init__(self, accept: Callable[[Any], None]) -> None:
        self._accept = accept
        self._error: Exception | None = None

    def __call__(self, event: Any) -> int:
        if self._error is not None:
            return CANNOT_UNDERSTAND
        try:
            dataset = event.dataset
            dataset.file_meta = event.file_meta
            self._accept(dataset)
        except Exception as error:
            self._error = error
            return CANNOT_UNDERSTAND
        return SUCCESS

    def raise_error(self) -> None:
        if self._error is not None:
            raise self._error


def _identifier(level: str, keys: dict[str, str]) -> Any:
    from pydicom import Dataset

    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return identifier


def _series_identifier(series: RemoteSeries) -> Any:
    return _identifier("SERIES", {"StudyInstanceUID": series.study_uid, "SeriesInstanceUID": series.series_uid})


def _check_status(status: Any, *also: int) -> None:
    if not status:
        raise TransientPacsError("the archive stopped answering")
    if status.Status != SUCCESS and status.Status not in also:
        raise PacsError("the archive refused the request", value=f"status {status.Status:#06x}")


def _store_one(association: Any, path: Path) -> None:
    import pydicom

    status = association.send_c_store(pydicom.dcmread(path))
    if not status:
        raise TransientPacsError("the archive stopped answering")
    code = int(status.Status)
    if code in REFUSED_OUT_OF_RESOURCES:
        raise TransientPacsError("the archive is out of resources", value=f"status {code:#06x}")
    if code not in (SUCCESS, DUPLICATE_INSTANCE) and code not in WARNINGS:
        raise PacsError("the archive refused an object", path=path, value=f"status {code:#06x}")


def _pynetdicom() -> Any:
    try:
        import pynetdicom
    except ImportError:
        raise UsageError("DIMSE needs pynetdicom", hint="pip install 'agseg[pacs]'") from None
    # Its log lines hold UIDs and keys of queries.
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    return pynetdicom
