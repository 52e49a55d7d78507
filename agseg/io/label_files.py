"""A mask as NIfTI: a file per organ, or one file with all organs and its key; and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agseg.errors import OutputError
from agseg.grid import Grid
from agseg.io.atomic import write_text
from agseg.io.outputs import LABELS, MASK_FORMS, NIFTI, OutputFiles
from agseg.labels import Label, LabelSet
from agseg.volume import LabelMask

LABELS_NII = "labels.nii.gz"
LABELS_JSON = "labels.json"
"""The key of :data:`LABELS_NII`: organ names by label value, as text, ``{"1": "spleen", ...}``."""

_FILES_AT_ONCE = 2
"""More would gain little beside a network, and each thread takes 70 MB of the addresses that its process is limited to."""


def organ_file(name: str) -> str:
    """Name of one organ's mask."""
    return f"{name}.nii.gz"


def write_organs(folder: Path, mask: LabelMask) -> tuple[str, ...]:
    """A file per organ, uint8 0 and 1; returns their names."""
    from agseg.io.nifti_write import write_mask

    def write_one(label: Label) -> None:
        write_mask(folder / organ_file(label.name), mask.labels, mask.grid, value=label.index)

    # Packing, reading back and the disk leave Python's lock.
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        for _ in pool.map(write_one, mask.label_set):
            pass
    return tuple(organ_file(name) for name in mask.label_set.names)


def write_labels(folder: Path, mask: LabelMask) -> tuple[str, ...]:
    """One file with the label values of all organs, and what they mean; returns their names."""
    from agseg.io.nifti_write import write_mask

    write_mask(folder / LABELS_NII, mask.labels, mask.grid, key=mask.label_set)
    key = {str(label.index): label.name for label in mask.label_set}
    write_text(folder / LABELS_JSON, json.dumps(key, indent=2) + "\n")
    return LABELS_NII, LABELS_JSON


def read_masks(
    folder: Path, outputs: Mapping[str, OutputFiles], values: Mapping[str, int], *, organs: Sequence[str], grid: Grid
) -> LabelMask:
    """The masks of a finished study's organs, from the first of its outputs that has them.

    Parameters
    ----------
    folder, outputs
        The study's folder and its outputs, by name.
    values
        Label values that organs are to have; the others take free ones.
    organs
        Names; one that no output has is absent.
    grid
        Of the study's volume, on which the masks must be.

    Raises
    ------
    OutputError
        If a file is on another grid, or holds something that no run wrote.
    """
    labels = np.zeros(grid.shape, dtype=np.uint8, order="F")
    named = _named(organs, values)
    left = set(organs)
    for form in MASK_FORMS:
        mine = left & set(outputs[form].organs) if form in outputs else set()
        if not mine:
            continue
        if form == NIFTI:
            for organ in sorted(mine):
                labels[_voxels(folder / organ_file(organ), grid) > 0] = named[organ]
        else:
            files = [folder / name for name in outputs[form].files]
            stored, key = _labels(folder, grid) if form == LABELS else _segments(files, grid)
            table = np.zeros(256, dtype=np.uint8)
            for value, organ in key.items():
                table[value] = named[organ] if organ in mine else 0
            np.copyto(labels, table[stored], where=labels == 0)
        left -= mine
    return LabelMask(labels, grid, LabelSet.from_mapping({index: organ for organ, index in named.items()}))


def _named(organs: Sequence[str], values: Mapping[str, int]) -> dict[str, int]:
    """A label value for each organ: the one it had, or a free one."""
    named = {organ: values[organ] for organ in organs if organ in values}
    free = iter(sorted(set(range(1, 256)) - set(named.values())))
    return named | {organ: next(free) for organ in organs if organ not in named}


def _voxels(path: Path, grid: Grid) -> NDArray[np.uint8]:
    import nibabel

    image: Any = nibabel.load(path)
    if image.shape != grid.shape or not Grid(image.shape, image.affine).matches(grid):
        raise OutputError("a mask of the earlier result is not on the study's grid", path=path)
    return np.asarray(image.dataobj, dtype=np.uint8)


def _labels(folder: Path, grid: Grid) -> tuple[NDArray[np.uint8], dict[int, str]]:
    key = json.loads((folder / LABELS_JSON).read_bytes())
    return _voxels(folder / LABELS_NII, grid), {int(value): str(organ) for value, organ in key.items()}


def _segments(paths: Sequence[Path], grid: Grid) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """All segments of one result, which may be in several objects, in values of our own."""
    import pydicom

    from agseg.io.dicom_out.seg import read_seg

    labels = np.zeros(grid.shape, dtype=np.uint8, order="F")
    key: dict[int, str] = {}
    for path in paths:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        table = np.zeros(256, dtype=np.uint8)
        for segment in header.SegmentSequence:
            table[int(segment.SegmentNumber)] = len(key) + 1
            key[len(key) + 1] = str(segment.SegmentLabel)
        np.copyto(labels, table[read_seg(path, grid)], where=labels == 0)
    return labels, key
