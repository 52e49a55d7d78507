"""Volumes from formats without a modality: header checks, stored voxels, and whether they are the scan looked for."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from agseg.errors import Code
from agseg.grid import Grid
from agseg.io.nifti_header import check_rectangular
from agseg.io.voxel_file import VoxelFile
from agseg.io.voxels import as_hounsfield, as_signal, check_looks_like_hu, check_looks_like_signal, check_not_hollow
from agseg.study import Study
from agseg.volume import Quantity, Volume, Warned


def read_plain_volume(study: Study, found: VoxelFile) -> Volume:
    """Read the voxels of a MetaImage or NRRD study.

    Returns
    -------
    Volume
        As :func:`as_volume`.

    Raises
    ------
    InputError
        With the reason code of the rule that is broken.
    """
    check_rectangular(found.grid)
    check_not_hollow(found.path.stat().st_size, found.voxel_bytes)
    return as_volume(found.read(), None, found.grid, study)


def as_volume(stored: NDArray[Any], scale: tuple[float, float] | None, grid: Grid, study: Study) -> Volume:
    """A volume of the study's modality, if the values can be those of one.

    Parameters
    ----------
    stored
        (i, j, k), any real dtype, Fortran-ordered; its memory may become the volume's.
    scale
        (slope, intercept), or None where values are stored as they are.
    grid, study
        Where the voxels are, and what discovery took the file for.

    Returns
    -------
    Volume
        Voxels (i, j, k), Fortran-ordered, HU or signal; int16 if all values are whole (and fit), else float32.

    Raises
    ------
    InputError
        ``E_MODALITY`` or ``E_EMPTY_IMAGE``.
    """
    quantity = Quantity.of(study.modality)
    if quantity is Quantity.HU:
        voxels, warnings = as_hounsfield(stored, scale, in_place=True)
        check_looks_like_hu(voxels)
        note = "the format carries no modality; CT is assumed because the values look like HU"
    else:
        voxels, warnings = as_signal(stored, scale)
        check_looks_like_signal(voxels)
        note = f"the format carries no modality; {study.modality} is assumed because the weights are for {study.modality}"
    assumed = Warned(Code.MODALITY_ASSUMED, note)
    return Volume(voxels, grid, quantity, study.modality, (*study.warnings, assumed, *warnings))
