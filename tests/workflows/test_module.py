"""Laws of a job: settings from the environment, folders from the platform, result.json and an exit code whatever happens."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agseg.cli.app import app
from agseg.errors import ExitCode, WeightsError
from agseg.report import BatchReport, StudyReport, StudyStatus
from agseg.workflows import segment as segment_module
from agseg.workflows.segment import SegmentRequest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[SegmentRequest]:
    """The requests that jobs make; each is answered with one finished study that has a SEG."""
    requests: list[SegmentRequest] = []

    def segment(request: SegmentRequest, **_: Any) -> BatchReport:
        requests.append(request)
        (request.output / "case").mkdir(parents=True)
        (request.output / "case" / "seg.dcm").write_bytes(b"seg")
        study = StudyReport(input="case", output="case", status=StudyStatus.DONE, files=("seg.dcm", "study.json"))
        return BatchReport(version="0", started="a", finished="b", exit_code=ExitCode.OK, weights=(), parameters={},
                           environment={}, studies=(study,), files={})  # fmt: skip

    monkeypatch.setattr(segment_module, "segment", segment)
    return requests


def job(environment: dict[str, str], *words: str) -> int:
    return CliRunner().invoke(app, ["module", *words], env=environment).exit_code


def test_settings_are_options_of_segment(tmp_path: Path, asked: list[SegmentRequest]) -> None:
    settings = {"ORGAN": "liver,spleen", "OUTPUT_TYPE": "dicom-seg", "PREVIEW": "false", "STUDY_TIMEOUT": "60"}
    settings = {f"AGSEG_SEGMENT_{name}": value for name, value in settings.items()}
    assert job(settings, str(tmp_path / "in"), str(tmp_path / "out")) == 0
    request = asked[0]
    assert (request.organs, request.inputs, request.output) == (("liver", "spleen"), (tmp_path / "in",), tmp_path / "out")
    assert request.limits.study_timeout_s == 60
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (result["exit_code"], result["dicom"], result["counts"]["done"]) == (0, ["case/seg.dcm"], 1)


@pytest.mark.parametrize(
    "names", [("MERCURE_IN_DIR", "MERCURE_OUT_DIR"), ("HOLOSCAN_INPUT_PATH", "HOLOSCAN_OUTPUT_PATH"),
              ("MONAI_INPUTPATH", "MONAI_OUTPUTPATH")]
)  # fmt: skip
def test_each_platform_says_its_folders_in_its_own_way(
    tmp_path: Path, asked: list[SegmentRequest], names: tuple[str, str]
) -> None:
    environment = dict(zip(names, (str(tmp_path / "in"), str(tmp_path / "out")), strict=True))
    assert job(environment) == 0
    assert (asked[0].inputs, asked[0].output) == ((tmp_path / "in",), tmp_path / "out")


def test_mercure_gets_objects_where_it_looks_and_gives_settings_in_its_task(
    tmp_path: Path, asked: list[SegmentRequest]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "task.json").write_text(json.dumps({"process": {"settings": {"organ": "liver", "fast": True}}}))
    environment = {"MERCURE_IN_DIR": str(tmp_path / "in"), "MERCURE_OUT_DIR": str(tmp_path / "out")}
    assert job({**environment, "AGSEG_SEGMENT_ORGAN": "spleen"}) == 0
    assert asked[0].organs == ("liver",)
    assert [path.name for path in (tmp_path / "out").glob("*.dcm")] == ["001-seg.dcm"]
    assert json.loads((tmp_path / "out" / "result.json").read_text())["dicom"] == ["001-seg.dcm"]


def test_a_senders_task_is_no_setting(tmp_path: Path, asked: list[SegmentRequest]) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "task.json").write_text(json.dumps({"process": {"settings": {"organ": "liver"}}}))
    assert job({}, str(source), str(tmp_path / "out")) == 0
    assert asked[0].organs == ()
    mercures = {"MERCURE_IN_DIR": str(tmp_path / "other"), "MERCURE_OUT_DIR": str(tmp_path)}
    assert job(mercures, str(source), str(tmp_path / "more")) == 0
    assert asked[1].organs == ()


@pytest.mark.parametrize("option", ["cluster", "cluster-config", "manifest", "Include_Identifiers", "min-age", "\x1b[2J"])
def test_a_task_may_not_say_where_anything_is_or_goes(tmp_path: Path, asked: list[SegmentRequest], option: str) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "task.json").write_text(json.dumps({"process": {"settings": {option: "tcp://127.0.0.1:1"}}}))
    job({"MERCURE_IN_DIR": str(source), "MERCURE_OUT_DIR": str(tmp_path / "out")})
    assert asked == []
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["exit_code"] == 2
    assert "cannot stand in task.json" in result["error"]["message"]
    assert "\x1b" not in result["error"]["message"]


def test_a_pipe_in_place_of_a_task_hangs_nothing(tmp_path: Path, asked: list[SegmentRequest]) -> None:
    source = tmp_path / "in"
    source.mkdir()
    os.mkfifo(source / "task.json")
    assert job({"MERCURE_IN_DIR": str(source), "MERCURE_OUT_DIR": str(tmp_path / "out")}) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "code"),
    [({"AGSEG_SEGMENT_ORGAN": "livr"}, 2), ({"AGSEG_SEGMENT_COLOUR": "red"}, 2), ({"AGSEG_SEGMENT_OUTPUT": "/elsewhere"}, 2)],
)
def test_settings_that_cannot_be_end_the_job_with_a_result(tmp_path: Path, settings: dict[str, str], code: int) -> None:
    (tmp_path / "in").mkdir()
    outcome = CliRunner().invoke(app, ["module", str(tmp_path / "in"), str(tmp_path / "out")], env=settings)
    assert getattr(outcome.exception, "exit_code", outcome.exit_code) == code
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (result["exit_code"], result["error"]["code"]) == (2, "E_USAGE")


def test_a_job_that_fails_as_a_whole_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def segment(*_: Any, **__: Any) -> BatchReport:
        raise WeightsError("weights are missing")

    monkeypatch.setattr(segment_module, "segment", segment)
    job({}, str(tmp_path / "in"), str(tmp_path / "out"))
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (result["exit_code"], result["error"]["message"]) == (7, "weights are missing")


def test_a_job_without_folders_is_refused() -> None:
    outcome = CliRunner().invoke(app, ["module"], env={})
    assert getattr(outcome.exception, "exit_code", outcome.exit_code) == ExitCode.USAGE


def test_the_images_files_say_what_the_command_is() -> None:
    container = (ROOT / "containers" / "Containerfile").read_text()
    entry = json.loads(re.findall(r"^ENTRYPOINT (.*)$", container, re.MULTILINE)[0])
    application = json.loads((ROOT / "containers" / "app.json").read_text())
    assert json.loads(application["command"]) == entry == ["/opt/agseg/venv/bin/agseg", "module"]
    package = json.loads((ROOT / "containers" / "pkg.json").read_text())
    assert entry[0].startswith(package["applicationRoot"])
    command = json.loads((ROOT / "containers" / "command.json").read_text())
    assert command["command-line"].split() == [mount["path"] for mount in command["mounts"]]
    for name in (*application["environment"], *command["environment-variables"]):
        assert name.startswith(("AGSEG_SEGMENT_", "HOLOSCAN_"))
    assert "TORCH_INDEX" in container
    extras = re.findall(r"\.\[([a-z,]+)\]", container)[0].split(",")
    assert all(re.search(rf"^{extra} = ", (ROOT / "pyproject.toml").read_text(), re.MULTILINE) for extra in extras)
