"""Laws of walking a volume: every voxel once, in the order of memory, without a copy."""

import itertools

import numpy as np
import pytest

from agseg.slabs import memory_order, slabs

LAYOUTS = list(itertools.product(itertools.permutations(range(3)), itertools.product([False, True], repeat=3)))


def laid_out(permutation, flips):
    """Voxels numbered in the order of memory, seen with other axes."""
    stored = np.arange(4 * 5 * 6, dtype=np.int32).reshape(4, 5, 6)
    return stored.transpose(permutation)[tuple(slice(None, None, -1 if flip else None) for flip in flips)]


def test_memory_order_is_slowest_first():
    assert memory_order(np.zeros((4, 5, 6), order="F").strides) == (2, 1, 0)
    assert memory_order(np.zeros((4, 5, 6), order="C").strides) == (0, 1, 2)


@pytest.mark.parametrize("voxels", [1, 60, 61, 1000])
@pytest.mark.parametrize(("permutation", "flips"), LAYOUTS)
def test_a_walk_meets_every_voxel_once_in_the_order_of_memory(permutation, flips, voxels):
    array = laid_out(permutation, flips)
    pieces = [piece for (piece,) in slabs(array, voxels=voxels)]
    assert np.concatenate([piece.ravel() for piece in pieces]).tolist() == list(range(array.size))
    assert all(np.shares_memory(piece, array) for piece in pieces)


@pytest.mark.parametrize(("permutation", "flips"), LAYOUTS)
def test_arrays_in_other_orders_keep_step(permutation, flips):
    array = laid_out(permutation, flips)
    other = np.asfortranarray(array)
    for ours, theirs in slabs(array, other, voxels=30):
        assert np.array_equal(ours, theirs)
