"""Laws of bundles: what goes in comes out, and no tar that is anything else gets further than its list of members."""

from __future__ import annotations

import io
import json
import os
import tarfile

import pytest
from local_servers import sha256

from agseg.errors import Code, WeightsError
from agseg.weights.bundle import BUNDLE_SCHEMA, INDEX_NAME, Bundle, BundledFile, is_bundle, write_bundle

CONTENT = os.urandom(30_000)
LINE = {"filename": "net.safetensors", "sha256": sha256(CONTENT), "size_bytes": len(CONTENT), "commit": None}
NAME = f"files/{sha256(CONTENT)}"


def index(*lines, schema=BUNDLE_SCHEMA):
    return json.dumps({"schema": schema, "files": list(lines)}).encode()


def write_tar(path, members, *, mode="w"):
    """Members are (name, content) or ready TarInfos."""
    with tarfile.open(path, mode) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return path


def read(path, folder):
    with Bundle.open(path) as bundle:
        for number, file in enumerate(bundle.files):
            bundle.extract(file, folder / f"out{number}")
        return bundle.files


def special(kind, name=NAME):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


def test_what_goes_in_comes_out_and_the_bytes_are_always_the_same(tmp_path):
    source = tmp_path / "net.safetensors"
    source.write_bytes(CONTENT)
    bundled = BundledFile("net.safetensors", sha256(CONTENT), len(CONTENT), "a" * 40)
    for name in ("a.tar", "b.tar"):
        write_bundle(tmp_path / name, [(bundled, source), (bundled, source)])
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert is_bundle(tmp_path / "a.tar")
    assert not is_bundle(source)
    assert read(tmp_path / "a.tar", tmp_path) == (bundled,)
    assert (tmp_path / "out0").read_bytes() == CONTENT


def test_a_file_that_changed_is_not_exported(tmp_path):
    (tmp_path / "net").write_bytes(CONTENT[::-1])
    with pytest.raises(WeightsError):
        write_bundle(tmp_path / "a.tar", [(BundledFile("net", sha256(CONTENT), len(CONTENT)), tmp_path / "net")])
    assert not (tmp_path / "a.tar").exists()


UNSAFE = {
    "absolute path": [(INDEX_NAME, index(LINE)), ("/" + NAME, CONTENT)],
    "parent folder": [(INDEX_NAME, index(LINE)), ("files/../../" + NAME, CONTENT)],
    "any other name": [(INDEX_NAME, index(LINE)), (NAME, CONTENT), ("files/evil.sh", b"#!/bin/sh")],
    "symbolic link": [(INDEX_NAME, index(LINE)), special(tarfile.SYMTYPE)],
    "hard link": [(INDEX_NAME, index(LINE)), special(tarfile.LNKTYPE)],
    "pipe": [(INDEX_NAME, index(LINE)), special(tarfile.FIFOTYPE)],
    "device": [(INDEX_NAME, index(LINE)), special(tarfile.CHRTYPE)],
    "folder": [(INDEX_NAME, index(LINE)), special(tarfile.DIRTYPE)],
    "a link as index": [special(tarfile.SYMTYPE, INDEX_NAME), (NAME, CONTENT)],
    "the same twice": [(INDEX_NAME, index(LINE)), (NAME, CONTENT), (NAME, CONTENT)],
    "no index": [(NAME, CONTENT)],
    "unlisted file": [(INDEX_NAME, index()), (NAME, CONTENT)],
    "listed but absent": [(INDEX_NAME, index(LINE))],
    "index is no JSON": [(INDEX_NAME, b"{"), (NAME, CONTENT)],
    "index with other keys": [(INDEX_NAME, index(LINE | {"path": "/etc"})), (NAME, CONTENT)],
    "commit that is a path": [(INDEX_NAME, index(LINE | {"commit": "../../x"})), (NAME, CONTENT)],
    "too large an index": [(INDEX_NAME, b" " * 1024**2 + index(LINE)), (NAME, CONTENT)],
    "too many files": [(INDEX_NAME, index()), *((f"files/{n:064x}", b"") for n in range(300))],
}


@pytest.mark.parametrize("members", UNSAFE.values(), ids=UNSAFE)
def test_an_unsafe_archive_is_refused_and_nothing_is_unpacked(tmp_path, members):
    path = write_tar(tmp_path / "a.tar", members)
    with pytest.raises(WeightsError) as refused:
        read(path, tmp_path)
    assert refused.value.code is Code.UNSAFE_ARCHIVE
    assert {p.name for p in tmp_path.iterdir()} == {"a.tar"}


@pytest.mark.parametrize(
    "members",
    [[(INDEX_NAME, index(LINE)), (NAME, CONTENT[::-1])], [(INDEX_NAME, index(LINE | {"size_bytes": 1})), (NAME, CONTENT)]],
)
def test_bytes_that_are_not_those_of_the_index_are_refused(tmp_path, members):
    with pytest.raises(WeightsError) as refused:
        read(write_tar(tmp_path / "a.tar", members), tmp_path)
    assert refused.value.code is Code.WEIGHTS_CHECKSUM


@pytest.mark.parametrize("kept", [0, 100, 700, 2000, 20_000])
def test_a_bundle_that_breaks_off_is_refused(tmp_path, kept):
    path = write_tar(tmp_path / "a.tar", [(INDEX_NAME, index(LINE)), (NAME, CONTENT)])
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(WeightsError):
        read(path, tmp_path)


def test_a_compressed_archive_is_not_opened(tmp_path):
    with pytest.raises(WeightsError):
        read(write_tar(tmp_path / "a.tar.gz", [(INDEX_NAME, index(LINE)), (NAME, CONTENT)], mode="w:gz"), tmp_path)


def test_another_version_is_said(tmp_path):
    with pytest.raises(WeightsError, match="another version"):
        read(write_tar(tmp_path / "a.tar", [(INDEX_NAME, index(LINE, schema="agseg.bundle/2")), (NAME, CONTENT)]), tmp_path)
