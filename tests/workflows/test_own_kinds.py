"""Own data of other kinds, at toy size: slices of MR, regions with voxels that nobody labelled, a new organ on an old trunk."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from agseg.errors import RecipeError
from agseg.inference.by_entry import segment_with_entry
from agseg.inference.network import load_network
from agseg.inference.prepare import prepare
from agseg.labels import LabelSet
from agseg.models.catalogue import facts
from agseg.models.registry import build
from agseg.training.cohort import open_cohort
from agseg.training.evaluation import read_evaluation
from agseg.training.loaders import load_case
from agseg.training.recipe import LossName, find_recipe, to_yaml
from agseg.training.trained_model import open_run
from agseg.weights.digest import Digest
from agseg.weights.manifest import Manifest
from agseg.workflows import finetune as finetune_module
from agseg.workflows.evaluate_folders import evaluate_folders
from agseg.workflows.export import export_run
from agseg.workflows.finetune import entry_network, finetune, finetune_recipe
from agseg.workflows.finetune_own import adapted_recipe, take_what_fits
from agseg.workflows.train import RunPlace
from tests.workflows.own_phantoms import AFFINE, case_labels, write_raw
from tests.workflows.test_own_data import NAMES, agseg

pytestmark = pytest.mark.usefixtures("one_thread")

TOY = ["--set", "loop.validate_every=0", "--steps", 2, "-q", "--device", "cpu"]


def planned(data, *words, channel="CT", names=NAMES):
    """Describe, cut and plan; returns the recipe's file."""
    agseg("dataset", "new", data, "--name", "toy", "--channel", channel, *names, "-q")
    agseg("dataset", "split", data, "--folds", 2, "--validation", 0, "-q")
    agseg("plan", data, "-o", data.parent, "--memory", 0.1, *words, "-q")
    return data.parent / "toy.yaml"


@pytest.mark.slow
def test_slices_of_mr_are_trained_exported_and_segmented(tmp_path):
    data = write_raw(tmp_path / "raw", cases=4, channels=("T1",))
    recipe = planned(data, "--2d", channel="T1")
    assert find_recipe(recipe).input.tile[2] == 1
    run = tmp_path / "run"
    agseg("train", recipe, "--data", data, "-o", run, "--set", "network.config.widths=[4, 6]", "--batch", 2, *TOY)
    agseg("evaluate", "--run", run, "--data", data, "-o", tmp_path / "ev", "-q", "--device", "cpu")
    agseg("export", run, "--as", "toy-2d", "-o", tmp_path / "weights", "-q")
    entry = Manifest.load(tmp_path / "weights/toy-2d.manifest.yaml").entry("toy-2d")
    assert (entry.input.modality, entry.input.is_flat) == ("MR", True)
    network = load_network(entry, [tmp_path / "weights/toy-2d.safetensors"], device=torch.device("cpu"))
    volume = open_cohort(data).read_volume("lesion_001")
    found = segment_with_entry(volume, network, entry).mask.labels
    assert np.mean(found != open_run(run).segment(volume).labels) < 1e-3  # folded batch norms round otherwise


@pytest.mark.slow
def test_regions_are_trained_and_ignored_voxels_are_not(tmp_path):
    data = write_raw(tmp_path / "raw", cases=4)
    for number in range(4):
        labels = case_labels(number)
        labels[:, :, :2] = 4
        nibabel.save(nibabel.Nifti1Image(labels, AFFINE), data / f"labelsTr/lesion_{number:03d}.nii.gz")
    regions = {"background": 0, "whole": [1, 2, 3], "lesion": [2, 3], "cyst": 3, "ignore": 4}
    described = {"channel_names": {"0": "CT"}, "labels": regions, "regions_class_order": [1, 2, 3], "file_ending": ".nii.gz"}
    (data / "dataset.json").write_text(json.dumps(described))
    recipe = planned(data, names=())
    assert (find_recipe(recipe).loss.value, find_recipe(recipe).input.regions) == ("regions", (1, 2, 3))
    small = ["--set", "network.config.widths=[4, 6]", "--set", "input.tile=[16, 16, 8]"]
    run = tmp_path / "run"
    agseg("train", recipe, "--data", data, "-o", run, *small, *TOY)
    agseg("evaluate", "--run", run, "--data", data, "-o", tmp_path / "ev", "-q", "--device", "cpu")
    scored = read_evaluation(tmp_path / "ev")
    assert scored.organs == ("whole", "lesion", "cyst")
    first = next(score for score in scored.cases if score.organ == "lesion")
    labels = case_labels(int(first.case[-3:]))
    labels[:, :, :2] = 0
    assert first.counts.truth == int(np.isin(labels, (2, 3)).sum())
    agseg("export", run, "--as", "toy-regions", "-o", tmp_path / "weights", "-q")
    entry = Manifest.load(tmp_path / "weights/toy-regions.manifest.yaml").entry("toy-regions")
    assert (entry.input.regions, entry.labels.names) == ((1, 2, 3), ("whole", "lesion", "cyst"))
    told = agseg("train", recipe, "--data", data, "-o", tmp_path / "no", *small, "--set", "loss=soft-dice", *TOY, code=2)
    assert "regions have a loss of their own" in told


@pytest.mark.slow
def test_a_new_organ_grows_on_an_old_trunk(tmp_path):
    data = write_raw(tmp_path / "raw", cases=4)
    recipe = planned(data)
    small = ["--set", "network.config.widths=[4, 6]", "--set", "input.tile=[16, 16, 8]"]
    agseg("train", recipe, "--data", data, "-o", tmp_path / "old", *small, *TOY)
    words = ["finetune", "--from", tmp_path / "old", "--data", data, "-o", tmp_path / "new", "--organ", "tumour", "--batch", 1]
    agseg(*words, *TOY, "--set", "loop.frozen=[encoder.]", "--set", "loop.rates={decoder.: 0.1}")
    old, new = open_run(tmp_path / "old", best=False), open_run(tmp_path / "new", best=False)
    assert new.labels.names == ("tumour",)
    assert json.loads((tmp_path / "new/run.json").read_text())["learned"][1:]  # the source's cases are known too
    before, after = old.bare().state_dict(), new.bare().state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before if key.startswith("encoder."))
    begun = build(new.recipe.network.architecture, new.recipe.network.config)
    taken = take_what_fits(begun, old, LabelSet.from_mapping({1: "tumour"}))
    assert "head.weight" in taken.part
    row = old.labels["tumour"].index
    assert torch.equal(begun.state_dict()["side.0.weight"][1], before["side.0.weight"][row])
    told = agseg(*words[:-4], "--organ", "spleen", *TOY, code=2)
    assert "unknown organ" in told


def test_packaged_weights_come_to_a_papers_data_set_as_documented(tmp_path, monkeypatch):
    source = entry_network("attention-unet-abdomen", manifest=None, home=tmp_path, offline=True)
    recipe = finetune_recipe("ct82", source)
    assert recipe.name == "attention-unet3d-ct82-aft"
    begun = []
    monkeypatch.setattr(finetune_module, "run_training", lambda adapted, *_, **__: begun.append(adapted))
    finetune(source, recipe, RunPlace(Path("ct82"), tmp_path / "run"))
    (adapted,) = begun
    assert adapted.network == source.recipe.network
    assert "kidney_left" in adapted.labels.values()
    assert adapted.affine.flip == (1,)  # left and right are not mirrored: labels have sides
    assert adapted.published is None


def test_a_nested_network_goes_on_training_all_of_its_depths(tmp_path):
    data = write_raw(tmp_path / "raw", cases=4)
    planned(data)
    source = entry_network("anu-net-abdomen", manifest=None, home=tmp_path, offline=True)
    recipe = adapted_recipe(source, data, organs=("liver",))
    assert len(recipe.loop.head_weights or ()) == facts(recipe.network.architecture, recipe.network.config).deepest > 1
    begun = build(recipe.network.architecture, recipe.network.config)
    assert take_what_fits(begun, source, recipe.label_set).part


def test_another_network_is_no_start(tmp_path):
    source = entry_network("attention-unet-abdomen", manifest=None, home=tmp_path, offline=True)
    with pytest.raises(RecipeError, match="another network"):
        take_what_fits(build("attention-unet", {"classes": 2, "widths": [4, 6]}), source, LabelSet.from_mapping({1: "liver"}))
    with pytest.raises(RecipeError, match="another network"):
        take_what_fits(build("attention-unet", {"classes": 2}), source, LabelSet.from_mapping({1: "liver"}))


@pytest.mark.slow
def test_pictures_of_ones_own_are_trained_and_their_masks_written(tmp_path, monkeypatch):
    data, rng = tmp_path / "raw", np.random.default_rng(0)
    for folder in ("imagesTr", "labelsTr"):
        (data / folder).mkdir(parents=True)
    for number in range(4):
        labels = np.zeros((20, 24), np.uint8)
        labels[5:15, 6 : 12 + number] = 1
        pixels = (rng.integers(0, 60, (20, 24, 3)) + labels[..., None] * 150).astype(np.uint8)
        Image.fromarray(pixels).save(data / f"imagesTr/mole_{number}_0000.png")
        Image.fromarray(labels).save(data / f"labelsTr/mole_{number}.png")
    channels = [word for name in "RGB" for word in ("--channel", name)]
    agseg("dataset", "new", data, "--name", "moles", *channels, "--label", "1=mole", "-q")
    agseg("dataset", "split", data, "--folds", 2, "-q")
    recipe = find_recipe("focusnet-isic2017")
    network = replace(recipe.network, architecture="unet", config={"dims": 2, "in_channels": 3, "classes": 2, "widths": [4, 6]})
    own = {"name": "moles", "dataset": "moles", "split": "2-fold", "protocol": "own", "published": None, "labels": {1: "mole"}}
    spec = replace(recipe.input, tile=(16, 16, 1))
    made = replace(recipe, network=network, input=spec, loss=LossName.DICE_CROSS_ENTROPY, batch=2, **own)
    (tmp_path / "moles.yaml").write_text(to_yaml(made))
    agseg("train", tmp_path / "moles.yaml", "--data", data, "-o", tmp_path / "run", *TOY)
    forward, seen = torch.nn.Conv2d.forward, set()

    def spied(layer, x):
        seen.add(x.dtype)
        return forward(layer, x)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", spied)
    computed = ["--run", tmp_path / "run", "--data", data, "-q", "--device", "cpu"]
    agseg("evaluate", *computed, "--masks", "-o", tmp_path / "ev", "--precision", "bf16")
    assert seen == {torch.bfloat16}  # as the table says
    agseg("evaluate", *computed, "--mirror", "-o", tmp_path / "mirrored", code=2)
    agseg("evaluate", *computed, "--largest", "mole", "-o", tmp_path / "largest", code=2)
    scored = read_evaluation(tmp_path / "ev")
    assert "Masks computed in bf16." in (tmp_path / "ev/table.md").read_text()
    assert len(scored.case_ids) == 2
    for score in scored.cases:
        with Image.open(tmp_path / f"ev/predictions/{score.case}.png") as mask:
            assert int((np.asarray(mask) == 1).sum()) == score.counts.predicted
    again = evaluate_folders(data / "labelsTr", tmp_path / "ev/predictions", output=tmp_path / "folders", only=scored.case_ids)
    assert [score.values for score in again.evaluation.cases] == [score.values for score in scored.cases]
    with pytest.raises(RecipeError, match="a network of pictures is not exported") as refused:
        export_run(open_run(tmp_path / "run"), weights_id="moles", output=tmp_path)
    assert "evaluate --run RUN --masks" in str(refused.value.hint)


NNUNET = {
    "modality": "CT",
    "axis_codes": "SPL",
    "spacing_mm": [8.0, 6.0, 6.0],
    "tile": [8, 16, 16],
    "normalisation": "ct",
    "window_hu": [-100.0, 200.0],
    "mean_std": [80.0, 40.0],
    "normalise_first": True,
    "grid": "edges",
    "interpolation": "cubic",
    "carry": "logits",
    "tiles": "spread",
    "crop_nonzero": True,
    "as_stored": True,
}


@pytest.mark.slow
def test_an_imported_network_of_nnunets_is_a_start(tmp_path):
    data = write_raw(tmp_path / "raw", cases=4)
    planned(data)
    config = {
        "dims": 3,
        "classes": 2,
        "features_per_stage": [4, 6],
        "kernel_sizes": [3, 3],
        "strides": [1, 2],
        "n_conv_per_stage": [1, 1],
        "n_conv_per_stage_decoder": [1],
    }
    network = build("nnunet-plain", config)
    save_file(network.state_dict(), tmp_path / "net.safetensors")
    digest = Digest.of(tmp_path / "net.safetensors")
    said = dict.fromkeys(("licence", "citation", "attribution", "intended_use"), "a test")
    file = {"filename": "net.safetensors", "local": "net.safetensors", "sha256": digest.sha256, "size_bytes": digest.size_bytes}
    entry = {"architecture": "nnunet-plain", "config": config, "format": "safetensors", "files": [file], "input": NNUNET}
    entries = {"old-net": {**entry, "labels": {1: "liver"}, **said}}
    (tmp_path / "site.yaml").write_text(yaml.safe_dump({"schema": "agseg.weights/1", "entries": entries}))
    words = ["finetune", "--from", "old-net", "--manifest", tmp_path / "site.yaml", "--data", data, "-o", tmp_path / "run"]
    agseg(*words, "--organ", "tumour", "--organ", "liver", *TOY)
    run = open_run(tmp_path / "run", best=False)
    assert run.labels.names == ("tumour", "liver")
    assert json.loads((tmp_path / "run/run.json").read_text())["start"] == "old-net"
    cohort = open_cohort(data)
    case, volume = load_case(cohort, "lesion_001", run.recipe), cohort.read_volume("lesion_001")
    seen = prepare(volume, run.recipe.input)
    assert torch.equal(case.image, seen.tensor)  # training sees what inference sees
    assert case.labels.shape == seen.tensor.shape
    agseg("evaluate", "--run", tmp_path / "run", "--data", data, "-o", tmp_path / "ev", "-q", "--device", "cpu")
    begun = build("nnunet-plain", run.recipe.network.config)
    assert set(take_what_fits(begun, entry_of(tmp_path), run.labels).part) == {
        "decoder.seg_layer.weight",
        "decoder.seg_layer.bias",
    }
    assert torch.equal(begun.state_dict()["decoder.seg_layer.weight"][2], network.state_dict()["decoder.seg_layer.weight"][1])


def entry_of(folder):
    """The network that the test's own manifest names."""
    return entry_network("old-net", manifest=folder / "site.yaml", home=folder / "home", offline=True)
