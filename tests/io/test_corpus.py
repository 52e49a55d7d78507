"""Every case of the corpus of odd and broken inputs ends as its list of expectations says, and tells no patient's data."""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
from functools import cache
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from agseg.cli.app import app
from agseg.workflows.inspect import inspect
from tests.conftest import SHARED, is_root

EXPECTED = SHARED / "corpus" / "expected.yaml"


@cache
def _spec() -> dict:
    return yaml.safe_load(EXPECTED.read_text(encoding="utf-8")) if EXPECTED.is_file() else {"cases": [], "phi_canaries": []}


def _cases() -> list[dict]:
    cases = _spec()["cases"]
    return [case for case in cases if case["command"] == "segment --organ pancreas" and case.get("scope") != "run"]


def _canaries() -> list[str]:
    return _spec()["phi_canaries"]


def run_inspect(path: Path, points: list[list[float]]) -> tuple[dict, str]:
    """What ``agseg inspect --json`` prints, and everything that went to the terminal on the way."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        document = inspect([path], at_lps_mm=[(x, y, z) for x, y, z in points]).to_dict()
    return document, json.dumps(document, ensure_ascii=False) + out.getvalue() + err.getvalue()


def test_the_corpus_is_there(shared_corpus):
    assert len(_cases()) >= 103


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("case", _cases(), ids=lambda case: case["id"])
def test_case(shared_corpus, case):
    if case.get("requires") == "non-root" and is_root():
        pytest.skip("root may read every file")
    checks = case.get("checks", {})
    points = checks.get("hu_at", [])
    before = time.monotonic()
    found, printed = run_inspect(shared_corpus / case["path"], [point["lps"] for point in points])
    took = time.monotonic() - before
    assert not [canary for canary in _canaries() if canary in printed]
    for path in case.get("must_not_exist", []):
        assert not os.path.lexists(path)
    accepted = [study for study in found["studies"] if study["status"] == "ok"]
    codes = {study["code"] for study in found["studies"]} | {skip["reason"] for skip in found["skipped_files"]}
    assert took < checks.get("max_seconds", 60)
    if not accepted:
        assert case["expect"] == "rejected" or case.get("or_rejected"), codes
        assert codes & set(case.get("codes", codes))
        assert found["exit_code"] in (4, 5)
        return
    assert case["expect"] == "ok" or case.get("or_ok"), [study["input"] for study in accepted]
    assert len(accepted) == checks.get("n_series", len(accepted))
    for study in accepted:
        assert study["voxel_volume_mm3"] == pytest.approx(checks.get("voxel_volume_mm3", study["voxel_volume_mm3"]), rel=1e-3)
        assert sorted(study["spacing_mm"]) == pytest.approx(checks.get("spacing_sorted", sorted(study["spacing_mm"])), rel=1e-3)
        i, j, k = study["shape"]
        assert i * j * k == checks.get("n_voxels", i * j * k)
        assert study["min"] >= max(-1024, checks.get("min_hu_ge", -1024))
        assert study["max"] <= min(3071, checks.get("max_hu_le", 3071))
    for number, point in enumerate(points):
        values = [study["samples"][number]["value"] for study in accepted]
        assert any(value is not None and abs(value - point["hu"]) <= point["tol"] for value in values), (point, values)
    warned = {warning["code"] for study in accepted for warning in study["warnings"]}
    assert not case.get("warn") or warned & set(case["warn"])


@pytest.mark.slow
@pytest.mark.shared
def test_the_whole_corpus_at_once(shared_corpus):
    result = CliRunner().invoke(app, ["inspect", "--json", str(shared_corpus)])
    found, printed = json.loads(result.stdout), result.output
    assert result.exit_code == found["exit_code"] == 3
    names = [study["input"] for study in found["studies"]]
    assert len(set(names)) == len(names)
    assert not [canary for canary in _canaries() if canary in printed]
