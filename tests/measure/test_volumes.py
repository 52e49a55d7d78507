import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agseg import slabs
from agseg.errors import InputError
from agseg.grid import Grid
from agseg.labels import LabelSet
from agseg.measure.volumes import measure
from agseg.report import OrganStatus
from agseg.volume import LabelMask, Quantity, Volume

ORGANS = LabelSet.from_mapping({1: "spleen", 2: "pancreas", 7: "liver"})


def case(labels, values=None, affine=None, quantity=Quantity.HU):
    grid = Grid(labels.shape, np.diag([2.0, 2.0, 3.0, 1.0]) if affine is None else affine)
    values = np.zeros(labels.shape, dtype=np.int16) if values is None else values
    return LabelMask(labels, grid, ORGANS), Volume(values, grid, quantity=quantity)


def test_ellipsoid_has_its_known_volume():
    semi_mm = np.array([30.0, 20.0, 40.0])
    grid_mm = np.stack(np.meshgrid(*[np.arange(-45, 46) * 1.0] * 3, indexing="ij"), axis=-1)
    inside = ((grid_mm / semi_mm) ** 2).sum(axis=-1) <= 1
    (_, pancreas, _) = measure(*case(inside.astype(np.uint8) * 2, affine=np.eye(4)))
    assert pancreas.volume_ml == pytest.approx(4 / 3 * np.pi * semi_mm.prod() / 1000, rel=5e-3)
    assert pancreas.status is OrganStatus.PRESENT


def test_voxels_times_voxel_volume_and_mean():
    labels = np.zeros((5, 5, 5), dtype=np.uint8)
    labels[1:3, 1:3, 1:4] = 1
    values = np.full((5, 5, 5), -100, dtype=np.int16)
    values[labels == 1] = np.arange(12)
    spleen, pancreas, liver = measure(*case(labels, values))
    assert (spleen.name, spleen.voxels, spleen.volume_ml) == ("spleen", 12, pytest.approx(12 * 0.012))
    assert spleen.mean_hu == pytest.approx(5.5)
    assert (pancreas.status, pancreas.volume_ml, pancreas.voxels) == (OrganStatus.ABSENT, None, 0)
    assert (liver.status, liver.mean_hu) == (OrganStatus.ABSENT, None)


def test_sheared_grid_uses_the_determinant():
    labels = np.zeros((4, 4, 4), dtype=np.uint8)
    labels[1, 1, 1] = 1
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[0, 2] = 0.7
    (spleen, _, _) = measure(*case(labels, affine=affine))
    assert spleen.volume_ml == pytest.approx(0.002)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("end", [0, -1])
def test_every_face_of_the_field_of_view_cuts_off(axis, end):
    labels = np.zeros((5, 6, 7), dtype=np.uint8)
    labels[2, 2, 2] = 2
    index = [2, 2, 2]
    index[axis] = labels.shape[axis] - 1 if end else 0
    labels[tuple(index)] = 7
    _, pancreas, liver = measure(*case(labels))
    assert (liver.status, liver.touches_border) == (OrganStatus.CUT_OFF, True)
    assert liver.volume_ml == pytest.approx(0.012)
    assert (pancreas.status, pancreas.touches_border) == (OrganStatus.PRESENT, False)


def test_signal_has_no_hu():
    labels = np.ones((3, 3, 3), dtype=np.uint8)
    (spleen, _, _) = measure(*case(labels, quantity=Quantity.SIGNAL))
    assert spleen.mean_hu is None


def test_another_grid_is_refused():
    mask, _ = case(np.zeros((3, 3, 3), dtype=np.uint8))
    _, other = case(np.zeros((3, 3, 3), dtype=np.uint8), affine=np.eye(4))
    with pytest.raises(InputError, match="same grid"):
        measure(mask, other)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 99), slab=st.integers(1, 200), order=st.sampled_from("CF"), axis=st.integers(0, 2))
def test_neither_memory_order_nor_slabs_nor_mirroring_change_it(seed, slab, order, axis):
    generator = np.random.default_rng(seed)
    labels = generator.choice([0, 1, 2, 7], size=(5, 4, 6)).astype(np.uint8)
    values = generator.normal(0, 100, size=labels.shape).astype(np.float32)
    whole = measure(*case(labels, values))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(slabs, "SLAB_VOXELS", slab)
        flipped = measure(*case(np.array(np.flip(labels, axis), order=order), np.array(np.flip(values, axis), order=order)))
    for first, second in zip(whole, flipped, strict=True):
        assert (first.voxels, first.volume_ml, first.status) == (second.voxels, second.volume_ml, second.status)
        assert first.mean_hu == pytest.approx(second.mean_hu, rel=1e-6, abs=1e-4)
