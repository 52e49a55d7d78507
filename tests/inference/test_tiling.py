"""Laws of tiling: everything is covered once, constants stay constants, and the sweep equals the whole map."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agseg.inference.tiling import importance, plan, sweep

sizes = st.tuples(*[st.integers(1, 23)] * 3)
tile_shapes = st.tuples(*[st.integers(1, 9)] * 3)
overlaps = st.sampled_from([0.0, 0.25, 0.5, 0.7])


def whole_map(tiles, outputs):
    """The score map as one array, the plain way."""
    classes = outputs[0].shape[0]
    total = torch.zeros((classes, *tiles.shape), dtype=torch.float64)
    weight = torch.zeros(tiles.shape, dtype=torch.float64)
    gaussian = importance(tiles.tile).double()
    for (a, b, c), out in zip(tiles.corners(), outputs, strict=True):
        x, y, z = tiles.tile
        total[:, a : a + x, b : b + y, c : c + z] += out.double() * gaussian
        weight[a : a + x, b : b + y, c : c + z] += gaussian
    scores = total / weight
    begin = tiles.pad_before
    return scores[:, *(slice(p, p + n) for p, n in zip(begin, tiles.real_shape, strict=True))]


def assembled(tiles, outputs, classes):
    """All blocks put together, and how often each voxel was yielded."""
    scores = torch.full((classes, *tiles.real_shape), torch.nan)
    count = torch.zeros(tiles.real_shape, dtype=torch.int64)
    indices = []
    for block in sweep(tiles, outputs):
        where = tuple(slice(s, s + n) for s, n in zip(block.start, block.scores.shape[1:], strict=True))
        scores[:, *where] = block.scores
        count[where] += 1
        indices.append(block.index)
    return scores, count, indices


@settings(max_examples=60, deadline=None)
@given(sizes, tile_shapes, overlaps)
def test_a_constant_network_gives_a_constant_map_and_every_voxel_comes_once(shape, tile, overlap):
    tiles = plan(shape, tile=tile, overlap=overlap)
    constant = torch.tensor([0.25, -3.0]).reshape(2, 1, 1, 1).expand(2, *tile)
    scores, count, indices = assembled(tiles, [constant] * tiles.count, 2)
    assert (count == 1).all()
    assert indices == sorted(indices)
    torch.testing.assert_close(scores[0], torch.full(shape, 0.25))
    torch.testing.assert_close(scores[1], torch.full(shape, -3.0))


@settings(max_examples=40, deadline=None)
@given(sizes, tile_shapes, overlaps, st.integers(0, 2**31))
def test_the_sweep_equals_the_whole_map(shape, tile, overlap, seed):
    tiles = plan(shape, tile=tile, overlap=overlap)
    generator = torch.Generator().manual_seed(seed)
    outputs = [torch.randn((3, *tile), generator=generator) for _ in range(tiles.count)]
    expected = whole_map(tiles, outputs)
    scores, _, _ = assembled(tiles, [out.clone() for out in outputs], 3)
    torch.testing.assert_close(scores.double(), expected, atol=1e-5, rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(sizes, tile_shapes, overlaps, st.sampled_from([torch.bfloat16, torch.float16]), st.integers(0, 2**31))
def test_half_precision_outputs_lose_less_than_their_own_rounding(shape, tile, overlap, dtype, seed):
    tiles = plan(shape, tile=tile, overlap=overlap)
    generator = torch.Generator().manual_seed(seed)
    outputs = [(10 * torch.randn((3, *tile), generator=generator)).to(dtype) for _ in range(tiles.count)]
    scores, _, _ = assembled(tiles, [out.clone() for out in outputs], 3)
    # Every value is at most the largest one; up to three roundings of 2**-11, one per axis, lie between.
    largest = max(float(out.abs().max()) for out in outputs)
    torch.testing.assert_close(scores.double(), whole_map(tiles, outputs), atol=4 * 2**-11 * largest, rtol=0)


@settings(max_examples=60, deadline=None)
@given(sizes, tile_shapes, overlaps)
def test_tiles_stay_inside_and_overlap_as_asked(shape, tile, overlap):
    tiles = plan(shape, tile=tile, overlap=overlap)
    for axis in range(3):
        starts = np.array(tiles.starts[axis])
        assert starts[0] == 0
        assert starts[-1] + tile[axis] == tiles.shape[axis]
        assert (np.diff(starts) <= max(1, int(tile[axis] * (1 - overlap)))).all()


def test_importance_is_largest_in_the_middle_and_never_zero():
    weights = importance((9, 7, 5))
    assert weights.argmax() == np.ravel_multi_index((4, 3, 2), (9, 7, 5))
    assert weights.min() >= 1e-3


def test_what_is_held_is_a_fraction_of_the_map():
    tiles = plan((8, 8, 400), tile=(8, 8, 16), overlap=0.25)
    assert tiles.order[0] == 2
    first = next(iter(sweep(tiles, (torch.zeros((2, *tiles.tile)) for _ in range(tiles.count)))))
    assert first.scores.shape[3] == 12
