"""An export is three files or none, and never takes the place of another one by accident."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from agseg.errors import OutputError, RecipeError
from agseg.io.atomic import TEMPORARY_SUFFIX
from agseg.models.registry import build
from agseg.training.recipe import find_recipe
from agseg.training.trained_model import TrainedModel
from agseg.weights.manifest import Manifest
from agseg.workflows import export
from agseg.workflows.export import export_run

ABOUT = {"data": {"synthetic": True}, "parameters": 1, "step": 1, "seconds": 1.0}


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    """A network that nobody trained, as a run holds it."""
    torch.manual_seed(0)
    recipe = find_recipe("sononet-8-fetal-us")
    network = build(recipe.network.architecture, recipe.network.config)
    return TrainedModel(network, recipe, recipe.label_set, about=ABOUT)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_second_export_of_a_name_is_refused_and_changes_nothing(trained: TrainedModel, tmp_path: Path) -> None:
    made = export_run(trained, weights_id="mine", output=tmp_path / "w")
    before = contents(tmp_path / "w")
    assert set(before) == {"mine.safetensors", "mine.md", "mine.manifest.yaml"}
    made.weights.unlink()
    made.manifest.unlink()
    made.card.write_text("a card that somebody has completed")
    with pytest.raises(RecipeError, match="an earlier export") as refused:
        export_run(trained, weights_id="mine", output=tmp_path / "w")
    assert refused.value.path == made.card
    assert "--overwrite" in str(refused.value.hint)
    assert contents(tmp_path / "w") == {"mine.md": b"a card that somebody has completed"}
    export_run(trained, weights_id="mine", output=tmp_path / "w", overwrite=True)
    assert contents(tmp_path / "w") == before
    Manifest.load(made.manifest).entry("mine")


@pytest.mark.parametrize("weights_id", ["sononet16", "attention-unet-abdomen", "Not a name"])
def test_a_name_that_cannot_be_had_is_refused_before_anything_is_written(
    trained: TrainedModel, tmp_path: Path, weights_id: str
) -> None:
    with pytest.raises(RecipeError):
        export_run(trained, weights_id=weights_id, output=tmp_path / "new" / "w")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["_entry", "model_card", "flush"])
def test_a_failure_leaves_nothing(trained: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "no space")

    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "other.md").write_text("kept")
    monkeypatch.setattr(export, broken, fail)
    for folder in (tmp_path / "old", tmp_path / "new" / "w"):
        with pytest.raises(OutputError):
            export_run(trained, weights_id="mine", output=folder)
    assert contents(tmp_path) == {"old/other.md": b"kept"}
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.slow
@pytest.mark.parametrize("failing", range(1, 7))
def test_overwriting_that_fails_leaves_the_earlier_export(
    trained: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    export_run(trained, weights_id="mine", output=tmp_path)
    (tmp_path / "mine.md").write_text("a card that somebody has completed")
    before, renames, rename = contents(tmp_path), [], Path.replace

    def flaky(file: Path, place: Path) -> Path:
        if TEMPORARY_SUFFIX not in file.name:  # the three that are written into hiding succeed
            renames.append(place)
            if len(renames) == failing:
                raise OSError(5, "EIO")
        return rename(file, place)

    monkeypatch.setattr(Path, "replace", flaky)
    with pytest.raises(OutputError):
        export_run(trained, weights_id="mine", output=tmp_path, overwrite=True)
    assert contents(tmp_path) == before
    assert len(list(tmp_path.iterdir())) == 3


def test_what_cannot_be_put_back_is_said_to_be_aside(
    trained: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = export_run(trained, weights_id="mine", output=tmp_path).weights
    before, rename = weights.read_bytes(), Path.replace

    def flaky(file: Path, place: Path) -> Path:
        if place == weights:
            raise OSError(5, "EIO")
        return rename(file, place)

    monkeypatch.setattr(Path, "replace", flaky)
    with pytest.raises(OutputError) as failed:
        export_run(trained, weights_id="mine", output=tmp_path, overwrite=True)
    (aside,) = tmp_path.glob(f".*/{weights.name}")
    assert str(aside.parent) in str(failed.value.hint)
    assert aside.read_bytes() == before


def test_a_folder_in_place_of_a_file_stays(trained: TrainedModel, tmp_path: Path) -> None:
    (tmp_path / "mine.md").mkdir()
    (tmp_path / "mine.md" / "kept").write_text("kept")
    with pytest.raises(OutputError):
        export_run(trained, weights_id="mine", output=tmp_path, overwrite=True)
    assert contents(tmp_path) == {"mine.md/kept": b"kept"}
