"""The promises about privacy and security."""

from __future__ import annotations

import ast
import gzip
import json
import re
import resource
import struct
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest

from agseg.errors import WeightsError
from agseg.report import DISCLAIMER
from agseg.weights.download import HostRules
from tests import phantoms
from tests.promises.conftest import ROOT, Night, contents, prepare, run_agseg, write_good

SOURCES = sorted((ROOT / "agseg").rglob("*.py"))


def everything_written(folder: Path) -> str:
    """All texts below a folder, pictures and masks as bytes, and all names."""
    parts = []
    for path in sorted(folder.rglob("*")):
        parts.append(path.name)
        if path.is_file():
            content = path.read_bytes()
            parts.append((gzip.decompress(content) if path.suffix == ".gz" else content).decode("latin-1"))
    return "\n".join(parts)


@pytest.mark.slow
def test_promise_28_nothing_of_the_patient_leaves_the_headers(night: Night) -> None:
    written = everything_written(night.out) + night.done.stdout + night.done.stderr
    uids = {pydicom.dcmread(path).StudyInstanceUID for path in (night.source / "axial").glob("IM*.dcm")}
    for canary in (*phantoms.CANARIES, *uids):
        assert canary not in written, canary


@pytest.mark.slow
def test_promise_29_tracebacks_only_under_debug(tmp_path: Path) -> None:
    arguments = ["segment", "nowhere", "-o", tmp_path / "out"]
    for debug in (False, True):
        done = run_agseg(tmp_path, *arguments, *(["--debug"] if debug else []))
        assert done.returncode != 0
        assert ("Traceback" in done.stderr) is debug


@pytest.mark.slow
def test_promises_31_32_links_are_not_followed_and_pipes_not_opened(night: Night) -> None:
    # A pipe that is opened for reading waits for ever; the run has ended.
    inputs = {study["input"] for study in json.loads((night.out / "run.json").read_bytes())["studies"]}
    assert not [name for name in inputs if name.startswith("linked")]
    skipped = json.loads((night.out / "run.json").read_bytes())["files"]["skipped"]
    assert sum(count for reason, count in skipped.items() if "SYMLINK" in reason or "link" in reason) == 2
    assert len(list((night.source / "axial").glob("IM*.dcm"))) == 24


def test_promises_33_34_no_shell_and_no_archive(night: Night) -> None:
    assert not list(night.root.rglob("pwned"))
    assert not Path("/pwned").exists()
    page = (night.out / "report.html").read_text()
    assert "<script>alert" not in page
    skipped = json.loads((night.out / "run.json").read_bytes())["files"]["skipped"]
    assert skipped.get("E_UNSUPPORTED_INPUT", 0) + skipped.get("E_UNSAFE_ARCHIVE", 0) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_promise_35_a_header_that_lies_costs_under_10_s_and_1500_mb(tmp_path: Path, kind: str) -> None:
    if kind == "nifti":
        header = bytearray(352)
        struct.pack_into("<i", header, 0, 348)
        struct.pack_into("<8h", header, 40, 3, 30000, 30000, 30000, 1, 1, 1, 1)
        struct.pack_into("<2h", header, 70, 4, 16)
        struct.pack_into("<8f", header, 76, 1, 1, 1, 1, 0, 0, 0, 0)
        struct.pack_into("<f", header, 108, 352)
        struct.pack_into("<2h", header, 252, 0, 1)
        struct.pack_into("<12f", header, 280, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)
        header[344:348] = b"n+1\0"
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "bomb.nii.gz").write_bytes(gzip.compress(bytes(header) + bytes(1 << 20)))
    else:
        for path in write_good(tmp_path / "in" / "bomb"):
            phantoms.edit_dicom(path, lambda dataset: (setattr(dataset, "Rows", 65535), setattr(dataset, "Columns", 65535)))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "agseg", "inspect", "--json", str(tmp_path / "in")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime - before.ru_utime < 10  # processor seconds
    assert after.ru_maxrss < max(1_500_000, before.ru_maxrss + 1)
    codes = {study["code"] for study in json.loads(done.stdout)["studies"]}
    assert codes & {"E_HEADER_LIES", "E_TOO_LARGE", "E_TRUNCATED"}


def test_promise_36_one_changed_byte_of_the_weights_is_exit_7(tmp_path: Path) -> None:
    manifest = prepare(tmp_path)
    write_good(tmp_path / "in" / "one")
    weights = tmp_path / "site" / "tiny.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    done = run_agseg(tmp_path, "segment", tmp_path / "in", "-o", tmp_path / "out", "--manifest", manifest, "--weights", "tiny")
    assert done.returncode == 7
    assert "E_WEIGHTS_CHECKSUM" in done.stderr


@pytest.mark.slow
def test_promise_36_torch_files_are_loaded_with_weights_only() -> None:
    loads = [call for call in calls("load") if isinstance(call.func, ast.Attribute) and name_of(call.func.value) == "torch"]
    assert loads
    for call in loads:
        given = {word.arg: word.value for word in call.keywords}
        only = given.get("weights_only")
        assert isinstance(only, ast.Constant)
        assert only.value is True


def test_promise_37_a_run_with_its_weights_at_hand_uses_no_network(night: Night) -> None:
    assert night.done.returncode == 3
    assert night.connections == ""


def test_promise_38_downloads_go_to_https_and_named_hosts_only() -> None:
    rules = HostRules(hosts=frozenset({"weights.example.org"}), loopback=True)
    rules.check("https://weights.example.org/a")
    rules.check("http://127.0.0.1:8000/a")
    for url in ("http://weights.example.org/a", "https://elsewhere.example.org/a", "http://10.0.0.1/a", "file:///etc/passwd"):
        with pytest.raises(WeightsError):
            rules.check(url)


def calls(name: str) -> list[ast.Call]:
    """Every call of a function or method of this name in the product."""
    return [
        node
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and name_of(node.func) == name
    ]


def name_of(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def names_an_error(node: ast.Import | ast.ImportFrom) -> bool:
    """Whether no more than an exception is taken from a module, to catch what PyTorch's restricted unpickler raises."""
    return isinstance(node, ast.ImportFrom) and all(alias.name.endswith("Error") for alias in node.names)


# Dask's own protocol between agseg's processes is pickle; nothing that comes from a file or an archive ever is.
CLUSTER = {ROOT / "agseg" / "batch" / "dask_executor.py", ROOT / "agseg" / "batch" / "node.py"}


@pytest.mark.slow
def test_promise_40_no_unsafe_yaml_no_pickle_no_eval_no_shell() -> None:
    imported = {
        alias.name.split(".")[0]
        for path in SOURCES
        if path not in CLUSTER
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom) and not names_an_error(node)
        for alias in (node.names if isinstance(node, ast.Import) else [ast.alias(node.module or "")])
    }
    assert not imported & {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
    builtin = [call for name in ("eval", "exec") for call in calls(name) if isinstance(call.func, ast.Name)]
    assert not builtin
    for call in (*calls("system"), *calls("popen")):
        assert not (isinstance(call.func, ast.Attribute) and name_of(call.func.value) == "os")
    for name in ("unsafe_load", "full_load", "load_all"):
        assert not calls(name)
    for call in calls("load"):
        if isinstance(call.func, ast.Attribute) and name_of(call.func.value) == "yaml":
            chosen = [word.value for word in call.keywords if word.arg == "Loader"] + call.args[1:]
            assert chosen, "yaml.load needs a safe loader"
    for path in SOURCES:
        text = path.read_text()
        assert not re.search(r"shell\s*=\s*True|allow_pickle\s*=\s*True", text), path


def test_promise_41_data_files_outside_the_study_are_refused(night: Night) -> None:
    found = json.loads((night.out / "run.json").read_bytes())
    escape = [study for study in found["studies"] if study["input"] == "escape"]
    assert [(study["status"], study["code"]) for study in escape] == [("rejected", "E_PATH_ESCAPE")]


def test_promise_42_the_disclaimer_stands_in_every_report(night: Night) -> None:
    for name in ("run.json", "volumes.csv", "report.html", "axial/study.json"):
        assert DISCLAIMER in (night.out / name).read_text(), name


def test_the_night_is_what_the_promises_speak_of(night: Night) -> None:
    assert (night.source / "linked").is_symlink()
    assert contents(night.root / "secret")
