"""The archive behind an address."""

from __future__ import annotations

from agseg.errors import Code, UsageError
from agseg.io.pacs.address import Credentials, PacsAddress, Transport
from agseg.io.pacs.archive import Archive
from agseg.io.pacs.limits import PacsLimits


def open_archive(address: PacsAddress, *, credentials: Credentials, limits: PacsLimits) -> Archive:
    """The archive behind an address; nothing is sent yet.

    Raises
    ------
    UsageError
        If plain http would leave this machine, if credentials would leave it without TLS, if images would come back without
        TLS from an archive that is spoken to with it, or if a package is missing.
    """
    if address.transport is Transport.DIMSE:
        from agseg.io.pacs.dimse import DimseArchive

        if address.tls and limits.move_port is not None:
            limits.server_context()
        return DimseArchive(address, limits)
    if not address.tls and not address.is_loopback:
        if not limits.allow_plain_http:
            raise UsageError(
                "plain http would send images unprotected", code=Code.USAGE, hint="Use https, or say --allow-plain-http."
            )
        if credentials:
            raise UsageError("credentials are never sent over plain http", hint="Use https.")
    from agseg.io.pacs.web import WebArchive

    return WebArchive(address, credentials, limits)
