"""Servers on this machine's loopback: a web server with faults to order, and a hub that speaks the Hugging Face protocol."""

from __future__ import annotations

import hashlib
import re
import ssl
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "5b1b2c3d4e5f60718293a4b5c6d7e8f901234567"

ENTRY = """
schema: agseg.weights/1
entries:
  {id}:
    architecture: unet
    format: {format}
    files:
{files}
    input: {{modality: CT, axis_codes: RAS, spacing_mm: [2, 2, 2], normalisation: zscore, tile: [16, 16, 16]}}
    labels: {{1: pancreas}}
    licence: CC0-1.0
    citation: none
    attribution: made by this test
    intended_use: tests
"""


def write_manifest(folder: Path, files: list[dict[str, object]], *, id: str = "site-net", format: str = "safetensors") -> Path:
    """A site's manifest with one entry of these files."""
    lines = []
    for file in files:
        keys = [f"{key}: {value}" for key, value in file.items() if value is not None]
        lines.append("      - " + "\n        ".join(keys))
    path = folder / "site.yaml"
    path.write_text(ENTRY.format(id=id, format=format, files="\n".join(lines)))
    return path


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@dataclass
class LocalServer:
    """What is served, which faults are ordered, and what was asked."""

    base: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    commit: str = COMMIT
    break_off_after: list[int] = field(default_factory=list)
    """Of each coming GET: bytes after which the connection is cut."""
    answers: list[int] = field(default_factory=list)
    """Statuses of the coming GETs, before any is served."""
    ranges: bool = True
    delay_s: float = 0.0
    drip_s: float = 0.0
    """Pause after each hundred bytes."""
    etag: bool = True
    lengths: bool = True
    """Whether the size is announced."""
    asked: list[tuple[str, str, str | None, str | None]] = field(default_factory=list)
    """(method, path, Range, Authorization)."""

    def gets(self) -> list[tuple[str, str | None]]:
        return [(path, wanted) for method, path, wanted, _ in self.asked if method == "GET"]


def _handler(server: LocalServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_HEAD(self):
            self.serve("HEAD")

        def do_GET(self):
            self.serve("GET")

        def serve(self, method):
            server.asked.append((method, self.path, self.headers.get("Range"), self.headers.get("Authorization")))
            if method == "GET" and server.answers:
                return self.send_error(server.answers.pop(0))
            if self.path in server.redirects:
                self.send_response(302)
                self.hub_headers(server.files.get(self.path, b""))
                self.send_header("Location", server.redirects[self.path])
                self.send_header("Content-Length", "0")
                return self.end_headers()
            # /{repo}/resolve/{revision}/{file}: any revision that names today's content
            path = re.sub(r"/resolve/(main|" + server.commit + ")/", "/resolve/", self.path)
            if path not in server.files:
                return self.send_error(404)
            return self.send_content(method, server.files[path])

        def hub_headers(self, content):
            if "/resolve/" in self.path:
                self.send_header("X-Repo-Commit", server.commit)
                self.send_header("X-Linked-ETag", f'"{sha256(content)}"')
                self.send_header("X-Linked-Size", str(len(content)))

        def send_content(self, method, content):
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
            start = int(wanted[1]) if wanted and server.ranges else 0
            if start >= len(content) > 0 and start:
                return self.send_error(416)
            if_range = self.headers.get("If-Range")
            if if_range is not None and if_range != f'"{sha256(content)}"':
                start = 0
            self.send_response(206 if start else 200)
            self.hub_headers(content)
            if server.etag:
                self.send_header("ETag", f'"{sha256(content)}"')
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if server.lengths:
                self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            if method == "GET":
                time.sleep(server.delay_s)
                body = content[start:]
                if server.break_off_after:
                    self.wfile.write(body[: server.break_off_after.pop(0)])
                    self.close_connection = True
                elif server.drip_s:
                    for at in range(0, len(body), 100):
                        self.wfile.write(body[at : at + 100])
                        time.sleep(server.drip_s)
                else:
                    self.wfile.write(body)
            return None

    return Handler


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """Clients that hang up are part of these tests."""


def serve(context: ssl.SSLContext | None = None):
    local = LocalServer()
    http = _Quiet(("127.0.0.1", 0), _handler(local))
    http.daemon_threads = True
    if context is not None:
        http.socket = context.wrap_socket(http.socket, server_side=True)
    local.base = f"{'https' if context else 'http'}://localhost:{http.server_port}"
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return local, http
