"""What holds for every test: no process of it reaches a network."""

from __future__ import annotations

import subprocess
import sys

import pytest

CONNECT = "import socket; socket.create_connection(({address!r}, 9), timeout=0.2)"


@pytest.mark.parametrize(("address", "word"), [("192.0.2.1", "a process of a test tried to reach"), ("127.0.0.1", "refused")])
def test_a_child_process_reaches_loopback_only(address, word):
    done = subprocess.run([sys.executable, "-c", CONNECT.format(address=address)], capture_output=True, text=True)
    assert word in done.stderr
