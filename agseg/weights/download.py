"""One file over https: allow-listed hosts, redirects checked one by one, a pace, a size cap, and resumption.

The bytes grow in a partial file. An interrupted download is continued with a ``Range`` request that holds only if the server's
copy is unchanged (``If-Range``); a server that does not know ranges starts again. Proxies come from the usual variables.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from agseg import __version__
from agseg.errors import Code, OutputError, WeightsError
from agseg.io.atomic import FILE_MODE, make_folder
from agseg.io.connection import why_no_connection
from agseg.io.exchange import Answer, HttpClient, Pace, TooLongError, TooSlowError, is_loopback, trusted
from agseg.weights.progress import Progress, no_progress

ATTEMPTS = 4
"""How often a download that breaks off is taken up before giving up."""

BACKOFF_S = 0.5
"""Pause before the second attempt; doubles with each further one."""

PACE = Pace(silence_s=30.0, grace_s=20.0, bytes_per_s=2_000.0, longest_s=24 * 3600.0)
"""How slow a download may be: a gateway that looks for viruses may hold it back, one that drips for ever is left."""

SLOW_ATTEMPTS = 2
"""A server that was too slow so often is not asked again."""

MOST_REDIRECTS = 10
REDIRECTS = frozenset({301, 302, 303, 307, 308})

MAX_BYTES = 2 * 1024**3
"""Cap where the size is not known beforehand."""

TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})

NETWORK_HINT = "Behind a proxy set HTTPS_PROXY; without a network bring a bundle: agseg weights import."


@dataclass(frozen=True)
class HostRules:
    """Where a download and its redirects may go.

    Parameters
    ----------
    hosts
        Exact names, with the port where it is not 443.
    domains
        Names below these are allowed too.
    loopback
        Whether this machine's loopback is allowed, over plain http as well; only where the download starts there.
    """

    hosts: frozenset[str]
    domains: tuple[str, ...] = ()
    loopback: bool = False

    def check(self, url: str) -> None:
        """Raise unless the URL may be opened.

        Raises
        ------
        WeightsError
            Naming scheme and host, nothing else of the URL: signed URLs are secrets.
        """
        parts = urlsplit(url)
        host, place = (parts.hostname or "").lower(), parts.netloc.lower()
        if self.loopback and parts.scheme in ("https", "http") and is_loopback(url):
            return
        named = place in self.hosts or any(place.endswith("." + domain) for domain in self.domains)
        if parts.scheme == "https" and parts.username is None and named:
            return
        raise WeightsError(
            "the download would leave the allowed hosts",
            value=f"{parts.scheme}://{host}",
            expected="https to " + ", ".join(sorted(self.hosts)),
            hint="A site's own manifest may name its hosts under allowed_hosts.",
        )


@dataclass(frozen=True)
class Remote:
    """A file on a server, with what is known of it beforehand."""

    url: str
    rules: HostRules
    commit: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    authorization: str | None = None


def download(remote: Remote, partial: Path, *, size_bytes: int | None, progress: Progress = no_progress) -> None:
    """Bring ``partial`` to its full length; what it holds already is kept if the server agrees.

    Parameters
    ----------
    size_bytes
        The size that the manifest gives, or None.

    Raises
    ------
    WeightsError
        If a host is not allowed, the file is not there, or is larger than it may be.
    OutputError
        If the disk is full (the partial file is removed) or the cache cannot be written.
    """
    remote.rules.check(remote.url)
    make_folder(partial.parent)
    limit = size_bytes or remote.size_bytes or MAX_BYTES
    client = HttpClient(pace=PACE, verify=trusted(), uses_proxies=not is_loopback(remote.url))
    transient, slow = _transient(), 0
    try:
        for attempt in range(ATTEMPTS):
            pause(attempt)
            try:
                return _attempt(client, remote, partial, limit=limit, progress=progress)
            except _StatusError as error:
                reason: Exception = error
                if error.status not in TRANSIENT_STATUS:
                    break
            except TooLongError as error:
                raise _too_large(remote, partial, error.found, limit) from None
            except transient as error:
                reason = error
                slow += isinstance(error, TooSlowError)
                if slow >= SLOW_ATTEMPTS:
                    break
            except OSError as error:
                raise _disk_error(error, partial) from error
    finally:
        client.close()
    status = f"HTTP status {reason.status}" if isinstance(reason, _StatusError) else why_no_connection(reason)
    raise WeightsError(
        f"the download from {urlsplit(remote.url).hostname} did not succeed: {status}", hint=NETWORK_HINT
    ) from reason


def pause(attempt: int) -> None:
    """Wait before an attempt: not before the first, and twice as long before each further one."""
    if attempt:
        time.sleep(BACKOFF_S * 2 ** (attempt - 1))


class _StatusError(Exception):
    """The server answered with something else than the file."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def _transient() -> tuple[type[Exception], ...]:
    """What may pass: httpx2 is imported where a network is used, not before."""
    import httpx2

    return (TooSlowError, ConnectionError, TimeoutError, httpx2.HTTPError, httpx2.InvalidURL)


def _attempt(client: HttpClient, remote: Remote, partial: Path, *, limit: int, progress: Progress) -> None:
    etag_path = partial.with_name(partial.name + ".etag")
    headers = _headers(remote, partial, etag_path)
    held = partial.stat().st_size if "Range" in headers else 0
    with ExitStack() as opened:
        growing: list[_Growing] = []

        def sink(answer: Answer) -> Callable[[bytes], None] | None:
            if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and held:
                partial.unlink()  # it is no part of today's file
                raise ConnectionError("range not satisfiable")
            if answer.status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
                return None
            offset = held if answer.status == HTTPStatus.PARTIAL_CONTENT and _continues(answer, held) else 0
            length = answer.headers.get("Content-Length", "")
            total = offset + int(length) if length.isdigit() else None
            if total is not None and total > limit:
                raise TooLongError(total)
            etag_path.write_text(answer.headers.get("ETag") or "", encoding="utf-8")
            growing.append(opened.enter_context(_Growing(partial, offset, total, limit, progress)))
            return growing[-1].write

        answer = _follow(client, remote, headers, sink, most_bytes=limit)
        if not growing:
            raise _StatusError(answer.status)
        growing[-1].check_whole()
    etag_path.unlink(missing_ok=True)


def _follow(
    client: HttpClient, remote: Remote, headers: dict[str, str], sink: Callable[[Answer], Callable[[bytes], None] | None],
    *, most_bytes: int,
) -> Answer:  # fmt: skip
    """Ask, and ask where the answer sends us if the rules allow; credentials stay with the first host."""
    url = remote.url
    for _ in range(MOST_REDIRECTS):
        answer = client.ask("GET", url, headers=headers, sink=sink, most_bytes=most_bytes)
        target = answer.headers.get("Location")
        if answer.status not in REDIRECTS or target is None:
            return answer
        following = urljoin(url, target)
        remote.rules.check(following)
        if urlsplit(following).netloc != urlsplit(url).netloc:
            headers = {name: value for name, value in headers.items() if name != "Authorization"}
        url = following
    raise ConnectionError("too many redirections")


class _Growing:
    """The partial file, as it grows from where the answer begins."""

    def __init__(self, partial: Path, offset: int, total: int | None, limit: int, progress: Progress) -> None:
        self._partial, self._offset, self._total, self._limit, self._progress = partial, offset, total, limit, progress
        self._done = offset

    def __enter__(self) -> _Growing:
        self._stream = self._partial.open("r+b" if self._offset else "wb")
        self._partial.chmod(FILE_MODE)
        self._stream.seek(self._offset)
        self._stream.truncate()
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def write(self, piece: bytes) -> None:
        self._done += len(piece)
        if self._done > self._limit:
            raise TooLongError(self._done)
        self._stream.write(piece)
        self._progress(self._done, self._total, self._partial.name[:12])

    def check_whole(self) -> None:
        if self._total is not None and self._done < self._total:
            raise ConnectionError("the answer ended early")


def _headers(remote: Remote, partial: Path, etag_path: Path) -> dict[str, str]:
    # Identity, because the digest is that of the bytes as published.
    headers = {"User-Agent": f"agseg/{__version__}", "Accept-Encoding": "identity"}
    if remote.authorization is not None:
        headers["Authorization"] = remote.authorization
    if partial.exists() and partial.stat().st_size > 0:
        headers["Range"] = f"bytes={partial.stat().st_size}-"
        etag = etag_path.read_text(encoding="utf-8") if etag_path.exists() else ""
        if etag and not etag.startswith("W/"):
            headers["If-Range"] = etag
    return headers


def _continues(answer: Answer, offset: int) -> bool:
    return str(answer.headers.get("Content-Range", "")).startswith(f"bytes {offset}-")


def _too_large(remote: Remote, partial: Path, found: int, limit: int) -> WeightsError:
    partial.unlink(missing_ok=True)
    return WeightsError(
        "the server sends more than the file's size",
        code=Code.WEIGHTS_CHECKSUM,
        value=f"{found} bytes from {urlsplit(remote.url).hostname}",
        expected=f"at most {limit}",
    )


def _disk_error(error: OSError, partial: Path) -> OutputError:
    partial.unlink(missing_ok=True)
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return OutputError(
        "the disk is full" if full else "the weights cache cannot be written",
        code=Code.DISK_FULL if full else Code.OUTPUT_NOT_WRITABLE,
        path=partial.parent,
        hint="Point AGSEG_HOME at a folder with room." if full else "Point AGSEG_HOME at a folder of your own.",
    )
