"""The prune curve: each depth's Dice is that of its head, and its costs are those of what is read and built."""

import csv
import json
import statistics
import sys
from dataclasses import replace

import PIL.Image
import pytest
import torch
from safetensors import safe_open
from torch import nn
from typer.testing import CliRunner

from agseg.cli.app import app
from agseg.errors import RecipeError, UsageError
from agseg.inference.by_entry import segment_with_entry
from agseg.inference.network import ReadyNetwork
from agseg.measure.overlap import Overlap, overlap
from agseg.models.precision import Precision
from agseg.models.registry import build
from agseg.training.cohort import open_cohort
from agseg.training.recipe import NetworkChoice, find_recipe
from agseg.training.scoring import score_cases
from agseg.training.trained_model import open_run
from agseg.weights.manifest import Manifest
from agseg.workflows.evaluate import RunRequest, evaluate_run
from agseg.workflows.phantom import make_phantom
from agseg.workflows.prune_curve import CurveRequest, prunable_entries, prune_curve
from agseg.workflows.prune_source import PrunableRun
from agseg.workflows.prune_steps import steps_between
from agseg.workflows.train import RunPlace, run_training
from tests.tiny_anu_net import CONFIG, ID, build_anu_net, write_manifest

pytestmark = pytest.mark.usefixtures("one_thread")

DEPTHS = (1, 2, 3, 4)


class Head(nn.Module):
    """One head of the whole network, which is computed to its full depth."""

    def __init__(self, depth):
        super().__init__()
        self.network, self.depth = build_anu_net(), depth

    def forward(self, x):
        return self.network.heads(x)[self.depth - 1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    root = tmp_path_factory.mktemp("prune")
    write_manifest(root / "site")
    make_phantom("ct150", cases=3, output=root / "data", coarsen=5.0)
    return root


@pytest.fixture(scope="module")
def request_of(site):
    def make(**changes):
        given = {"weights": ID, "manifest": site / "site/site.yaml", "cases": 2, "device": "cpu", "offline": True}
        return CurveRequest(site / "data", site / "curve", site / "home", **{**given, **changes})

    return make


@pytest.fixture(scope="module")
def curve(request_of):
    return prune_curve(request_of())


@pytest.mark.slow
def test_the_dice_of_a_depth_is_that_of_the_whole_networks_head(curve, site):
    entry = Manifest.load(site / "site/site.yaml").entry(ID)
    cohort = open_cohort(site / "data")
    means = set()
    for point in curve.points:
        network = ReadyNetwork((Head(point.depth),), device=torch.device("cpu"), precision=Precision.FP32)
        dice = {organ: [] for organ in point.dice}
        for case_id in curve.cases:
            volume = cohort.read_volume(case_id)
            truth, found = cohort.read_mask(case_id), segment_with_entry(volume, network, entry).mask
            for organ, values in dice.items():
                values.append(overlap(found.of(organ), truth=truth.of(organ)).dice)
        assert {"pancreas", "spleen"} == set(dice)
        assert point.dice == pytest.approx({organ: statistics.fmean(values) for organ, values in dice.items()}, abs=1e-3)
        assert point.counted == {"pancreas": 2, "spleen": 2}
        means.add(round(point.mean_dice, 6))
    assert len(means) == len(DEPTHS), "heads that agree would show nothing"


@pytest.mark.slow
def test_parameters_and_bytes_are_those_of_the_nodes_up_to_the_depth(curve, site):
    assert [point.depth for point in curve.points] == list(DEPTHS)
    for point in curve.points:
        pruned = build("anu-net", {**CONFIG, "depth": point.depth})
        assert point.parameters == sum(p.numel() for p in pruned.parameters())
        assert point.read_bytes == sum(t.numel() * t.element_size() for t in pruned.state_dict().values())
    with safe_open(site / f"site/{ID}.safetensors", framework="pt") as file:
        whole = sum(file.get_tensor(key).nbytes for key in file.keys())  # noqa: SIM118
    assert curve.points[-1].read_bytes == whole
    sizes = [(point.parameters, point.read_bytes) for point in curve.points]
    assert sizes == sorted(set(sizes))


def test_each_further_depth_is_tested_over_the_cases():
    """Eight cases gain 0.1 each from depth 1 to 2 and nothing from there: p is 2/2^8 for eight pairs of one sign, and 1."""

    def found(dice):
        hits = round(1000 * dice)
        return Overlap(hits, 1000 - hits, 1000 - hits, 0)

    low, high, none = [found(0.5 + 0.01 * n) for n in range(8)], [found(0.6 + 0.012 * n) for n in range(8)], Overlap(0, 0, 0, 9)
    counts = {1: {"liver": low, "spleen": [none] * 8}, 2: {"liver": high, "spleen": [none] * 8}}
    first, second = steps_between({**counts, 3: counts[2]})
    assert (first.shallower, first.deeper, first.n) == (1, 2, 8)
    assert first.gain == pytest.approx(0.107)
    assert first.p == pytest.approx(2 / 2**8)
    assert first.p_holm == pytest.approx(4 / 2**8)
    assert (second.gain, second.p) == (0, 1)


def test_memory_is_told_on_linux(curve):
    for point in curve.points:
        assert point.peak_bytes is None if sys.platform != "linux" else point.peak_bytes >= 0


def test_the_files_say_what_was_measured(curve, site):
    written = json.loads((site / "curve/curve.json").read_text())
    assert written == json.loads(json.dumps(curve.to_dict()))
    assert written["synthetic"] is True
    assert written["cases"] == list(open_cohort(site / "data").ids[:2])
    with (site / "curve/curve.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["depth"]) for row in rows] == list(DEPTHS)
    for row, point in zip(rows, curve.points, strict=True):
        assert float(row["dice_spleen"]) == pytest.approx(point.dice["spleen"], rel=1e-4)
        assert float(row["seconds"]) == pytest.approx(point.seconds, rel=1e-4)
        assert int(row["parameters"]) == point.parameters
    with PIL.Image.open(site / "curve/curve.png") as picture:
        assert len(picture.convert("L").getcolors()) > 20


@pytest.mark.slow
def test_depths_take_turns_and_times_are_medians_over_all_runs(request_of, monkeypatch):
    from agseg.workflows import prune_source as module

    seconds = {1: [1.0, 5.0, 3.0, 4.0], 2: [9.0, 2.0, 2.0, 8.0], 3: [7.0] * 4, 4: [6.0, 0.0, 6.0, 6.0]}
    left, order = {depth: list(values) for depth, values in seconds.items()}, []
    real = module.segment_with_entry

    def timed(volume, network, entry, **options):
        depth = network.modules[0].depth
        order.append(depth)
        found = real(volume, network, entry, **options)
        found.seconds["predict"] = left[depth].pop(0)
        return found

    monkeypatch.setattr(module, "segment_with_entry", timed)
    curve = prune_curve(request_of(repeats=2))
    assert [order[i : i + 4] for i in (0, 4, 8, 12)] == [[1, 2, 3, 4], [2, 3, 4, 1], [2, 3, 4, 1], [3, 4, 1, 2]]
    assert [point.seconds for point in curve.points] == [3.5, 5.0, 7.0, 6.0]
    assert all(count == 2 for point in curve.points for count in point.counted.values())


def test_what_cannot_be_pruned_is_refused_with_those_that_can(site):
    manifest = site / "site/site.yaml"
    known = prunable_entries(Manifest.load(manifest))
    assert ID in known
    assert "tiny-unet" not in known
    arguments = ["prune-curve", "--data", str(site / "data"), "--manifest", str(manifest), "--weights", "tiny-unet"]
    done = CliRunner().invoke(app, [*arguments, "-o", str(site / "none")])
    assert isinstance(done.exception, UsageError)
    assert done.exception.exit_code == 2
    assert ID in str(done.exception.expected)
    assert not (site / "none").exists()


def test_a_set_without_the_organs_is_refused(request_of, site):
    described = json.loads((site / "data/dataset.json").read_text())
    other = site / "other"
    other.mkdir()
    for name in ("imagesTr", "labelsTr"):
        (other / name).symlink_to(site / "data" / name)
    described["labels"] = {"background": 0, "kidney_left": 1}
    (other / "dataset.json").write_text(json.dumps(described))
    with pytest.raises(RecipeError, match="cannot score"):
        prune_curve(CurveRequest(other, site / "curve2", site / "home", weights=ID, manifest=site / "site/site.yaml"))


def test_a_missing_matplotlib_names_the_extra(request_of, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match="matplotlib") as caught:
        prune_curve(request_of())
    assert "agseg[train]" in caught.value.hint


@pytest.mark.slow
def test_the_command_prints_one_document(site):
    arguments = ["prune-curve", "--data", site / "data", "--manifest", site / "site/site.yaml", "--weights", ID, "--cases", 1]
    done = CliRunner().invoke(app, [*map(str, arguments), "-o", str(site / "cli"), "--device", "cpu", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == json.loads((site / "cli/curve.json").read_text())


@pytest.fixture(scope="module")
def run(site):
    """A 2D ANU-Net of depth 2, trained for two steps with both heads."""
    recipe = find_recipe("anu-net-lits-liver")
    loop = replace(recipe.loop, steps=2, validate_every=0, checkpoint_every=2, head_weights=(1.0, 1.0))
    recipe = replace(
        recipe,
        dataset="ct150",
        split="120-30",
        published=None,
        labels={1: "spleen"},
        network=NetworkChoice("anu-net", {"dims": 2, "widths": [4, 6, 8], "depth": 2}),
        input=replace(recipe.input, spacing_mm=(10.0, 10.0, 14.0), tile=(40, 32, 1)),
        batch=2,
        loop=loop,
    )
    run_training(recipe, RunPlace(site / "data", site / "runs/two-d", device="cpu"))
    return site / "runs/two-d"


@pytest.mark.slow
def test_a_run_by_slices_has_a_curve_and_its_deepest_point_is_its_evaluation(run, site):
    arguments = [
        "prune-curve",
        "--weights",
        run,
        "--data",
        site / "data",
        "-o",
        site / "run-curve",
        "--device",
        "cpu",
        "--json",
    ]
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    curve = json.loads(done.stdout)
    scores = evaluate_run(RunRequest(run, data=site / "data"), output=site / "run-scores").evaluation
    assert curve["cases"] == [score.case for score in scores.cases]
    deepest = curve["points"][-1]
    assert deepest["depth"] == 2
    assert deepest["pooled_dice"]["spleen"] == pytest.approx(scores.pooled("spleen").dice, abs=1e-3)
    assert deepest["pooled_iou"]["spleen"] == pytest.approx(scores.pooled("spleen").iou, abs=1e-3)
    trained = open_run(run)
    shallow = replace(trained, network=FirstHead(trained.network))
    ((found,),) = score_cases(shallow, site / "data", curve["cases"])
    assert curve["points"][0]["pooled_dice"]["spleen"] == pytest.approx(found.counts.dice, abs=1e-3)
    assert curve["points"][0]["parameters"] == sum(p.numel() for p in build("anu-net", {**TWO_D, "depth": 1}).parameters())
    assert curve["points"][0]["read_bytes"] < deepest["read_bytes"]
    assert curve["published"] == []


TWO_D = {"dims": 2, "widths": [4, 6, 8]}


class FirstHead(nn.Module):
    """The shallowest head of a whole network."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network.heads(x)[0]


def test_a_run_that_trained_one_head_only_has_no_curve_and_must_say_so(run, site):
    trained = open_run(run)
    for weights in (None, (0.0, 1.0)):
        alone = replace(trained, recipe=replace(trained.recipe, loop=replace(trained.recipe.loop, head_weights=weights)))
        with pytest.raises(UsageError, match="never learned"):
            PrunableRun(alone)
    for weights in (None, (1.0,)):
        silent = replace(trained.recipe, loop=replace(trained.recipe.loop, head_weights=weights))
        with pytest.raises(RecipeError, match="a weight for the loss of each") as refused:
            run_training(silent, RunPlace(site / "data", site / "runs/silent", device="cpu"))
        assert "[0, 1]" in refused.value.hint
    plain = replace(
        trained, recipe=replace(trained.recipe, network=NetworkChoice("unet", {"classes": 2, "dims": 2, "widths": [4, 6, 8]}))
    )
    with pytest.raises(UsageError, match="cannot be pruned"):
        PrunableRun(plain)
