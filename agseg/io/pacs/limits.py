"""How an archive may be spoken to: how long, how often, as whom, and whom to trust."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from agseg.errors import UsageError
from agseg.io.exchange import Pace, trusted
from agseg.io.pacs.address import AE_TITLE
from agseg.io.pacs.senders import Sender

GRACE = 5
"""A transfer that hardly moves ends after so many time-outs."""


@dataclass(frozen=True)
class PacsLimits:
    """How long to wait, how often to try, and what to trust.

    Parameters
    ----------
    timeout_s
        For connecting, and longest silence. A transfer may take five times as long, or whatever 10 kB/s make of its size.
    retries
        Attempts after the first, with growing pauses, where an archive is out of reach or busy.
    ca_file
        Certificates to trust instead of the system's; verification itself cannot be switched off.
    calling_aet
        Our own AE title (DIMSE).
    move_port
        Port to receive on with C-MOVE; None uses C-GET, which needs none (DIMSE).
    allow_plain_http
        Whether http without TLS may leave this machine; credentials never do.
    tls_cert, tls_key
        Our own certificate and its key (PEM): shown to an archive that asks, and needed to receive over TLS.
    senders
        Who may send to ``move_port`` beside the archive's own AE title and address.
    """

    timeout_s: float = 30.0
    retries: int = 3
    ca_file: Path | None = None
    calling_aet: str = "AGSEG"
    move_port: int | None = None
    allow_plain_http: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    senders: tuple[Sender, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.timeout_s <= 3600 or not 0 <= self.retries <= 20:
            raise UsageError("time-out or number of retries out of range", expected="0 to 3600 s, 0 to 20 retries")
        if not AE_TITLE.fullmatch(self.calling_aet):
            raise UsageError("an AE title has 1 to 16 printable characters", value=self.calling_aet)
        if self.ca_file is not None and not self.ca_file.is_file():
            raise UsageError("the file of trusted certificates does not exist", path=self.ca_file)
        for file in (self.tls_cert, self.tls_key):
            if file is not None and not file.is_file():
                raise UsageError("the file with our own certificate, or its key, does not exist", path=file)
        if self.tls_key is not None and self.tls_cert is None:
            raise UsageError("a key without its certificate", path=self.tls_key, hint="Name both: --tls-cert and --tls-key.")

    @property
    def pace(self) -> Pace:
        """How slow a transfer may be."""
        return Pace(self.timeout_s, GRACE * self.timeout_s)

    def client_context(self) -> ssl.SSLContext:
        """TLS towards the archive: its certificate is verified, ours is shown if there is one."""
        context = trusted(self.ca_file)
        self._load_own(context)
        return context

    def server_context(self) -> ssl.SSLContext:
        """TLS for what the archive opens to us: its certificate is asked for, and verified.

        Raises
        ------
        UsageError
            Without a certificate of our own.
        """
        if self.tls_cert is None:
            raise UsageError(
                "images would come back without TLS: receiving on a port needs a certificate of our own",
                expected="--tls-cert and --tls-key",
                hint="Or leave --move-port out: C-GET brings the images over the encrypted connection.",
            )
        context = ssl.create_default_context(
            ssl.Purpose.CLIENT_AUTH, cafile=None if self.ca_file is None else str(self.ca_file)
        )
        context.verify_mode = ssl.CERT_REQUIRED
        self._load_own(context)
        return context

    def _load_own(self, context: ssl.SSLContext) -> None:
        if self.tls_cert is None:
            return
        try:
            context.load_cert_chain(self.tls_cert, self.tls_key)
        except (OSError, ssl.SSLError):
            raise UsageError("our own certificate and its key cannot be used", path=self.tls_cert, expected="PEM") from None
