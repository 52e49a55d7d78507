"""One HTTP request and its answer, within limits that a server cannot talk its way around.

Silence, slowness, length and the total time are limited, for the headers as for the body, with and without a
``Content-Length``, and for the bytes that come out of a compressed answer. Redirections are never followed here.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import httpx2

Sink = Callable[[bytes], None]


class TooSlowError(TimeoutError):
    """The other side answers, but too slowly to be waited for."""


class TooLongError(ValueError):
    """The answer is longer than it may be; ``found`` is what was announced, or had come."""

    def __init__(self, found: int) -> None:
        super().__init__("the answer is too long")
        self.found = found


@dataclass(frozen=True)
class Pace:
    """How slow a transfer may be: silent for ``silence_s`` at most, and done in time.

    Parameters
    ----------
    silence_s
        Longest wait for a connection, for the answer to begin, and for its next bytes (s).
    grace_s
        A transfer may take this long however few bytes move (s) ...
    bytes_per_s
        ... and longer only if it has moved as many bytes per second since.
    longest_s
        No transfer takes longer (s).
    """

    silence_s: float
    grace_s: float
    bytes_per_s: float = 10_000.0
    longest_s: float = 3600.0

    def allowed_s(self, moved_bytes: int) -> float:
        """Seconds from its start within which a transfer that moved so much must move on."""
        return min(self.longest_s, self.grace_s + moved_bytes / self.bytes_per_s)


@dataclass(frozen=True)
class Answer:
    """What a server said. ``content`` is empty where a sink took it."""

    status: int
    headers: Mapping[str, str]
    content: bytes = b""


class HttpClient:
    """Keeps connections open between requests. Not for several threads at once.

    Parameters
    ----------
    pace
        For every request that names none of its own.
    verify
        From :func:`trusted`.
    uses_proxies
        Whether the proxies of the environment are used (``HTTPS_PROXY``, ``NO_PROXY``).
    headers, login
        Sent with every request; ``login`` is user and password.
    """

    def __init__(
        self,
        *,
        pace: Pace,
        verify: ssl.SSLContext,
        uses_proxies: bool = False,
        headers: Mapping[str, str] | None = None,
        login: tuple[str, str] | None = None,
    ) -> None:
        import httpx2

        self._pace = pace
        self._runner = asyncio.Runner()
        self._client = httpx2.AsyncClient(
            verify=verify,
            trust_env=uses_proxies,
            follow_redirects=False,
            headers={"Accept-Encoding": "identity", **(headers or {})},
            auth=login,
            timeout=httpx2.Timeout(pace.silence_s),
        )
        self._close = weakref.finalize(self, _close, self._runner, self._client)

    def close(self) -> None:
        """Close the connections."""
        self._close()

    def ask(
        self,
        method: str,
        url: str,
        *,
        most_bytes: int,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        content: Iterable[bytes] | None = None,
        sink: Callable[[Answer], Sink | None] | None = None,
        pace: Pace | None = None,
    ) -> Answer:
        """Send a request and take the answer in.

        Parameters
        ----------
        most_bytes
            A longer answer is refused, whether it says its length or not, and as it is after decompression.
        content
            The request's body, in pieces.
        sink
            Sees status and headers, and returns what takes the body's pieces; None from it leaves the body unread.
        pace
            Instead of the client's.

        Raises
        ------
        TooLongError, TooSlowError
            If a limit is passed.
        httpx2.HTTPError, httpx2.InvalidURL, OSError
            If there is no connection, or it broke.
        """
        return self._runner.run(
            self._exchange(_Request(method, url, query, headers, content), most_bytes, sink, pace or self._pace)
        )

    async def _exchange(
        self, asked: _Request, most_bytes: int, sink: Callable[[Answer], Sink | None] | None, pace: Pace
    ) -> Answer:
        started, parts = asyncio.get_running_loop().time(), list[bytes]()
        try:
            async with asyncio.timeout_at(started + pace.allowed_s(0)) as limit:

                def moved(count: int) -> None:
                    limit.reschedule(started + pace.allowed_s(count))

                body = None if asked.content is None else _upload(asked.content, moved)
                request = self._client.build_request(
                    asked.method, asked.url, params=asked.query, headers=asked.headers, content=body
                )
                response = await self._client.send(request, stream=True)
                try:
                    answer = Answer(response.status_code, response.headers)
                    take = parts.append if sink is None else sink(answer)
                    if take is not None:
                        await _download(response, take, most_bytes, moved)
                finally:
                    await response.aclose()
        except TimeoutError as error:
            raise TooSlowError("too slow") from error
        return Answer(answer.status, answer.headers, b"".join(parts))


@dataclass(frozen=True)
class _Request:
    method: str
    url: str
    query: Mapping[str, str] | None
    headers: Mapping[str, str] | None
    content: Iterable[bytes] | None


async def _upload(content: Iterable[bytes], moved: Callable[[int], None]) -> AsyncIterator[bytes]:
    count = 0
    for piece in content:
        yield piece
        count += len(piece)
        moved(count)


async def _download(response: httpx2.Response, take: Sink, most_bytes: int, moved: Callable[[int], None]) -> None:
    announced = response.headers.get("Content-Length", "")
    if announced.isdigit() and int(announced) > most_bytes:
        raise TooLongError(int(announced))
    count = 0
    async for piece in response.aiter_bytes():
        count += len(piece)
        if count > most_bytes:
            raise TooLongError(count)
        take(piece)
        moved(count)


def _close(runner: asyncio.Runner, client: httpx2.AsyncClient) -> None:
    """Close connections and event loop; called wherever the client happens to be collected.

    That may be inside a lock of :mod:`threading`. So this must not wait for a thread, as ``asyncio.Runner.close`` does for
    those that look up names: they end by themselves.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        with suppress(RuntimeError):  # at the end of the process the loop may be gone already
            runner.run(client.aclose())
            runner.get_loop().close()
            asyncio.set_event_loop(None)
    # Else it was collected while another loop runs: its sockets close as they are collected too.


def trusted(ca_file: Path | None = None) -> ssl.SSLContext:
    """Certificates are verified: with these authorities, or the system's (and those that ``SSL_CERT_FILE`` names)."""
    return ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))


def is_loopback(url: str) -> bool:
    """Whether a URL stays on this machine."""
    host = (urlsplit(url).hostname or "").lower()
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
