"""A port that takes in images by C-STORE: from those who may send, with TLS where it is asked for, and within bounds.

Whoever connects from another address than the senders' is cut off before a byte is read. Then the called and the calling AE
title are checked, the latter together with the address.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from agseg.errors import PacsError
from agseg.io.pacs.senders import Sender, allows, known_addresses

LARGEST_OBJECT_BYTES = 3 << 29
"""A sender whose object is larger is cut off."""

MOST_ASSOCIATIONS = 20

CALLING_AET_NOT_RECOGNISED = 0x03


@dataclass(frozen=True)
class Received:
    """One object as it was sent.

    Parameters
    ----------
    content
        The bytes of a DICOM file.
    aet
        Who sent it.
    """

    content: bytes
    aet: str


Take = Callable[[Received], int]
"""Takes an object in and gives the status of its C-STORE."""


class Listener:
    """An open port; a context that closes it, and the connections to it.

    Parameters
    ----------
    port, host
        Where; port 0 takes a free one, see :attr:`port`. An empty host is every interface.
    aet
        What we must be called.
    senders
        Who may send.
    contexts
        SOP class and transfer syntaxes that are taken.
    take
        Called for each object, for several at once if there are several senders.
    tls
        None for connections without TLS.
    silence_s
        A sender that is silent for longer is cut off.

    Raises
    ------
    PacsError
        If the port cannot be had.
    UsageError
        If a sender's name is not known.
    """

    def __init__(
        self,
        port: int,
        *,
        aet: str,
        senders: Iterable[Sender],
        contexts: Sequence[tuple[str, Sequence[str]]],
        take: Take,
        tls: ssl.SSLContext | None = None,
        host: str = "",
        silence_s: float = 30.0,
    ) -> None:
        import pynetdicom
        from pynetdicom import evt
        from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

        self._known, self._take = known_addresses(senders), take
        entity = pynetdicom.AE(ae_title=aet)
        entity.require_called_aet = True
        entity.require_calling_aet = sorted(self._known)
        entity.maximum_associations = MOST_ASSOCIATIONS
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = silence_s
        entity.add_supported_context(Verification)
        for sop_class, syntaxes in contexts:
            entity.add_supported_context(sop_class, list(syntaxes))
        handlers: list[Any] = [
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_DATA_RECV, self._bounded),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_ECHO, lambda _event: 0),
        ]
        every = [network for networks in self._known.values() for network in networks]
        try:
            self._server: Any = entity.make_server(
                (host, port), evt_handlers=handlers, server_class=_server_class(), networks=every, tls=tls, silence_s=silence_s
            )
        except OSError:
            raise PacsError("the port to receive on is taken, or not ours to open", value=port) from None
        self._entity = entity
        entity._servers.append(self._server)  # what make_server leaves to start_server, and shutdown takes off again
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="agseg-listener", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that is open."""
        return int(self._server.socket.getsockname()[1])

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        for association in self._server.active_associations:
            with contextlib.suppress(Exception):
                association.abort()

    def _requested(self, event: Any) -> None:
        """The AE title must come from its own address; an unknown title is pynetdicom's to reject."""
        requestor = event.assoc.requestor
        aet = str(requestor.primitive.calling_ae_title).strip()
        if aet in self._known and not allows(self._known[aet], str(requestor.address)):
            event.assoc.acse.send_reject(0x01, 0x01, CALLING_AET_NOT_RECOGNISED)

    def _bounded(self, event: Any) -> None:
        event.assoc.agseg_bytes = getattr(event.assoc, "agseg_bytes", 0) + len(event.data)
        if event.assoc.agseg_bytes > LARGEST_OBJECT_BYTES:
            event.assoc.abort()

    def _store(self, event: Any) -> int:
        event.assoc.agseg_bytes = 0
        return self._take(Received(event.encoded_dataset(), str(event.assoc.requestor.ae_title).strip()))


def _server_class() -> Any:
    """Pynetdicom's server, with the address looked at before anything is read, and TLS agreed on in the connection's thread."""
    from pynetdicom.transport import ThreadedAssociationServer

    class Server(ThreadedAssociationServer):
        def __init__(self, *args: Any, networks: Sequence[Any], tls: Any, silence_s: float, **more: Any) -> None:
            self.networks, self.tls, self.silence_s = networks, tls, silence_s
            super().__init__(*args, **more)

        def verify_request(self, _request: Any, client_address: Any) -> bool:
            return allows(self.networks, str(client_address[0]))

        def finish_request(self, request: Any, client_address: Any) -> None:
            # From here on a peer that stops in the middle of a message ends its own connection, and nothing else.
            request.settimeout(self.silence_s)
            if self.tls is not None:
                request = self.tls.wrap_socket(request, server_side=True)
            super().finish_request(request, client_address)

        def handle_error(self, _request: Any, _client_address: Any) -> None:
            """Somebody without TLS, or with a certificate that nobody signed, hangs up: nobody's error here."""

    return Server
