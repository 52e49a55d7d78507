"""What is not a number must not look like "organ absent", and what has no name must not be in a mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from agseg.errors import Code, InferenceError, WeightsError
from agseg.grid import Grid
from agseg.inference.network import ReadyNetwork
from agseg.inference.segment import Settings, segment_volume
from agseg.labels import LabelSet
from agseg.models.precision import Precision
from agseg.volume import Volume
from agseg.weights.input_spec import InputSpec, Normalisation
from tests.tiny_weights import build_tiny

LABELS = LabelSet.from_mapping({1: "pancreas", 2: "liver"})
TILED = InputSpec(
    modality="CT",
    axis_codes="RAS",
    spacing_mm=(3.0, 3.0, 3.0),
    window_hu=(-200.0, 300.0),
    normalisation=Normalisation.WINDOW_TO_UNIT,
    tile=(16, 16, 16),
    overlap=0.5,
)
BOXED = InputSpec(
    modality="CT",
    axis_codes="RAS",
    spacing_mm=None,
    window_hu=(-200.0, 300.0),
    normalisation=Normalisation.WINDOW_TO_UNIT,
    tile=(24, 24, 24),
    fixed_shape=(24, 24, 24),
    window_height_mm=90.0,
    body_box=True,
)
SPECS = pytest.mark.parametrize("spec", [TILED, BOXED], ids=["tiled", "boxed"])


def cube() -> Volume:
    voxels = np.full((24, 24, 24), -50, dtype=np.int16, order="F")
    voxels[8:16, 8:16, 8:16] = 110
    return Volume(voxels, Grid(voxels.shape, np.diag([3.0, 3.0, 3.0, 1.0])))


def run(network: nn.Module, spec: InputSpec, labels: LabelSet = LABELS, *, precision: Precision = Precision.FP32, mirror=False):
    ready = ReadyNetwork([network], device=torch.device("cpu"), precision=precision)
    return segment_volume(cube(), ready, spec=spec, labels=labels, settings=Settings(mirror=mirror))


class Loud(nn.Module):
    """The tiny network's scores through numbers that half precision does not hold."""

    def __init__(self) -> None:
        super().__init__()
        self.quiet = build_tiny()

    def forward(self, x):
        return self.quiet(x) * 2e5 / 2e5


@SPECS
def test_half_precision_that_overflows_is_computed_again_in_fp32_and_said(spec):
    overflown, plain = run(Loud(), spec, precision=Precision.FP16), run(build_tiny(), spec)
    assert np.array_equal(overflown.mask.labels, plain.mask.labels)
    assert (plain.mask.labels == 1).any()
    assert [warned.code for warned in overflown.warnings] == [Code.FALLBACK]
    assert plain.warnings == ()


@SPECS
@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights_are_an_error_and_no_empty_mask(spec, mirror, value):
    network = build_tiny()
    with torch.no_grad():
        network.side[0].weight[1, 0] = value
    with pytest.raises(InferenceError, match="not finite"):
        run(network, spec, mirror=mirror)


@SPECS
def test_a_label_without_a_class_of_the_network_is_refused(spec):
    with pytest.raises(WeightsError, match="liver"):
        run(build_tiny(), spec, LabelSet.from_mapping({1: "pancreas", 3: "liver"}))


@SPECS
def test_a_class_without_a_label_is_in_no_mask(spec):
    found = run(build_tiny(), spec, LabelSet.from_mapping({2: "kidney_left"}))
    assert not (found.mask.labels == 1).any()
