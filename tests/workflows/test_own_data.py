"""docs/own-data.md, run at toy size: from a raw nnU-Net folder to masks, and a table beside nnU-Net's own predictions."""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
import typer
import yaml
from typer.testing import CliRunner

from agseg.cli.app import app
from agseg.errors import AgsegError, RecipeError
from agseg.inference.network import ReadyNetwork
from agseg.models.precision import Precision
from agseg.training.cohort import open_cohort
from agseg.training.evaluation import read_evaluation
from agseg.training.splits import all_folds
from agseg.training.trained_model import open_run
from agseg.weights.manifest import Manifest
from tests.workflows.own_phantoms import AFFINE, case_labels, write_raw

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

TOY = ["--set", "network.config.widths=[4, 6]", "--set", "input.tile=[16, 16, 8]", "--set", "loop.validate_every=0"]
NAMES = ["--label", "1=liver", "--label", "2=tumour", "--label", "3=cyst"]


def agseg(*words: object, code: int = 0) -> str:
    """What a command prints; an error's exit code and sentence are those that the program itself would give."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    error = result.exception if isinstance(result.exception, AgsegError) else None
    found = result.exit_code if error is None else int(error.exit_code)
    assert found == code, f"{words}: {result.output} {result.exception!r}"
    return result.stdout if error is None else str(error)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder after new, check, split, plan and three toy trainings on two channels, each scored on its own fold."""
    root = tmp_path_factory.mktemp("own")
    data = write_raw(root / "Dataset501_Lesions", channels=("CT", "PET"))
    agseg("dataset", "new", data, "--channel", "CT", "--channel", "PET", *NAMES, "--licence", "CC BY 4.0", "-q")
    agseg("dataset", "split", data, "--folds", 3, "-q")
    agseg("plan", data, "--memory", 0.1, "--steps", 4, "-o", root, "-q")
    for fold in range(3):
        run, scores = root / f"runs/lesions-fold-{fold}", root / f"evaluation/fold-{fold}"
        agseg("train", root / "lesions.yaml", "--data", data, "--fold", fold, "-o", run, *TOY, "-q", "--device", "cpu")
        agseg("evaluate", "--run", run, "--data", data, "--masks", "-o", scores, "-q", "--device", "cpu")
    return root


def test_every_command_of_the_page_exists_with_its_options():
    page = (Path(__file__).parents[2] / "docs/own-data.md").read_text()
    lines = [line.split("#")[0].split() for line in page.splitlines() if line.startswith("agseg ")]
    assert len(lines) == 12
    root = typer.main.get_command(app)
    for words in lines:
        command, rest = root, words[1:]
        while hasattr(command, "commands"):
            command, rest = command.commands[rest[0]], rest[1:]
        known = {option for param in command.params for option in param.opts}
        assert {word for word in rest if word.startswith("-")} <= known, words


def test_the_plan_says_why_and_is_a_recipe_of_its_own_data(place):
    text = (place / "lesions.yaml").read_text()
    recipe = yaml.safe_load(text)
    assert (recipe["dataset"], recipe["protocol"], recipe["published"]) == ("lesions", "own", None)
    assert recipe["network"]["config"]["in_channels"] == 2
    assert recipe["input"]["spacing_mm"] == [6.0, 6.0, 8.0]
    assert recipe["input"]["normalisation"] == "ct"
    assert [channel["name"] for channel in recipe["input"]["channels"]] == ["PET"]
    for key in ("input.spacing_mm", "input.tile", "batch", "loop.steps", "affine.flip"):
        assert f"#   {key}: " in text


def test_folds_hold_every_case_once_and_are_nnunets_too(place):
    data = place / "Dataset501_Lesions"
    folds = all_folds(data, "3-fold")
    assert sorted(case for fold in folds for case in fold.test) == [f"lesion_{n:03d}" for n in range(12)]
    theirs = json.loads((data / "splits_final.json").read_text())
    assert [fold["val"] for fold in theirs] == [list(fold.test) for fold in folds]
    assert all(not set(fold["train"]) & set(fold["val"]) for fold in theirs)
    without_cyst = [sum(not int(case[-3:]) % 3 for case in fold.test) for fold in folds]
    assert max(without_cyst) - min(without_cyst) <= 1


def test_pooled_folds_stand_beside_nnunets_predictions_with_a_test(place, tmp_path):
    data, pooled = place / "Dataset501_Lesions", place / "evaluation/all"
    agseg("evaluate", *(w for f in range(3) for w in ("--pool", place / f"evaluation/fold-{f}")), "-o", pooled, "-q")
    ours = read_evaluation(pooled)
    assert (ours.protocol, ours.model, ours.dataset, ours.published) == ("", "lesions", "lesions", None)
    assert len(ours.case_ids) == 12
    assert len(list((pooled / "predictions").glob("*.nii.gz"))) == 12
    theirs = tmp_path / "nnunet"
    theirs.mkdir()
    for number in range(12):
        if number != 5:
            shifted = np.roll(case_labels(number), 1, axis=0)
            nibabel.save(nibabel.Nifti1Image(shifted, AFFINE), theirs / f"lesion_{number:03d}.nii.gz")
    agseg("evaluate", data / "labelsTr", theirs, "--against", pooled, "-o", tmp_path / "ev", "-q", code=3)
    table = (tmp_path / "ev/table.md").read_text()
    assert "| lesions | nnunet | tumour | DSC |" in table
    assert "1 of 12 cases have no score. lesion_005" in table
    assert "compared on the 11 cases that both have" in table
    assert "NSD" in table
    assert "published" not in table
    assert "BFT" not in table
    scored = read_evaluation(tmp_path / "ev")
    again = tmp_path / "again"
    agseg("evaluate", data / "labelsTr", pooled / "predictions", "-o", again, "-q")
    for case, value in read_evaluation(again).values("liver", "dice").items():
        assert value == pytest.approx(ours.values("liver", "dice")[case])
    assert 0.5 < np.nanmean(list(scored.values("liver", "dice").values())) < 1


@pytest.fixture(scope="module")
def exported(place):
    runs = [place / f"runs/lesions-fold-{fold}" for fold in range(3)]
    agseg("export", *runs, "--as", "lesions", "-o", place / "weights", "-q")
    return place / "weights/lesions.manifest.yaml"


def test_folds_export_as_one_entry_that_says_what_it_learned_from(place, exported):
    entry = Manifest.load(exported).entry("lesions")
    assert [file.filename for file in entry.files] == [f"lesions-fold-{fold}.safetensors" for fold in range(3)]
    assert entry.labels.names == ("liver", "tumour", "cyst")
    assert entry.input == open_run(place / "runs/lesions-fold-0").recipe.input
    card = exported.with_name("lesions.md").read_text()
    for text in (card, entry.attribution):
        assert "lesions, a data set of the user's own" in text
        assert "CT-150" not in text
    assert "CC BY 4.0" in entry.licence
    # Which cases, without their names, which may be a patient's: every case is learned from by two folds.
    (learned,) = entry.learned
    assert learned.dataset == "lesions"
    assert len(learned.images.split()) == 12
    assert "lesion_0" not in exported.read_text()
    first = open_run(place / "runs/lesions-fold-0")
    from agseg.workflows.export import export_run

    with pytest.raises(RecipeError, match="different folds"):
        export_run([first, first], weights_id="twice", output=place / "no")


def test_weights_are_scored_too_but_not_on_what_they_learned_from(place, exported, tmp_path):
    data, words = place / "Dataset501_Lesions", ["--manifest", exported, "--device", "cpu"]
    told = agseg("evaluate", "--run", "lesions", "--data", data, *words, "-o", tmp_path / "ev", code=2)
    assert "has learned from cases of this test set" in told
    assert "4 of 4" in told
    told = agseg("evaluate", "--run", "lesions", "--protocol", "scr", "--data", data, *words, "-o", tmp_path / "no", code=2)
    assert "--protocol bft, or none" in told
    assert "12 images of lesions" in agseg("weights", "show", "lesions", "--manifest", exported)
    # Weights of which nobody recorded it are scored, and the table says so.
    content = yaml.safe_load(exported.read_text())
    del content["entries"]["lesions"]["learned"]
    silent = exported.with_name("silent.manifest.yaml")
    silent.write_text(yaml.safe_dump(content))
    words[1] = silent
    agseg("evaluate", "--run", "lesions", "--data", data, *words, "-o", tmp_path / "ev", "-q")
    table = (tmp_path / "ev/table.md").read_text()
    assert "| lesions | liver | 4 |" in table
    assert "which cases the weights of lesions learned from is not recorded" in table


def test_segment_joins_the_channels_and_finds_what_evaluate_found(place, exported, tmp_path):
    studies, out = tmp_path / "imagesTs", tmp_path / "out"
    studies.mkdir()
    for name in ("lesion_000_0000", "lesion_000_0001", "lesion_001_0000"):
        shutil.copy(place / f"Dataset501_Lesions/imagesTr/{name}.nii.gz", studies)
    words = [
        "segment",
        studies,
        "--manifest",
        exported,
        "--weights",
        "lesions",
        "-o",
        out,
        "--device",
        "cpu",
        "--precision",
        "fp32",
    ]
    told = json.loads(agseg(*words, "--precision", "fp32", "--no-preview", "--json", code=3))
    by_id = {study["input"]: study for study in told["studies"]}
    assert by_id["lesion_000"]["status"] == "done"
    assert by_id["lesion_001"]["status"] == "rejected"
    assert "lesion_001_0001" in by_id["lesion_001"]["message"]
    assert told["files"]["used"] == 3
    members = [open_run(place / f"runs/lesions-fold-{fold}") for fold in range(3)]
    volume = open_cohort(place / "Dataset501_Lesions").read_volume("lesion_000")
    modules = [member.ready().modules[0] for member in members]
    network = ReadyNetwork(modules, device=torch.device("cpu"), precision=Precision.FP32, in_channels=2)
    wanted = members[0].segment(volume, network)
    for name in wanted.label_set.names:
        written = nibabel.load(out / f"lesion_000/{name}.nii.gz")
        assert np.array_equal(np.asarray(written.dataobj) > 0, wanted.of(name))


def test_protocols_do_not_apply(place, tmp_path):
    data, run = place / "Dataset501_Lesions", place / "runs/lesions-fold-0"
    told = agseg("evaluate", "--run", run, "--data", data, "--protocol", "bft", "-o", tmp_path / "no", code=2)
    assert "do not apply" in told
    assert not (tmp_path / "no").exists()


def test_a_paper_data_sets_name_is_not_to_be_had(tmp_path):
    data = write_raw(tmp_path / "raw", cases=2)
    told = agseg("dataset", "new", data, "--name", "ct150", "--channel", "CT", *NAMES, code=2)
    assert "the papers" in told
    assert not (data / "dataset.json").exists()


def test_a_description_that_does_not_read_back_changes_nothing(tmp_path):
    data = write_raw(tmp_path / "raw", cases=2, described=True)
    before = (data / "dataset.json").read_bytes()
    agseg("dataset", "new", data, "--channel", "CT", "--channel", "PET", code=2)  # no case has a second channel
    assert (data / "dataset.json").read_bytes() == before
