"""A connection that came to nothing says why in words, whatever library wrapped the cause."""

from __future__ import annotations

import http.client
import socket
import ssl
import urllib.error

import pytest

from agseg.io.connection import UNTRUSTED, why_no_connection

CAUSES = [
    (socket.gaierror(-2, "secret.example"), "its name is not known here"),
    (ConnectionRefusedError(111, "secret"), "the connection is refused"),
    (TimeoutError("secret"), "no answer within 3 s"),
    (ConnectionResetError(104, "secret"), "it cut the connection"),
    (http.client.RemoteDisconnected("secret"), "it cut the connection"),
    (http.client.IncompleteRead(b"secret"), "it cut the connection"),
    (ssl.SSLCertVerificationError("secret"), UNTRUSTED),
    (ssl.SSLError("secret"), "TLS handshake failed: no common protocol or cipher"),
    (OSError(113, "secret"), "no route to host"),
    (http.client.BadStatusLine("secret"), "its answer is not one of such a server"),
]


@pytest.mark.parametrize(("cause", "words"), CAUSES)
def test_the_cause_is_found_behind_every_wrapping(cause: Exception, words: str) -> None:
    chained = RuntimeError("wrapped")
    chained.__cause__ = cause
    handled = RuntimeError("wrapped")
    handled.__context__ = ValueError(cause)
    for error in (cause, urllib.error.URLError(cause), RuntimeError("wrapped", cause), chained, handled):
        assert why_no_connection(error, timeout_s=3.0) == words
