"""A run is scored on cases it has not seen, and goes on only with the cases it began with."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from agseg.cli.app import app
from agseg.errors import RecipeError, UsageError
from agseg.io.nifti import read_labels
from agseg.io.nifti_write import write_mask
from agseg.training.checkpoint import Checkpoint
from agseg.training.cohort import Cohort
from agseg.training.frames import open_frames, subject_of
from agseg.training.recipe import find_recipe
from agseg.training.splits import SPLITS_FILE, read_split
from agseg.training.trained_model import open_run
from agseg.workflows.evaluate import RunRequest, evaluate_run
from agseg.workflows.finetune import finetune, finetune_recipe
from agseg.workflows.phantom import make_phantom
from agseg.workflows.train import RunPlace, run_training
from tests.workflows.test_train import COARSE, SOURCE, tiny

pytestmark = pytest.mark.usefixtures("one_thread")

CROSS = replace(tiny("attention-unet3d-phantom-ct82-scr", steps=2, warmup_steps=0, validate_every=0), split="5-fold")
FOLD = 3


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "ct82"
    make_phantom("ct82", cases=6, output=root, coarsen=COARSE)
    return root


@pytest.fixture(scope="module")
def begun(data, tmp_path_factory):
    """A run on fold 3 that was stopped after its first step."""
    torch.set_num_threads(1)
    run = tmp_path_factory.mktemp("runs") / "cross"
    run_training(CROSS, RunPlace(data, run, fold=FOLD, device="cpu", stop_after=1))
    return run


@pytest.fixture
def going_on(data, begun, tmp_path):
    """A copy of that run and of its data that a test may change, as a place to go on."""
    shutil.copytree(data, tmp_path / "ct82")
    shutil.copytree(begun, tmp_path / "run")
    return RunPlace(tmp_path / "ct82", tmp_path / "run", fold=FOLD, device="cpu", resume=True)


@pytest.mark.slow
def test_a_fold_is_scored_on_its_own_test_side(data, begun, tmp_path):
    split = read_split(data, "5-fold", fold=FOLD)
    report = evaluate_run(RunRequest(begun, data=data), output=tmp_path / "out")
    assert tuple(case.case for case in report.evaluation.cases) == split.test
    assert (report.evaluation.about["split"], report.evaluation.about["fold"]) == ("5-fold", FOLD)
    command = ["evaluate", "--run", str(begun), "--data", str(data), "-o", str(tmp_path / "cli"), "-q"]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert json.loads((tmp_path / "cli/evaluation.json").read_text())["about"]["fold"] == FOLD
    # The page has the worst case first, and a row may be called otherwise.
    worst = min(report.evaluation.cases, key=lambda score: (score.counts.dice, -score.counts.false_negative))
    assert f"<h3>{worst.case}: {worst.organ}</h3>" in (tmp_path / "out/report.html").read_text()
    assert CliRunner().invoke(app, [*command, "--name", "mine"]).exit_code == 0
    assert json.loads((tmp_path / "cli/evaluation.json").read_text())["model"] == "mine"
    assert "SCR mine" in (tmp_path / "cli/table.md").read_text()


def test_cases_it_has_learned_from_are_refused(data, begun, tmp_path):
    own = read_split(data, "5-fold", fold=FOLD)
    learned = {*own.train, *own.validation}
    refused = 0
    for split, fold in [*(("5-fold", fold) for fold in range(5)), ("61-21", None)]:
        request = RunRequest(begun, data=data, split=split, fold=fold)
        common = learned & {*read_split(data, split, fold=fold or 0).test}
        if not common:
            evaluate_run(request, output=tmp_path / f"{split}-{fold}")
            continue
        refused += 1
        with pytest.raises(UsageError) as caught:
            evaluate_run(request, output=tmp_path / "refused")
        assert min(common) in str(caught.value)
        assert "fold 3 of split 5-fold" in caught.value.hint
    assert refused >= 4
    assert not (tmp_path / "refused").exists()


@pytest.mark.slow
def test_a_fold_of_frames_is_scored_on_its_own_test_side(tmp_path):
    make_phantom("us", cases=3, output=tmp_path / "us")
    recipe, path = find_recipe("sononet-8-fetal-us"), tmp_path / "us" / SPLITS_FILE
    subjects = {}
    for frame in open_frames(tmp_path / "us").ids:
        subjects.setdefault(subject_of(frame), []).append(frame)
    a, b, c = subjects.values()
    folds = [{"train": one, "validation": [], "test": other} for one, other in ((a, b), (b, c), (c, a))]
    path.write_text(json.dumps({recipe.split: folds}))
    loop = replace(recipe.loop, steps=1, warmup_steps=0, validate_every=0)
    recipe = replace(recipe, batch=2, input=replace(recipe.input, tile=(48, 64, 1)), loop=loop)
    run_training(recipe, RunPlace(tmp_path / "us", tmp_path / "run", fold=2, device="cpu"))
    evaluate_run(RunRequest(tmp_path / "run", data=tmp_path / "us"), output=tmp_path / "out")
    assert "the image of a learned" not in (tmp_path / "out/table.md").read_text()
    scored = [line.split(",")[0] for line in (tmp_path / "out/per_frame.csv").read_text().splitlines()[1:]]
    assert scored == a
    with pytest.raises(UsageError, match=f"{len(c)} of {len(c)}"):
        evaluate_run(RunRequest(tmp_path / "run", data=tmp_path / "us", fold=1), output=tmp_path / "no")


def test_an_equal_image_on_the_own_test_side_stands_in_the_record(data, tmp_path):
    root, run = tmp_path / "ct82", tmp_path / "run"
    shutil.copytree(data, root)
    split = read_split(root, "5-fold", fold=FOLD)
    learned, tested = split.train[0], split.test[0]
    for folder, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        shutil.copyfile(root / folder / f"{learned}{ending}", root / folder / f"{tested}{ending}")
    run_training(CROSS, RunPlace(root, run, fold=FOLD, device="cpu", stop_after=1))
    command = ["evaluate", "--run", str(run), "--data", str(root), "-o", str(tmp_path / "out"), "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0
    assert f"{tested} = {learned}" in result.stderr
    assert json.loads((tmp_path / "out/evaluation.json").read_text())["about"]["same_image"] == {tested: learned}


@pytest.mark.slow
def test_an_equal_frame_on_the_own_test_side_stands_in_the_table(tmp_path):
    root = tmp_path / "us"
    make_phantom("us", cases=3, output=root)
    recipe = find_recipe("sononet-8-fetal-us")
    split, rows = read_split(root, recipe.split), open_frames(root).rows
    learned, tested = split.train[0], split.test[0]
    shutil.copyfile(root / rows[learned].file, root / rows[tested].file)
    loop = replace(recipe.loop, steps=1, warmup_steps=0, validate_every=0)
    recipe = replace(recipe, batch=2, input=replace(recipe.input, tile=(48, 64, 1)), loop=loop)
    run_training(recipe, RunPlace(root, tmp_path / "run", device="cpu"))
    report = evaluate_run(RunRequest(tmp_path / "run", data=root), output=tmp_path / "out")
    assert report.to_dict()["same_image"] == {tested: learned}
    assert (
        f"Test frames that hold the image of a learned frame (1): {tested} = {learned}."
        in (tmp_path / "out/table.md").read_text()
    )


@pytest.mark.slow
def test_a_run_lists_what_it_and_its_source_learned_from(data, tmp_path):
    make_phantom("ct150", cases=5, output=tmp_path / "ct150", coarsen=COARSE)
    first = tiny(SOURCE, steps=1, warmup_steps=0, validate_every=0)
    run_training(first, RunPlace(tmp_path / "ct150", tmp_path / "s", device="cpu"))
    source = open_run(tmp_path / "s")
    recipe = replace(finetune_recipe("ct82", source), loop=tiny("attention-unet3d-phantom-ct82-aft", steps=2).loop)
    place = RunPlace(data, tmp_path / "tuned", device="cpu", stop_after=1)
    finetune(source, recipe, place)
    splits = (read_split(data, recipe.split), read_split(tmp_path / "ct150", "120-30"))
    for _ in range(2):
        learned = json.loads((tmp_path / "tuned/run.json").read_text())["learned"]
        assert [stage["dataset"] for stage in learned] == ["ct82", "ct150"]
        for stage, split in zip(learned, splits, strict=True):
            assert (tuple(stage["train"]), tuple(stage["validation"])) == (split.train, split.validation)
        finetune(source, recipe, replace(place, stop_after=None, resume=True))  # going on forgets nothing
    report = evaluate_run(RunRequest(tmp_path / "tuned", data=data), output=tmp_path / "out")
    assert "learned" not in report.evaluation.about["network"]


def test_a_run_goes_on_with_its_data_wherever_they_lie(going_on):
    assert run_training(CROSS, going_on).step == 2


def test_without_a_checkpoint_no_case_is_read(going_on, monkeypatch):
    opened = []
    monkeypatch.setattr(Cohort, "read_volume", lambda _cohort, case: opened.append(case))
    (going_on.output / "last.pt").unlink()
    with pytest.raises(RecipeError, match="no checkpoint to resume from"):
        run_training(CROSS, going_on)
    assert opened == []


def test_other_data_are_refused_on_resume(going_on):
    shutil.rmtree(going_on.data)
    make_phantom("ct82", cases=6, output=going_on.data, coarsen=COARSE, seed=99)
    with pytest.raises(RecipeError, match="not those that this run began with: found ct82_0001"):
        run_training(CROSS, going_on)


def test_corrected_labels_are_other_data(going_on):
    case = read_split(going_on.data, "5-fold", fold=FOLD).train[1]
    path = going_on.data / "labelsTr" / f"{case}.nii.gz"
    header, labels = read_labels(path)
    labels[tuple(np.argwhere(labels)[0])] = 0
    write_mask(path, labels, header.grid)
    with pytest.raises(RecipeError, match=f"found {case}$"):
        run_training(CROSS, going_on)


def test_a_changed_split_is_refused_on_resume(going_on):
    path = going_on.data / SPLITS_FILE
    whole = json.loads(path.read_text())
    sides = whole["5-fold"][FOLD]
    sides["train"][0], sides["validation"][0] = sides["validation"][0], sides["train"][0]
    path.write_text(json.dumps(whole))
    with pytest.raises(RecipeError, match="not those that this run began with"):
        run_training(CROSS, going_on)
    sides["train"][0], sides["validation"][0] = sides["validation"][0], sides["train"][0]
    sides["test"] = []
    path.write_text(json.dumps(whole))
    with pytest.raises(RecipeError, match="other test cases"):
        run_training(CROSS, going_on)


def test_a_run_of_an_earlier_version_says_why_it_cannot_go_on(going_on):
    last = going_on.output / "last.pt"
    state = Checkpoint.read(last)
    replace(state, fingerprint=":".join(state.fingerprint.split(":")[:2])).write(last)
    with pytest.raises(RecipeError, match="earlier version") as caught:
        run_training(CROSS, going_on)
    assert "another folder" in caught.value.hint


def test_another_recipe_or_fold_does_not_go_on(going_on):
    with pytest.raises(RecipeError, match=rf"another run: found batch: {CROSS.batch + 1} \(it began with {CROSS.batch}\)"):
        run_training(replace(CROSS, batch=CROSS.batch + 1), going_on)
    with pytest.raises(RecipeError, match=r"another run: found loop\.steps: 3 \(it began with 2\)") as longer:
        run_training(replace(CROSS, loop=replace(CROSS.loop, steps=3)), going_on)
    assert "--from RUN" in str(longer.value.hint)
    with pytest.raises(RecipeError, match=f"another fold: found 0, expected --fold {FOLD}"):
        run_training(CROSS, replace(going_on, fold=0))
    (going_on.output / "recipe.yaml").unlink()  # the checkpoint knows it too
    with pytest.raises(RecipeError, match="holds another run"):
        run_training(replace(CROSS, batch=CROSS.batch + 1), going_on)


def test_a_recipe_whose_words_were_corrected_goes_on(going_on):
    corrected = replace(CROSS, title="said better", source="another section", minutes_on_gpu=3.0)
    assert run_training(corrected, going_on).step == 2
