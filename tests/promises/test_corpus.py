"""Promise 1: the corpus of odd and broken inputs, through ``agseg segment`` in one run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.conftest import SHARED, is_root
from tests.promises.conftest import prepare, run_agseg

pytestmark = pytest.mark.slow


@pytest.mark.shared
def test_promise_1_every_corpus_case_ends_as_expected(shared_corpus: Path, tmp_path: Path) -> None:
    spec = yaml.safe_load((SHARED / "corpus" / "expected.yaml").read_text(encoding="utf-8"))
    manifest = prepare(tmp_path)
    done = run_agseg(
        tmp_path,
        "segment",
        shared_corpus,
        "-o",
        tmp_path / "out",
        "--manifest",
        manifest,
        "--weights",
        "tiny",
        "--no-preview",
        "--json",
    )
    assert done.returncode == 3, done.stderr
    report = json.loads(done.stdout)
    wrong = []
    for case in spec["cases"]:
        if case["command"] != "segment --organ pancreas" or case.get("scope") == "run":
            continue
        if case.get("requires") == "non-root" and is_root():
            continue
        stem = case["path"].removesuffix(".gz").rsplit(".", 1)[0] if "." in Path(case["path"]).name else case["path"]
        studies = [
            s for s in report["studies"] if s["input"] in (case["path"], stem) or s["input"].startswith(case["path"] + "/")
        ]
        is_done = any(study["status"] == "done" for study in studies)
        is_bug = any(study["code"] in ("E_INTERNAL", "E_CRASHED") for study in studies)
        tolerated = case.get("or_ok") or case.get("or_rejected")
        if is_bug or (is_done != (case["expect"] == "ok") and not tolerated):
            wrong.append((case["id"], [(study["input"], study["status"], study["code"]) for study in studies]))
    assert not wrong
    written = done.stdout + done.stderr
    for path in (tmp_path / "out").rglob("*"):
        written += str(path.relative_to(tmp_path))
        if path.suffix in (".json", ".csv", ".html"):
            written += path.read_text(encoding="utf-8")
    assert not [canary for canary in spec["phi_canaries"] if canary in written]
