"""Laws of one HTTP exchange: a server cannot talk its way around silence, slowness or length."""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest

from agseg.io.connection import why_no_connection
from agseg.io.exchange import HttpClient, Pace, TooLongError, trusted

QUICK = Pace(silence_s=0.5, grace_s=1.0, bytes_per_s=1000.0)


@contextmanager
def server(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            try:
                answer(self)
            except OSError:
                self.close_connection = True

        do_POST = do_GET

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    threading.Thread(target=running.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{running.server_port}/"
    finally:
        running.shutdown()
        running.server_close()


@pytest.fixture
def client() -> Iterator[HttpClient]:
    made = HttpClient(pace=QUICK, verify=trusted())
    yield made
    made.close()


def chunk(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    handler.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
    handler.wfile.flush()


def begin(handler: BaseHTTPRequestHandler, **headers: str) -> None:
    handler.send_response(200)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()


def drip_body(handler: BaseHTTPRequestHandler) -> None:
    begin(handler, Transfer_Encoding="chunked")
    for _ in range(100):
        chunk(handler, b" ")
        time.sleep(0.1)


def drip_announced(handler: BaseHTTPRequestHandler) -> None:
    begin(handler, Content_Length="100")
    for _ in range(100):
        handler.wfile.write(b" ")
        time.sleep(0.1)


def drip_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(100):
        handler.wfile.write(f"X-{number}: a\r\n".encode())
        time.sleep(0.1)


def silence(_: BaseHTTPRequestHandler) -> None:
    time.sleep(10)


@pytest.mark.parametrize("answer", [drip_body, drip_announced, drip_headers, silence])
def test_promise_39_a_server_that_drips_or_says_nothing_is_not_waited_for(
    client: HttpClient, answer: Callable[..., None]
) -> None:
    with server(answer) as url, pytest.raises((TimeoutError, httpx2.TimeoutException)) as caught:
        client.ask("GET", url, most_bytes=1000)
    assert why_no_connection(caught.value) == "no answer in time"


def test_a_long_transfer_that_keeps_its_pace_is_let_finish(client: HttpClient) -> None:
    def steady(handler: BaseHTTPRequestHandler) -> None:
        begin(handler, Transfer_Encoding="chunked")
        for _ in range(15):
            chunk(handler, bytes(1000))
            time.sleep(0.1)
        chunk(handler, b"")

    with server(steady) as url:
        assert len(client.ask("GET", url, most_bytes=20_000).content) == 15_000


def endless(handler: BaseHTTPRequestHandler) -> None:
    begin(handler, Transfer_Encoding="chunked")
    while True:
        chunk(handler, bytes(65536))


def announced(handler: BaseHTTPRequestHandler) -> None:
    begin(handler, Content_Length="5000000")
    handler.wfile.write(bytes(5_000_000))


def bomb(handler: BaseHTTPRequestHandler) -> None:
    content = gzip.compress(bytes(50_000_000), 1)
    begin(handler, Content_Encoding="gzip", Content_Length=str(len(content)))
    handler.wfile.write(content)


@pytest.mark.parametrize("answer", [endless, announced, bomb])
def test_a_cap_holds_without_a_length_with_one_and_through_gzip(client: HttpClient, answer: Callable[..., None]) -> None:
    taken = 0

    def sink(_: object) -> Callable[[bytes], None]:
        def take(piece: bytes) -> None:
            nonlocal taken
            taken += len(piece)

        return take

    with server(answer) as url, pytest.raises(TooLongError):
        client.ask("GET", url, most_bytes=1_000_000, sink=sink)
    assert taken <= 1_000_000


def test_what_is_sent_arrives_and_its_length_is_said(client: HttpClient) -> None:
    came: list[bytes] = []

    def take(handler: BaseHTTPRequestHandler) -> None:
        came.append(handler.rfile.read(int(handler.headers["Content-Length"])))
        begin(handler, Content_Length="0")

    with server(take) as url:
        pieces = [bytes([n]) * 1000 for n in range(50)]
        assert client.ask("POST", url, most_bytes=10, content=pieces, headers={"Content-Length": "50000"}).status == 200
    assert came == [b"".join(pieces)]


def test_redirections_are_not_followed(client: HttpClient) -> None:
    def elsewhere(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", "http://127.0.0.1:9/")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with server(elsewhere) as url:
        assert client.ask("GET", url, most_bytes=10).status == 302


COLLECTED_INSIDE_A_LOCK = """
import asyncio, gc, threading
from agseg.io.exchange import HttpClient, Pace, trusted

client = HttpClient(pace=Pace(silence_s=1.0, grace_s=1.0), verify=trusted())
client._runner.run(asyncio.to_thread(int))  # as a look-up of a name leaves a thread behind
with threading._active_limbo_lock:  # as threading.enumerate() holds it
    del client
    gc.collect()
print("closed")
"""


def test_a_client_that_is_collected_inside_a_lock_of_threading_waits_for_no_thread() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COLLECTED_INSIDE_A_LOCK], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "closed\n", done.stderr
