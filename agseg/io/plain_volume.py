"""MetaImage and NRRD as CT: from a checked header and stored voxels to a Volume."""

from __future__ import annotations

from agseg.errors import Code
from agseg.io.nifti_header import check_rectangular
from agseg.io.voxel_file import VoxelFile
from agseg.io.voxels import MODALITY_NOTE, as_hounsfield, check_looks_like_hu, check_not_hollow
from agseg.study import Study
from agseg.volume import Quantity, Volume, Warned

__all__ = ["read_plain_volume"]


def read_plain_volume(study: Study, found: VoxelFile) -> Volume:
    """Read the voxels of a MetaImage or NRRD study as CT.

    Returns
    -------
    Volume
        Voxels (i, j, k), Fortran-ordered, HU; int16 if all values are whole, else float32.

    Raises
    ------
    InputError
        With the reason code of the rule that is broken.
    """
    check_rectangular(found.grid)
    check_not_hollow(found.path.stat().st_size, found.voxel_bytes)
    voxels, warnings = as_hounsfield(found.read(), None)
    check_looks_like_hu(voxels)
    assumed = Warned(Code.MODALITY_ASSUMED, MODALITY_NOTE)
    return Volume(voxels, found.grid, Quantity.HU, "CT", (*study.warnings, assumed, *warnings))
