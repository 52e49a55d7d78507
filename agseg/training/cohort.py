"""A labelled cohort on disk, in nnU-Net's folder layout: ``imagesTr``, ``labelsTr``, ``dataset.json``.

Segmentation cohorts hold NIfTI volumes (one channel) or PNG pictures (grey or RGB). A cohort made elsewhere for nnU-Net is read
as it is. Frames with one class each (scan planes) have no label image; they live in ``frames/`` with a ``frames.csv``, see
:mod:`agseg.training.frames`.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agseg.errors import AgsegError, Code, InputError, RecipeError
from agseg.grid import Grid
from agseg.io.atomic import make_folder, replacing, write_text
from agseg.io.nifti import read_labels, read_nifti_array
from agseg.io.nifti_write import write_mask
from agseg.io.voxels import as_hounsfield, as_labels, as_signal
from agseg.labels import LabelSet
from agseg.training.description import DESCRIPTION, NIFTI, PNG, Meaning, read_description
from agseg.volume import LabelMask, Quantity, Volume, Warned

_CHANNEL = re.compile(r"_\d{4}$")
"""nnU-Net's number of a channel, at the end of an image's name."""


@dataclass(frozen=True)
class Cohort:
    """A folder of labelled cases.

    Parameters
    ----------
    root
        The folder with ``dataset.json``.
    name
        The data set it holds.
    label_set
        What its label images mean.
    modality
        Of the first channel: ``CT``, ``MR``, ``US`` or ``RGB``.
    file_ending
        ``.nii.gz``, ``.nii`` or ``.png``.
    ids
        Case ids in order.
    modalities, channels
        DICOM modality and name of every channel; one ``RGB`` for a colour picture.
    meaning
        Of the label images' values, with regions and the ignored one; ``label_set`` alone by default.
    """

    root: Path
    name: str
    label_set: LabelSet
    modality: str
    file_ending: str
    ids: tuple[str, ...]
    modalities: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    meaning: Meaning | None = None

    @property
    def in_files(self) -> LabelSet:
        """Every value that a label image may hold."""
        return self.label_set if self.meaning is None else self.meaning.in_files

    @property
    def image_ids(self) -> tuple[str, ...]:
        """The cases that have an image, labelled or not, in order."""
        ending = self.file_ending
        names = (path.name.removesuffix(ending) for path in (self.root / "imagesTr").glob(f"*{ending}") if path.name[0] != ".")
        return tuple(sorted({_CHANNEL.sub("", name) for name in names}))

    def image_paths(self, case_id: str) -> tuple[Path, ...]:
        """The image of every channel (``CASE_0000``, ``CASE_0001``, ...); a colour picture is one."""
        further = range(1, len(self.modalities))
        more = (self.root / "imagesTr" / f"{case_id}_{number:04d}{self.file_ending}" for number in further)
        return (self.image_path(case_id), *more)

    def image_path(self, case_id: str) -> Path:
        """The image, named as nnU-Net does (``CASE_0000``) or plainly (``CASE``)."""
        plain = self.root / "imagesTr" / f"{case_id}{self.file_ending}"
        channel = self.root / "imagesTr" / f"{case_id}_0000{self.file_ending}"
        return plain if plain.exists() and not channel.exists() else channel

    def label_path(self, case_id: str) -> Path:
        """The label image."""
        return self.root / "labelsTr" / f"{case_id}{self.file_ending}"

    def read_volume(self, case_id: str) -> Volume:
        """One scan with all its channels; HU where the first is CT, signal for anything else.

        Raises
        ------
        RecipeError
            If a channel lies on another grid than the first.
        """
        path, *further = self.image_paths(case_id)
        header, stored = read_nifti_array(path)
        channels = [_signal_on(header.grid, other) for other in further]
        more, noted = tuple(values for values, _ in channels), tuple(warned for _, told in channels for warned in told)
        if self.modality == "CT":
            voxels, warnings = as_hounsfield(stored, header.scale)
            return Volume(voxels, header.grid, warnings=(*warnings, *noted), more=more)
        signal, warnings = as_signal(stored, header.scale)
        quantity, values = Quantity.SIGNAL, signal.astype(np.float32, copy=False)
        return Volume(values, header.grid, quantity, self.modality, (*warnings, *noted), more)

    def read_mask(self, case_id: str, *, grid: Grid | None = None) -> LabelMask:
        """One scan's labels.

        Parameters
        ----------
        grid
            The image's grid, which the labels must share.

        Raises
        ------
        RecipeError
            If they lie on another grid.
        InputError
            If a value is no label (see :func:`agseg.io.nifti.read_labels`), or one that ``dataset.json`` does not name.
        """
        header, labels = read_labels(self.label_path(case_id))
        if grid is not None and not header.grid.matches(grid):
            raise RecipeError("labels and image lie on different grids", path=self.label_path(case_id))
        return LabelMask(labels, grid or header.grid, self.in_files)

    def stored_picture(self, case_id: str) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """One picture as stored: uint8 (row, column, 3) or (row, column), or uint16 where a grey one has more than 8 bits."""
        from PIL import Image

        with Image.open(self.image_path(case_id)) as image:
            if self.modality != "RGB" and image.mode.startswith("I"):
                return np.asarray(image).astype(np.uint16)
            return np.asarray(image.convert("RGB" if self.modality == "RGB" else "L"))

    def read_picture(self, case_id: str) -> NDArray[np.float32]:
        """One picture: float32 (channel, row, column), in grey values as stored."""
        pixels = self.stored_picture(case_id).astype(np.float32)
        return pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]

    def read_picture_labels(self, case_id: str) -> NDArray[np.uint8]:
        """One picture's labels: uint8 (row, column).

        Raises
        ------
        InputError
            If a value of a picture deeper than 8 bits is no label.
        """
        return read_picture_labels(self.label_path(case_id))


def read_picture_labels(path: Path) -> NDArray[np.uint8]:
    """A picture of labels: uint8 (row, column).

    Raises
    ------
    InputError
        If a value of a picture deeper than 8 bits is no label, or the picture has colours.
    """
    from PIL import Image

    with Image.open(path) as image:
        values = np.asarray(image)
    if values.ndim != 2:
        raise InputError("a picture of labels has one channel", code=Code.DIMENSIONS, path=path, value=values.shape)
    return as_labels(values[..., None], None)[..., 0]


def _signal_on(grid: Grid, path: Path) -> tuple[NDArray[np.float32], tuple[Warned, ...]]:
    """A further channel's values, which must lie on the first one's grid."""
    header, stored = read_nifti_array(path)
    if not header.grid.matches(grid):
        raise RecipeError(
            "the channels of a case lie on different grids",
            path=path,
            value=f"{header.grid.shape} at {_rounded(header.grid)} mm",
            expected=f"{grid.shape} at {_rounded(grid)} mm",
            hint="Resample it to the grid of the first channel; agseg registers nothing.",
        )
    values, warnings = as_signal(stored, header.scale)
    return values.astype(np.float32, copy=False), warnings


def _rounded(grid: Grid) -> tuple[float, ...]:
    return tuple(round(side, 3) for side in grid.spacing_mm)


@dataclass(frozen=True)
class Provenance:
    """Where a cohort's images come from, as its ``dataset.json`` says.

    Parameters
    ----------
    licence, reference
        Of the images; empty where nobody said.
    synthetic
        Whether they show no patient: such scores stand beside no published row.
    """

    licence: str = ""
    reference: str = ""
    synthetic: bool = False


def provenance(root: Path) -> Provenance:
    """What ``dataset.json`` says about the images; a cohort without one (frames) says nothing."""
    if not (root / DESCRIPTION).is_file():
        return Provenance()
    found = read_description(root)
    return Provenance(found.licence, found.reference, found.synthetic)


def open_cohort(root: Path, *, complete: bool = True) -> Cohort:
    """The cohort in a folder.

    Parameters
    ----------
    complete
        Refuse labels without an image; otherwise such cases are left out.

    Raises
    ------
    RecipeError
        If there is no valid ``dataset.json``, no labelled case, or a case lacks its image.
    """
    found = read_description(root)
    ending = found.file_ending
    ids = tuple(sorted(p.name.removesuffix(ending) for p in (root / "labelsTr").glob(f"*{ending}") if p.name[0] != "."))
    labels, modalities = found.meaning.label_set, found.modalities
    cohort = Cohort(root, found.name, labels, modalities[0], ending, ids, modalities, found.channels, found.meaning)
    without = [case_id for case_id in ids if not all(path.exists() for path in cohort.image_paths(case_id))]
    if not complete:
        return replace(cohort, ids=tuple(case_id for case_id in ids if case_id not in without))
    if without or not ids:
        raise RecipeError("labels without an image" if without else "no labelled case", path=root, value=without[:5] or None)
    return cohort


def check_new(output: Path) -> None:
    """Refuse a place for a new cohort that holds something.

    Raises
    ------
    RecipeError
        If it is a file, or a folder that is not empty.
    """
    if output.exists() and not output.is_dir():
        raise RecipeError("the output is a file", path=output, expected="a new folder", hint="Choose another with -o.")
    if output.exists() and any(output.iterdir()):
        raise RecipeError("the output folder is not empty", path=output, hint="Choose another with -o, or remove it.")


def describe_cohort(
    root: Path, *, name: str, label_set: LabelSet, modality: str, file_ending: str, cases: int, **facts: Any
) -> None:
    """Write ``dataset.json`` as nnU-Net reads it; ``facts`` (licence, reference, ...) are added."""
    description = {
        "name": name,
        "channel_names": {"0": modality},
        "labels": {"background": 0, **{label.name: label.index for label in label_set}},
        "numTraining": cases,
        "file_ending": file_ending,
        **facts,
    }
    write_text(root / DESCRIPTION, json.dumps(description, indent=2) + "\n")


def write_volume_case(root: Path, case_id: str, volume: Volume, mask: LabelMask) -> str:
    """Write one scan and its labels; returns the image's :func:`content_hash`."""
    import nibabel

    if not mask.grid.matches(volume.grid):
        raise RecipeError("labels and image lie on different grids", value=case_id)
    make: Any = nibabel.Nifti1Image
    image = make(np.asarray(volume.voxels), volume.grid.affine)
    image.header.set_xyzt_units("mm")
    with replacing(make_folder(root / "imagesTr") / f"{case_id}_0000{NIFTI}") as temporary:
        nibabel.save(image, temporary)
    write_mask(make_folder(root / "labelsTr") / f"{case_id}{NIFTI}", mask.labels, volume.grid)
    return content_hash(volume.voxels)


def write_picture_case(
    root: Path, case_id: str, pixels: NDArray[np.uint8] | NDArray[np.uint16], labels: NDArray[np.uint8]
) -> str:
    """Write one picture and its labels; returns its :func:`content_hash`.

    Parameters
    ----------
    pixels
        uint8 (row, column) or (row, column, 3), or uint16 (row, column).
    labels
        uint8 (row, column).
    """
    from PIL import Image

    if pixels.shape[:2] != labels.shape:
        raise RecipeError("labels and picture differ in size", value=case_id)
    for folder, name, content in (("imagesTr", f"{case_id}_0000", pixels), ("labelsTr", case_id, labels)):
        with replacing(make_folder(root / folder) / f"{name}{PNG}") as temporary:
            Image.fromarray(content).save(temporary, format="PNG")
    return content_hash(pixels)


def content_hash(values: NDArray[Any]) -> str:
    """SHA-256 of shape, type and values in index order: two copies of one scan agree whatever their file format."""
    ordered = np.ascontiguousarray(values.T)
    return hashlib.sha256(f"{values.shape}{values.dtype}".encode() + ordered.tobytes()).hexdigest()


def image_hash(volume: Volume) -> str:
    """:func:`content_hash` of a scan, or of all its channels together."""
    hashes = [content_hash(channel) for channel in (volume.voxels, *volume.more)]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def fits(cohort: Cohort, case_id: str) -> str | None:
    """What is wrong with a case's files, in one sentence, or None."""
    try:
        if cohort.file_ending == PNG:
            if cohort.read_picture(case_id).shape[1:] != cohort.read_picture_labels(case_id).shape:
                return "labels and picture differ in size"
            unknown = set(np.unique(cohort.read_picture_labels(case_id)).tolist()) - {0, *(x.index for x in cohort.in_files)}
            return f"unknown label values {sorted(unknown)}" if unknown else None
        cohort.read_mask(case_id, grid=cohort.read_volume(case_id).grid)
    except AgsegError as error:
        return error.sentence()
    except OSError as error:
        return f"cannot be read ({type(error).__name__})"
    return None
