"""Strips of attention: a panel per validation, exact colours, and no influence on the run."""

from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn

from agseg.errors import RecipeError
from agseg.models.registry import build
from agseg.models.slice_wise import SliceWise
from agseg.training.attention_strip import AttentionStrip
from agseg.training.checkpoint import Checkpoint
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
        return {"gate1": np.full((10, 20), network.value, dtype=np.float32)}

    return AttentionStrip(folder, image=image, truth=truth, gates=gates, **changes)


def panels(path, count):
    """Colours in the middle of each panel."""
    with PIL.Image.open(path) as picture:
        assert picture.width == count * 164 - 4
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
        assert picture.size == (3 * 164 - 4, 160 + 16)


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
        kept = sorted((tmp_path / "watched/attention/panels").glob(f"{path.stem}-step*.png"))
        with PIL.Image.open(path) as picture, PIL.Image.open(kept[0]) as panel:
            assert picture.size == ((2 + len(kept)) * (panel.width + 4) - 4, panel.height + 16)
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
