"""An archive that speaks DICOMweb: QIDO-RS to find, WADO-RS to fetch, STOW-RS to store.

Source: DICOM PS3.18, sections 10.4 to 10.6.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

from agseg.errors import PacsError, UsageError
from agseg.io.exchange import Answer, HttpClient, TooLongError, TooSlowError
from agseg.io.pacs.address import Credentials, PacsAddress
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
from agseg.io.pacs.limits import PacsLimits
from agseg.io.pacs.multipart import Upload, only_part
from agseg.io.pacs.query import PacsQuery, RemoteSeries, RemoteStudy, checked_uid
from agseg.io.pacs.stow import taken
from agseg.io.pacs.unreachable import unreachable

PAGE = 500
"""Matches asked for at a time."""

BUSY = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
"""Answers after which trying again may help."""

REFUSALS = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED,
            HTTPStatus.NOT_IMPLEMENTED}  # fmt: skip
"""Answers to an empty STOW request that mean that a full one would be refused too; the others only find it empty."""

LARGEST_LIST_BYTES = 64 << 20
LARGEST_OBJECT_BYTES = 3 << 29
"""A longer answer is not taken in: a list of matches, one object."""

T = TypeVar("T")

_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"
_MODALITY, _PATIENT_ID = "00080060", "00100020"
_SERIES_OF_STUDY, _INSTANCES_OF_SERIES = "00201206", "00201209"

Match = dict[str, Any]


class WebArchive:
    """See :class:`agseg.io.pacs.archive.Archive`."""

    def __init__(self, address: PacsAddress, credentials: Credentials, limits: PacsLimits) -> None:
        self._address, self._limits = address, limits
        self._client = _client(credentials, limits)

    @property
    def place(self) -> str:
        """The address, which holds no secret."""
        return self._address.url

    def echo(self) -> None:
        """Search for one study; the standard has no emptier question."""
        self._one("studies", {})

    def check(self, needs: Sequence[Need]) -> list[ServiceAnswer]:
        """Search; fetch an instance's beginning; store nothing."""
        tried = {
            Need.FIND: ("QIDO-RS", self._try_find),
            Need.RETRIEVE: ("WADO-RS", self._try_retrieve),
            Need.STORE: ("STOW-RS", self._try_store),
        }
        answers = []
        for need in needs:
            service, attempt = tried[need]
            try:
                answers.append(ServiceAnswer(need, service, is_known=attempt()))
            except PacsError as error:
                answers.append(ServiceAnswer(need, service, error.sentence(), error.hint))
        return answers

    def _try_find(self) -> bool:
        self.echo()
        return True

    def _try_retrieve(self) -> bool:
        path = "studies"
        for tag, below in ((_STUDY, "series"), (_SERIES, "instances"), (_INSTANCE, "")):
            found = self._one(path, {})
            if found is None:
                return False
            path = f"{path}/{_uid(found, tag)}/{below}".rstrip("/")
        self._ask("GET", path, most_bytes=0, headers=_DICOM, sink=lambda answer: None)
        return True

    def _try_store(self) -> bool:
        empty = Upload(None)
        answer = self._ask("POST", "studies", most_bytes=LARGEST_LIST_BYTES, headers=_JSON | empty.headers,
                           content=empty.pieces, bears=lambda status: status < 500)  # fmt: skip
        if answer.status in REFUSALS:
            raise self._refused(answer.status)
        return True

    def find_studies(self, query: PacsQuery) -> list[RemoteStudy]:
        """QIDO-RS for studies."""
        studies = {}
        for found in self._search("studies", {**query.study_keys, "includefield": _SERIES_OF_STUDY}):
            uid, patient_id = _uid(found, _STUDY), _value(found, _PATIENT_ID)
            studies[uid] = RemoteStudy(uid, None if patient_id is None else str(patient_id), _count(found, _SERIES_OF_STUDY))
        return [studies[uid] for uid in sorted(studies)]

    def find_patient(self, study_uid: str) -> str | None:
        """QIDO-RS for the study."""
        found = self._one("studies", {"StudyInstanceUID": checked_uid(study_uid)})
        value = None if found is None or _uid(found, _STUDY) != study_uid else _value(found, _PATIENT_ID)
        return None if value is None else str(value)

    def find_series(self, study: RemoteStudy, query: PacsQuery) -> list[RemoteSeries]:
        """QIDO-RS for the series of a study."""
        matches = {}
        found = self._search(f"studies/{study.study_uid}/series", {"includefield": _INSTANCES_OF_SERIES})
        for one in found:
            series = RemoteSeries(study.study_uid, _uid(one, _SERIES), str(_value(one, _MODALITY) or ""), study.patient_id,
                                  _count(one, _INSTANCES_OF_SERIES))  # fmt: skip
            matches[series.series_uid] = series
        held_against_count(len(matches), study.n_series, "series of a study")
        wanted = (series for _, series in sorted(matches.items()) if query.wants(series))
        return list(wanted)

    def instances(self, study_uid: str, series_uid: str, *, expected: int | None = None) -> frozenset[str]:
        """SOPInstanceUIDs of a series."""
        found = self._search(f"studies/{study_uid}/series/{series_uid}/instances", {})
        uids = frozenset(_uid(instance, _INSTANCE) for instance in found)
        held_against_count(len(uids), expected, "images of a series")
        return uids

    def fetch(self, series: RemoteSeries, instances: frozenset[str], accept: Accept) -> None:
        """One instance at a time, so that memory and what a retry repeats stay small."""
        for uid in sorted(instances):
            self.fetch_object(series.study_uid, series.series_uid, uid, accept)

    def fetch_object(self, study_uid: str, series_uid: str, sop_uid: str, accept: Accept) -> None:
        """WADO-RS, in the transfer syntax in which the archive keeps it."""
        body = bytearray()

        def begin(_: Answer) -> Callable[[bytes], None]:
            body.clear()  # what an attempt that broke off has left
            return body.extend

        path = f"studies/{study_uid}/series/{series_uid}/instances/{sop_uid}"
        answer = self._ask("GET", path, most_bytes=LARGEST_OBJECT_BYTES, headers=_DICOM, sink=begin)
        with understood():
            content = only_part(answer.headers.get("Content-Type", ""), body)
        accept(content)

    def store(self, paths: Sequence[Path]) -> dict[Path, PacsError | None]:
        """One object at a time, so that a refusal names its object."""
        return {path: self._store_one(path) for path in paths}

    def _store_one(self, path: Path) -> PacsError | None:
        from agseg.io.pacs.objects import uids_of

        uids, upload = uids_of(path), Upload(path)
        try:
            answer = self._ask("POST", f"studies/{checked_uid(uids.study)}", most_bytes=LARGEST_LIST_BYTES,
                               headers=_JSON | upload.headers, content=upload.pieces,
                               bears=lambda status: status in (200, 202, 409))  # fmt: skip
            with understood():
                taken(answer.content, answer.headers.get("Content-Type", ""), uids.sop)
        except PacsError as error:
            return error
        return None

    def _one(self, path: str, filters: Mapping[str, str]) -> Match | None:
        found = self._page(path, {**filters, "limit": "1"})
        return found[0] if found else None

    def _search(self, path: str, filters: Mapping[str, str]) -> list[Match]:
        """All matches: a page that is empty, or that repeats what was there, is the last, whatever its length."""
        found: list[Match] = []
        seen: set[str] = set()
        while len(found) < MOST_MATCHES:
            page = self._page(path, {**filters, "limit": str(PAGE), "offset": str(len(found))})
            fresh = [match for match in page if repr(match) not in seen]
            seen.update(repr(match) for match in fresh)
            found += fresh
            if not fresh:
                return found
        raise PacsError("the archive has too many matches", value=len(found), expected=f"at most {MOST_MATCHES}")

    def _page(self, path: str, query: Mapping[str, str]) -> list[Match]:
        answer = self._ask("GET", path, query=query, most_bytes=LARGEST_LIST_BYTES, headers=_JSON)
        if answer.status == HTTPStatus.NO_CONTENT or not answer.content.strip():
            return []
        with understood():
            matches = json.loads(answer.content)
        if not isinstance(matches, list) or not all(isinstance(match, dict) for match in matches):
            raise PacsError("the archive's answer is no list of matches")
        return matches

    def _ask(
        self,
        method: str,
        path: str,
        *,
        most_bytes: int,
        headers: Mapping[str, str],
        query: Mapping[str, str] | None = None,
        content: Callable[[], Any] | None = None,
        sink: Callable[[Answer], Callable[[bytes], None] | None] | None = None,
        bears: Callable[[int], bool] = lambda status: False,
    ) -> Answer:
        """Ask, again where that may help; statuses other than success are errors, unless the caller bears them."""

        def judged(answer: Answer) -> None:
            if not (200 <= answer.status < 300 or bears(answer.status)):
                raise self._refused(answer.status)

        def receive(answer: Answer) -> Callable[[bytes], None] | None:
            judged(answer)
            return None if sink is None else sink(answer)

        def once() -> Answer:
            try:
                answer = self._client.ask(
                    method, f"{self._address.url}/{path}", query=query, headers=headers, most_bytes=most_bytes,
                    content=None if content is None else content(), sink=None if sink is None else receive,
                )  # fmt: skip
            except Exception as error:
                raise self._translated(error) from None
            judged(answer)
            return answer

        return with_retries(once, self._limits)

    def _refused(self, status: int) -> PacsError:
        if 300 <= status < 400:
            return PacsError("the archive redirects the request; redirections are not followed", value=f"HTTP status {status}")
        kind = TransientPacsError if status in BUSY else PacsError
        message = f"the archive at {self._address.place} refused the request"
        return kind(message, value=f"HTTP status {status}", hint=_HINTS.get(status))

    def _translated(self, error: Exception) -> PacsError | UsageError:
        """An error without the text that could quote UIDs and addresses."""
        import httpx2

        place = self._address.place
        if isinstance(error, PacsError | UsageError):
            return error
        if isinstance(error, TooSlowError):
            return TransientPacsError(f"the archive at {place} answers too slowly to be waited for")
        if isinstance(error, TooLongError):
            return PacsError("the archive's answer is too long", value=error.found)
        if isinstance(error, httpx2.TransportError | OSError) and not isinstance(error, httpx2.DecodingError):
            return unreachable(self._address, self._limits, error)
        return PacsError(f"the archive's answer cannot be understood ({type(error).__name__})")


_JSON = {"Accept": "application/dicom+json"}
_DICOM = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}

_HINTS: dict[int, str] = {
    401: "Check AGSEG_PACS_USER and AGSEG_PACS_PASSWORD, or AGSEG_PACS_TOKEN.",
    403: "Check AGSEG_PACS_USER and AGSEG_PACS_PASSWORD, or AGSEG_PACS_TOKEN: this user may not do it.",
    400: "Is the path of the address right? Many end in /dicom-web.",
    404: "Is the path of the address right? Many end in /dicom-web.",
    405: "The archive does not offer this service at this address.",
}


def _client(credentials: Credentials, limits: PacsLimits) -> HttpClient:
    # No proxy and no netrc of the environment: the address and the options say everything.
    headers = {"Authorization": f"Bearer {credentials.token}"} if credentials.token else {}
    login = (credentials.user, credentials.password) if credentials.user and not credentials.token else None
    return HttpClient(pace=limits.pace, verify=limits.client_context(), headers=headers, login=login)


def _value(match: Match, tag: str) -> str | int | float | None:
    """An attribute's first value, if it is one that can be in a request; None if there is none."""
    element = match.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    value = values[0] if isinstance(values, list) and values else None
    return value if isinstance(value, str | int | float) else None


def _count(match: Match, tag: str) -> int | None:
    try:
        return int(_value(match, tag) or "")
    except (ValueError, OverflowError):
        return None


def _uid(match: Match, tag: str) -> str:
    return checked_uid(_value(match, tag))
