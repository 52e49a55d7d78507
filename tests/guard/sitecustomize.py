"""Loaded by each Python process of a test (tests/conftest.py puts this folder on the path): no network but loopback."""

from __future__ import annotations

import sys

_LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        if isinstance(address, tuple) and not str(address[0]).startswith(_LOOPBACK):
            raise RuntimeError(f"a process of a test tried to reach {address[0]}")


sys.addaudithook(_refuse)
