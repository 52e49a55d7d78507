"""Patches fit the memory and go through their network, whatever the scans are like."""

from __future__ import annotations

import numpy as np
import pytest

from agseg.errors import RecipeError
from agseg.models.catalogue import facts
from agseg.training.augment_nnunet import AugmentKind
from agseg.training.survey import ChannelValues, Survey
from agseg.workflows.plan import PlanRequest, _augmented
from agseg.workflows.plan_size import Sizing, sized

CT = ChannelValues("CT", "CT", 50.0, 40.0, -50.0, 200.0)


def scans(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Survey:
    return Survey(3, np.array([spacing] * 3), np.array([shape] * 3), (CT,), {"liver": 3})


@pytest.mark.parametrize("architecture", ["attention-unet", "unet", "nnunet-plain"])
@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((512, 512, 300), (0.8, 0.8, 1.0)),
        ((320, 320, 24), (0.6, 0.6, 5.0)),
        ((30, 20, 9), (4.0, 4.0, 4.0)),
        ((512, 400, 6), (1, 1, 1)),
    ],
)
@pytest.mark.parametrize("flat", [False, True])
def test_a_tile_goes_through_its_network_and_more_memory_is_no_smaller_tile(architecture, shape, spacing, flat):
    voxels = []
    for memory in (0.2, 2.0, 20.0):
        tile, network, _ = sized(scans(shape, spacing), Sizing(spacing, architecture, flat, 2, memory), {})
        found = facts(network.architecture, network.config)
        assert found.takes(tile)
        assert (found.in_channels, found.classes) == (1, 2)
        assert (tile[2] == 1) == flat
        voxels.append(int(np.prod(tile)))
    assert voxels[0] <= voxels[1] <= voxels[2]


def test_thick_slices_are_halved_in_the_plane_first():
    _, network, _ = sized(scans((320, 320, 24), (0.6, 0.6, 5.0)), Sizing((0.6, 0.6, 5.0), "nnunet-plain", False, 2, 8.0), {})
    assert network.config["strides"][1] == [2, 2, 1]
    assert network.config["kernel_sizes"][0] == [3, 3, 1]


def test_a_memory_that_holds_no_patch_is_refused():
    with pytest.raises(RecipeError, match="no patch fits"):
        sized(scans((64, 64, 64), (1, 1, 1)), Sizing((1, 1, 1), "attention-unet", False, 2, 1e-5), {})


@pytest.mark.parametrize(
    ("spacing", "tile", "flat", "turn"),
    [
        ((1.0, 1.0, 2.5), (96, 96, 64), False, 30.0),
        ((1.0, 1.0, 5.0), (96, 96, 16), False, 180.0),
        ((1.0, 1.0, 5.0), (96, 96, 1), True, 180.0),
        ((1.0, 1.0, 5.0), (160, 96, 1), True, 15.0),
    ],
)
def test_patches_are_turned_as_far_as_their_shape_allows(spacing, tile, flat, turn):
    why: dict[str, str] = {}
    found = _augmented(spacing, tile, PlanRequest(flat=flat), why)
    assert (found.kind, found.rotation_deg) == (AugmentKind.NNUNET, turn)
    assert "turned" in why["augment"]
