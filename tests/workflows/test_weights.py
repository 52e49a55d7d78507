"""The weights commands as people and scripts use them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from agseg.cli.app import main

SHOWN_BY_LIST = {"id", "architecture", "organs", "modality", "licence", "size_bytes", "available", "default_for"}

CONTENTS = (os.urandom(5000), os.urandom(6000))


@pytest.fixture
def agseg(monkeypatch, capsys):
    """The command line in this process: what a fresh one would print and return, without a second's start each time."""

    def run(*arguments, home=None):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["agseg", "weights", *map(str, arguments)])
            if home is not None:
                patch.setenv("AGSEG_HOME", str(home))
            with pytest.raises(SystemExit) as left:
                main()
        captured = capsys.readouterr()
        return SimpleNamespace(returncode=int(left.value.code or 0), stdout=captured.out, stderr=captured.err)

    return run


@pytest.fixture
def site(tmp_path):
    """A manifest whose two files no network has, and the files."""
    lines = []
    for number, content in enumerate(CONTENTS):
        (tmp_path / f"part{number}").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        lines.append(f"      - {{filename: part{number}, url: 'https://localhost:1/part{number}', sha256: '{digest}', "
                     f"size_bytes: {len(content)}}}")  # fmt: skip
    path = tmp_path / "site.yaml"
    path.write_text(
        "schema: agseg.weights/1\nentries:\n  site-net:\n    architecture: unet\n    format: safetensors\n    files:\n"
        + "\n".join(lines)
        + "\n    input: {modality: CT, axis_codes: RAS, spacing_mm: [2, 2, 2], normalisation: zscore, tile: [16, 16, 16]}\n"
        "    labels: {1: pancreas}\n    licence: CC0-1.0\n    citation: A book\n    attribution: Made by this test\n"
        "    intended_use: Tests\n    caution: Not for anything\n    scores: {dice: {value: 0.5}}\n"
    )
    return path


def test_list_prints_every_entry_as_one_json_document(agseg, site):
    done = agseg("list", "--json", "--manifest", site)
    rows = json.loads(done.stdout)
    assert all(set(row) == SHOWN_BY_LIST for row in rows)
    found = {row["id"]: row for row in rows}
    assert found["site-net"] == {
        "id": "site-net", "architecture": "unet", "organs": ["pancreas"], "modality": "CT", "licence": "CC0-1.0",
        "size_bytes": 11000, "available": False, "default_for": [],
    }  # fmt: skip
    assert {"obelisk-tcia", "sononet16", "monai-spleen", "monai-wholebody", "monai-wholebody-3mm"} < set(found)
    assert "sononet16" in agseg("list").stdout


def test_show_says_what_an_entry_is_worth_and_whose_it_is(agseg, site):
    said = agseg("show", "site-net", "--manifest", site).stdout
    for part in ("0.5", "CC0-1.0", "A book", "Made by this test", "Tests", "Not for anything"):
        assert part in said
    shown = json.loads(agseg("show", "site-net", "--manifest", site, "--json").stdout)
    assert [file["filename"] for file in shown["files"]] == ["part0", "part1"]


@pytest.mark.slow
def test_an_entry_is_available_once_all_its_files_are_in(agseg, site, tmp_path):
    def available():
        rows = json.loads(agseg("list", "--json", "--manifest", site, home=tmp_path / "home").stdout)
        return next(row["available"] for row in rows if row["id"] == "site-net")

    for number, expected in enumerate((False, True)):
        done = agseg("import", tmp_path / f"part{number}", "--manifest", site, home=tmp_path / "home")
        assert done.returncode == 0, done.stderr
        assert available() is expected
    verified = agseg("verify", "site-net", "--json", "--manifest", site, home=tmp_path / "home")
    assert [file["state"] for file in json.loads(verified.stdout)] == ["verified", "verified"]
    blob = tmp_path / "home/weights/blobs" / hashlib.sha256(CONTENTS[0]).hexdigest()
    blob.write_bytes(CONTENTS[0][::-1])
    assert agseg("verify", "--manifest", site, home=tmp_path / "home").returncode == 7


def test_a_bundle_goes_from_a_place_with_the_weights_to_one_without(agseg, site, tmp_path):
    agseg("import", tmp_path / "part0", tmp_path / "part1", "--manifest", site, home=tmp_path / "home")
    bundle = tmp_path / "bundle.tar"
    done = agseg("export", "site-net", "-o", bundle, "--manifest", site, "--offline", home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    done = agseg("import", bundle, "--manifest", site, "--json", home=tmp_path / "other")
    assert [file["missing"] for file in json.loads(done.stdout)] == [1, 0]
    assert agseg("verify", "site-net", "--manifest", site, home=tmp_path / "other").returncode == 0
    leftovers = list((tmp_path / "other/weights/partial").iterdir())
    assert leftovers == []


def test_missing_weights_are_seven_and_nothing_is_exported(agseg, site, tmp_path):
    for command in (["fetch", "site-net"], ["export", "site-net", "-o", tmp_path / "b.tar"]):
        done = agseg(*command, "--offline", "--manifest", site, home=tmp_path / "home")
        assert done.returncode == 7
        assert "agseg weights import" in done.stderr
    assert agseg("verify", "site-net", "--manifest", site, home=tmp_path / "home").returncode == 7
    assert not (tmp_path / "b.tar").exists()
    assert not (tmp_path / "home/weights/blobs").exists()


@pytest.mark.slow
def test_a_file_of_no_entry_is_refused(agseg, site, tmp_path):
    (tmp_path / "stranger").write_bytes(b"stranger")
    for arguments in ([], ["--as", "site-net"]):
        done = agseg("import", tmp_path / "stranger", *arguments, "--manifest", site, home=tmp_path / "home")
        assert done.returncode == 7
        assert "E_WEIGHTS_CHECKSUM" in done.stderr
    assert agseg("import", tmp_path / "part0", "--as", "obelisk-tcia", "--manifest", site).returncode == 7
    assert agseg("import", tmp_path / "nothing").returncode == 2


@pytest.mark.parametrize(
    "arguments", [["show", "nothing"], ["fetch"], ["fetch", "nothing"], ["fetch", "sononet16", "--all"], ["export"]]
)
def test_what_does_not_exist_is_two(agseg, arguments):
    assert agseg(*arguments).returncode == 2


def test_a_site_manifest_with_an_unknown_key_is_two_and_names_the_line(agseg, site):
    site.write_text(site.read_text() + "    licens: MIT\n")
    done = agseg("list", "--manifest", site)
    assert done.returncode == 2
    assert f"line {len(site.read_text().splitlines())}: unknown key 'licens'" in done.stderr


def test_a_pickle_named_as_weights_is_never_opened(agseg, shared_corpus):
    path = next(shared_corpus.rglob("pickle_weights.pt"))
    assert agseg("show", path).returncode == 7
    assert agseg("import", path).returncode == 7


def test_listing_weights_does_not_import_torch():
    code = (
        "import sys; from agseg.workflows.weights import summaries; from agseg.weights.manifest import Manifest;"
        "from agseg.weights.cache import WeightsCache; from pathlib import Path;"
        "summaries(Manifest.load(), WeightsCache(Path('/nonexistent'), offline=True));"
        "sys.exit('torch' in sys.modules or 'huggingface_hub' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@pytest.mark.shared
def test_the_published_weights_are_imported_by_their_digest(agseg, shared_data, tmp_path):
    files = sorted((shared_data / "weights").rglob("*.pth")) + sorted((shared_data / "weights").rglob("*.npz"))
    done = agseg("import", *files, home=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = {row["id"]: row["available"] for row in json.loads(agseg("list", "--json", home=tmp_path).stdout)}
    assert rows["obelisk-tcia"]
    assert rows["sononet16"]
