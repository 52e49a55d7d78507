"""One file over https: allow-listed hosts, redirects checked one by one, timeouts, a size cap, and resumption.

The bytes grow in a partial file. An interrupted download is continued with a ``Range`` request that holds only if the server's
copy is unchanged (``If-Range``); a server that does not know ranges starts again. Proxies come from the usual variables.
"""

from __future__ import annotations

import errno
import http.client
import ipaddress
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from agseg import __version__
from agseg.errors import Code, OutputError, WeightsError
from agseg.io.atomic import FILE_MODE, make_folder
from agseg.io.connection import why_no_connection

__all__ = [
    "ATTEMPTS",
    "NETWORK_HINT",
    "TRANSIENT_STATUS",
    "HostRules",
    "Progress",
    "Remote",
    "download",
    "is_loopback",
    "no_progress",
    "pause",
]

Progress = Callable[[int, int | None, str], None]
"""``progress(bytes done, bytes in all if known, file name)``."""

ATTEMPTS = 4
"""How often a download that breaks off is taken up before giving up."""

BACKOFF_S = 0.5
"""Pause before the second attempt; doubles with each further one."""

TIMEOUT_S = 30.0
"""Longest silence of a server."""

MAX_BYTES = 2 * 1024**3
"""Cap where the size is not known beforehand."""

CHUNK_BYTES = 256 * 1024

TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})

NETWORK_HINT = "Behind a proxy set HTTPS_PROXY; without a network bring a bundle: agseg weights import."


def no_progress(done: int, total: int | None, name: str) -> None:
    """Tell nobody."""


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


def is_loopback(url: str) -> bool:
    """Whether a URL stays on this machine."""
    host = (urlsplit(url).hostname or "").lower()
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


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
    opener = _opener(remote)
    for attempt in range(ATTEMPTS):
        pause(attempt)
        try:
            return _attempt(opener, remote, partial, limit=limit, progress=progress)
        except urllib.error.HTTPError as error:
            reason: Exception = error
            if error.code not in TRANSIENT_STATUS:
                break
        except (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, TimeoutError, ConnectionError) as error:
            reason = error
        except OSError as error:
            raise _disk_error(error, partial) from error
    status = f"HTTP status {reason.code}" if isinstance(reason, urllib.error.HTTPError) else why_no_connection(reason)
    raise WeightsError(
        f"the download from {urlsplit(remote.url).hostname} did not succeed: {status}", hint=NETWORK_HINT
    ) from reason


def pause(attempt: int) -> None:
    """Wait before an attempt: not before the first, and twice as long before each further one."""
    if attempt:
        time.sleep(BACKOFF_S * 2 ** (attempt - 1))


def _attempt(opener: urllib.request.OpenerDirector, remote: Remote, partial: Path, *, limit: int, progress: Progress) -> None:
    etag_path = partial.with_name(partial.name + ".etag")
    request = _request(remote, partial, etag_path)
    offset = partial.stat().st_size if request.has_header("Range") else 0
    try:
        response = opener.open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and offset:
            partial.unlink()  # it is no part of today's file
            raise ConnectionError("range not satisfiable") from error
        raise
    with response:
        if response.status != http.client.PARTIAL_CONTENT or not _continues(response.headers, offset):
            offset = 0
        length = response.headers.get("Content-Length")
        total = offset + int(length) if length and length.isdigit() else None
        if total is not None and total > limit:
            raise _too_large(remote, partial, total, limit)
        etag_path.write_text(response.headers.get("ETag") or "", encoding="utf-8")
        _copy(response, partial, offset, limit=limit, total=total, remote=remote, progress=progress)
    etag_path.unlink(missing_ok=True)


def _copy(
    response: IO[bytes], partial: Path, offset: int, *, limit: int, total: int | None, remote: Remote, progress: Progress
) -> None:
    done, name = offset, partial.name[:12]
    with partial.open("r+b" if offset else "wb") as stream:
        partial.chmod(FILE_MODE)
        stream.seek(offset)
        stream.truncate()
        while chunk := response.read(CHUNK_BYTES):
            done += len(chunk)
            if done > limit:
                raise _too_large(remote, partial, done, limit)
            stream.write(chunk)
            progress(done, total, name)
    if total is not None and done < total:
        raise http.client.IncompleteRead(b"", total - done)


def _request(remote: Remote, partial: Path, etag_path: Path) -> urllib.request.Request:
    # Identity, because the digest is that of the bytes as published.
    headers = {"User-Agent": f"agseg/{__version__}", "Accept-Encoding": "identity"}
    if remote.authorization is not None:
        headers["Authorization"] = remote.authorization
    if partial.exists() and partial.stat().st_size > 0:
        headers["Range"] = f"bytes={partial.stat().st_size}-"
        etag = etag_path.read_text(encoding="utf-8") if etag_path.exists() else ""
        if etag and not etag.startswith("W/"):
            headers["If-Range"] = etag
    return urllib.request.Request(remote.url, headers=headers)  # noqa: S310 - the scheme was checked by the rules


def _continues(headers: Message, offset: int) -> bool:
    return str(headers.get("Content-Range", "")).startswith(f"bytes {offset}-")


def _opener(remote: Remote) -> urllib.request.OpenerDirector:
    handlers: list[urllib.request.BaseHandler] = [_CheckedRedirects(remote.rules)]
    if is_loopback(remote.url):
        handlers.append(urllib.request.ProxyHandler({}))  # loopback is not a proxy's business
    return urllib.request.build_opener(*handlers)


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only where the rules allow; credentials stay with the first host."""

    def __init__(self, rules: HostRules) -> None:
        self.rules = rules

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        self.rules.check(newurl)
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None and urlsplit(newurl).netloc != urlsplit(req.full_url).netloc:
            following.remove_header("Authorization")
        return following


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
