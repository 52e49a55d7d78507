"""Every test: no network but loopback, a fresh cache folder, a fixed seed."""

from __future__ import annotations

import itertools
import os
import random
import re
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.processor_time"]

SEED = 20260101

SHARED = Path(__file__).resolve().parents[2] / "shared"

_LOOPBACK = ("127.", "::1", "localhost")

# Shared machines are slow at times: a law is about results, not about milliseconds.
settings.register_profile(
    "agseg", deadline=None, derandomize=True, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("agseg")


_ALL_SLOW = re.compile(r"^pytestmark = .*pytest\.mark\.slow\b", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Without slow tests, a file that has no others is not imported either: imports are much of what the quick ones cost."""
    if config.option.markexpr == "not slow" and collection_path.suffix == ".py":
        return bool(_ALL_SLOW.search(collection_path.read_text(encoding="utf-8"))) or None
    return None


class NetworkUsedError(RuntimeError):
    """A test tried to reach something that is not this machine."""


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    real_connect, real_lookup = socket.socket.connect, socket.getaddrinfo

    def connect(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and not str(address[0]).startswith(_LOOPBACK):
            raise NetworkUsedError(f"a test tried to connect to {address[0]}")
        return real_connect(self, address)

    def lookup(host: Any, *args: Any, **kwargs: Any) -> object:
        name = host.decode() if isinstance(host, bytes) else str(host or "localhost")
        if not name.startswith(_LOOPBACK) and name not in ("", "0.0.0.0", socket.gethostname()):
            raise NetworkUsedError(f"a test tried to look up {name}")
        return real_lookup(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", lookup)


@pytest.fixture(autouse=True)
def _offline_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python processes that a test starts load ``tests/guard/sitecustomize.py``, which holds the same rule there."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "guard"), prepend=os.pathsep)


@pytest.fixture(scope="session")
def _homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Numbered here: pytest looks through all of its folders for the next number, and each test has one of these."""
    folder = tmp_path_factory.mktemp("agseg-homes")

    def made() -> Iterator[Path]:
        for number in itertools.count():
            home = folder / str(number)
            home.mkdir(mode=0o700)
            yield home

    return made()


@pytest.fixture(autouse=True)
def _fresh_home(monkeypatch: pytest.MonkeyPatch, _homes: Iterator[Path]) -> None:
    monkeypatch.setenv("AGSEG_HOME", str(next(_homes)))
    for name in ("HF_HOME", "HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    random.seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002 - libraries still draw from it


@pytest.fixture
def rng() -> np.random.Generator:
    """A random generator that gives the same numbers in every run."""
    return np.random.default_rng(SEED)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch computes on one thread: several that wait for each other cost far more than they give on tiny tiles."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real data beside the project; the test is skipped, visibly, where it is absent."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("needs the real data in ../shared/data")
    return folder


@pytest.fixture(scope="session")
def shared_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked corpus of odd and broken inputs; the test is skipped, visibly, where it is absent."""
    packed = SHARED / "corpus" / "corpus.tar.gz"
    if not packed.is_file():
        pytest.skip("needs the corpus in ../shared/corpus")
    folder = tmp_path_factory.mktemp("corpus")
    with tarfile.open(packed) as archive:
        # The corpus holds links and a named pipe on purpose, so tarfile's "data" filter would refuse it.
        archive.extractall(folder, filter="fully_trusted")
    return folder


def is_root() -> bool:
    """Whether file permissions mean nothing to this process."""
    return hasattr(os, "geteuid") and os.geteuid() == 0
