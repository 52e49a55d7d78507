"""Why an archive cannot be reached: what a person at the telephone with its keeper needs to know."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator

from agseg.errors import PacsError
from agseg.io.pacs.archive import PacsAddress, PacsLimits, TransientPacsError

__all__ = ["probe", "unreachable"]

_UNTRUSTED = "its certificate is not trusted"


def unreachable(address: PacsAddress, limits: PacsLimits, error: BaseException | None = None) -> PacsError:
    """The error for an archive that does not answer: where it was looked for, and why it was not there.

    Parameters
    ----------
    address, limits
        Where, and how long it was waited for.
    error
        What the connection failed with; without one a connection is tried to find out.
    """
    found = error if error is not None else probe(address, limits)
    cause = "it takes the connection, and then says nothing that we understand" if found is None else _cause(found, limits)
    if cause == _UNTRUSTED:
        return PacsError(
            f"the certificate of the archive at {address.place} is not trusted", hint="Name its authority with --ca-file."
        )
    return TransientPacsError(f"the archive at {address.place} does not answer: {cause}")


def probe(address: PacsAddress, limits: PacsLimits) -> OSError | None:
    """Connect and say goodbye; returns what it failed with."""
    try:
        with socket.create_connection((address.host, address.port), timeout=limits.timeout_s) as connection:
            if address.tls:
                context = ssl.create_default_context(cafile=None if limits.ca_file is None else str(limits.ca_file))
                context.wrap_socket(connection, server_hostname=address.host).close()
    except OSError as error:
        return error
    return None


def _cause(error: BaseException, limits: PacsLimits) -> str:
    """The first link of the chain that says something, in words; texts of libraries may quote requests and are not used."""
    for link in _chain(error):
        if isinstance(link, socket.gaierror):
            return "its name is not known here"
        if isinstance(link, ssl.SSLCertVerificationError):
            return _UNTRUSTED
        if isinstance(link, ssl.SSLError):
            return "there is no TLS that we can agree on"
        if isinstance(link, ConnectionRefusedError):
            return "the connection is refused"
        if isinstance(link, TimeoutError) or "Timeout" in type(link).__name__:
            return f"no answer within {limits.timeout_s:g} s"
        if isinstance(link, ConnectionResetError | BrokenPipeError):
            return "it cut the connection"
        if isinstance(link, OSError) and link.errno:
            return os.strerror(link.errno).lower()
    return "it cut the connection"


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
