"""Human-readable reasons for failed connections, for whoever must ask the administrator of a server, proxy or network."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator

UNTRUSTED = "its certificate is not trusted"
"""What is said of a certificate that no authority known here has signed."""


def why_no_connection(error: BaseException, *, timeout_s: float | None = None) -> str:
    """The first cause behind an error that says something; texts of libraries may quote requests and are not used."""
    for link in _chain(error):
        if isinstance(link, socket.gaierror):
            return "its name is not known here"
        if isinstance(link, ssl.SSLCertVerificationError):
            return UNTRUSTED
        if isinstance(link, ssl.SSLError):
            return "TLS handshake failed: no common protocol or cipher"
        if isinstance(link, ConnectionRefusedError):
            return "the connection is refused"
        if isinstance(link, TimeoutError) or "Timeout" in type(link).__name__:
            return "no answer in time" if timeout_s is None else f"no answer within {timeout_s:g} s"
        if isinstance(link, ConnectionResetError | BrokenPipeError) or "Incomplete" in type(link).__name__:
            return "it cut the connection"
        if isinstance(link, OSError) and link.errno:
            return os.strerror(link.errno).lower()
    return "its answer is not one of such a server"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error with those behind it, the innermost first."""
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        link = waiting.pop()
        if link not in seen:
            seen.append(link)
            behind = (link.__cause__, link.__context__, getattr(link, "reason", None), *link.args)
            waiting += [other for other in behind if isinstance(other, BaseException)]
    return reversed(seen)
