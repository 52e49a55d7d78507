"""Telling a label map from a CT, in formats that say neither.

A label map holds whole numbers from 0 to 255 and nothing else; a CT has air. The voxels are read from the front and reading
stops at the first value that no label map has, which in a CT is nearly always within the first megabyte.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agseg.errors import InputError
from agseg.io.itk import read_itk_array
from agseg.io.nifti import DAMAGE, opened, pair_image
from agseg.io.nifti_header import NiftiHeader
from agseg.io.voxels import LABEL_LIMIT

__all__ = ["is_itk_label_map", "is_nifti_label_map"]

CHUNK_BYTES = 1024**2

LARGEST_ITK_LABEL_MAP_BYTES = 64 * 1024**2
"""Longer MetaImage and NRRD files are not searched; a label map among them is rejected when it is read."""


def is_nifti_label_map(path: Path, header: NiftiHeader) -> bool:
    """Whether all voxels are whole numbers from 0 to LABEL_LIMIT, and not all of a type wider than a byte are 0."""
    source = pair_image(path) if header.is_pair else path
    if source is None:
        return False
    left = header.voxel_bytes
    chunk = CHUNK_BYTES - CHUNK_BYTES % header.dtype.itemsize
    any_label = False
    try:
        with opened(source) as stream:
            stream.read(header.offset)
            while left > 0:
                raw = stream.read(min(chunk, left))
                left -= len(raw)
                if not raw or len(raw) % header.dtype.itemsize:
                    return False
                values = np.frombuffer(raw, dtype=header.dtype)
                if not _only_labels(values, header.scale):
                    return False
                any_label = any_label or bool(values.any())
    except DAMAGE:
        # Damage is reported by the reader, with its code.
        return False
    return any_label or header.dtype.itemsize == 1


def is_itk_label_map(path: Path) -> bool:
    """The same for MetaImage and NRRD."""
    if path.stat().st_size > LARGEST_ITK_LABEL_MAP_BYTES:
        return False
    try:
        _, stored = read_itk_array(path)
    except InputError:
        return False
    return _only_labels(stored, None) and (bool(stored.any()) or stored.dtype.itemsize == 1)


def _only_labels(values: NDArray[Any], scale: tuple[float, float] | None) -> bool:
    if scale is not None:
        values = values * np.float64(scale[0]) + np.float64(scale[1])
    if not (values.min() >= 0 and values.max() <= LABEL_LIMIT):
        return False
    return values.dtype.kind != "f" or bool((values == np.rint(values)).all())
