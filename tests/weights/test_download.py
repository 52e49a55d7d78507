"""Laws of the one download: only allowed hosts, whole files, caps, and no byte fetched twice."""

from __future__ import annotations

import errno
import os

import pytest

from agseg.errors import Code, OutputError, WeightsError
from agseg.io.exchange import Pace, is_loopback
from agseg.weights import download as download_module
from agseg.weights.download import HostRules, Remote, download

LOOPBACK = HostRules(hosts=frozenset(), loopback=True)
CONTENT = os.urandom(700_000)


def fetched(server, partial, *, size_bytes=None, path="/net.bin"):
    download(Remote(server.base + path, LOOPBACK), partial, size_bytes=size_bytes)
    return partial.read_bytes()


@pytest.mark.parametrize(
    ("url", "is_allowed"),
    [
        ("https://weights.example.org/a", True),
        ("https://WEIGHTS.example.org/a", True),
        ("https://cdn.example.net/a", True),
        ("http://weights.example.org/a", False),
        ("https://weights.example.org:8443/a", False),
        ("https://weights.example.org.evil.test/a", False),
        ("https://evil.test/weights.example.org", False),
        ("https://weights.example.org@evil.test/a", False),
        ("https://user:word@weights.example.org/a", False),
        ("https://user:word@cdn.example.net/a", False),
        ("https://notexample.net/a", False),
        ("ftp://weights.example.org/a", False),
        ("file:///etc/passwd", False),
        ("http://localhost/a", False),
        ("https://127.0.0.1/a", False),
        ("https:///a", False),
    ],
)
def test_only_https_to_a_named_host_is_allowed(url, is_allowed):
    rules = HostRules(hosts=frozenset({"weights.example.org"}), domains=("example.net",))
    if is_allowed:
        rules.check(url)
    else:
        with pytest.raises(WeightsError, match="allowed hosts"):
            rules.check(url)


@pytest.mark.parametrize(
    ("host", "is_local"),
    [("localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("[::1]", True), ("localhost.evil.test", False),
     ("127.0.0.1.evil.test", False), ("10.0.0.1", False), ("0.0.0.0", False)],
)  # fmt: skip
def test_loopback_is_this_machine_only(host, is_local):
    assert is_loopback(f"http://{host}:80/") is is_local


def test_a_signed_url_never_stands_in_the_message():
    with pytest.raises(WeightsError) as refused:
        HostRules(hosts=frozenset()).check("https://evil.test/a?signature=secret")
    assert "secret" not in str(refused.value)


def test_a_file_arrives_whole(web, tmp_path):
    web.files["/net.bin"] = CONTENT
    assert fetched(web, tmp_path / "part") == CONTENT
    assert (tmp_path / "part").stat().st_mode & 0o077 == 0


def test_a_cut_connection_is_taken_up_where_it_broke(web, tmp_path):
    web.files["/net.bin"] = CONTENT
    web.break_off_after = [300_000, 200_000]
    assert fetched(web, tmp_path / "part") == CONTENT
    assert [wanted for _, wanted in web.gets()] == [None, "bytes=300000-", "bytes=500000-"]


def test_a_partial_file_of_an_earlier_process_is_taken_up(web, tmp_path):
    web.files["/net.bin"] = CONTENT
    web.break_off_after = [100_000] * download_module.ATTEMPTS
    with pytest.raises(WeightsError, match="did not succeed"):
        fetched(web, tmp_path / "part")
    kept = (tmp_path / "part").stat().st_size
    assert kept == 100_000 * download_module.ATTEMPTS
    web.asked.clear()
    assert fetched(web, tmp_path / "part") == CONTENT
    assert web.gets() == [("/net.bin", f"bytes={kept}-")]


def test_a_file_that_changed_meanwhile_starts_again(web, tmp_path):
    web.files["/net.bin"] = CONTENT
    web.break_off_after = [100_000] * download_module.ATTEMPTS
    with pytest.raises(WeightsError):
        fetched(web, tmp_path / "part")
    web.files["/net.bin"] = CONTENT[::-1]
    assert fetched(web, tmp_path / "part") == CONTENT[::-1]


@pytest.mark.parametrize("held", [len(CONTENT), len(CONTENT) + 5])
def test_more_than_the_server_has_starts_again(web, tmp_path, held):
    web.files["/net.bin"] = CONTENT
    (tmp_path / "part").write_bytes(b"x" * held)
    assert fetched(web, tmp_path / "part") == CONTENT


def test_a_server_without_ranges_starts_again(web, tmp_path):
    web.files["/net.bin"] = CONTENT
    web.ranges = False
    web.break_off_after = [300_000]
    assert fetched(web, tmp_path / "part") == CONTENT


def test_passing_errors_are_tried_again_and_lasting_ones_are_not(web, tmp_path):
    web.files["/net.bin"] = CONTENT
    web.answers = [503, 429]
    assert fetched(web, tmp_path / "part") == CONTENT
    web.asked.clear()
    with pytest.raises(WeightsError, match="404"):
        fetched(web, tmp_path / "other", path="/nothing")
    assert len(web.asked) == 1
    web.answers = [500] * 50
    web.asked.clear()
    with pytest.raises(WeightsError, match="500"):
        fetched(web, tmp_path / "third")
    assert len(web.asked) == download_module.ATTEMPTS


@pytest.mark.parametrize("is_announced", [True, False])
@pytest.mark.parametrize("cap", [1, 699_999])
def test_more_bytes_than_the_manifest_says_are_refused_and_not_kept(web, tmp_path, cap, is_announced):
    web.files["/net.bin"] = CONTENT
    web.lengths = is_announced
    with pytest.raises(WeightsError, match="more than"):
        fetched(web, tmp_path / "part", size_bytes=cap)
    assert not (tmp_path / "part").exists()


def test_an_allowed_redirect_is_followed(web, tmp_path):
    web.files["/net.bin"] = CONTENT
    web.redirects["/moved"] = f"{web.base}/net.bin"
    assert fetched(web, tmp_path / "part", path="/moved") == CONTENT


FORBIDDEN = [
    "https://evil.test/net.bin",
    "http://weights.example.org/net.bin",
    "https://192.0.2.1/net.bin",
    "ftp://localhost/net.bin",
    "file:///etc/hostname",
    "//evil.test/net.bin",
]


@pytest.mark.parametrize("target", FORBIDDEN)
def test_a_forbidden_redirect_is_refused_before_it_is_asked(secure_web, tmp_path, target):
    secure_web.redirects["/moved"] = target
    with pytest.raises(WeightsError, match="allowed hosts"):
        fetched(secure_web, tmp_path / "part", path="/moved")
    assert secure_web.gets() == [("/moved", None)]


def test_a_chain_of_redirects_is_checked_at_every_step(secure_web, tmp_path):
    secure_web.redirects["/a"] = f"{secure_web.base}/b"
    secure_web.redirects["/b"] = "https://evil.test/net.bin"
    with pytest.raises(WeightsError, match="allowed hosts"):
        fetched(secure_web, tmp_path / "part", path="/a")


def test_a_remote_host_cannot_send_us_to_our_own_loopback():
    rules = HostRules(hosts=frozenset({"weights.example.org"}))
    with pytest.raises(WeightsError):
        rules.check("http://127.0.0.1:9200/secret")


def test_https_is_verified(secure_web, tmp_path, monkeypatch):
    secure_web.files["/net.bin"] = CONTENT
    assert fetched(secure_web, tmp_path / "part") == CONTENT
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(WeightsError, match="certificate is not trusted"):
        fetched(secure_web, tmp_path / "other")


def test_credentials_do_not_follow_a_redirect_to_another_host(web, tmp_path):
    web.files["/net.bin"] = CONTENT
    web.redirects["/moved"] = web.base.replace("localhost", "127.0.0.1") + "/net.bin"
    download(Remote(web.base + "/moved", LOOPBACK, authorization="Bearer secret"), tmp_path / "part", size_bytes=None)
    assert [authorization for *_, authorization in web.asked] == ["Bearer secret", None]


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, Code.DISK_FULL), (errno.EROFS, Code.OUTPUT_NOT_WRITABLE)])
def test_a_full_disk_is_said_and_leaves_nothing(web, tmp_path, monkeypatch, number, code):
    web.files["/net.bin"] = CONTENT
    partial = tmp_path / "part"

    def full(growing, _piece):
        partial.write_bytes(b"half")
        raise OSError(number, "no room")

    monkeypatch.setattr(download_module._Growing, "write", full)
    with pytest.raises(OutputError) as failed:
        fetched(web, partial)
    assert failed.value.code is code
    assert not partial.exists()


def test_a_server_that_drips_is_left(web, tmp_path, monkeypatch):
    monkeypatch.setattr(download_module, "PACE", Pace(silence_s=5.0, grace_s=0.5, bytes_per_s=1e5))
    web.files["/net.bin"] = CONTENT
    web.drip_s = 0.05
    with pytest.raises(WeightsError, match="no answer in time"):
        fetched(web, tmp_path / "part")
    assert len(web.asked) == download_module.SLOW_ATTEMPTS


def test_a_circle_of_redirects_ends(web, tmp_path):
    web.redirects["/a"] = f"{web.base}/a"
    with pytest.raises(WeightsError, match="did not succeed"):
        fetched(web, tmp_path / "part", path="/a")
