"""A file is there whole or not at all, and only its owner may read it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time

import pytest

from agseg.errors import Code, OutputError
from agseg.io.atomic import TEMPORARY_SUFFIX, make_folder, replacing, write_bytes, write_text


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o077, 0o022])
def umask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


def test_modes_whatever_the_umask(tmp_path, umask):
    write_text(tmp_path / "a" / "b" / "x.json", "{}")
    assert mode(tmp_path / "a" / "b" / "x.json") == 0o600
    assert mode(tmp_path / "a") == mode(tmp_path / "a" / "b") == 0o700


def test_mode_even_if_the_writer_changes_it(tmp_path):
    with replacing(tmp_path / "x") as temporary:
        temporary.write_text("")
        temporary.chmod(0o644)
    assert mode(tmp_path / "x") == 0o600


def test_existing_folder_keeps_its_mode(tmp_path):
    tmp_path.chmod(0o755)
    make_folder(tmp_path)
    assert mode(tmp_path) == 0o755


def test_old_file_stays_until_the_new_one_is_whole(tmp_path):
    write_bytes(tmp_path / "x", b"old")

    def stopped_half_way():
        with replacing(tmp_path / "x") as temporary:
            temporary.write_bytes(b"half")
            assert temporary.name.startswith(".")
            assert (tmp_path / "x").read_bytes() == b"old"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        stopped_half_way()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


def test_a_file_that_does_not_read_back_is_not_published(tmp_path):
    def check(_path):
        raise OutputError("it is not what was written")

    with pytest.raises(OutputError):
        write_bytes(tmp_path / "x", b"new", check=check)
    assert list(tmp_path.iterdir()) == []


def test_links_are_not_written_through(tmp_path):
    (tmp_path / "target").write_text("keep")
    (tmp_path / "x").symlink_to(tmp_path / "target")
    with pytest.raises(OutputError) as caught:
        write_text(tmp_path / "x", "new")
    assert caught.value.code is Code.SYMLINK
    assert (tmp_path / "target").read_text() == "keep"


def test_disk_full_is_said_and_leaves_nothing(tmp_path, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError) as caught:
        write_text(tmp_path / "x", "new")
    assert caught.value.code is Code.DISK_FULL
    assert list(tmp_path.iterdir()) == []


def test_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(OutputError):
        write_text(tmp_path / "x" / "y", "")


WRITER = """
import sys
from pathlib import Path
from agseg.io.atomic import write_bytes
print("ready", flush=True)
for number in range(10**6):
    write_bytes(Path(sys.argv[1]) / "x", bytes([number % 256]) * 300_000)
"""


def test_killed_at_any_moment_leaves_whole_files_only(tmp_path):
    for moment in range(4):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE) as writer:
            writer.stdout.readline()
            time.sleep(0.02 + 0.013 * moment)
            writer.send_signal(signal.SIGKILL)
        if (tmp_path / "x").exists():
            content = (tmp_path / "x").read_bytes()
            assert len(content) == 300_000
            assert len(set(content)) == 1
    # What a killed writer leaves is hidden and known by its name, so that the next run can sweep it away.
    left = {path.name for path in tmp_path.iterdir()} - {"x"}
    assert all(name.startswith(".") and TEMPORARY_SUFFIX in name for name in left)
