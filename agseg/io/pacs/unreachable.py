"""Human-readable reasons why an archive cannot be reached."""

from __future__ import annotations

import socket

from agseg.errors import PacsError
from agseg.io.connection import UNTRUSTED, why_no_connection
from agseg.io.pacs.address import PacsAddress
from agseg.io.pacs.archive import NoAnswerError
from agseg.io.pacs.limits import PacsLimits

SILENT = "it accepts the connection but does not answer as a DICOM service"
"""What is said where a connection can be made, but no association."""


def unreachable(address: PacsAddress, limits: PacsLimits, error: BaseException | None = None) -> PacsError:
    """The error for an archive that does not answer: where it was looked for, and why it was not there.

    Parameters
    ----------
    address, limits
        Where, and how long it was waited for.
    error
        What the connection failed with; without one a connection is tried to find out.
    """
    found = probe(address, limits) if error is None else error
    cause = SILENT if found is None else why_no_connection(found, timeout_s=limits.timeout_s)
    if cause == UNTRUSTED:
        return PacsError(
            f"the certificate of the archive at {address.place} is not trusted", hint="Name its authority with --ca-file."
        )
    return NoAnswerError(f"the archive at {address.place} does not answer: {cause}")


def probe(address: PacsAddress, limits: PacsLimits) -> OSError | None:
    """Connect and say goodbye; returns what it failed with."""
    try:
        with socket.create_connection((address.host, address.port), timeout=limits.timeout_s) as connection:
            if address.tls:
                limits.client_context().wrap_socket(connection, server_hostname=address.host).close()
    except OSError as error:
        return error
    return None
