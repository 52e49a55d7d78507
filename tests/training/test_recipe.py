"""Every recipe loads, builds its network at full width, and takes one step on a tiny set in its data set's layout."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from agseg.errors import FieldError, RecipeError
from agseg.grid import Grid
from agseg.io.resources import resource_path
from agseg.labels import LabelSet
from agseg.training.cohort import describe_cohort, write_picture_case, write_volume_case
from agseg.training.datasets import Task, dataset
from agseg.training.draws import Affine, ChannelShift
from agseg.training.loaders import batches_of, kept_of, network_of, task_of
from agseg.training.objective import objective
from agseg.training.published import published_row
from agseg.training.recipe import Recipe, find_recipe, recipe_names
from agseg.training.settings import make_optimiser
from agseg.training.splits import Split
from agseg.training.wrappers import EveryScore
from agseg.volume import LabelMask, Quantity, Volume
from agseg.workflows.phantom import make_phantom

pytestmark = pytest.mark.usefixtures("one_thread")

SPACING_MM = 12.0

FIRST = """name: first
title: 3D U-Net
source: a paper
dataset: ct150
split: 120-30
network: {architecture: unet3d, config: {classes: 4, widths: [8, 16, 32, 64]}}
labels: {1: spleen, 2: pancreas, 3: kidney}
input:
  {modality: CT, axis_codes: RAS, spacing_mm: [6.0, 6.0, 6.0], window_hu: null, normalisation: zscore, tile: [48, 40, 32]}
loss: soft-dice
batch: 2
loop: {steps: 60, learning_rate: 1.5e-3, average_decay: 0.9}
"""


def small_cohort(name, root):
    """Two training cases of a data set, as small as a network can take them; returns the split."""
    facts, rng = dataset(name), np.random.default_rng(0)
    if facts.task is Task.FRAME:
        make_phantom("us", cases=3, output=root)
        return Split(tuple(f"subject_0001/{n:02d}" for n in range(14)))
    if facts.task is Task.PICTURE:
        shape = (20, 24, 3) if facts.modality == "RGB" else (20, 24)
        for case in ("a", "b"):
            labels = np.zeros((20, 24), np.uint8)
            labels[5:15, 6:18] = 1
            write_picture_case(root, case, rng.integers(0, 255, shape).astype(np.uint8), labels)
    else:
        grid = Grid((16, 16, 16), np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1]))
        for case in ("a", "b"):
            labels = rng.integers(0, len(facts.labels) + 1, grid.shape).astype(np.uint8)
            signal = rng.normal(50, 40, grid.shape)
            voxels = signal.astype(np.int16) if facts.modality == "CT" else signal.astype(np.float32)
            quantity = Quantity.HU if facts.modality == "CT" else Quantity.SIGNAL
            volume = Volume(voxels, grid, quantity, facts.modality)
            write_volume_case(root, case, volume, LabelMask(labels, grid, facts.label_set))
    ending = ".png" if facts.task is Task.PICTURE else ".nii.gz"
    describe_cohort(root, name=name, label_set=facts.label_set, modality=facts.modality, file_ending=ending, cases=2)
    return Split(("a", "b"))


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory):
    made = {}

    def get(name):
        if name not in made:
            root = tmp_path_factory.mktemp(name)
            made[name] = (root, small_cohort(name, root))
        return made[name]

    return get


def smallest(recipe: Recipe, multiple: int) -> Recipe:
    """The recipe with its full-width network, on the smallest tile that the network takes."""
    spacing = None if recipe.input.spacing_mm is None else (SPACING_MM,) * 3
    tile = (multiple, multiple, 1 if recipe.input.tile[2] == 1 else multiple)
    return replace(recipe, batch=2, input=replace(recipe.input, tile=tile, spacing_mm=spacing))


@pytest.mark.slow
@pytest.mark.parametrize("name", recipe_names())
def test_one_step_at_full_width(name, cohorts):
    torch.manual_seed(0)
    recipe = find_recipe(name)
    root, split = cohorts(recipe.dataset)
    network = network_of(recipe)
    core = network.network if isinstance(network, EveryScore) else network
    recipe = smallest(recipe, core.size_multiple)
    (batch,) = batches_of(recipe, root, split).batches(0, 1)
    kept = None if task_of(recipe) is Task.FRAME else kept_of(recipe, dataset(recipe.dataset).label_set)
    loss = objective(recipe.loss, kept=kept)
    weights = tuple(core.loss_weights) if isinstance(network, EveryScore) else recipe.loop.head_weights
    heads = network.heads(batch.image) if weights else [network(batch.image)]
    assert len(heads) == len(weights or (1,))
    value = sum(w * loss(head.float(), batch) for w, head in zip(weights or (1.0,), heads, strict=True))
    value.backward()
    before = {key: parameter.detach().clone() for key, parameter in network.named_parameters()}
    make_optimiser(network.parameters(), recipe.loop).step()
    assert torch.isfinite(value)
    moved = [key for key, parameter in network.named_parameters() if not torch.equal(parameter, before[key])]
    assert moved
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())


@pytest.mark.parametrize("name", recipe_names())
def test_the_header_gives_the_command(name):
    recipe = find_recipe(name)
    first = (resource_path("train/recipes") / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert "agseg train " in first or "agseg finetune " in first
    assert name in first or re.search(r"--from ct150 --to ct82 --arch [\w-]+3d --data CT82$", first)
    if recipe.protocol == "aft":
        assert "agseg finetune" in first


@pytest.mark.parametrize("name", recipe_names())
def test_what_a_recipe_names_exists(name):
    recipe = find_recipe(name)
    facts = dataset(recipe.dataset)
    if recipe.protocol != "aft":
        assert set(recipe.label_set.names) <= set(facts.label_set.names) or facts.task is Task.FRAME
    if recipe.published is not None:
        assert published_row(recipe.published) is not None
    if recipe.start is not None:
        assert recipe.start.recipe in recipe_names()


def test_every_experiment_of_the_papers_has_a_recipe():
    names = set(recipe_names())
    for architecture in ("unet3d", "attention-unet3d"):
        for rest in ("ct150-120-30", "ct150-30-120", "ct82-aft", "ct82-scr"):
            assert f"{architecture}-{rest}" in names
    assert {"unet3d-6.44m-ct150-120-30", "unet3d-10.40m-ct150-120-30", "attention-unet3d-ct82-5-fold"} <= names
    baselines = ("anu-net", "unet", "r2unet", "unetpp", "attention-unet", "attention-r2unet")
    for target in ("lits-liver", "chaos-liver", "chaos-spleen", "chaos-kidney"):
        assert {f"{architecture}-{target}" for architecture in baselines} <= names
    assert {"focusnet-isic2017", "focusnet-lung"} <= names
    for base in (8, 16, 32):
        assert {f"{kind}-{base}-fetal-us" for kind in ("sononet", "ag-sononet", "ag-sononet-ds", "ag-sononet-ft")} <= names


def test_a_recipe_beside_that_was_named_without_its_suffix_is_offered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "first.yaml").write_text(FIRST)
    with pytest.raises(RecipeError, match="unknown recipe 'first'") as caught:
        find_recipe("first")
    assert str(caught.value.hint).startswith("Did you mean first.yaml?")


def test_a_recipe_of_ones_own_is_read_and_refused_with_its_line(tmp_path):
    text = (resource_path("train/recipes") / "unet3d-phantom-ct150.yaml").read_text(encoding="utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace("name: unet3d-phantom-ct150", "name: mine"))
    assert find_recipe(path).name == "mine"
    assert find_recipe(path).fingerprint != find_recipe("unet3d-phantom-ct150").fingerprint
    path.write_text(text.replace("name: unet3d-phantom-ct150", "name: mine\nlerning_rate: 1"))
    with pytest.raises(RecipeError, match=r"line \d+: unknown key 'lerning_rate'"):
        find_recipe(path)
    path.write_text(text)
    with pytest.raises(RecipeError, match="name is not the recipe's"):
        find_recipe(path)


@pytest.mark.parametrize(
    ("name", "tile", "said"),
    [("focusnet-lung", (100, 100, 1), "16 x 16"), ("unet3d-ct82-scr", (100, 96, 96), "16 x 16 x 16")],
)
def test_a_tile_that_does_not_go_through_is_refused_with_the_multiples_of_its_sides(name, tile, said):
    recipe = find_recipe(name)
    with pytest.raises(FieldError, match="does not go through") as refused:
        replace(recipe, input=replace(recipe.input, tile=tile))
    assert refused.value.expected == f"sides that are multiples of {said}"


def test_every_recipe_is_listed_in_the_documents_and_the_nearest_after_a_wrong_name():
    listed = (Path(__file__).resolve().parents[2] / "docs" / "protocols.md").read_text(encoding="utf-8")
    section = listed.split("## Recipes")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\S+) \| (`.*`) \|$", section, re.MULTILINE)
    assert {name: data for data, names in rows for name in re.findall(r"`([^`]+)`", names)} == {
        name: find_recipe(name).dataset for name in recipe_names()
    }
    with pytest.raises(RecipeError) as refused:
        find_recipe("unet3d-ct82")
    assert "unet3d-ct82-scr" in str(refused.value.hint)
    assert "agseg recipe list" in str(refused.value.hint)


def test_labels_leave_no_gap():
    recipe = find_recipe("unet3d-phantom-ct150")
    with pytest.raises(ValueError, match="without a gap"):
        replace(recipe, labels={1: "spleen", 3: "kidney"})


def test_an_organ_that_nobody_labelled_is_refused():
    recipe = find_recipe("unet3d-phantom-ct150")
    with pytest.raises(RecipeError, match="does not label"):
        kept_of(recipe, LabelSet.from_mapping({1: "pancreas"}))


def test_the_papers_affine_is_in_the_recipes():
    assert find_recipe("unet3d-ct150-120-30").affine == Affine((0, 1), 15.0, 0.1, (0.7, 1.3))


def test_a_recipe_of_the_first_release_keeps_its_fingerprint(tmp_path):
    """Runs go on by it: a key that is added is left out at its default."""
    path = tmp_path / "first.yaml"
    path.write_text(FIRST)
    found = find_recipe(path)
    assert found.fingerprint == "5f5008c23f61050c6b288b13ee9809a2e8e35f277b8d5f1d05c54f9024eb8e45"
    added = replace(found, channel_shift=ChannelShift(most=10.0, chance=0.1))
    frozen = replace(found, loop=replace(found.loop, frozen=("encoder.",)))
    assert len({found.fingerprint, added.fingerprint, frozen.fingerprint}) == 3
