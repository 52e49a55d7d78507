"""A wrong word on the command line is answered with what is wrong about it, and with what there is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agseg.cli.app import app
from agseg.errors import AgsegError, ExitCode
from agseg.training.datasets import dataset_names
from agseg.weights.manifest import Manifest


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
def test_an_unknown_organ_lists_all_that_are_known_the_default_ones_first(weights: tuple[str, ...]) -> None:
    manifest = Manifest.load()
    text = said("segment", "folder", "--organ", "pancras", *weights)
    assert "Did you mean pancreas?" in text
    assert "agseg weights show monai-wholebody" in text
    listed = text.split(f"one of {len(manifest.organs)}: ")[1].split(" Did you")[0].split(", ")
    assert sorted(listed) == list(manifest.organs)
    defaults = {organ for organ, _ in manifest.defaults}
    assert set(listed[: len(defaults)]) == defaults


@pytest.mark.usefixtures("place")
def test_all_organs_are_those_of_the_default_weights_and_no_organ_among_others() -> None:
    dry = ("segment", "folder", "--dry-run", "--json")
    ran = [json.loads(CliRunner().invoke(app, [*dry, *more]).stdout)["parameters"] for more in ((), ("--organ", "all"))]
    assert ran[0] == ran[1]
    assert set(ran[1]["organs"]) >= {organ for organ, _ in Manifest.load().defaults}
    assert "unknown organ 'all'" in said("segment", "folder", "--organ", "all", "--organ", "liver")
