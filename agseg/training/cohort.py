"""A labelled cohort on disk, in nnU-Net's folder layout: ``imagesTr``, ``labelsTr``, ``dataset.json``.

Segmentation cohorts hold NIfTI volumes (one channel) or PNG pictures (grey or RGB). A cohort made elsewhere for nnU-Net is read
as it is. Frames with one class each (scan planes) have no label image; they live in ``frames/`` with a ``frames.csv``, see
:mod:`agseg.training.frames`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agseg.errors import AgsegError, RecipeError
from agseg.grid import Grid
from agseg.io.absence import no_folder
from agseg.io.atomic import make_folder, replacing, write_text
from agseg.io.nifti import read_labels, read_nifti_array
from agseg.io.nifti_write import write_mask
from agseg.io.voxels import as_hounsfield, as_labels
from agseg.labels import LabelSet
from agseg.volume import LabelMask, Quantity, Volume

__all__ = [
    "Cohort",
    "Provenance",
    "check_new",
    "content_hash",
    "describe_cohort",
    "described_labels",
    "fits",
    "open_cohort",
    "provenance",
    "write_picture_case",
    "write_volume_case",
]

DESCRIPTION = "dataset.json"
NIFTI = ".nii.gz"
PNG = ".png"


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
        ``.nii.gz`` or ``.png``.
    ids
        Case ids in order.
    """

    root: Path
    name: str
    label_set: LabelSet
    modality: str
    file_ending: str
    ids: tuple[str, ...]

    def image_path(self, case_id: str) -> Path:
        """The image, named as nnU-Net does (``CASE_0000``) or plainly (``CASE``)."""
        channel = self.root / "imagesTr" / f"{case_id}_0000{self.file_ending}"
        return channel if channel.exists() else self.root / "imagesTr" / f"{case_id}{self.file_ending}"

    def label_path(self, case_id: str) -> Path:
        """The label image."""
        return self.root / "labelsTr" / f"{case_id}{self.file_ending}"

    def read_volume(self, case_id: str) -> Volume:
        """One scan; HU for CT, signal for anything else."""
        header, stored = read_nifti_array(self.image_path(case_id))
        if self.modality == "CT":
            voxels, warnings = as_hounsfield(stored, header.scale)
            return Volume(voxels, header.grid, warnings=warnings)
        slope, intercept = header.scale or (1.0, 0.0)
        signal = (stored.astype(np.float32) * slope + intercept).astype(np.float32)
        return Volume(signal, header.grid, Quantity.SIGNAL, self.modality)

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
        return LabelMask(labels, grid or header.grid, self.label_set)

    def read_picture(self, case_id: str) -> NDArray[np.float32]:
        """One picture: float32 (channel, row, column), 0 to 255."""
        from PIL import Image

        with Image.open(self.image_path(case_id)) as image:
            pixels = np.asarray(image.convert("RGB") if self.modality == "RGB" else image.convert("L"), dtype=np.float32)
        return pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]

    def read_picture_labels(self, case_id: str) -> NDArray[np.uint8]:
        """One picture's labels: uint8 (row, column).

        Raises
        ------
        InputError
            If a value of a picture deeper than 8 bits is no label.
        """
        from PIL import Image

        with Image.open(self.label_path(case_id)) as image:
            return as_labels(np.asarray(image)[..., None], None)[..., 0]


def described_labels(folder: Path) -> LabelSet | None:
    """The labels that a folder's ``dataset.json`` names, or None where there is no such file."""
    path = folder / DESCRIPTION
    if not path.is_file():
        return None
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        return LabelSet.from_mapping({int(index): str(name) for name, index in described["labels"].items()})
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise RecipeError("dataset.json is not as nnU-Net writes it", path=path, value=type(error).__name__) from error


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
    """What ``dataset.json`` says about the images; a cohort without one says nothing."""
    path = root / DESCRIPTION
    if not path.is_file():
        return Provenance()
    described: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return Provenance(
        str(described.get("licence", "")), str(described.get("reference", "")), described.get("synthetic") is True
    )


def open_cohort(root: Path) -> Cohort:
    """The cohort in a folder.

    Raises
    ------
    RecipeError
        If there is no valid ``dataset.json``, or a case lacks its image or its labels.
    """
    path = root / DESCRIPTION
    try:
        described: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        labels = described_labels(root) or LabelSet(())
        channels: Mapping[str, str] = described["channel_names"]
        ending = str(described["file_ending"])
        modality = str(channels["0"])
    except OSError:
        raise RecipeError(
            no_folder(root) or "no data set here",
            path=root,
            expected=DESCRIPTION,
            hint="Make one with: agseg dataset prepare NAME --from DIR -o DIR",
        ) from None
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise RecipeError("dataset.json is not as nnU-Net writes it", path=path, value=type(error).__name__) from error
    if ending not in (NIFTI, PNG, ".nii"):
        raise RecipeError("this kind of file is not read", path=path, value=ending, expected=f"{NIFTI} or {PNG}")
    ids = tuple(sorted(p.name.removesuffix(ending) for p in (root / "labelsTr").glob(f"*{ending}") if p.name[0] != "."))
    cohort = Cohort(root, str(described.get("name", root.name)), labels, modality, ending, ids)
    without = [case_id for case_id in ids if not cohort.image_path(case_id).exists()]
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


def write_picture_case(root: Path, case_id: str, pixels: NDArray[np.uint8], labels: NDArray[np.uint8]) -> str:
    """Write one picture, uint8 (row, column) or (row, column, 3), and its labels; returns its :func:`content_hash`."""
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


def fits(cohort: Cohort, case_id: str) -> str | None:
    """What is wrong with a case's files, in one sentence, or None."""
    try:
        if cohort.file_ending == PNG:
            if cohort.read_picture(case_id).shape[1:] != cohort.read_picture_labels(case_id).shape:
                return "labels and picture differ in size"
            unknown = set(np.unique(cohort.read_picture_labels(case_id)).tolist()) - {0, *(x.index for x in cohort.label_set)}
            return f"unknown label values {sorted(unknown)}" if unknown else None
        cohort.read_mask(case_id, grid=cohort.read_volume(case_id).grid)
    except AgsegError as error:
        return error.sentence()
    except OSError as error:
        return f"cannot be read ({type(error).__name__})"
    return None
