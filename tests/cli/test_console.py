"""What is said arrives, whatever the terminal can spell."""

from __future__ import annotations

import io
import json
import sys

import pytest

from agseg.cli import console


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_name_can_be_said_in_every_encoding(monkeypatch, encoding):
    name = "scan één 中文 \udcff"[: None if encoding != "utf-8" else -1]
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    console.speak_any_locale()
    console.note(name)
    console.document({"input": name})
    streams[0].flush()
    assert json.loads(streams[0].buffer.getvalue().decode(encoding)) == {"input": name}
