from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from agseg.io.pacs import archive as pacs_archive
from tests.io.pacs.archives import Shelf, WebShelf, dimse_archive, web_archive
from tests.io.pacs.running import Running


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacs_archive, "sleep", lambda _seconds: None)


@pytest.fixture(params=["web", "dimse"])
def archive(request: pytest.FixtureRequest) -> Iterator[Running]:
    with ExitStack() as running:
        if request.param == "web":
            shelf = WebShelf()
            yield Running(shelf, running.enter_context(web_archive(shelf)))
        else:
            plain = Shelf()
            port = running.enter_context(dimse_archive(plain))
            yield Running(plain, f"dicom://ARCHIVE@127.0.0.1:{port}")


@pytest.fixture
def web() -> Iterator[Running]:
    shelf = WebShelf()
    with web_archive(shelf) as address:
        yield Running(shelf, address)
