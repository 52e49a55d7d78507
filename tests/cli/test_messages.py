"""A wrong word on the command line is answered with what is wrong about it, and with what there is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agseg.cli.app import app
from agseg.cli.run_end import mute_ending
from agseg.cli.words import minutes, seconds, words_of
from agseg.errors import AgsegError, ExitCode
from agseg.io.discover import discover
from agseg.io.video.clips import find_clips
from agseg.report import BatchReport
from agseg.training.datasets import dataset_names
from agseg.weights.manifest import Manifest
from tests import mutations, phantoms


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a folder, a file and an empty reference mask."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.nii.gz").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(*arguments: str) -> str:
    """What the command refuses with (exit code 2), and its hint."""
    error = CliRunner().invoke(app, arguments).exception
    assert isinstance(error, AgsegError), error
    assert error.exit_code is ExitCode.USAGE
    return f"{error.path or ''}: {error} {error.hint or ''}"


@pytest.mark.slow
@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("finetune --from runs/nosuch --to ct82", ("folder does not exist", "runs/nosuch")),
        ("finetune --from file --to ct82", ("this is a file", "file")),
        ("evaluate masks nosuch", ("nosuch", "folder does not exist")),
        ("evaluate nosuch masks", ("nosuch", "folder does not exist")),
        ("evaluate masks file", ("this is a file",)),
        ("evaluate --run nosuch", ("nosuch", "folder does not exist")),
        ("export nosuch --as x", ("nosuch", "folder does not exist")),
        ("train unet3d-ct82-scr --data nosuch", ("nosuch", "folder does not exist", "--data")),
        ("train nosuch.yaml", ("nosuch.yaml", "it does not exist")),
        ("dataset check nosuch", ("nosuch", "folder does not exist")),
        ("dataset prepare ct82 --from nosuch -o new", ("nosuch", "folder does not exist")),
        ("dataset prepare ct82 --from folder -o file", ("file", "is a file")),
        ("phantom us --cases 3 -o file", ("file", "is a file")),
        ("weights import folder", ("folder", "needs a name", "--as ID")),
        ("weights list --config nosuch", ("nosuch", "it does not exist")),
        ("weights list --manifest nosuch", ("nosuch", "it does not exist")),
        ("segment folder --weights sononet16 --organ spleen", ("segment no organ", "classify-us")),
        ("segment folder --weights sononet16", ("segment no organ", "classify-us")),
    ],
)
def test_a_wrong_name_is_called_what_it_is(command: str, words: tuple[str, ...]) -> None:
    text = said(*command.split())
    assert all(word in text for word in words), text


@pytest.mark.slow
@pytest.mark.parametrize("device", ["foo", "cuda:99"])
@pytest.mark.parametrize(
    "command",
    ["train sononet-8-phantom-us --data folder", "finetune --from nosuch --to ct82", "prune-curve --data folder",
     "segment folder", "classify-us folder"],
)  # fmt: skip
def test_a_device_that_is_not_there_is_refused_first(place: Path, command: str, device: str) -> None:
    before = sorted(place.rglob("*"))
    text = said(*command.split(), "-d", device)
    assert "unknown device" in text or "GPU" in text
    assert sorted(place.rglob("*")) == before


@pytest.mark.usefixtures("place")
def test_an_unknown_source_lists_every_kind_of_source() -> None:
    text = said("finetune", "--from", "nosuch", "--to", "ct82")
    assert all(name in text for name in (*dataset_names(), "run's folder", *Manifest.load().by_id))


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("weights", [(), ("--weights", "monai-wholebody")])
def test_an_unknown_organ_names_the_nearest_then_those_with_default_weights(weights: tuple[str, ...]) -> None:
    manifest = Manifest.load()
    text = said("segment", "folder", "--organ", "pancras", *weights)
    assert "Did you mean pancreas?" in text
    assert "agseg weights show monai-wholebody" in text
    listed, _, others = text.split("expected ")[1].split(" others")[0].partition(" and ")
    defaults = {organ for organ, _ in manifest.defaults}
    assert set(listed.split(", ")[: len(defaults)]) == defaults
    assert len(listed.split(", ")) + int(others) == len(manifest.organs)
    assert len(text) < 400


@pytest.mark.slow
@pytest.mark.usefixtures("place")
def test_all_organs_are_those_of_the_default_weights_and_no_organ_among_others() -> None:
    dry = ("segment", "folder", "--dry-run", "--json")
    ran = [json.loads(CliRunner().invoke(app, [*dry, *more]).stdout)["parameters"] for more in ((), ("--organ", "all"))]
    assert ran[0] == ran[1]
    assert set(ran[1]["organs"]) >= {organ for organ, _ in Manifest.load().defaults}
    more = json.loads(CliRunner().invoke(app, [*dry, "--organ", "All", "--organ", "liver"]).stdout)
    assert more["parameters"] == ran[0]


@pytest.mark.slow
@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    "typed", [["Liver,left kidney"], ["LIVER", "kidney-left"], ["liver", "kidney_left"], ["liver , Kidney Left", "liver"]]
)
def test_organs_are_understood_as_people_write_them(typed: list[str]) -> None:
    words = [word for name in typed for word in ("--organ", name)]
    outcome = CliRunner().invoke(app, ["segment", "folder", "--dry-run", "--json", "-d", "CPU", *words])
    assert json.loads(outcome.stdout)["parameters"]["organs"] == ["liver", "kidney_left"]


@pytest.mark.slow
@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["--organ", "kidney"], ("Did you mean kidney_left or kidney_right?",)),
        (["--organ", ""], ("an organ without a name",)),
        (["--organ", "liver,"], ("an organ without a name",)),
        (["-out", "o1"], ("-out would be read as -o ut", "--output")),
        (["-organ", "liver"], ("--organ, with two dashes",)),
        (["-device=cpu"], ("--device, with two dashes",)),
    ],
)
def test_what_cannot_be_understood_is_answered_with_what_was_meant(typed: list[str], words: tuple[str, ...]) -> None:
    text = said("segment", "folder", *typed)
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("text", "in_minutes", "in_seconds"),
    [("300", 300, 300), ("5h", 300, 18_000), ("90s", 1.5, 90), ("1.5h", 90, 5400), ("2 d", 2880, 172_800)],
)
def test_lengths_of_time_have_the_options_unit_or_their_own(text: str, in_minutes: float, in_seconds: float) -> None:
    assert (minutes(text), seconds(text)) == (in_minutes, in_seconds)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("option", ["--deadline", "--min-age", "--study-timeout"])
def test_a_length_of_time_that_is_none_is_refused_with_examples(option: str) -> None:
    outcome = CliRunner().invoke(app, ["segment", "folder", option, "soon"], env={"COLUMNS": "200"})
    assert outcome.exit_code == 2
    assert "'soon' is no length of time, expected 90s, 5m" in outcome.stderr


def test_an_attached_value_is_still_one() -> None:
    outcome = CliRunner().invoke(app, ["segment", "nosuch", "-oresults", "-dcpu", "--dry-run"])
    assert "would be read" not in str(outcome.exception)


@pytest.mark.parametrize(
    ("command", "make", "words"),
    [
        ("segment", "video", "agseg classify-us"),
        ("segment", "link", "Links are not followed"),
        ("classify-us --offline", "volume", "agseg segment"),
        ("classify-us --offline", "link", "Links are not followed"),
    ],
)
def test_a_wrong_kind_of_file_is_answered_with_the_right_command(place: Path, command: str, make: str, words: str) -> None:
    if make == "video":
        (place / "folder" / "a.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(64))
    elif make == "volume":
        (place / "folder" / "a.nii.gz").write_bytes(b"\x1f\x8b" + bytes(64))
    else:
        (place / "folder" / "a").symlink_to(place / "file")
    report = BatchReport(version="", started="", finished="", exit_code=ExitCode.NO_STUDY, weights=(), parameters={},
                         environment={}, studies=(), files=_left_out(place / "folder", command))  # fmt: skip
    what = "study" if command == "segment" else "clip"
    lines = mute_ending(report, what=what, inputs=(place,), expected="something", record=None)
    assert words in "\n".join(lines)
    assert len(lines) == 2


def _left_out(folder: Path, command: str) -> dict[str, object]:
    """What a run would write of the folder's files."""
    found = discover([folder]) if command == "segment" else find_clips([folder])
    skipped = [{"file": skip.path.name, "reason": str(skip.reason), "detail": skip.detail} for skip in found.skipped]
    return {"skipped": {"some": 1}, "left_out": skipped}


def test_a_dry_run_names_what_would_be_done_once(place: Path) -> None:
    affine = phantoms.coded_affine("RAS", mutations.SHAPE, mutations.SPACING)
    for name in ("a", "b"):
        phantoms.write_nifti(place / "folder" / f"{name}.nii.gz", mutations.voxels(), affine)
    outcome = CliRunner().invoke(app, ["segment", "folder", "--dry-run"])
    said = outcome.stdout + outcome.stderr
    assert outcome.exit_code == 0
    assert said.count("To be read now") == 1
    assert [line.strip() for line in said.splitlines() if line.startswith("  ")][:2] == ["a", "b"]
    assert "2 to be done" in said
    assert "deferred" not in said


def test_words_may_be_repeated_or_parted_by_commas() -> None:
    assert words_of(["dicom-seg, dicom-sr", "viewer"]) == ["dicom-seg", "dicom-sr", "viewer"]
