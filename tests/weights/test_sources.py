"""Laws of the hub path, against a local server that speaks the hub's protocol, through the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from local_servers import COMMIT, md5, sha256, write_manifest

CONTENT = os.urandom(50_000)
REPOSITORY = "MONAI/spleen_ct_segmentation"


@pytest.fixture
def hub(web):
    web.files[f"/{REPOSITORY}/resolve/models/model.pt"] = CONTENT
    return web


def manifest(tmp_path, *, content=CONTENT, **over):
    hub_source = f"{{repository: {REPOSITORY}, revision: main, path: models/model.pt}}"
    return write_manifest(
        tmp_path, [{"filename": "model.pt", "hub": hub_source, "md5": md5(content)} | over], format="monai-pt"
    )


def agseg(tmp_path, hub, *arguments, **environment):
    site = tmp_path / "site.yaml"
    base = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    settings = {"AGSEG_HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": hub.base} | environment
    command = [sys.executable, "-m", "agseg", "weights", *arguments, "--manifest", str(site)]
    return subprocess.run(command, env=base | settings, capture_output=True, text=True, timeout=60, cwd="/")


def test_a_file_comes_from_the_hub_and_its_commit_and_digest_are_recorded(hub, tmp_path):
    manifest(tmp_path)
    done = agseg(tmp_path, hub, "fetch", "site-net")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "home/weights/blobs" / sha256(CONTENT)).read_bytes() == CONTENT
    (record,) = [json.loads(path.read_text()) for path in (tmp_path / "home/weights/trust").iterdir()]
    assert (record["commit"], record["sha256"], record["repository"]) == (COMMIT, sha256(CONTENT), REPOSITORY)
    shown = json.loads(agseg(tmp_path, hub, "show", "site-net", "--json").stdout)
    assert shown["files"][0]["sha256"] == sha256(CONTENT)
    assert [method for method, *_ in hub.asked] == ["HEAD", "GET"]


@pytest.mark.slow
def test_the_md5_is_checked_at_the_first_fetch(hub, tmp_path):
    manifest(tmp_path, content=CONTENT[::-1])
    done = agseg(tmp_path, hub, "fetch", "site-net")
    assert done.returncode == 7
    assert "E_WEIGHTS_CHECKSUM" in done.stderr
    assert "MD5" in done.stderr
    assert not (tmp_path / "home/weights/trust").exists()


@pytest.mark.slow
def test_the_recorded_commit_is_what_a_later_fetch_asks_for(hub, tmp_path):
    manifest(tmp_path)
    agseg(tmp_path, hub, "fetch", "site-net")
    (tmp_path / "home/weights/blobs" / sha256(CONTENT)).unlink()
    hub.asked.clear()
    assert agseg(tmp_path, hub, "fetch", "site-net").returncode == 0
    assert all(f"/resolve/{COMMIT}/" in path for _, path, *_ in hub.asked)


@pytest.mark.slow
def test_a_moved_commit_is_refused_at_a_later_fetch(hub, tmp_path):
    manifest(tmp_path)
    agseg(tmp_path, hub, "fetch", "site-net")
    (tmp_path / "home/weights/blobs" / sha256(CONTENT)).unlink()
    hub.files[f"/{REPOSITORY}/resolve/{COMMIT}/models/model.pt"] = CONTENT  # a hub that answers whatever is asked ...
    hub.commit = "f" * 40  # ... with another commit
    done = agseg(tmp_path, hub, "fetch", "site-net")
    assert done.returncode == 7
    assert "another commit" in done.stderr
    del hub.files[f"/{REPOSITORY}/resolve/{COMMIT}/models/model.pt"]
    assert agseg(tmp_path, hub, "fetch", "site-net").returncode == 7


@pytest.mark.slow
def test_other_bytes_are_refused_at_a_later_fetch(hub, tmp_path):
    manifest(tmp_path)
    agseg(tmp_path, hub, "fetch", "site-net")
    (tmp_path / "home/weights/blobs" / sha256(CONTENT)).unlink()
    hub.files[f"/{REPOSITORY}/resolve/models/model.pt"] = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    done = agseg(tmp_path, hub, "fetch", "site-net")
    assert done.returncode == 7
    assert "E_WEIGHTS_CHECKSUM" in done.stderr


@pytest.mark.slow
def test_a_damaged_record_is_no_new_first_fetch(hub, tmp_path):
    manifest(tmp_path)
    agseg(tmp_path, hub, "fetch", "site-net")
    (record,) = (tmp_path / "home/weights/trust").iterdir()
    record.write_text("{}")
    assert agseg(tmp_path, hub, "fetch", "site-net").returncode == 7


@pytest.mark.slow
def test_the_token_goes_to_the_hub_and_not_to_its_download_host(hub, tmp_path):
    manifest(tmp_path)
    path = f"/{REPOSITORY}/resolve/main/models/model.pt"
    other = hub.base.replace("localhost", "127.0.0.1")
    hub.files[path] = hub.files["/cdn/blob"] = CONTENT
    hub.redirects[path] = f"{other}/cdn/blob"
    done = agseg(tmp_path, hub, "fetch", "site-net", HF_TOKEN="hf_secret")
    assert done.returncode == 0, done.stderr
    seen = {path: authorization for _, path, _, authorization in hub.asked}
    assert seen[path] == "Bearer hf_secret"
    assert seen["/cdn/blob"] is None
    assert "hf_secret" not in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("target", ["https://evil.test/blob", "http://10.0.0.1/blob"])
def test_the_hub_cannot_send_us_anywhere(hub, tmp_path, target):
    manifest(tmp_path)
    hub.redirects[f"/{REPOSITORY}/resolve/main/models/model.pt"] = target
    done = agseg(tmp_path, hub, "fetch", "site-net")
    assert done.returncode == 7
    assert "allowed hosts" in done.stderr


@pytest.mark.slow
def test_plain_http_to_another_machine_is_refused_without_a_request(hub, tmp_path):
    manifest(tmp_path)
    done = agseg(tmp_path, hub, "fetch", "site-net", HF_ENDPOINT="http://192.0.2.1:8080")
    assert done.returncode == 7
    assert "allowed hosts" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "environment"), [(["--offline"], {}), ([], {"HF_HUB_OFFLINE": "1"})])
def test_offline_asks_nobody(hub, tmp_path, arguments, environment):
    manifest(tmp_path)
    done = agseg(tmp_path, hub, "fetch", "site-net", *arguments, **environment)
    assert done.returncode == 7
    assert "network access is disabled" in done.stderr
    assert hub.asked == []


@pytest.mark.slow
def test_a_file_that_the_hubs_own_cache_has_is_taken_from_there(hub, tmp_path):
    manifest(tmp_path)
    folder = tmp_path / "hf/hub/models--MONAI--spleen_ct_segmentation"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text(COMMIT)
    kept = folder / f"snapshots/{COMMIT}/models/model.pt"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(CONTENT)
    done = agseg(tmp_path, hub, "fetch", "site-net", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert hub.asked == []
    assert kept.read_bytes() == CONTENT
    (record,) = [json.loads(path.read_text()) for path in (tmp_path / "home/weights/trust").iterdir()]
    assert record["commit"] == COMMIT


@pytest.mark.slow
def test_a_repository_that_is_not_there_is_said(hub, tmp_path):
    manifest(tmp_path, hub="{repository: MONAI/none, revision: main, path: model.pt}")
    done = agseg(tmp_path, hub, "fetch", "site-net")
    assert done.returncode == 7
    assert "404" in done.stderr


@pytest.mark.slow
def test_an_interrupted_hub_download_is_taken_up(hub, tmp_path):
    manifest(tmp_path)
    hub.break_off_after = [20_000]
    done = agseg(tmp_path, hub, "fetch", "site-net")
    assert done.returncode == 0, done.stderr
    assert [wanted for _, wanted in hub.gets()] == [None, "bytes=20000-"]
