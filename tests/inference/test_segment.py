"""Laws of the whole prediction path, with a network that is a plain function of the voxel value.

A known ellipsoid has its known ml; every storage orientation, oblique and sheared grids give the same mask in the patient's
space; every mode gives the same labels; mirrored input gives the mirrored mask with left and right exchanged.
"""

import itertools

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import nn

from agseg.errors import Code, UsageError, WeightsError
from agseg.grid import Grid
from agseg.inference.cleanup import clean_up
from agseg.inference.network import ReadyNetwork
from agseg.inference.predict import tile_scores
from agseg.inference.segment import Settings, segment_volume
from agseg.inference.tiling import plan
from agseg.labels import LabelSet
from agseg.measure.calibration import Calibration
from agseg.models.precision import Precision
from agseg.volume import HU_MIN, Volume
from agseg.weights.entry import Cleanup
from agseg.weights.input_spec import InputSpec, Normalisation
from tests.inference.fake_predictor import FakePredictor

CODES = ["".join(c) for c in itertools.product("LR", "PA", "IS")] + ["ASR", "ILP", "SAL", "PRI"]
LABELS = LabelSet.from_mapping({1: "kidney_left", 2: "kidney_right"})
SPEC = InputSpec(
    modality="CT",
    axis_codes="RAS",
    spacing_mm=(2.5, 2.5, 2.5),
    window_hu=(-200.0, 300.0),
    normalisation=Normalisation.WINDOW_TO_UNIT,
    tile=(32, 32, 16),
    overlap=0.5,
)
CENTRES = {"kidney_left": (-26.0, 5.0, 3.0), "kidney_right": (25.0, -7.0, -5.0)}
RADII = {"kidney_left": (17.0, 22.0, 19.0), "kidney_right": (19.0, 16.0, 23.0)}
VALUES = {"kidney_left": 120.0, "kidney_right": 220.0}


class ByValue(nn.Module):
    """Class scores from the normalised value alone: background below 0.5, then one class per band."""

    def forward(self, x):
        level = torch.cat([torch.full_like(x, 0.3), torch.full_like(x, 0.64), torch.full_like(x, 0.84)], dim=1)
        return -200.0 * (x - level) ** 2


def network():
    return ReadyNetwork([ByValue()], device=torch.device("cpu"), precision=Precision.FP32)


def scan(grid):
    """Two ellipsoids in soft tissue, sampled at the voxel centres of any grid (mirror-free anatomy in RAS mm)."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1)
    world = grid.to_world(index)
    hu = np.full(grid.shape, -50.0)
    hu[np.linalg.norm(world / (90, 90, 90), axis=-1) > 1] = HU_MIN
    for name, centre in CENTRES.items():
        # Soft edges, as a scanner makes them: the mask then does not hang on single voxels.
        distance = np.linalg.norm((world - centre) / RADII[name], axis=-1)
        inside = np.clip((1.0 - distance) * 14.0 + 0.5, 0, 1)
        hu += inside * (VALUES[name] - hu)
    return Volume(np.asfortranarray(np.rint(hu).astype(np.int16)), grid)


def ras_grid(spacing=(1.9, 1.7, 3.0), extent=(110.0, 94.0, 90.0)):
    shape = tuple(round(e / s) for e, s in zip(extent, spacing, strict=True))
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-(n - 1) * s / 2 for n, s in zip(shape, spacing, strict=True)]
    return Grid(shape, affine)


def segment(volume, **settings):
    return segment_volume(volume, network(), spec=SPEC, labels=LABELS, settings=Settings(**settings))


def organ(segmentation, name):
    """What was found on the organ's side, whatever its label: a bright organ's soft edge passes through the other's value."""
    grid = segmentation.mask.grid
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1)
    same_side = np.sign(grid.to_world(index)[..., 0]) == np.sign(CENTRES[name][0])
    return (segmentation.mask.labels > 0) & same_side


def ml(segmentation, name):
    return organ(segmentation, name).sum() * segmentation.mask.grid.voxel_volume_ml


def overlap_in_world(one, other, name):
    """Dice of two masks on different grids, the second sampled at the first's voxel centres (nearest)."""
    a = organ(one, name)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in one.mask.grid.shape), indexing="ij"), axis=-1)
    at = np.rint(other.mask.grid.to_index(one.mask.grid.to_world(index))).astype(int)
    inside = ((at >= 0) & (at < other.mask.grid.shape)).all(axis=-1)
    b = np.zeros_like(a)
    b[inside] = organ(other, name)[tuple(at[inside].T)]
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_an_ellipsoid_has_its_known_volume_and_is_found_on_its_side():
    found = segment(scan(ras_grid()))
    assert ml(found, "kidney_left") == pytest.approx(4 / 3 * np.pi * np.prod(RADII["kidney_left"]) / 1000, rel=0.04)
    for name in RADII:
        points = found.mask.grid.to_world(np.argwhere(found.mask.of(name) & organ(found, name)))
        np.testing.assert_allclose(points.mean(axis=0), CENTRES[name], atol=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("codes", CODES)
def test_every_orientation_gives_the_same_mask(codes):
    reference = segment(scan(ras_grid()))
    grid, permutation, flips = ras_grid().reoriented(codes)
    found = segment(scan(grid))
    assert found.mask.grid == grid
    expected = reference.mask.labels.transpose(permutation)[tuple(slice(None, None, -1 if f else 1) for f in flips)]
    # Rounding in the last bit may move a voxel that lies exactly between two labels.
    assert (found.mask.labels != expected).sum() <= 2


@pytest.mark.slow
@pytest.mark.parametrize("angles", [(20, 0, 0), (0, 15, 25), (35, -20, 10)])
def test_an_oblique_scan_gives_the_same_mask_in_the_patients_space(angles):
    straight = segment(scan(ras_grid()))
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    grid = Grid(ras_grid().shape, turn @ ras_grid().affine)
    found = segment(scan(grid))
    assert found.mask.grid == grid
    for name in RADII:
        assert ml(found, name) == pytest.approx(ml(straight, name), rel=0.04)
        assert overlap_in_world(found, straight, name) > 0.93


def test_a_tilted_gantry_gives_the_same_mask_in_the_patients_space():
    straight = segment(scan(ras_grid()))
    affine = ras_grid().affine.copy()
    affine[1, 2] = 0.4 * affine[2, 2]
    affine[:3, 3] = -affine[:3, :3] @ (np.array(ras_grid().shape) - 1) / 2
    found = segment(scan(Grid(ras_grid().shape, affine)))
    for name in RADII:
        assert ml(found, name) == pytest.approx(ml(straight, name), rel=0.04)
        assert overlap_in_world(found, straight, name) > 0.93


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_a_tilted_gantry_loses_no_face_of_the_scan(seed):
    """An organ that the field of view cuts reaches the outer slice on both sides, whatever the spacing and the tilt."""
    rng = np.random.default_rng(seed)
    spacing, tilt = round(rng.uniform(2.4, 3.9), 4), np.radians(rng.uniform(5, 25))
    affine = np.eye(4)
    affine[:3, 0] = [-spacing, 0, 0]
    affine[:3, 1] = [0, -spacing * np.cos(tilt), -spacing * np.sin(tilt)]
    affine[:3, 2] = [0, 0, 5]
    affine[:3, 3] = np.round(rng.uniform(-250, 250, 3), 3)
    voxels = np.full((40, 36, 20), -50, dtype=np.int16, order="F")
    voxels[:, 10:24, 6:14] = VALUES["kidney_left"]
    found = segment(Volume(voxels, Grid(voxels.shape, affine))).mask.labels
    for face in (found[0], found[-1]):
        assert (face[11:23, 7:13] == 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"overlap": 0.25}, {"overlap": 0.7}, {"fast": True}, {"mirror": False, "overlap": 0.0}])
def test_every_way_of_tiling_gives_the_same_labels(settings):
    np.testing.assert_array_equal(segment(scan(ras_grid()), **settings).mask.labels, segment(scan(ras_grid())).mask.labels)


@pytest.mark.parametrize(("left", "right"), [("kidney_left", "kidney_right"), ("l_kidney", "R_Kidney")])
def test_mirroring_exchanges_left_and_right(left, right):
    """ByValue calls the mirrored left kidney by its value, so the mean of both views must be undecided, not confident."""
    labels = LabelSet.from_mapping({1: left, 2: right})

    def by(settings):
        return segment_volume(scan(ras_grid()), network(), spec=SPEC, labels=labels, settings=settings)

    plain, mirrored = by(Settings()), by(Settings(mirror=True))
    assert plain.probability[left] > 0.85
    assert mirrored.probability.get(left, 0.0) < 0.7


def test_mirroring_is_refused_where_a_label_lacks_its_fellow():
    alone = LabelSet.from_mapping({1: "kidney_left", 2: "liver"})
    with pytest.raises(UsageError, match="kidney_left has no label for its other side"):
        segment_volume(scan(ras_grid()), network(), spec=SPEC, labels=alone, settings=Settings(mirror=True))


def test_only_the_organs_asked_for_are_in_the_mask():
    found = segment_volume(scan(ras_grid()), network(), spec=SPEC, labels=LABELS, organs=["kidney_right"])
    assert found.mask.label_set.names == ("kidney_right",)
    assert set(np.unique(found.mask.labels)) == {0, 2}


def test_the_same_input_gives_the_same_bytes():
    assert segment(scan(ras_grid())).mask.labels.tobytes() == segment(scan(ras_grid())).mask.labels.tobytes()


def test_out_of_memory_on_a_gpu_is_a_declared_fallback():
    """A device that never has enough memory: the ladder ends on the CPU and says so."""

    def full(predictor, batch):
        if predictor.device.type == "meta":
            raise torch.OutOfMemoryError

    fake = FakePredictor(ByValue(), full, device=torch.device("meta"))
    found = segment_volume(scan(ras_grid()), fake, spec=SPEC, labels=LABELS)
    assert [w.code for w in found.warnings] == [Code.FALLBACK]
    assert np.array_equal(found.mask.labels, segment(scan(ras_grid())).mask.labels)
    assert fake.batches[:2] == [4, 1], "four tiles at a time, then one"


def test_a_network_of_two_channels_is_refused_for_a_scan_of_one():
    with pytest.raises(WeightsError, match="found 1, expected 2"):
        segment_volume(scan(ras_grid()), FakePredictor(ByValue(), in_channels=2), spec=SPEC, labels=LABELS)


def test_tiles_carry_every_channel():
    image = torch.arange(2 * 6 * 6 * 6.0).reshape(2, 6, 6, 6)
    tiles = plan((6, 6, 6), tile=(4, 4, 4), overlap=0.5)
    seen = list(tile_scores(FakePredictor(lambda batch: batch, in_channels=2), image, tiles))
    assert len(seen) == tiles.count
    for corner, scores in zip(tiles.corners(), seen, strict=True):
        where = tuple(slice(c, c + 4) for c in corner)
        assert torch.equal(scores, image[(slice(None), *where)])


def test_a_calibration_changes_what_is_said_of_its_organ_and_no_mask():
    volume, half = scan(ras_grid()), Calibration(0.5, -0.4)
    plain = segment_volume(volume, network(), spec=SPEC, labels=LABELS, keep_certainty=True)
    told = segment_volume(volume, network(), spec=SPEC, labels=LABELS, calibration={"kidney_left": half})
    assert told.mask.labels.tobytes("A") == plain.mask.labels.tobytes("A")
    assert told.probability["kidney_right"] == plain.probability["kidney_right"]
    sure = plain.certainty[plain.mask.of("kidney_left")]
    assert plain.probability["kidney_left"] == pytest.approx(sure.mean(), rel=1e-5)
    assert told.probability["kidney_left"] == pytest.approx(half.of(sure).mean(), rel=1e-5)
    assert told.probability["kidney_left"] < plain.probability["kidney_left"] - 0.05
    assert told.certainty is None  # nobody asked


def test_only_the_organ_that_has_a_rule_is_cleaned_up():
    volume = scan(ras_grid())
    # The soft edge of the bright right kidney passes through the left one's value: the left one is found in pieces.
    left_only = {"kidney_left": Cleanup.LARGEST_COMPONENT}
    plain = segment(volume).mask.labels
    cleaned = segment_volume(volume, network(), spec=SPEC, labels=LABELS, cleanup=left_only).mask.labels
    changed = plain != cleaned
    assert changed.any()
    assert (plain[changed] == 1).all()


def test_cleanup_removes_what_is_small_beside_the_largest_component():
    def broken():
        labels = np.zeros((20, 12, 12), dtype=np.uint8)
        labels[1:6, 1:6, 1:5] = 1  # 100 voxels
        labels[8:10, 1:6, 1:2] = 1  # 10: a tenth stays
        labels[12:15, 1:4, 1:2] = 1  # 9
        labels[18, 8:10, 8] = 2  # small, but the largest of its organ
        return labels

    for labels in (broken(), np.asfortranarray(broken())):
        assert clean_up(labels, dict.fromkeys((1, 2), Cleanup.LARGE_COMPONENTS)) == {1: 3, 2: 1}
        assert (labels == 1).sum() == 110
        assert not labels[12:15].any()
        assert (labels == 2).sum() == 2


def test_cleanup_keeps_the_largest_component_of_each_organ():
    labels = np.zeros((12, 12, 12), dtype=np.uint8)
    labels[1:5, 1:5, 1:5] = 1
    labels[8:10, 8:10, 8:10] = 1
    labels[6, 6, 6] = 2
    assert clean_up(labels, {2: Cleanup.LARGEST_COMPONENT}) == {1: 2, 2: 1}
    assert (labels == 1).sum() == 72
    for ordered in (labels, np.asfortranarray(labels)):
        assert clean_up(ordered, dict.fromkeys((1, 2), Cleanup.LARGEST_COMPONENT)) == {1: 2, 2: 1}
        assert (ordered == 1).sum() == 64
        assert (ordered == 2).sum() == 1
        ordered[8:10, 8:10, 8:10] = 1
