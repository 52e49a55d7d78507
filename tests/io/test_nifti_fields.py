"""Law of the header's fields: nibabel reads what is written as the same numbers, and what nibabel writes is read the same."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nibabel.nifti1 import Nifti1Header, Nifti1PairHeader
from nibabel.nifti2 import Nifti2Header

from agseg.grid import Grid
from agseg.io.nifti_fields import HEADER_BYTES, NiftiFields
from agseg.io.nifti_write import _header_bytes
from tests import phantoms

TYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]


def affine_of(degrees, spacing_mm, tilt, mirrored, shift_mm):
    turn = phantoms.rotation(2, degrees[2]) @ phantoms.rotation(1, degrees[1]) @ phantoms.rotation(0, degrees[0])
    affine = np.eye(4)
    shear = np.eye(3)
    shear[0, 2] = tilt
    affine[:3, :3] = turn @ shear @ np.diag([*spacing_mm[:2], -spacing_mm[2] if mirrored else spacing_mm[2]])
    affine[:3, 3] = shift_mm
    return affine


affines = st.builds(
    affine_of,
    st.tuples(*[st.sampled_from([0.0, 90.0, 180.0, -90.0]) | st.floats(-180, 180)] * 3),
    st.tuples(*[st.floats(0.1, 9)] * 3),
    st.just(0.0) | st.floats(-0.5, 0.5),
    st.booleans(),
    st.tuples(*[st.floats(-900, 900)] * 3),
)


def as_nibabel_lays_it_out(dtype, grid, *, with_qform):
    header = Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape(grid.shape)
    header.set_xyzt_units("mm")
    header.set_sform(grid.affine, code=1)
    if with_qform:
        header.set_qform(grid.affine, code=1)
    else:
        header["pixdim"][1:4] = grid.spacing_mm
    header["scl_slope"], header["scl_inter"], header["vox_offset"] = 1, 0, 352
    return header.binaryblock + bytes(4)


@given(affines, st.sampled_from([np.uint8, np.float32]))
def test_a_header_of_ours_is_nibabels_byte_for_byte(affine, dtype):
    grid = Grid((7, 8, 9), affine)
    ours = _header_bytes(np.dtype(dtype), grid, b"")
    has_qform = int.from_bytes(ours[252:254], "little") == 1
    assert ours == as_nibabel_lays_it_out(dtype, grid, with_qform=has_qform)


@pytest.mark.parametrize("kind", [Nifti1Header, Nifti1PairHeader, Nifti2Header])
@given(affine=affines, dtype=st.sampled_from(TYPES), swapped=st.booleans())
def test_every_field_is_read_as_nibabel_reads_it(kind, affine, dtype, swapped):
    header = kind()
    header.set_data_dtype(dtype)
    header.set_data_shape((7, 8, 9))
    header.set_sform(affine, code=2)
    header.set_qform(affine, code=1)
    header.set_slope_inter(2, -1024)
    header = header.as_byteswapped(">") if swapped else header
    version = 2 if kind is Nifti2Header else 1
    ours = NiftiFields(version, header.binaryblock)
    assert len(header.binaryblock) == HEADER_BYTES[version]
    for name in ("sizeof_hdr", "dim", "datatype", "bitpix", "pixdim", "vox_offset", "scl_slope", "scl_inter", "xyzt_units"):
        assert np.array_equal(ours[name], header[name]), name
    assert (ours["sform_code"], ours["qform_code"]) == (2, 1)
    assert ours.get_data_dtype() == header.get_data_dtype()
    assert np.array_equal(ours.get_sform(), header.get_sform())
    assert np.allclose(ours.get_qform(), header.get_qform(), rtol=0, atol=1e-4)
    assert ours.to_bytes() == header.binaryblock


def test_what_no_quaternion_is_raises():
    fields = NiftiFields()
    fields["pixdim"][:] = 1
    fields["quatern"] = (1, 1, 0)
    with pytest.raises(ValueError, match="longer than 1"):
        fields.get_qform()
    fields["quatern"] = 0
    fields["pixdim"][0] = 3
    with pytest.raises(ValueError, match="qfac"):
        fields.get_qform()
    assert nibabel.Nifti1Header().binaryblock[:4] == (348).to_bytes(4, "little")
