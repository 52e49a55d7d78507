"""The local servers as fixtures."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from local_servers import serve


@pytest.fixture
def web():
    """A plain http server on the loopback, which is where plain http is allowed."""
    local, http = serve()
    yield local
    http.shutdown()
    http.server_close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    """A self-made certificate for localhost and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: no certificate for the local https server")
    folder = tmp_path_factory.mktemp("certificate")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


@pytest.fixture
def secure_web(certificate, monkeypatch):
    """An https server whose certificate this process trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    local, http = serve(context)
    yield local
    http.shutdown()
    http.server_close()


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch):
    monkeypatch.setattr("agseg.weights.download.BACKOFF_S", 0.0)
