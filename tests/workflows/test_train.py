"""The headline on phantoms: train, fine-tune, evaluate, export, segment; and the promises of a run on the way."""

import json
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from agseg.errors import RecipeError, UsageError
from agseg.training.case_cache import CaseCache
from agseg.training.checkpoint import Checkpoint
from agseg.training.cohort import Cohort, open_cohort
from agseg.training.evaluation import read_evaluation
from agseg.training.leakage import LEARNED
from agseg.training.recipe import find_recipe, to_yaml
from agseg.training.splits import read_split
from agseg.training.trained_model import open_run
from agseg.weights.manifest import Manifest
from agseg.workflows.evaluate import RunRequest, evaluate_protocol, evaluate_run
from agseg.workflows.evaluate_folders import evaluate_folders
from agseg.workflows.export import export_run
from agseg.workflows.finetune import default_run, finetune, finetune_recipe, source_network
from agseg.workflows.phantom import make_phantom
from agseg.workflows.train import RunPlace, run_training

pytestmark = pytest.mark.usefixtures("one_thread")

SOURCE = "attention-unet3d-phantom-ct150"
COARSE = 4.0


def tiny(name, **loop):
    """A recipe of the repository with a network and a grid that a test can afford."""
    recipe = find_recipe(name)
    network = replace(recipe.network, config={"classes": recipe.network.config["classes"], "widths": [4, 6, 8]})
    spec = replace(recipe.input, spacing_mm=(14.0, 14.0, 14.0), tile=(24, 20, 12))
    settings = {"steps": 6, "warmup_steps": 2, "checkpoint_every": 2, "log_every": 1, "learning_rate": 5e-3, **loop}
    return replace(recipe, network=network, input=spec, loop=replace(recipe.loop, **settings))


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for site in ("ct150", "ct82"):
        make_phantom(site, cases=5, output=root / site, coarsen=COARSE)
    return root


@pytest.fixture(scope="module")
def runs(sites, tmp_path_factory):
    """A runs folder with the source's network, where ``agseg train`` would have left it."""
    root = tmp_path_factory.mktemp("runs")
    run_training(tiny(SOURCE, validate_every=3), RunPlace(sites / "ct150", root / SOURCE, device="cpu"))
    return root


@pytest.fixture(scope="module")
def tuned(sites, runs):
    source = source_network("ct150", architecture="attention-unet3d", runs=runs)
    recipe = replace(finetune_recipe("ct82", source), loop=tiny("attention-unet3d-phantom-ct82-aft").loop)
    finetune(source, recipe, RunPlace(sites / "ct82", runs / "tuned", device="cpu"))
    return runs / "tuned"


def weights_of(run):
    return Checkpoint.read(run / "last.pt").network


def test_a_run_leaves_everything_that_is_needed_to_use_it(runs):
    run = runs / SOURCE
    assert {"recipe.yaml", "run.json", "last.pt", "best.pt", "log.csv"} <= {path.name for path in run.iterdir()}
    about = json.loads((run / "run.json").read_text())
    assert about["cases"] == {"train": 3, "validation": 1, "test": 1}
    assert about["steps_done"] == 6
    assert about["seconds"] > 0
    trained = open_run(run)
    assert trained.recipe == tiny(SOURCE, validate_every=3)
    assert trained.labels.names == ("spleen", "pancreas", "kidney")


@pytest.mark.slow
def test_a_resumed_run_ends_bit_for_bit_like_an_undisturbed_one(sites, runs, tmp_path):
    recipe = tiny(SOURCE, validate_every=3)
    place = RunPlace(sites / "ct150", tmp_path / "run", device="cpu")
    run_training(recipe, replace(place, stop_after=3))
    assert Checkpoint.read(tmp_path / "run/last.pt").step == 3
    torch.rand(7)  # whatever happens between the two halves
    run_training(recipe, replace(place, resume=True))
    whole, halves = weights_of(runs / SOURCE), weights_of(tmp_path / "run")
    assert all(torch.equal(whole[key], halves[key]) for key in whole)
    finished = run_training(recipe, replace(place, resume=True))
    assert (finished.began_at, finished.step, finished.steps, finished.loss) == (6, 6, 6, None)
    with pytest.raises(RecipeError, match="holds a run already"):
        run_training(recipe, place)


@pytest.mark.slow
def test_with_a_cache_a_run_is_the_same_and_the_next_one_reads_no_scan(sites, runs, tmp_path, monkeypatch):
    recipe = tiny(SOURCE)
    read = []
    original = Cohort.read_volume
    monkeypatch.setattr(Cohort, "read_volume", lambda cohort, case_id: read.append(case_id) or original(cohort, case_id))
    for name, count in (("first", 3 + 4), ("second", 0)):  # three learned from; these and one for validation are digested
        cache = CaseCache(tmp_path / "cache", 1e9)
        run_training(recipe, RunPlace(sites / "ct150", tmp_path / name, device="cpu", cache=cache))
        assert len(read) == count
        read.clear()
    plain = weights_of(runs / SOURCE)  # it validated on the way, which moves no weight
    for name in ("first", "second"):
        assert all(torch.equal(value, plain[key]) for key, value in weights_of(tmp_path / name).items())
    first, second = (json.loads((tmp_path / name / "run.json").read_text())[LEARNED] for name in ("first", "second"))
    assert first == second


def test_training_never_opens_a_test_case(sites, tmp_path, monkeypatch):
    opened = set()
    for name in ("read_volume", "read_mask"):
        real = getattr(Cohort, name)

        def spy(self, case, *, real=real, **rest):
            opened.add(case)
            return real(self, case, **rest)

        monkeypatch.setattr(Cohort, name, spy)
    split = read_split(sites / "ct150", "120-30")
    run_training(tiny(SOURCE, steps=1, validate_every=1), RunPlace(sites / "ct150", tmp_path / "run", device="cpu"))
    assert opened == {*split.train, *split.validation}
    assert split.test


@pytest.mark.slow
def test_fine_tuning_starts_from_the_source_and_leaves_the_dropped_logits_alone(runs, tuned):
    source, after = open_run(runs / SOURCE).bare().state_dict(), open_run(tuned, best=False).bare().state_dict()
    assert source["head.weight"].shape[0] == 4
    assert torch.equal(source["head.weight"][[1, 3]], after["head.weight"][[1, 3]])
    assert not torch.equal(source["head.weight"][[0, 2]], after["head.weight"][[0, 2]])
    trained = open_run(tuned)
    assert trained.kept == (0, 2)
    assert trained.labels.names == ("pancreas",)


@pytest.mark.slow
def test_protocols_are_told_apart(sites, runs, tuned, tmp_path):
    data, split = sites / "ct82", "61-21"
    source = open_run(runs / SOURCE)
    bft = evaluate_protocol(source, protocol_name="bft", data=data, output=tmp_path / "bft", split=split)
    aft = evaluate_run(RunRequest(tuned, data=data), output=tmp_path / "aft", against=[tmp_path / "bft"], masks=True)
    assert [case.case for case in bft.evaluation.cases] == list(read_split(data, split).test)
    assert [row.name for row in aft.table.rows] == ["BFT attention-unet3d", "AFT attention-unet3d"]
    assert {c.metric for c in aft.table.comparisons} == {"dice", "precision", "recall", "s2s_mm"}
    for wrong, network in (("aft", source), ("scr", source), ("scr", open_run(tuned)), ("bft", open_run(tuned))):
        with pytest.raises(RecipeError):
            evaluate_protocol(network, protocol_name=wrong, data=data, output=tmp_path / "no", split=split)
    assert not (tmp_path / "no").exists()
    written = read_evaluation(tmp_path / "aft")
    assert written.values("pancreas", "dice") == aft.evaluation.values("pancreas", "dice")
    summary = json.loads((tmp_path / "aft/summary.json").read_text())
    assert set(summary) >= {"foreground_mean", "mean", "metric_per_case"}
    first = summary["metric_per_case"][0]
    assert set(first["metrics"]["1"]) == {"Dice", "IoU", "FN", "FP", "TN", "TP", "n_pred", "n_ref"}
    assert (tmp_path / "aft" / first["prediction_file"]).exists()
    folders = evaluate_folders(data / "labelsTr", _with_every_name(data, tmp_path / "aft/predictions"), output=tmp_path / "f")
    dice = folders.evaluation.values("pancreas", "dice")
    for case, value in aft.evaluation.values("pancreas", "dice").items():
        assert dice[case] == pytest.approx(value, nan_ok=True)


def _with_every_name(data, predictions):
    """The predictions, completed by the references themselves for the cases that were not predicted."""
    for path in (data / "labelsTr").glob("*.nii.gz"):
        target = predictions / path.name
        if not target.exists():
            target.write_bytes(path.read_bytes())
    return predictions


@pytest.mark.slow
def test_the_exported_entry_segments_like_the_run(sites, runs, tuned, tmp_path):
    data = sites / "ct82"
    report = evaluate_run(RunRequest(tuned, data=data), output=tmp_path / "scores", masks=True)
    made = export_run(open_run(tuned), weights_id="phantom-pancreas", output=tmp_path / "w", evaluation=report.evaluation)
    entry = Manifest.load(made.manifest).entry("phantom-pancreas")
    assert entry.sha256 is not None
    assert entry.config["classes"] == 2
    assert entry.labels.names == ("pancreas",)
    card = made.card.read_text()
    assert "SYNTHETIC" in entry.attribution
    assert "SYNTHETIC" in entry.caution
    for fact in (
        "SYNTHETIC phantoms in place of NIH Pancreas-CT",
        "CC0-1.0",
        "steps",
        "minutes on",
        "61-21",
        "Not for clinical decisions",
        "pancreas",
    ):
        assert fact in card
    case = read_split(data, "61-21").test[0]
    image = open_cohort(data).image_path(case)
    weights = ["--manifest", str(made.manifest), "--weights", "phantom-pancreas", "-d", "cpu", "--precision", "fp32"]
    command = [
        sys.executable,
        "-m",
        "agseg",
        "segment",
        str(image),
        *weights,
        "-q",
        "-o",
        str(tmp_path / "out"),
        "--no-preview",
    ]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    (mask,) = (tmp_path / "out").rglob("pancreas.nii.gz")
    found = np.asarray(nibabel.load(mask).dataobj)
    expected = np.asarray(nibabel.load(tmp_path / f"scores/predictions/{case}.nii.gz").dataobj)
    assert (found == expected).mean() > 0.999


@pytest.mark.slow
def test_a_weights_entry_is_a_source_too(sites, runs, tmp_path):
    made = export_run(open_run(runs / SOURCE), weights_id="phantom-organs", output=tmp_path / "w")
    source = source_network(
        "phantom-organs", architecture="", runs=runs, manifest=made.manifest, home=tmp_path / "home", offline=True
    )
    recipe = replace(find_recipe("attention-unet3d-ct82-aft"), loop=tiny("attention-unet3d-phantom-ct82-aft", steps=1).loop)
    finetune(source, recipe, RunPlace(sites / "ct82", tmp_path / "run", device="cpu"))
    trained = open_run(tmp_path / "run")
    assert trained.recipe.network.config["widths"] == [4, 6, 8]
    assert trained.kept == (0, 2)
    assert trained.recipe.published is None  # the published row belongs to the published network


@pytest.mark.slow
def test_what_has_not_been_trained_is_said_with_the_command(tmp_path):
    with pytest.raises(RecipeError) as caught:
        default_run("ct150", "unet3d", runs=tmp_path)
    assert "agseg train unet3d-ct150-120-30" in caught.value.hint
    make_phantom("ct82", cases=3, output=tmp_path / "ct82", coarsen=5.0)
    with pytest.raises(RecipeError, match="no such split") as other:
        run_training(find_recipe("unet3d-ct150-120-30"), RunPlace(tmp_path / "ct82", tmp_path / "run"))
    assert "The recipe is for ct150, this data set is ct82." in str(other.value.hint)
    with pytest.raises(RecipeError, match="starts from another"):
        run_training(find_recipe("ag-sononet-8-fetal-us"), RunPlace(_frames(tmp_path), tmp_path / "run"))


def _frames(root):
    if not (root / "us").exists():
        make_phantom("us", cases=3, output=root / "us")
    return root / "us"


@pytest.mark.slow
def test_frames_are_trained_in_stages_and_evaluated(tmp_path):
    data = _frames(tmp_path)
    for name, source in (("sononet-8-fetal-us", None), ("ag-sononet-8-fetal-us", "sononet-8-fetal-us")):
        recipe = find_recipe(name)
        spec = replace(recipe.input, tile=(48, 64, 1))
        loop = replace(recipe.loop, steps=2, warmup_steps=0, validate_every=2, learning_rate=0.01)
        start = None if source is None else open_run(tmp_path / source, best=False)
        place = RunPlace(data, tmp_path / name, device="cpu")
        run_training(replace(recipe, batch=4, input=spec, loop=loop), place, source=start)
    evaluate_run(RunRequest(tmp_path / "sononet-8-fetal-us", data=data), output=tmp_path / "baseline")
    request = RunRequest(tmp_path / "ag-sononet-8-fetal-us", data=data)
    report = evaluate_run(request, output=tmp_path / "scores", against=[tmp_path / "baseline"])
    assert [gain.over for gain in report.over] == ["sononet-8"]
    assert report.frames == 14
    with pytest.raises(UsageError, match="no masks"):
        evaluate_run(request, output=tmp_path / "scores", masks=True)
    assert 0 <= report.accuracy <= 1
    table = (tmp_path / "scores/table.md").read_text()
    assert "0.976" not in table  # no published figure stands beside synthetic frames
    (data / "dataset.json").unlink()
    evaluate_run(request, output=tmp_path / "scores")
    assert "0.976" not in (tmp_path / "scores/table.md").read_text()  # the network learned from synthetic ones
    run = tmp_path / "ag-sononet-8-fetal-us/run.json"
    run.write_text(run.read_text().replace('"synthetic": true', '"synthetic": false'))
    evaluate_run(RunRequest(tmp_path / "ag-sononet-8-fetal-us", data=data), output=tmp_path / "scores")
    assert "0.976" not in (tmp_path / "scores/table.md").read_text()  # two steps are not the paper's
    assert "does not repeat the paper's experiment (" in (tmp_path / "scores/table.md").read_text()
    paper = find_recipe("ag-sononet-8-fetal-us")
    run.with_name("recipe.yaml").write_text(to_yaml(paper))
    about = json.loads(run.read_text())
    assert about["source"]["published"] is None  # nor were its baseline's
    about["source"]["published"] = find_recipe("sononet-8-fetal-us").published
    run.write_text(json.dumps({**about, "steps_done": paper.loop.steps}))
    evaluate_run(RunRequest(tmp_path / "ag-sononet-8-fetal-us", data=data), output=tmp_path / "scores")
    assert "0.976" in (tmp_path / "scores/table.md").read_text()
    entry = export_run(open_run(tmp_path / "ag-sononet-8-fetal-us"), weights_id="planes", output=tmp_path / "w")
    assert len(Manifest.load(entry.manifest).entry("planes").classes) == 14


TWO = """
import sys, torch
from dataclasses import replace
from pathlib import Path
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[4])
from agseg.training.settings import Optimiser
from tests.workflows.test_train import SOURCE, tiny
from agseg.workflows.train import RunPlace, run_training
data, output, batch = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
# SGD, whose step is linear in the gradient; Adam's first steps divide rounding errors by rounding errors.
sgd = dict(optimiser=Optimiser.SGD, learning_rate=0.05, warmup_steps=0)
recipe = tiny(SOURCE, steps=2, freeze_norm_from=0, clip_norm=None, average_decay=0.0, seed=1, **sgd)
recipe = replace(recipe, batch=batch)
processes = 2 if batch == 1 else 1
run_training(recipe, RunPlace(data, output, device="cpu", processes=processes))
"""


@pytest.mark.slow
def test_two_processes_take_the_step_of_one_with_twice_the_batch(sites, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(TWO)
    root = str(Path(__file__).resolve().parents[2])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port", port]
    for extra, name, batch in (([], "one", "2"), (launcher, "two", "1")):
        command = [sys.executable, *extra, str(script), str(sites / "ct150"), str(tmp_path / name), batch, root]
        ran = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=240)
        assert ran.returncode == 0, ran.stderr[-2000:]
    one, two = weights_of(tmp_path / "one"), weights_of(tmp_path / "two")
    for key, value in one.items():
        assert torch.allclose(value.float(), two[key].float(), rtol=0, atol=1e-5), key
