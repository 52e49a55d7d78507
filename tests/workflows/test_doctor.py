from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from agseg.errors import ExitCode, PacsError
from agseg.io.pacs.archive import Need, ServiceAnswer
from agseg.workflows import doctor
from agseg.workflows.doctor import Check, Diagnosis, DoctorRequest, Health, examine


def found(request: DoctorRequest) -> dict[str, Check]:
    return {check.name: check for check in examine(request).checks}


def request(tmp_path: Path, **changes: object) -> DoctorRequest:
    return DoctorRequest(tmp_path / "out", tmp_path / "home", **changes)  # type: ignore[arg-type]


def test_every_part_is_looked_at_and_nothing_is_left_behind(tmp_path: Path) -> None:
    checks = found(request(tmp_path))
    assert set(checks) == {"device", "memory", "codecs", "weights", "disk", "cache", "temp", "dicom-out", "pacs"}
    assert not list(tmp_path.iterdir())


def test_ready_is_0_with_warnings_and_3_with_a_failure() -> None:
    warned = Diagnosis((Check("a", Health.OK, ""), Check("b", Health.WARN, "")))
    failed = Diagnosis((*warned.checks, Check("c", Health.FAIL, "")))
    assert (warned.exit_code, failed.exit_code) == (ExitCode.OK, ExitCode.SOME_NOT_DONE)
    assert (warned.to_dict()["ready"], failed.to_dict()["ready"]) == (True, False)


def test_a_gpu_that_is_not_there_fails(tmp_path: Path) -> None:
    assert found(request(tmp_path, device="gpu:99"))["device"].health is Health.FAIL


def test_weights_that_are_not_here_fail_and_say_what_to_do(tmp_path: Path) -> None:
    check = found(request(tmp_path, weights="obelisk-tcia"))["weights"]
    assert check.health is Health.FAIL
    assert "agseg weights fetch obelisk-tcia" in (check.hint or "")
    assert found(request(tmp_path, weights="nothing-like-it"))["weights"].health is Health.FAIL


def test_a_codec_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor.SYNTAXES, "a video", "1.2.840.10008.1.2.4.102")
    check = found(request(tmp_path))["codecs"]
    assert check.health is Health.WARN
    assert "a video" in check.message


def test_a_place_that_cannot_be_written_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert found(DoctorRequest(tmp_path / "file", tmp_path))["disk"].health is Health.FAIL
    assert found(DoctorRequest(tmp_path / "file" / "below", tmp_path))["disk"].health is Health.FAIL


@pytest.mark.parametrize(("size", "health"), [(2, Health.FAIL), (8, Health.WARN), (64, Health.OK)])
def test_memory_has_two_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, health: Health) -> None:
    monkeypatch.setattr(doctor, "machine_memory_bytes", lambda: size << 30)
    assert found(request(tmp_path))["memory"].health is health


class Answering:
    refused: tuple[Need, ...] = ()

    def echo(self) -> None:
        pass

    def check(self, needs: Sequence[Need]) -> list[ServiceAnswer]:
        return [ServiceAnswer(n, n.value, "no" if n in self.refused else None, "why") for n in needs]


class Refusing(Answering):
    refused = (Need.RETRIEVE,)


class Silent:
    def echo(self) -> None:
        raise PacsError("the archive does not answer")


def test_the_archive_is_asked_where_there_is_one(tmp_path: Path) -> None:
    granted = found(request(tmp_path, archive=Answering))["pacs"]
    assert (granted.health, granted.facts["services"]) == (Health.OK, dict.fromkeys(("find", "retrieve", "store"), "granted"))
    refused = found(request(tmp_path, archive=Refusing))["pacs"]
    assert (refused.health, refused.hint) == (Health.FAIL, "why")
    assert "retrieve" in refused.message
    silent = found(request(tmp_path, archive=Silent))["pacs"]
    assert silent.health is Health.FAIL
    assert silent.facts["code"] == "E_PACS"


@pytest.mark.slow
def test_json_is_one_document_and_the_exit_code_says_the_same(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "agseg", "doctor", "--json", "--device", "gpu:99", "-o", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    document = json.loads(done.stdout)
    assert document["schema"] == "agseg.doctor/1"
    assert done.returncode == document["exit_code"] == 3
    assert not document["ready"]
