"""Strips of attention: a panel per validation, exact colours, and no influence on the run."""

from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn

from agseg.errors import RecipeError
from agseg.grid import Grid
from agseg.inference.attention import GateMap
from agseg.labels import LabelSet
from agseg.models.registry import build
from agseg.models.slice_wise import SliceWise
from agseg.training.attention_strip import AttentionStrip, View, volume_gates
from agseg.training.checkpoint import Checkpoint
from agseg.training.trained_model import TrainedModel
from agseg.volume import LabelMask, Volume
from agseg.workflows.phantom import make_phantom
from agseg.workflows.train import RunPlace, run_training
from tests.workflows.test_train import SOURCE, tiny

pytestmark = pytest.mark.usefixtures("one_thread")


class Constant(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value


def strip_in(folder, **changes):
    image, truth = np.full((10, 20), 0.5, dtype=np.float32), np.zeros((10, 20), dtype=bool)
    truth[3:7, 5:15] = True

    def gates(network):
        return {"gate1": {"axial": np.full((10, 20), network.value, dtype=np.float32)}}

    return AttentionStrip(folder, views={"axial": View(image, truth, **changes)}, gates=gates)


def panels(path, count):
    """Colours in the middle of each panel."""
    with PIL.Image.open(path) as picture:
        assert picture.width == count * 164 + 52
        return [picture.getpixel((164 * n + 80, picture.height // 2 + 8)) for n in range(count)]


def test_a_panel_per_snapshot_in_the_order_of_steps(tmp_path):
    strip = strip_in(tmp_path)
    for step, value in ((5, 0.0), (10, 0.5), (100, 1.0)):
        strip(step, Constant(value))
    found = panels(tmp_path / "gate1.png", 5)
    assert found[0] == (127, 127, 127)
    assert found[2:] == [(0, 0, 130), (128, 20, 65), (255, 40, 0)]
    assert [path.name for path in sorted(tmp_path.glob("*.png"))] == ["gate1.png"]


def test_a_resumed_run_goes_on_with_its_strip(tmp_path):
    for step in (1, 2, 3):
        strip_in(tmp_path)(step, Constant(1.0))
    strip = strip_in(tmp_path)
    strip.resume(1)
    strip(2, Constant(0.0))
    assert panels(tmp_path / "gate1.png", 4)[2:] == [(255, 40, 0), (0, 0, 130)]


def test_pixels_are_square_in_millimetres(tmp_path):
    strip_in(tmp_path, pixel_mm=(2.0, 1.0))(1, Constant(1.0))
    with PIL.Image.open(tmp_path / "gate1.png") as picture:
        assert picture.size == (3 * 164 + 52, 160 + 16)


def test_a_gate_that_moves_little_is_seen_on_a_scale_of_its_own(tmp_path):
    """Gates start at 0.953: on a scale from 0 to 1 every panel would be one red."""
    strip = strip_in(tmp_path)
    for step, value in ((1, 0.953), (2, 0.943), (3, 0.948)):
        strip(step, Constant(value))
    found = panels(tmp_path / "gate1.png", 5)[2:]
    assert found[:2] == [(255, 40, 0), (0, 0, 130)]
    assert found[2] == pytest.approx((128, 20, 65), abs=2)
    with PIL.Image.open(tmp_path / "gate1.png") as picture:
        bar = [picture.getpixel((5 * 164 + 5, y)) for y in (17, picture.height - 18)]
    assert bar[0] == pytest.approx((255, 40, 0), abs=4)
    assert bar[1] == pytest.approx((0, 0, 130), abs=4)


def test_three_planes_show_the_patient_from_the_front_the_feet_and_the_side(tmp_path, monkeypatch):
    """What is bright up, right and in front lies where a radiologist looks for it in each plane, whatever the file's axes."""
    from agseg.training import attention_strip as module

    ras = np.full((9, 11, 13), -1000.0, dtype=np.float32)
    ras[6:8, 8:10, 10:12] = 1000.0  # right, anterior, head
    labels = (ras > 0).astype(np.uint8)
    affine = np.diag([-2.0, 1.0, 3.0, 1.0])  # the first axis runs to the left
    grid = Grid(ras.shape, affine)
    volume, mask = Volume(ras[::-1].copy(), grid), LabelMask(labels[::-1].copy(), grid, LabelSet.from_mapping({1: "spleen"}))
    recipe = tiny(SOURCE)
    trained = TrainedModel(build(recipe.network.architecture, recipe.network.config), recipe, recipe.label_set)
    monkeypatch.setattr(module, "gate_maps", lambda *_: [GateMap("gate1", np.where(volume.voxels > 0, 1.0, 0.0))])
    strip = volume_gates(tmp_path, trained, volume, mask, described=lambda network: replace(trained, network=network))
    strip(1, trained.network)
    for plane, shape in (("axial", (11, 9)), ("coronal", (13, 9)), ("sagittal", (13, 11))):
        with PIL.Image.open(tmp_path / f"panels/gate1-{plane}-step00000001.png") as panel:
            bright = np.argwhere(np.asarray(panel) == 65535)
            assert np.asarray(panel).shape == shape
        # The patient's right, and in the sagittal plane the front, on the picture's left; front or head on top.
        assert sorted(set(bright[:, 1].tolist())) == [1, 2]
        assert sorted(set(bright[:, 0].tolist())) == [1, 2]


@pytest.mark.slow
def test_watching_a_run_changes_none_of_its_weights(tmp_path):
    make_phantom("ct150", cases=3, output=tmp_path / "data", coarsen=5.0)
    recipe = tiny(SOURCE, validate_every=1, steps=3)
    place = RunPlace(tmp_path / "data", tmp_path / "watched", device="cpu", attention=True)
    run_training(recipe, replace(place, stop_after=2))
    run_training(recipe, replace(place, resume=True))
    run_training(recipe, RunPlace(tmp_path / "data", tmp_path / "alone", device="cpu"))
    watched, alone = (Checkpoint.read(tmp_path / name / "last.pt") for name in ("watched", "alone"))
    assert all(torch.equal(watched.network[key], value) for key, value in alone.network.items())
    assert alone.averaged
    assert all(torch.equal(watched.averaged[key], value) for key, value in alone.averaged.items())
    strips = sorted((tmp_path / "watched/attention").glob("*.png"))
    gates = build(recipe.network.architecture, recipe.network.config).attention(torch.zeros(1, 1, 16, 16, 16))
    assert len(strips) == sum(alpha.shape[1] for alpha in gates.values())
    for path in strips:
        kept = dict.fromkeys(("axial", "coronal", "sagittal"), 0)
        for panel in (tmp_path / "watched/attention/panels").glob(f"{path.stem}-*.png"):
            kept[panel.stem.split("-step")[0].removeprefix(f"{path.stem}-")] += 1
        assert set(kept.values()) == {3}
        with PIL.Image.open(path) as picture:
            assert picture.width == (2 + 3) * 164 + 52
    panels_kept = {path.name.split("-step")[1] for path in (tmp_path / "watched/attention/panels").iterdir()}
    assert panels_kept == {"00000001.png", "00000002.png", "00000003.png"}
    assert not (tmp_path / "alone/attention").exists()


def test_a_network_without_gates_is_refused(tmp_path):
    make_phantom("ct150", cases=3, output=tmp_path / "data", coarsen=5.0)
    recipe = tiny(SOURCE, validate_every=1, steps=1)
    plain = replace(recipe, network=replace(recipe.network, architecture="unet3d"))
    with pytest.raises(RecipeError, match="no attention gates"):
        run_training(plain, RunPlace(tmp_path / "data", tmp_path / "run", device="cpu", attention=True))


def test_gates_of_slices_are_stacked_as_the_slices_are():
    network = build("anu-net", {"dims": 2, "classes": 2, "widths": [2, 3, 4], "depth": 2}).eval()
    x = torch.rand(1, 1, 8, 12, 3)
    with torch.inference_mode():
        stacked = SliceWise(network).attention(x)
        for z in range(3):
            for name, alpha in network.attention(x[..., z]).items():
                torch.testing.assert_close(stacked[name][..., z], alpha)
