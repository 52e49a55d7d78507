"""A first look: the fine network computes only around what was found, and everywhere if there is any doubt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from agseg.errors import Code
from agseg.grid import Grid
from agseg.inference.by_entry import segment_with_entry
from agseg.inference.network import ReadyNetwork
from agseg.inference.scout import MARGIN_MM, look
from agseg.inference.segment import segment_volume
from agseg.labels import LabelSet
from agseg.models.precision import Precision
from agseg.volume import Volume
from agseg.weights.entry import WeightsEntry, WeightsFormat
from agseg.weights.files import FileSource, SourceKind, WeightsFile
from tests.inference.test_nnunet_way import NNUNET

FINE = replace(
    NNUNET, spacing_mm=(2.0, 2.0, 2.0), tile=(8, 8, 8), axis_codes="RAS", window_hu=(0.0, 400.0), mean_std=(200.0, 200.0)
)
COARSE = replace(FINE, spacing_mm=(4.0, 4.0, 4.0))


class Bright(nn.Module):
    """Organ where the image is bright; looks at one voxel only, so that a box changes nothing inside it."""

    def __init__(self, calls: list[int]) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 1, 1)
        self.calls = calls

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(len(x))
        return torch.cat((-x, x), dim=1)

    def __deepcopy__(self, memo: object) -> Bright:
        return Bright(self.calls)


def network(calls: list[int]) -> ReadyNetwork:
    return ReadyNetwork([Bright(calls)], device=torch.device("cpu"), precision=Precision.FP32, averages_logits=True)


def entry(spec=COARSE) -> WeightsEntry:
    file = WeightsFile("a.safetensors", FileSource(SourceKind.LOCAL, path="a"), "0" * 64, 1)
    words: dict[str, Any] = dict.fromkeys(("licence", "citation", "attribution", "intended_use"), "-")
    labels = LabelSet.from_mapping({1: "pancreas"})
    return WeightsEntry(
        "coarse", architecture="unet", format=WeightsFormat.SAFETENSORS, files=(file,), input=spec, labels=labels, **words
    )


def scan(*, at: tuple[int, int, int] = (40, 30, 36), size: int = 8, affine: np.ndarray | None = None) -> Volume:
    values = np.full((80, 64, 72), 10, dtype=np.int16, order="F")
    values[tuple(slice(a, a + size) for a in at)] = 390
    return Volume(values, Grid(values.shape, np.diag([-1.5, -1.5, 2.0, 1.0]) if affine is None else affine))


@pytest.mark.slow
def test_only_the_box_is_computed_and_its_labels_are_those_of_the_whole_scan():
    volume, calls = scan(), []
    seen = look(volume, network([]), entry(), organs=["pancreas"])
    assert seen.box is not None
    assert seen.said.code is Code.SCOUT
    for axis, (first, spacing) in enumerate(zip((40, 30, 36), volume.grid.spacing_mm, strict=True)):
        assert seen.box[0][axis] <= first - MARGIN_MM / spacing + 3
        assert seen.box[1][axis] >= first + 8 + MARGIN_MM / spacing - 3
    fine = replace(entry(), input=FINE)
    whole = segment_with_entry(volume, network(calls), fine)
    tiles = len(calls)
    calls.clear()
    boxed = segment_with_entry(volume, network(calls), fine, box=seen.box)
    np.testing.assert_array_equal(boxed.mask.labels, whole.mask.labels)
    assert whole.mask.labels.any()
    assert len(calls) < tiles / 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "volume",
    [
        pytest.param(scan(size=0), id="nothing found"),
        pytest.param(scan(at=(0, 30, 36)), id="at the first edge"),
        pytest.param(scan(at=(40, 30, 64)), id="at the last edge"),
        pytest.param(scan(affine=np.array([[1.4, 0.4, 0, 0], [-0.4, 1.4, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])), id="oblique"),
    ],
)
def test_any_doubt_means_the_whole_scan_and_is_said(volume):
    seen = look(volume, network([]), entry(), organs=["pancreas"])
    assert seen.box is None
    assert "whole scan" in seen.said.message


def test_the_box_holds_at_least_a_tile_of_the_scan():
    volume, calls = scan(), []
    spec = replace(FINE, tile=(32, 32, 32))
    tight = ((42, 32, 38), (44, 34, 40))
    labels = LabelSet.from_mapping({1: "pancreas"})
    found = segment_volume(volume, network(calls), spec=spec, labels=labels, box=tight).mask.labels
    np.testing.assert_array_equal(found, segment_volume(volume, network([]), spec=spec, labels=labels).mask.labels)
    assert calls == [1]
