"""Laws of the components: the same as SimpleITK's, in any memory order; what is removed is what was asked for."""

import itertools

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st

from agseg import slabs
from agseg.measure import components as rooms
from agseg.measure.components import components


def as_simpleitk_counts(labels, value):
    """Component numbers (C order) and sizes in the order of the numbers."""
    search = SimpleITK.ConnectedComponentImageFilter()
    search.FullyConnectedOn()
    numbers = SimpleITK.GetArrayFromImage(search.Execute(SimpleITK.GetImageFromArray((labels == value).astype(np.uint8))))
    return numbers, np.bincount(numbers.ravel())[1:].tolist()


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(st.integers(1, 6), st.integers(1, 7), st.integers(1, 9)),
    filled=st.floats(0.02, 0.9),
    batches=st.sampled_from([1, 3, 1000]),
    slab=st.sampled_from([1, 20, 1000]),
)
def test_as_another_library_counts_them(seed, shape, filled, batches, slab):
    generator = np.random.default_rng(seed)
    labels = np.where(generator.random(shape) < filled, generator.integers(1, 4, shape), 0).astype(np.uint8)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rooms, "_BATCHES", batches)
        patched.setattr(slabs, "SLAB_VOXELS", slab)
        found = components(labels)
    assert sorted(found) == [value for value in (1, 2, 3) if (labels == value).any()]
    for value, ours in found.items():
        assert ours.sizes.tolist() == as_simpleitk_counts(labels, value)[1]


@pytest.mark.parametrize("permutation", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", [(False, False, False), (True, False, True), (True, True, True)])
def test_memory_order_changes_no_size_and_only_what_is_named_is_removed(permutation, flips, monkeypatch):
    monkeypatch.setattr(rooms, "_VOXELS", 5)
    generator = np.random.default_rng(3)
    stored = (generator.random((9, 8, 7)) < 0.12).astype(np.uint8) * 4
    stored[2:5, 2:6, 1:6] = 4
    labels = stored.transpose(permutation)[tuple(slice(None, None, -1 if flip else None) for flip in flips)]
    numbers, sizes = as_simpleitk_counts(stored, 4)
    (found,) = components(labels).values()
    assert found.sizes.tolist() == sizes
    small = found.sizes < 3
    assert small.any()
    assert not small.all()
    found.remove(labels, small)
    assert np.array_equal(stored == 4, (numbers > 0) & ~np.concatenate([[False], small])[numbers])


def test_a_long_winding_path_is_one_component():
    labels = np.zeros((1, 41, 41), np.uint8)
    labels[0, ::4] = 7
    labels[0, 1:40:8, -1] = labels[0, 2:40:8, -1] = labels[0, 3:40:8, -1] = 7
    labels[0, 5:40:8, 0] = labels[0, 6:40:8, 0] = labels[0, 7:40:8, 0] = 7
    assert len(components(labels)[7].sizes) == 1
    labels[0, 1, -1] = 0
    labels[0, 2, -1] = 0
    assert len(components(labels)[7].sizes) == 2


def test_nothing_has_no_component():
    assert components(np.zeros((3, 4, 5), np.uint8)) == {}
