"""Laws of the cache: one changed bit is refused, files are whole or not there, nothing is fetched twice or unasked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from local_servers import md5, sha256, write_manifest

from agseg.errors import Code, OutputError, WeightsError
from agseg.weights.cache import FileState, WeightsCache
from agseg.weights.manifest import Manifest

CONTENT = os.urandom(200_000)


def site(tmp_path, server, *, content=CONTENT, **over):
    file = {"filename": "net.safetensors", "url": f"{server.base}/net.bin", "sha256": sha256(content)}
    return Manifest.load(write_manifest(tmp_path, [file | over])).entry("site-net")


def opened(tmp_path, **keywords):
    return WeightsCache(tmp_path / "home", **({"offline": False} | keywords))


def test_what_is_missing_is_fetched_once_and_then_found(web, tmp_path):
    web.files["/net.bin"] = CONTENT
    entry = site(tmp_path, web)
    assert not opened(tmp_path).available(entry)
    (path,) = opened(tmp_path).ensure(entry)
    assert path.read_bytes() == CONTENT
    assert opened(tmp_path, offline=True).ensure(entry) == (path,)
    assert opened(tmp_path).available(entry)
    assert len(web.gets()) == 1
    assert not list((tmp_path / "home/weights/partial").iterdir())


def test_offline_is_an_error_that_says_what_to_do(web, tmp_path):
    web.files["/net.bin"] = CONTENT
    with pytest.raises(WeightsError) as refused:
        opened(tmp_path, offline=True).ensure(site(tmp_path, web))
    assert "agseg weights import" in str(refused.value.hint)
    assert refused.value.exit_code == 7
    assert web.asked == []


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(position=st.integers(0, len(CONTENT) - 1), bit=st.integers(0, 7))
def test_one_changed_bit_is_refused(tmp_path, position, bit):
    changed = bytearray(CONTENT)
    changed[position] ^= 1 << bit
    (tmp_path / "net.safetensors").write_bytes(changed)
    file = {"filename": "net.safetensors", "local": "net.safetensors", "sha256": sha256(CONTENT)}
    entry = Manifest.load(write_manifest(tmp_path, [file])).entry("site-net")
    with pytest.raises(WeightsError) as refused:
        opened(tmp_path).ensure(entry)
    assert refused.value.code is Code.WEIGHTS_CHECKSUM
    (tmp_path / "net.safetensors").write_bytes(CONTENT)
    assert opened(tmp_path).ensure(entry) == (tmp_path / "net.safetensors",)


def test_a_cached_file_that_changed_is_refused_and_an_import_repairs_it(web, tmp_path):
    web.files["/net.bin"] = CONTENT
    entry = site(tmp_path, web)
    (path,) = opened(tmp_path).ensure(entry)
    path.write_bytes(CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]))
    with pytest.raises(WeightsError) as refused:
        opened(tmp_path).ensure(entry)
    assert refused.value.code is Code.WEIGHTS_CHECKSUM
    assert opened(tmp_path).verify(entry)[0][1] is FileState.CORRUPT
    (tmp_path / "again").write_bytes(CONTENT)
    opened(tmp_path).add(entry.files[0], tmp_path / "again")
    assert opened(tmp_path).verify(entry)[0][1] is FileState.VERIFIED


def test_the_digest_is_checked_once_per_process_and_again_after_a_change(web, tmp_path, monkeypatch):
    web.files["/net.bin"] = CONTENT
    entry = site(tmp_path, web)
    opened(tmp_path).ensure(entry)
    cache, read = opened(tmp_path), []
    original = __import__("agseg.weights.cache", fromlist=["Digest"]).Digest.of
    monkeypatch.setattr("agseg.weights.cache.Digest.of", lambda path: read.append(path) or original(path))
    (path,) = cache.ensure(entry)
    cache.ensure(entry)
    assert len(read) == 1
    path.write_bytes(CONTENT[::-1])
    with pytest.raises(WeightsError):
        cache.ensure(entry)


def test_a_file_other_than_the_manifests_is_never_kept(web, tmp_path):
    web.files["/net.bin"] = CONTENT[::-1]
    entry = site(tmp_path, web)
    with pytest.raises(WeightsError) as refused:
        opened(tmp_path).ensure(entry)
    assert refused.value.code is Code.WEIGHTS_CHECKSUM
    assert not opened(tmp_path).available(entry)
    assert not [p for p in (tmp_path / "home/weights").rglob("*") if p.is_file() and p.suffix != ".lock"]


def test_a_wrong_partial_file_is_loaded_once_more_from_its_beginning(web, tmp_path):
    web.files["/net.bin"] = CONTENT
    web.etag = False
    entry = site(tmp_path, web)
    partial = tmp_path / "home/weights/partial" / sha256(CONTENT)
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"something else")
    (path,) = opened(tmp_path).ensure(entry)
    assert path.read_bytes() == CONTENT
    assert [wanted for _, wanted in web.gets()] == ["bytes=14-", None]


def test_a_host_outside_the_list_is_never_asked(tmp_path):
    file = {"filename": "net.safetensors", "url": "https://weights.example.org/net", "sha256": sha256(CONTENT)}
    manifest = Manifest.load(write_manifest(tmp_path, [file]))
    with pytest.raises(WeightsError, match="allowed hosts"):
        opened(tmp_path).ensure(manifest.entry("site-net"))


def test_a_site_may_name_its_hosts(tmp_path, monkeypatch):
    file = {"filename": "net.safetensors", "url": "https://weights.example.org/net", "sha256": sha256(CONTENT)}
    path = write_manifest(tmp_path, [file])
    path.write_text(path.read_text() + "allowed_hosts: [weights.example.org]\n")
    manifest = Manifest.load(path)
    reached = []
    monkeypatch.setattr(
        "agseg.weights.sources.download",
        lambda remote, partial, **_: (remote.rules.check(remote.url), reached.append(remote.url), partial.parent.mkdir(),
                                      partial.write_bytes(CONTENT)),
    )  # fmt: skip
    opened(tmp_path, allowed_hosts=manifest.allowed_hosts).ensure(manifest.entry("site-net"))
    assert reached == ["https://weights.example.org/net"]


def test_the_https_path_end_to_end(secure_web, tmp_path):
    secure_web.files["/net.bin"] = CONTENT
    (path,) = opened(tmp_path).ensure(site(tmp_path, secure_web))
    assert path.read_bytes() == CONTENT


def test_an_unwritable_home_is_an_output_error(web, tmp_path):
    web.files["/net.bin"] = CONTENT
    (tmp_path / "home").write_text("a file stands where the folder should be")
    with pytest.raises(OutputError):
        opened(tmp_path).ensure(site(tmp_path, web))


def test_files_and_folders_are_private(web, tmp_path):
    web.files["/net.bin"] = CONTENT
    opened(tmp_path).ensure(site(tmp_path, web))
    for path in (tmp_path / "home").rglob("*"):
        if path.suffix != ".lock":
            assert path.stat().st_mode & 0o077 == 0, path


def test_a_missing_local_file_is_said(tmp_path):
    file = {"filename": "net.safetensors", "local": "net.safetensors", "sha256": sha256(CONTENT)}
    entry = Manifest.load(write_manifest(tmp_path, [file])).entry("site-net")
    with pytest.raises(WeightsError, match="not there"):
        opened(tmp_path).ensure(entry)


@pytest.mark.slow
def test_two_processes_fetch_at_once_and_one_file_is_loaded(web, tmp_path):
    web.files["/net.bin"] = CONTENT
    web.delay_s = 1.0
    file = {"filename": "net.safetensors", "url": f"{web.base}/net.bin", "sha256": sha256(CONTENT), "md5": md5(CONTENT)}
    manifest = write_manifest(tmp_path, [file])
    command = [sys.executable, "-m", "agseg", "weights", "fetch", "site-net", "--manifest", str(manifest)]
    environment = os.environ | {"AGSEG_HOME": str(tmp_path / "home")}
    running = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate(timeout=60)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert len(web.gets()) == 1
    assert Path(tmp_path / "home/weights/blobs" / sha256(CONTENT)).read_bytes() == CONTENT
