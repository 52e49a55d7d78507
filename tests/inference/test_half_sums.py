"""nnU-Net's sums, block by block, are those that it makes in one array of the whole map: bit by bit."""

from __future__ import annotations

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agseg.inference.half_sums import half_importance, sweep_in_half
from agseg.inference.tiling import plan
from agseg.weights.input_spec import Placement
from tests.inference.fake_gpu import FakeGpu

sizes = st.tuples(*[st.integers(1, 17)] * 3)
tile_shapes = st.tuples(*[st.integers(1, 9)] * 3)
overlaps = st.sampled_from([0.0, 0.2, 0.5])
CLASSES = 3


def spread(shape, tile, overlap):
    return plan(shape, tile=tile, overlap=overlap, placement=Placement.SPREAD)


def whole_map(tiles, score_of):
    """nnU-Net's own loops: the first axis outside, every sum in one float16 array, which the division rounds again."""
    total, weight = torch.zeros((CLASSES, *tiles.shape)).half(), torch.zeros(tiles.shape).half()
    gaussian = half_importance(tiles.tile)
    for corner in itertools.product(*tiles.starts):
        where = tuple(slice(c, c + side) for c, side in zip(corner, tiles.tile, strict=True))
        total[:, *where] += score_of(corner).float() * gaussian
        weight[where] += gaussian
    scores = total / weight
    return scores[:, *(slice(p, p + n) for p, n in zip(tiles.pad_before, tiles.real_shape, strict=True))]


def assembled(tiles, outputs, folds=1):
    """All blocks put together, how often each voxel came, and the blocks' numbers."""
    scores = torch.full((CLASSES, *tiles.real_shape), torch.nan)
    count = torch.zeros(tiles.real_shape, dtype=torch.int64)
    indices = []
    for block in sweep_in_half(tiles, outputs, folds=folds):
        where = tuple(slice(s, s + n) for s, n in zip(block.start, block.scores.shape[1:], strict=True))
        scores[:, *where] = block.scores
        count[where] += 1
        indices.append(block.index)
    return scores, count, indices


def random_scores(tiles, seed, dtype=torch.float32):
    """A score map for each corner, whoever asks in whichever order."""
    generator = torch.Generator().manual_seed(seed)
    made = {c: torch.randn((CLASSES, *tiles.tile), generator=generator).to(dtype) for c in itertools.product(*tiles.starts)}
    return made.__getitem__


@settings(max_examples=60, deadline=None)
@given(sizes, tile_shapes, overlaps, st.sampled_from([torch.float32, torch.bfloat16]), st.integers(0, 2**31))
def test_blocks_are_nnunets_whole_map_bit_by_bit(shape, tile, overlap, dtype, seed):
    tiles = spread(shape, tile, overlap)
    score_of = random_scores(tiles, seed, dtype)
    scores, count, indices = assembled(tiles, (score_of(corner) for corner in tiles.corners()))
    assert (count == 1).all()
    assert indices == sorted(indices)
    assert torch.equal(scores, whole_map(tiles, score_of).float())


@settings(max_examples=20, deadline=None)
@given(sizes, tile_shapes, st.integers(2, 3), st.integers(0, 2**31))
def test_folds_are_blended_apart_and_their_maps_averaged_in_half(shape, tile, folds, seed):
    tiles = spread(shape, tile, 0.5)
    scores_of = [random_scores(tiles, seed + fold) for fold in range(folds)]
    scores, _, _ = assembled(tiles, (of(corner) for corner in tiles.corners() for of in scores_of), folds)
    expected = whole_map(tiles, scores_of[0])
    for of in scores_of[1:]:
        expected += whole_map(tiles, of)
    expected /= folds
    assert torch.equal(scores, expected.float())


def test_float32_sums_would_be_others():
    tiles = spread((20, 24, 16), (16, 16, 16), 0.5)
    score_of = random_scores(tiles, 0)
    total, weight = torch.zeros((CLASSES, *tiles.shape)), torch.zeros(tiles.shape)
    for corner in tiles.corners():
        where = tuple(slice(c, c + side) for c, side in zip(corner, tiles.tile, strict=True))
        total[:, *where] += score_of(corner) * half_importance(tiles.tile)
        weight[where] += half_importance(tiles.tile)
    exact = (total / weight).half()
    scores, _, _ = assembled(tiles, (score_of(corner) for corner in tiles.corners()))
    assert (scores != exact).float().mean() > 0.2
    # In the corners, under the smallest weight there is, scores are whole numbers.
    assert torch.equal(scores[:, 0, 0, 0], score_of((0, 0, 0))[:, 0, 0, 0].round())


def test_on_a_gpu_the_sums_are_the_same_and_nothing_is_waited_for():
    tiles = spread((20, 18, 16), (8, 8, 8), 0.5)
    score_of = random_scores(tiles, 0)
    here = [block.scores.clone() for block in sweep_in_half(tiles, (score_of(corner) for corner in tiles.corners()))]
    with FakeGpu() as gpu:
        outputs = [score_of(corner).to(gpu.device) for corner in tiles.corners()]
        there = [block.scores.clone() for block in sweep_in_half(tiles, outputs)]
        assert gpu.waits == 0
        assert all(torch.equal(one.cpu(), other) for one, other in zip(there, here, strict=True))


def test_the_loops_are_nnunets_but_for_axes_with_one_tile():
    assert spread((20, 30, 40), (8, 8, 8), 0.5).order == (0, 1, 2)
    assert spread((8, 30, 40), (8, 8, 8), 0.5).order == (1, 2, 0)
    assert spread((30, 5, 40), (8, 8, 8), 0.5).order == (0, 2, 1)
    assert plan((20, 30, 40), tile=(8, 8, 8), overlap=0.5).order == (2, 1, 0)
