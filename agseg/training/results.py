"""A folder of predicted masks, whoever wrote it: case by case to one :class:`LabelMask` in the reference's names.

::

    FOLDER/CASE.nii.gz                      one label map per case (nnU-Net), values of FOLDER/dataset.json or the reference's
    FOLDER/CASE.png                         the same of a picture
    FOLDER/CASE/ORGAN.nii.gz                one mask per organ (TotalSegmentator, agseg segment)
    FOLDER/CASE/labels.nii.gz, labels.json  one label map and its key (agseg segment --ml)

A case's file or folder may bear nnU-Net's channel number (``CASE_0000``), as segmenting ``imagesTs`` leaves it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agseg.errors import Code, InputError, RecipeError
from agseg.io.nifti import read_labels
from agseg.labels import LabelSet
from agseg.training.cohort import read_picture_labels
from agseg.training.description import PNG, Meaning, described_meaning
from agseg.volume import LabelMask

ENDINGS = (".nii.gz", ".nii")
"""Of label maps of scans."""

_KEY = "labels.json"


@dataclass
class ResultFolder:
    """Predicted masks.

    Parameters
    ----------
    root
        The folder.
    meaning
        Of the reference's values; label maps without a key of their own are read by it.
    """

    root: Path
    meaning: Meaning

    @cached_property
    def label_set(self) -> LabelSet:
        """What the values of label maps mean here."""
        own = described_meaning(self.root)
        return (self.meaning if own is None else own).in_files

    def named(self, case: str) -> str:
        """File or folder of a case, relative to the root; the plainest name where there is none."""
        for name in (case, f"{case}_0000"):
            for place in (*(f"{name}{ending}" for ending in (*ENDINGS, PNG)), name):
                if (self.root / place).exists():
                    return place
        return f"{case}{ENDINGS[0]}"

    def read(self, case: str, *, like: LabelMask) -> LabelMask:
        """The predicted mask of a case; ``like`` is its reference.

        Raises
        ------
        RecipeError
            If there is none.
        InputError
            If a file is damaged, or holds a value that is no label.
        """
        path = self.root / self.named(case)
        if path.is_dir():
            return self._of_folder(path, like)
        if not path.is_file():
            raise RecipeError("a reference has no prediction", path=self.root)
        return _label_map(path, self.label_set)

    def read_picture(self, case: str) -> NDArray[np.uint8]:
        """The predicted labels of a picture: uint8 (row, column), numbered as :attr:`label_set`.

        Raises
        ------
        RecipeError
            If there is none.
        InputError
            If it is damaged, or holds a value that is no label.
        """
        path = self.root / f"{case}{PNG}"
        if not path.is_file():
            raise RecipeError("a reference has no prediction", path=self.root)
        return picture_labels(path, self.label_set)

    def _of_folder(self, folder: Path, like: LabelMask) -> LabelMask:
        """The organs of a study's folder; where masks overlap, the later name in the reference's order wins.

        An organ without a file is one that the network does not know; one that was not found has an empty mask.
        """
        if (folder / _KEY).is_file():
            names: Mapping[str, str] = json.loads((folder / _KEY).read_text(encoding="utf-8"))
            labels = LabelSet.from_mapping({int(index): name for index, name in names.items()})
            return _label_map(folder / "labels.nii.gz", labels)
        grid, merged, known = None, None, []
        for label in like.label_set:
            path = next((p for ending in ENDINGS if (p := folder / f"{label.name}{ending}").is_file()), None)
            if path is None:
                continue
            header, inside = read_labels(path)
            if grid is None or merged is None:
                grid, merged = header.grid, np.zeros(inside.shape, dtype=np.uint8, order="F")
            if not header.grid.matches(grid):
                raise RecipeError("the masks of one case lie on different grids", path=path)
            merged[inside > 0] = label.index
            known.append(label.name)
        if grid is None or merged is None:
            raise RecipeError("no mask of a known name is here", path=folder, expected=", ".join(like.label_set.names))
        return LabelMask(merged, grid, like.label_set.only(known))


def picture_labels(path: Path, labels: LabelSet) -> NDArray[np.uint8]:
    """A picture of labels, uint8 (row, column), with known values only.

    Raises
    ------
    InputError
        If it is damaged, or holds a value that is no label.
    """
    try:
        values = read_picture_labels(path)
    except OSError as error:
        raise InputError("not a picture that can be read", code=Code.DECODE, path=path) from error
    if unknown := sorted({int(value) for value in np.unique(values)} - {0, *(label.index for label in labels)}):
        raise InputError("a value is no label", path=path, value=unknown, expected=labels.names)
    return values


def _label_map(path: Path, labels: LabelSet) -> LabelMask:
    header, values = read_labels(path)
    try:
        return LabelMask(values, header.grid, labels)
    except InputError as error:
        raise InputError(error.message, code=error.code, path=path, value=error.value, expected=labels.names) from None
