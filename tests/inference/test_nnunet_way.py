"""nnU-Net's way through the pipeline gives nnU-Net's labels: step by step, and as a whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from agseg.grid import Grid
from agseg.inference.axis import AxisMap, Kernel, weight_matrix
from agseg.inference.half_sums import half_importance
from agseg.inference.model_grid import ModelGrid, coarse_axis
from agseg.inference.network import ReadyNetwork
from agseg.inference.prepare import model_grid_of, prepare
from agseg.inference.segment import Settings, segment_volume
from agseg.inference.tiling import plan
from agseg.labels import LabelSet
from agseg.models.precision import Precision
from agseg.models.registry import build
from agseg.volume import Volume
from agseg.weights.input_spec import Carry, GridRule, InputSpec, Interpolation, Normalisation, Placement
from tests.inference.nnunet_steps import Steps, gaussian, resampled, starts

NNUNET = InputSpec(
    "CT",
    normalisation=Normalisation.CT,
    window_hu=(-100.0, 200.0),
    mean_std=(20.0, 60.0),
    axis_codes="SAR",
    spacing_mm=(4.0, 3.1, 3.0),
    tile=(8, 16, 12),
    grid=GridRule.EDGES,
    interpolation=Interpolation.CUBIC,
    separate_z=True,
    normalise_first=True,
    crop_nonzero=True,
    carry=Carry.HALF_LOGITS,
    tiles=Placement.SPREAD,
    as_stored=True,
)


def scan(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], *, codes: str = "RAS", border: int = 0, seed: int = 0
) -> Volume:
    """A smooth random scan, stored along ``codes``, with a border of zeros."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    values = (noise / noise.std() * 120 + 40).astype(np.int16)
    values[values == 0] = 1
    for axis in range(3):
        edge = np.moveaxis(values, axis, 0)
        edge[:border], edge[len(edge) - border :] = 0, 0
    affine = np.zeros((4, 4))
    for axis, code in enumerate(codes):
        affine["LRPAIS".index(code) // 2, axis] = spacing[axis] * (1 if code in "RAS" else -1)
    affine[3, 3] = 1
    affine[:3, 3] = (7, -20, 11)
    return Volume(np.asfortranarray(values), Grid(shape, affine))


def network(*, classes: int = 4, dims: int = 3, seed: int = 1, contrast: float = 1.0) -> nn.Module:
    """Random weights whose scores change slowly from voxel to voxel, as trained ones do.

    They lie close together, so that nnU-Net's rounding decides a tenth of the voxels; ``contrast`` draws them apart.
    """
    torch.manual_seed(seed)
    made = build(
        "nnunet-plain",
        {"dims": dims, "classes": classes, "features_per_stage": [4, 6], "kernel_sizes": [5, 3], "strides": [1, 2],
         "n_conv_per_stage": [1, 1], "n_conv_per_stage_decoder": [1]},
    )  # fmt: skip
    for name, parameter in made.named_parameters():
        if name.endswith("conv.weight"):
            parameter.data.abs_()
        if name == "decoder.seg_layer.weight":
            # No class is ahead everywhere.
            parameter.data -= parameter.data.mean(dim=(0, 1), keepdim=True)
            parameter.data -= parameter.data.mean(dim=1, keepdim=True)
            parameter.data *= contrast
        if name == "decoder.seg_layer.bias":
            parameter.data[:] = 0
    return made.eval()


def ours(volume: Volume, spec: InputSpec, networks: tuple[nn.Module, ...], *, mirror: bool = False) -> np.ndarray:
    ready = ReadyNetwork(networks, device=torch.device("cpu"), precision=Precision.FP32, averages_logits=True)
    count = networks[0].decoder.seg_layer.out_channels - (0 if spec.regions else 1)
    labels = LabelSet.from_mapping({n: f"organ_{n}" for n in range(1, count + 1)})
    return segment_volume(volume, ready, spec=spec, labels=labels, settings=Settings(mirror=mirror)).mask.labels


def theirs(
    volume: Volume, spec: InputSpec, networks: tuple[nn.Module, ...], *, transpose=(0, 1, 2), mirror=(), carried=np.float16
) -> np.ndarray:
    """nnU-Net's steps on the array as a reader hands it over (z, y, x of ``spec``'s axes before the transposition)."""
    codes = spec.axis_codes_on(volume.grid.axis_codes)
    back = np.argsort(transpose)
    read = "".join(codes[axis] for axis in back)
    grid, permutation, flips = volume.grid.reoriented(read)
    turned = volume.voxels.transpose(permutation)[tuple(slice(None, None, -1 if flip else None) for flip in flips)]
    flat = spec.tile[0] == 1
    assert spec.spacing_mm is not None
    assert spec.window_hu is not None
    assert spec.mean_std is not None
    steps = Steps(
        spacing=spec.spacing_mm[1:] if flat else spec.spacing_mm,
        patch=spec.tile[1:] if flat else spec.tile,
        window=spec.window_hu,
        mean_std=spec.mean_std,
        networks=networks,
        transpose=transpose,
        mirror=mirror,
        regions=spec.regions,
        carried=carried,
    )
    found = steps.labels(turned, grid.spacing_mm)
    found = found[tuple(slice(None, None, -1 if flip else None) for flip in flips)]
    return found.transpose(np.argsort(permutation))


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Share of equal labels where either says organ."""
    organ = (one > 0) | (other > 0)
    assert 0.05 < organ.mean() < 0.99, "the comparison needs organs and background"
    return float((one == other)[organ].mean())


CASES = {
    "plain": (scan((30, 26, 24), (2.0, 2.2, 2.5)), {}),
    "small_scan": (scan((16, 15, 9), (2.0, 2.2, 2.5)), {}),
    "left_posterior": (scan((30, 26, 24), (2.0, 2.2, 2.5), codes="LPS"), {}),
    "sagittal_stack": (scan((14, 28, 30), (2.5, 2.0, 2.2), codes="PIR"), {}),
    "thick_slices": (scan((40, 38, 12), (0.9, 1.0, 5.0)), {}),
    "thick_sagittal": (scan((9, 44, 40), (6.0, 1.1, 1.0), codes="RIP"), {}),
    "thick_in_the_plan": (scan((30, 26, 24), (2.0, 2.2, 2.5)), {"spacing_mm": (9.0, 2.5, 2.5), "tile": (6, 16, 12)}),
    "zeros_around": (scan((34, 30, 26), (2.0, 2.2, 2.5), border=4), {}),
    "finer_than_the_scan": (scan((14, 16, 12), (4.0, 4.5, 5.0)), {"spacing_mm": (3.0, 3.0, 3.0)}),
    "as_stored": (scan((30, 26, 24), (2.0, 2.2, 2.5), codes="LAI"), {"axis_codes": "KJI"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_labels_are_those_of_nnunet(name):
    volume, changes = CASES[name]
    spec, networks = replace(NNUNET, **changes), (network(),)
    assert agreement(ours(volume, spec, networks), theirs(volume, spec, networks)) > 0.9995


@pytest.mark.slow
@pytest.mark.parametrize("codes", ["ASR", "KJI", "JKI"])
def test_transposed_axes(codes):
    volume, networks = scan((30, 26, 24), (2.0, 2.2, 2.5), codes="LPS"), (network(),)
    spec = replace(NNUNET, axis_codes=codes, spacing_mm=(3.1, 4.0, 3.0))
    transpose = (0, 1, 2) if codes == "KJI" else (1, 0, 2)
    assert agreement(ours(volume, spec, networks), theirs(volume, spec, networks, transpose=transpose)) > 0.9995


@pytest.mark.slow
def test_folds_and_mirror_images_are_averaged_as_logits():
    volume, networks = scan((24, 20, 22), (2.0, 2.2, 2.5)), (network(seed=1), network(seed=2), network(seed=3))
    spec = replace(NNUNET, mirror_axes=(0, 2))
    single = ours(volume, spec, networks[:1])
    found = ours(volume, spec, networks, mirror=True)
    assert agreement(found, theirs(volume, spec, networks, mirror=(0, 2))) > 0.9995
    assert agreement(found, single) < 0.99


@pytest.mark.slow
def test_scores_resampled_by_torch_are_compared_unrounded():
    volume, networks = scan((30, 26, 24), (2.0, 2.2, 2.5)), (network(seed=1), network(seed=2))
    rounded, expected = ours(volume, NNUNET, networks), theirs(volume, NNUNET, networks, carried=np.float32)
    found = ours(volume, replace(NNUNET, carry=Carry.LOGITS), networks)
    assert agreement(rounded, expected) < agreement(found, expected)
    assert agreement(found, expected) > 0.9995


@pytest.mark.slow
def test_regions_are_painted_in_their_order():
    volume, networks = scan((30, 26, 24), (2.0, 2.2, 2.5)), (network(classes=3),)
    for order in ((2, 3, 1), (1, 3, 2)):
        spec = replace(NNUNET, regions=order)
        found = ours(volume, spec, networks)
        assert len(np.unique(found)) > 2
        assert agreement(found, theirs(volume, spec, networks)) > 0.9995


@pytest.mark.slow
def test_a_flat_network_sees_slice_by_slice():
    volume, networks = scan((30, 26, 12), (2.0, 2.2, 5.0), codes="LPS"), (network(dims=2),)
    spec = replace(NNUNET, spacing_mm=(0.0, 3.1, 3.0), tile=(1, 16, 12))
    assert agreement(ours(volume, spec, networks), theirs(volume, spec, networks)) > 0.999


@pytest.mark.slow
def test_an_oblique_scan_is_taken_as_it_is_stored():
    volume, networks = scan((30, 26, 24), (2.0, 2.2, 2.5)), (network(),)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    oblique = replace(volume, grid=Grid(volume.grid.shape, turn @ volume.grid.affine))
    np.testing.assert_array_equal(ours(oblique, NNUNET, networks), ours(volume, NNUNET, networks))


@pytest.mark.slow
def test_probabilities_would_put_surfaces_elsewhere():
    volume, networks = scan((30, 26, 24), (2.0, 2.2, 2.5)), (network(contrast=30),)
    other = ours(volume, replace(NNUNET, carry=Carry.PROBABILITIES), networks)
    assert agreement(other, ours(volume, NNUNET, networks)) < 0.999


# -- the steps -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_in", "n_out"), [(20, 9), (9, 20), (17, 17), (1, 4), (5, 1), (64, 30)])
def test_a_cubic_matrix_is_the_spline_of_scikit_image(n_in, n_out):
    line = np.random.default_rng(n_in).normal(size=(n_in, 2))
    expected = resampled_without_clip(line, n_out)
    scale = n_in / n_out
    for sign in (1, -1):
        offset = 0.5 * scale - 0.5
        axis = AxisMap(n_in, n_out, scale * sign, offset if sign > 0 else n_in - 1 - offset)
        got = weight_matrix(axis, Kernel.CUBIC) @ line
        np.testing.assert_allclose(got, expected if sign > 0 else expected[::-1], atol=2e-6)


def resampled_without_clip(line: np.ndarray, n_out: int) -> np.ndarray:
    from scipy.ndimage import zoom

    return zoom(line, (n_out / len(line), 1), order=3, mode="nearest", grid_mode=True)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR"])
@pytest.mark.parametrize(
    ("spacing", "target"), [((2.0, 2.1, 2.4), (4, 3.1, 3)), ((0.9, 1.0, 5.0), (4, 3.1, 3)), ((1, 1, 1), (9, 2, 2))]
)
def test_the_prepared_image_is_nnunets(codes, spacing, target):
    volume = scan((24, 22, 20), spacing, codes=codes)
    spec = replace(NNUNET, spacing_mm=tuple(float(t) for t in target))
    grid, permutation, flips = volume.grid.reoriented("SAR")
    turned = volume.voxels.transpose(permutation)[tuple(slice(None, None, -1 if flip else None) for flip in flips)]
    values = (np.clip(turned.astype(np.float32), -100, 200) - 20) / 60
    old = grid.spacing_mm
    shape = [round(o / n * size) for o, n, size in zip(old, spec.spacing_mm, values.shape, strict=True)]
    expected = resampled(values.astype(np.float32), shape, old, spec.spacing_mm, order=3)
    np.testing.assert_allclose(prepare(volume, spec).tensor.numpy(), expected, atol=2e-5)


@pytest.mark.parametrize(
    ("current", "new", "expected"),
    [
        ((5.0, 0.9, 0.9), (4.0, 3.6, 3.6), (0,)),
        ((2.5, 2.5, 2.5), (4.0, 3.6, 3.6), ()),
        ((1.0, 1.0, 1.0), (2.0, 9.0, 2.0), (1,)),
        ((0.24, 1.25, 1.25), (5.0, 1.0, 1.0), ()),
        ((3.0, 1.0, 1.0), (3.0, 1.0, 1.0), ()),
        ((0.9, 5.0000001, 0.9), (9.0, 1.0, 1.0), (1,)),
    ],
)
def test_which_axis_has_thick_slices(current, new, expected):
    assert coarse_axis(current, new) == expected


@pytest.mark.slow
def test_tiles_are_spread_evenly_and_blended_as_nnunet_does():
    tiles = plan((110, 50, 64), tile=(64, 64, 64), overlap=0.5, placement=Placement.SPREAD)
    assert tiles.starts == ((0, 23, 46), (0,), (0,))
    for size, side, overlap in ((267, 128, 0.2), (300, 128, 0.5), (97, 32, 0.5), (33, 32, 0.5)):
        spread = plan((size, side, side), tile=(side, side, side), overlap=overlap, placement=Placement.SPREAD)
        assert list(spread.starts[0]) == starts(size, side, 1 - overlap)
    for tile in ((12, 9, 32), (1, 16, 12), (32, 48, 48)):
        assert torch.equal(half_importance(tile), gaussian(tile))


def test_a_frame_at_the_corners_keeps_the_outer_voxel_centres():
    volume = scan((21, 17, 30), (1.0, 1.2, 0.8), codes="LPS")
    spec = replace(NNUNET, grid=GridRule.CORNERS, spacing_mm=(1.5, 1.5, 1.5), carry=Carry.LABELS, separate_z=False)
    model_grid = ModelGrid.of(volume.grid, spec)
    corners = {tuple(np.round(corner, 6)) for corner in model_grid.grid.corners_mm()}
    assert corners == {tuple(np.round(corner, 6)) for corner in volume.grid.corners_mm()}
    for axis in range(3):
        at = model_grid.model_coordinates(axis)
        assert np.array_equal(at, np.round(at))


def test_labels_carried_back_are_those_of_the_nearest_model_voxel():
    from scipy.ndimage import zoom

    volume, networks = scan((22, 19, 17), (2.0, 2.2, 2.5)), (network(seed=3),)
    spec = replace(
        NNUNET, grid=GridRule.CORNERS, interpolation=Interpolation.LINEAR, separate_z=False, normalise_first=False,
        truncate=True, crop_nonzero=False, carry=Carry.LABELS, spacing_mm=(3.0, 3.0, 3.0),
    )  # fmt: skip
    image = volume.voxels.transpose(2, 1, 0).astype(np.float64)
    shape = model_grid_of(volume, spec).shape
    small = zoom(image, [n / o for n, o in zip(shape, image.shape, strict=True)], order=1, mode="nearest").astype(np.int32)
    values = torch.from_numpy(((np.clip(small, -100, 200) - 20) / 60).astype(np.float32))
    steps = Steps(spec.spacing_mm, spec.tile, spec.window_hu, spec.mean_std, networks)
    labels = steps.logits(values).argmax(dim=0).numpy().astype(np.uint8)
    expected = zoom(labels, [o / n for n, o in zip(shape, image.shape, strict=True)], order=0, mode="nearest")
    assert agreement(ours(volume, spec, networks), expected.transpose(2, 1, 0)) > 0.999


@pytest.mark.parametrize(
    ("normalisation", "expected"),
    [
        (Normalisation.ZSCORE, lambda x, mask: (x - x.mean()) / x.std()),
        (Normalisation.ZSCORE_MASKED, lambda x, mask: np.where(mask, (x - x[mask].mean()) / x[mask].std(), x)),
        (Normalisation.RESCALE_TO_UNIT, lambda x, mask: (x - x.min()) / (x.max() - x.min())),
        (Normalisation.NONE, lambda x, mask: x),
    ],
)
def test_other_normalisations_see_the_box_of_what_is_not_zero(normalisation, expected):
    from scipy.ndimage import binary_fill_holes

    volume = scan((16, 15, 14), (2.0, 2.0, 2.0), border=2)
    volume.voxels[6:9, 6:9, 6:9] = 0
    volume.voxels[2, 2, 2:8] = 0
    spec = replace(NNUNET, normalisation=normalisation, window_hu=None, spacing_mm=(2.0, 2.0, 2.0))
    crop = volume.voxels[2:-2, 2:-2, 2:-2].astype(np.float32)
    values = expected(crop, binary_fill_holes(crop != 0)).transpose(2, 1, 0)
    np.testing.assert_allclose(prepare(volume, spec).tensor.numpy(), values, rtol=1e-4, atol=1e-4)
