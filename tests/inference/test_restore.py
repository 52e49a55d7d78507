"""Laws of the way back: block by block equals all at once, and an identity model returns to the source grid."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agseg.grid import Grid
from agseg.inference import axis as axes_of
from agseg.inference.axis import AxisMap, Interpolation, Kernel, resample, weight_matrix
from agseg.inference.decide import ByLogit, ByProbability, ByRegion, winner
from agseg.inference.model_grid import ModelGrid
from agseg.inference.prepare import sample
from agseg.inference.restore import Restorer
from agseg.inference.score_checks import NonFiniteScoresError
from agseg.inference.tiling import Block, plan, sweep
from agseg.volume import Volume
from tests.inference.fake_gpu import FakeGpu

AXES = ["".join(letters) for axes in itertools.permutations(("LR", "PA", "IS")) for letters in itertools.product(*axes)]


def grid_of(codes, shape, spacing):
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for axis, (code, step) in enumerate(zip(codes, spacing, strict=True)):
        row = {"L": 0, "R": 0, "P": 1, "A": 1, "I": 2, "S": 2}[code]
        affine[row, axis] = -step if code in "LPI" else step
    affine[:3, 3] = (-11.0, 7.0, 3.0)
    return Grid(shape, affine)


def smooth_scores(shape, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn((1, classes, 3, 3, 3), generator=generator) * 3
    coarse[:, 0] += 1.5
    fine = torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear")
    return torch.softmax(fine[0], dim=0)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(AXES), st.integers(0, 10_000), st.sampled_from([(1.3, 2.0, 0.9), (2.0, 2.0, 2.0), (0.6, 3.1, 1.7)]))
def test_block_by_block_equals_all_at_once(codes, seed, model_spacing):
    source = grid_of(codes, (13, 17, 11), (1.1, 0.8, 2.3))
    model_grid = ModelGrid.at_spacing(source, axis_codes="RAS", spacing_mm=model_spacing)
    scores = smooth_scores(model_grid.shape, 4, seed)
    tiles = plan(model_grid.shape, tile=(7, 6, 5), overlap=0.25)
    outputs = [scores[:, a : a + 7, b : b + 6, c : c + 5] for a, b, c in tiles.corners()]
    if any(t.shape[1:] != tiles.tile for t in outputs):
        return  # a grid smaller than the tile is tested in test_tiling
    restorer = Restorer(model_grid, tiles=tiles, order=(2, 1, 0))
    for block in sweep(tiles, outputs):
        restorer.add(block)
    got = restorer.finish().labels
    order = (0, 1, 2)
    coordinates = tuple(model_grid.model_coordinates(axis) for axis in order)
    everything = scores.permute(0, *(axis + 1 for axis in model_grid.model_order(order)))
    expected, _ = winner(everything, coordinates)
    # The running sums of the sweep differ from the scores in the last bits; only near-ties may differ.
    assert (got == expected.numpy()).mean() > 0.9995


@pytest.mark.parametrize("codes", AXES)
def test_an_identity_model_returns_to_the_source_grid(codes):
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 3, (9, 8, 7)).astype(np.int16)
    grid = grid_of(codes, truth.shape, (1.0, 2.0, 3.0))
    oriented, _, _ = grid.reoriented("RAS")
    model_grid = ModelGrid.at_spacing(grid, axis_codes="RAS", spacing_mm=oriented.spacing_mm)
    values = sample(Volume(np.asfortranarray(truth), grid), model_grid, antialias=False)
    scores = torch.nn.functional.one_hot(values.round().long(), 3).permute(3, 0, 1, 2).float()
    restorer = Restorer(model_grid, tiles=plan(model_grid.shape, tile=model_grid.shape, overlap=0.0), order=(2, 1, 0))
    room = torch.nn.functional.pad(scores, (1, 0) * 3)
    restorer.add(Block((0, 0, 0), (True, True, True), (0, 0, 0), room[:, 1:, 1:, 1:], room))
    np.testing.assert_array_equal(restorer.finish().labels, truth)


@pytest.mark.parametrize("codes", AXES)
def test_every_storage_order_gives_the_network_the_same_image(codes):
    rng = np.random.default_rng(5)
    reference = rng.integers(-1000, 1000, (8, 9, 10)).astype(np.int16)
    ras = grid_of("RAS", reference.shape, (1.5, 1.0, 2.0))
    grid, permutation, flips = ras.reoriented(codes)
    stored = reference.transpose(permutation)
    stored = stored[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    expected = ModelGrid.at_spacing(ras, axis_codes="RAS", spacing_mm=(2.0, 2.0, 2.0))
    model_grid = ModelGrid.at_spacing(grid, axis_codes="RAS", spacing_mm=(2.0, 2.0, 2.0))
    assert model_grid.grid.matches(expected.grid, tolerance_mm=1e-6)
    expected = sample(Volume(np.asfortranarray(reference), ras), expected, antialias=True)
    got = sample(Volume(np.asfortranarray(stored), grid), model_grid, antialias=True)
    torch.testing.assert_close(got, expected, atol=1e-3, rtol=0)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.floats(0.2, 4.0), st.floats(-3, 3), st.booleans(), st.booleans())
def test_interpolation_weights_sum_to_one_and_keep_a_line_straight(n_in, n_out, scale, offset, flip, antialias):
    axis = AxisMap(n_in, n_out, -scale if flip else scale, offset)
    weights = weight_matrix(axis, Kernel.TRIANGLE if antialias else Kernel.LINEAR)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    if not antialias:
        np.testing.assert_allclose(weights @ np.arange(n_in), axis.coordinates, atol=1e-4)


def test_resampling_a_ramp_gives_the_ramp():
    i, j, k = np.meshgrid(np.arange(12), np.arange(10), np.arange(14), indexing="ij")
    ramp = (2 * i + 3 * j - k).astype(np.int16)
    axes = (AxisMap(12, 7, 1.7, 0.4), AxisMap(10, 15, 0.6, 0.1), AxisMap(14, 9, -1.3, 12.5))
    got = resample(ramp, axes, slab=5)
    a, b, c = (axis.coordinates for axis in axes)
    expected = 2 * a[:, None, None] + 3 * b[None, :, None] - c[None, None, :]
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-3)
    scores = torch.from_numpy(ramp).float()
    np.testing.assert_allclose(Interpolation((a, b, c), like=scores)(scores).numpy(), expected, atol=1e-3)


def test_interpolation_weights_go_to_the_device_once_however_many_classes_there_are(monkeypatch):
    sent = []
    upload = axes_of.to_device
    monkeypatch.setattr(axes_of, "to_device", lambda array, device: sent.append(array.shape) or upload(array, device))
    counts = []
    for classes in (2, 9):
        sent.clear()
        scores = torch.full((classes, 6, 5, 4), 1 / classes)
        winner(scores, (np.linspace(0, 5, 11), np.linspace(0, 4, 7), np.linspace(0, 3, 8)))
        counts.append(len(sent))
    assert counts[0] == counts[1] > 0


def labels_of(scores, model_grid, rule, device="cpu"):
    """The label map of scores that tiles bring, and their mean probabilities; and the number of blocks."""
    tiles = plan(model_grid.shape, tile=(5, 5, 3), overlap=0.25)
    restorer = Restorer(model_grid, tiles=tiles, order=(2, 1, 0), rule=rule)
    there = scores.to(device)
    outputs = (there[:, a : a + 5, b : b + 5, c : c + 3] for a, b, c in tiles.corners())
    for block in sweep(tiles, outputs):
        restorer.add(block)
    return restorer.finish(), tiles.count


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule",
    [ByProbability(), ByLogit(), ByLogit(torch.float16), ByRegion((2, 1, 3, 5))],
    ids=["probability", "logit", "half_logit", "region"],
)
def test_a_gpu_gives_the_same_labels_and_is_waited_for_once_a_block(rule):
    model_grid = ModelGrid.at_spacing(
        grid_of("LIP", (13, 17, 11), (1.1, 0.8, 2.3)), axis_codes="RAS", spacing_mm=(2.0, 2.0, 3.0)
    )
    scores = smooth_scores(model_grid.shape, 4, 1)
    scores = scores if isinstance(rule, ByProbability) else scores.logit()
    here, _ = labels_of(scores, model_grid, rule)
    with FakeGpu() as gpu:
        there, blocks = labels_of(scores, model_grid, rule, gpu.device)
    np.testing.assert_array_equal(there.labels, here.labels)
    assert there.probability == pytest.approx(here.probability, rel=1e-12)
    assert len(there.probability) > 1
    assert gpu.waits <= blocks + 2  # the labels and their sums, once, in the end


def test_logits_rounded_to_half_are_compared_as_such_and_ties_go_to_the_lower_label():
    model_grid = ModelGrid.at_spacing(
        grid_of("LIP", (26, 34, 22), (1.1, 0.8, 2.3)), axis_codes="RAS", spacing_mm=(2.0, 2.0, 3.0)
    )
    logits = smooth_scores(model_grid.shape, 4, 1).logit() / 50 + 30  # numbers that 16 bits tell apart by 1/64
    coordinates = tuple(model_grid.model_coordinates(axis) for axis in (2, 1, 0))
    arranged = logits.permute(0, *(axis + 1 for axis in model_grid.model_order((2, 1, 0))))
    rounded = Interpolation(coordinates, like=arranged)
    expected = torch.stack([rounded(score.contiguous()).half() for score in arranged]).float().numpy()
    best = np.sort(expected, axis=0)
    assert 0.02 < (best[-1] == best[-2]).mean() < 0.9, "the test needs ties"
    found = {}
    for compared_in in (torch.float16, torch.float32):
        rule = ByLogit(compared_in)
        found[compared_in] = rule.decide(arranged, coordinates, rule.survey(arranged).numpy())[0].numpy()
    np.testing.assert_array_equal(found[torch.float16], expected.argmax(axis=0))
    assert (found[torch.float32] != found[torch.float16]).mean() > 0.005


def test_the_fake_gpu_counts_what_makes_a_host_wait():
    with FakeGpu() as gpu:
        values = torch.arange(4.0).to(gpu.device)
        assert gpu.waits == 0
        for waits, read in enumerate((values.cpu, values.sum().item, values.nonzero), start=1):
            read()
            assert gpu.waits >= waits


def test_a_volume_is_resampled_on_a_gpu_slab_by_slab_without_a_wait():
    volume = np.random.default_rng(2).integers(-1000, 1000, (12, 10, 14)).astype(np.int16)
    axes = (AxisMap(12, 7, 1.7, 0.4), AxisMap(10, 15, 0.6, 0.1), AxisMap(14, 9, -1.3, 12.5))
    here = resample(volume, axes, slab=5)
    with FakeGpu() as gpu:
        there = resample(volume, axes, slab=5, device=gpu.device)
        assert gpu.waits == 0
        torch.testing.assert_close(there.cpu(), here, rtol=0, atol=0)


def test_scores_that_are_not_finite_never_become_labels():
    model_grid = ModelGrid.at_spacing(
        grid_of("RAS", (13, 17, 11), (1.1, 0.8, 2.3)), axis_codes="RAS", spacing_mm=(2.0, 2.0, 3.0)
    )
    scores = smooth_scores(model_grid.shape, 4, 1)
    scores[0, 3, 3, 1] = float("nan")
    for rule in (ByProbability(), ByLogit(), ByRegion((1, 2, 3, 4))):
        with pytest.raises(NonFiniteScoresError):
            labels_of(scores, model_grid, rule)
