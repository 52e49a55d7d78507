"""An archive that speaks DICOMweb: QIDO-RS to find, WADO-RS to fetch, STOW-RS to store.

Source: DICOM PS3.18, sections 10.4 to 10.6.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

from agseg.errors import AgsegError, PacsError, UsageError
from agseg.io.pacs.archive import (
    MOST_MATCHES,
    Credentials,
    PacsAddress,
    PacsLimits,
    PacsQuery,
    RemoteSeries,
    TransientPacsError,
    checked_uid,
    with_retries,
)
from agseg.io.pacs.unreachable import unreachable

__all__ = ["WebArchive"]

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

DUPLICATE_INSTANCE = 0x0111
"""FailureReason of an instance that the archive has already: nothing is missing then (PS3.7 C.5.5)."""

LARGEST_ANSWER_BYTES = 4 << 30
"""A longer answer is not taken in."""

T = TypeVar("T")

_STUDY, _SERIES, _INSTANCE, _MODALITY = "0020000D", "0020000E", "00080018", "00080060"


class WebArchive:
    """See :class:`agseg.io.pacs.archive.Archive`."""

    def __init__(self, address: PacsAddress, credentials: Credentials, limits: PacsLimits) -> None:
        self._address, self._limits = address, limits
        self._client = _client(address, credentials, limits)

    def echo(self) -> None:
        """Search for one study; the standard has no emptier question."""
        self._ask(lambda: self._client.search_for_studies(limit=1))

    def find_series(self, query: PacsQuery) -> list[RemoteSeries]:
        """Studies that match, then the series of each."""
        studies = {_uid(found, _STUDY) for found in self._pages(self._client.search_for_studies, query.study_keys)}
        matches: dict[str, RemoteSeries] = {}
        for study_uid in sorted(studies):
            for found in self._pages(partial(self._client.search_for_series, study_uid), {}):
                series = RemoteSeries(study_uid, _uid(found, _SERIES), str(_value(found, _MODALITY) or ""))
                if series.modality in query.modalities and query.series_uid in ("", series.series_uid):
                    matches[series.series_uid] = series
        return [matches[uid] for uid in sorted(matches)]

    def instances(self, study_uid: str, series_uid: str) -> frozenset[str]:
        """SOPInstanceUIDs of a series."""
        found = self._pages(partial(self._client.search_for_instances, study_uid, series_uid), {})
        return frozenset(_uid(instance, _INSTANCE) for instance in found)

    def fetch(self, series: RemoteSeries, accept: Callable[[Any], None]) -> None:
        """One instance at a time, so that memory and what a retry repeats stay small."""
        for uid in sorted(self.instances(series.study_uid, series.series_uid)):
            # Any transfer syntax: what is stored compressed stays so.
            media_types = (("application/dicom", "*"),)
            fetch = partial(self._client.retrieve_instance, series.study_uid, series.series_uid, uid, media_types=media_types)
            accept(self._ask(fetch))

    def store(self, paths: Sequence[Path]) -> None:
        """One object at a time, so that a refusal names its object."""
        import pydicom

        for path in paths:
            dataset = pydicom.dcmread(path)
            answer = self._ask(partial(self._client.store_instances, [dataset], str(dataset.StudyInstanceUID)))
            reasons = [int(item.get("FailureReason", 0)) for item in answer.get("FailedSOPSequence") or []]
            if any(reason != DUPLICATE_INSTANCE for reason in reasons):
                raise PacsError("the archive refused an object", path=path, value=f"failure reason {reasons[0]:#06x}")

    def _pages(self, search: Callable[..., list[Any]], filters: dict[str, str]) -> list[Any]:
        """All matches; a server that ignores ``offset`` repeats itself, and one that ends its pages early is believed."""
        found: list[Any] = []
        seen: set[str] = set()
        while len(found) < MOST_MATCHES:
            question = partial(search, limit=PAGE, offset=len(found), search_filters=filters)
            page = self._ask(question)
            fresh = [match for match in page if repr(match) not in seen]
            seen.update(repr(match) for match in fresh)
            found += fresh
            if len(page) < PAGE or not fresh:
                return found
        raise PacsError("the archive has too many matches", value=len(found), expected=f"at most {MOST_MATCHES}")

    def _ask(self, action: Callable[[], T]) -> T:
        return with_retries(lambda: _translated(action, self._address, self._limits), self._limits)


def _translated(action: Callable[[], T], address: PacsAddress, limits: PacsLimits) -> T:
    """Run a request; its errors lose the text that could quote UIDs and addresses."""
    import requests

    try:
        return action()
    except AgsegError:
        raise
    except requests.HTTPError as error:
        status = 0 if error.response is None else error.response.status_code
        kind = TransientPacsError if status in BUSY else PacsError
        hint = "Check AGSEG_PACS_USER and AGSEG_PACS_PASSWORD, or AGSEG_PACS_TOKEN." if status in (401, 403) else None
        raise kind(f"the archive at {address.place} refused the request", value=f"HTTP status {status}", hint=hint) from None
    except (requests.ConnectionError, requests.Timeout) as error:
        raise unreachable(address, limits, error) from None
    except requests.TooManyRedirects:
        raise PacsError("the archive sends us elsewhere; redirections are not followed") from None
    except Exception as error:
        raise PacsError(f"the archive's answer cannot be understood ({type(error).__name__})") from None


def _client(address: PacsAddress, credentials: Credentials, limits: PacsLimits) -> Any:
    try:
        import requests
        from dicomweb_client import DICOMwebClient
    except ImportError:
        raise UsageError("DICOMweb needs dicomweb-client", hint="pip install 'agseg[pacs]'") from None
    # Its log lines hold UIDs.
    logging.getLogger("dicomweb_client").setLevel(logging.CRITICAL)
    session = requests.Session()
    # No proxy, netrc or certificate bundle from the environment: the address and the options say everything.
    session.trust_env = False
    session.max_redirects = 0
    session.verify = True if limits.ca_file is None else str(limits.ca_file)
    session.hooks["response"] = [_limit_size]
    session.headers["Accept"] = "application/dicom+json"
    if credentials.token:
        session.headers["Authorization"] = f"Bearer {credentials.token}"
    elif credentials.user:
        session.auth = (credentials.user, credentials.password)
    try:
        client = DICOMwebClient(address.url, session=session, timeout=limits.timeout_s)
    except ValueError:
        raise UsageError("the archive's address is not one of a DICOMweb service", value=address.url) from None
    client.set_http_retry_params(retry=False)
    return client


def _limit_size(response: Any, **_: Any) -> None:
    """Refuse an answer that says it is too long, before it is read."""
    length = response.headers.get("Content-Length", "0")
    if length.isdigit() and int(length) > LARGEST_ANSWER_BYTES:
        response.close()
        raise PacsError("the archive's answer is too long", value=int(length), expected=LARGEST_ANSWER_BYTES)


def _value(match: Any, tag: str) -> Any:
    values = match.get(tag, {}).get("Value") or [None]
    return values[0]


def _uid(match: Any, tag: str) -> str:
    return checked_uid(_value(match, tag))
