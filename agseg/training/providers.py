"""Readers of providers' folder layouts, case by case."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agseg.errors import RecipeError
from agseg.grid import LPS_TO_RAS, Grid
from agseg.io.dicom.header import read_header
from agseg.io.dicom.read import frames_of, read_dicom
from agseg.io.dicom.stack import stack_planes
from agseg.io.nifti import read_labels, read_nifti_array
from agseg.io.os_errors import no_folder
from agseg.io.voxels import as_hounsfield
from agseg.study import Study, StudyKind
from agseg.training.datasets import Layout
from agseg.volume import Quantity, Volume


@dataclass(frozen=True, eq=False)
class ProvidedVolume:
    """One scan as its provider labels it: ``labels`` (i, j, k) hold the provider's own values."""

    id: str
    volume: Volume
    labels: NDArray[np.uint8]
    label_grid: Grid


@dataclass(frozen=True, eq=False)
class ProvidedPicture:
    """One picture with its provider's labels (row, column), and the side the provider puts it on.

    ``pixels`` are uint8 (row, column[, 3]), or uint16 (row, column).
    """

    id: str
    pixels: NDArray[np.uint8] | NDArray[np.uint16]
    labels: NDArray[np.uint8]
    side: str = "train"


Provided = ProvidedVolume | ProvidedPicture


def provided(layout: Layout, download: Path) -> Iterator[Provided]:
    """The cases of a download, in order of their ids, read one at a time.

    Raises
    ------
    RecipeError
        If the folder does not look like this provider's, or an image has no labels.
    """
    if missing := no_folder(download):
        raise RecipeError(missing, path=download)
    reader = _READERS.get(layout)
    if reader is None:
        raise RecipeError("this data set is not prepared: it is used as it is", value=layout.value)
    found = False
    for case in reader(download):
        found = True
        yield case
    if not found:
        raise RecipeError(f"nothing in the layout {layout.value} was found here", path=download)


def _tcia_pancreas(download: Path) -> Iterator[ProvidedVolume]:
    """``.../PANCREAS_0001/<study>/<series>/*.dcm`` and ``.../label0001.nii.gz`` anywhere below the download."""
    labels = {path.name[5:9]: path for path in download.rglob("label[0-9][0-9][0-9][0-9].nii*")}
    for folder in sorted(download.rglob("PANCREAS_[0-9][0-9][0-9][0-9]")):
        files = tuple(sorted(folder.rglob("*.dcm")))
        if not files:
            continue  # version 2 of the collection leaves the folders of its two duplicates empty
        number = folder.name[-4:]
        if number not in labels:
            raise RecipeError("a scan has no label file", path=folder, expected=f"label{number}.nii.gz")
        volume = read_dicom(Study(folder.name, download, files, StudyKind.DICOM))
        header, values = read_labels(labels[number])
        yield ProvidedVolume(folder.name, volume, values, header.grid)


def _lits(download: Path) -> Iterator[ProvidedVolume]:
    """``volume-<n>.nii`` with ``segmentation-<n>.nii`` in the same or another folder; 1 liver, 2 tumour."""
    labels = {_number(path): path for path in download.rglob("segmentation-*.nii*")}
    for path in sorted(download.rglob("volume-*.nii*"), key=_number):
        number = _number(path)
        if number not in labels:
            continue  # the 70 test scans come without labels
        header, stored = read_nifti_array(path)
        voxels, warnings = as_hounsfield(stored, header.scale)
        label_header, label_values = read_labels(labels[number])
        volume = Volume(voxels, header.grid, warnings=warnings)
        yield ProvidedVolume(f"lits_{number:04d}", volume, label_values, label_header.grid)


def _number(path: Path) -> int:
    return int(re.findall(r"\d+", path.name)[0])


def _chaos_mr(download: Path) -> Iterator[ProvidedVolume]:
    """``MR/<n>/T1DUAL/DICOM_anon/{InPhase,OutPhase}`` and ``MR/<n>/T2SPIR/DICOM_anon`` with ``Ground/*.png`` beside them.

    The masks are 8-bit PNG, one per slice, in the order of the DICOM files' names.
    """
    for ground in sorted(download.rglob("Ground"), key=lambda path: (_case_number(path), str(path))):
        sequence = ground.parent
        anonymised = sequence / "DICOM_anon"
        phases = [folder for folder in (anonymised / "InPhase", anonymised / "OutPhase") if folder.is_dir()] or [anonymised]
        if sequence.parent.parent.name != "MR":
            continue  # the CT half of CHAOS has the same folder names
        masks = sorted(ground.glob("*.png"))
        for folder in phases:
            phase = {"InPhase": "in", "OutPhase": "out"}.get(folder.name)
            name = "_".join(part for part in (sequence.name.lower(), phase) if part)
            volume, labels = _read_mr(sorted(folder.glob("*.dcm")), masks, folder)
            yield ProvidedVolume(f"chaos_{_case_number(ground):02d}_{name}", volume, labels, volume.grid)


def _case_number(ground: Path) -> int:
    return int(ground.parent.parent.name) if ground.parent.parent.name.isdigit() else 0


def _read_mr(files: list[Path], masks: list[Path], folder: Path) -> tuple[Volume, NDArray[np.uint8]]:
    """An MR series and its PNG masks, slices in order of position; signal as stored (float32)."""
    import pydicom
    from PIL import Image

    if not files or len(files) != len(masks):
        raise RecipeError("slices and masks differ in number", path=folder, value=len(masks), expected=len(files))
    stack = stack_planes([frames_of(read_header(path))[0].plane for path in files])
    signal = np.empty(stack.shape, dtype=np.float32, order="F")
    labels = np.empty(stack.shape, dtype=np.uint8, order="F")
    for k, planes in enumerate(stack.order):
        signal[:, :, k] = pydicom.dcmread(files[planes[0]]).pixel_array.T
        with Image.open(masks[planes[0]]) as image:
            labels[:, :, k] = np.asarray(image.convert("L"), dtype=np.uint8).T
    return Volume(signal, Grid(stack.shape, LPS_TO_RAS @ stack.affine_lps), Quantity.SIGNAL, "MR"), labels


def _isic2017(download: Path) -> Iterator[ProvidedPicture]:
    """``ISIC-2017_<Training|Validation|Test_v2>_Data/*.jpg`` with ``..._Part1_GroundTruth/*_segmentation.png``."""
    sides = {"Training": "train", "Validation": "validation", "Test_v2": "test"}
    for stage, side in sides.items():
        for images in sorted(download.rglob(f"ISIC-2017_{stage}_Data")):
            truth = images.parent / f"ISIC-2017_{stage}_Part1_GroundTruth"
            for path in sorted(images.glob("ISIC_*.jpg")):
                mask = truth / f"{path.stem}_segmentation.png"
                yield ProvidedPicture(path.stem, _picture(path, "RGB"), (_picture(mask, "L") > 127).astype(np.uint8), side)


def _lung_2d(download: Path) -> Iterator[ProvidedPicture]:
    """``2d_images/*.tif`` with ``2d_masks/*.tif`` of the same names; CT slices in HU, kept as HU + 1024 without a window.

    FocusNet (2019), section 3.2: "No pre-processing was used other than subtracting the mean pixel value [...]". Below -1024 HU
    lies the padding around a scanner's circle, which is air here.
    """
    for images in sorted(download.rglob("2d_images")):
        for path in sorted(images.glob("*.tif")):
            hu = _picture(path, None).astype(np.float32)
            stored = np.rint(hu + _AIR_AT_ZERO).clip(0, np.iinfo(np.uint16).max).astype(np.uint16)
            mask = (_picture(images.parent / "2d_masks" / path.name, "L") > 0).astype(np.uint8)
            yield ProvidedPicture(path.stem, stored, mask)


_AIR_AT_ZERO = 1024.0
"""Added to HU, so that a PNG can hold them, and what training pads with zeros is air."""


def _picture(path: Path, mode: str | None) -> NDArray[Any]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert(mode) if mode else image)
    except FileNotFoundError:
        raise RecipeError("an image has no mask", path=path) from None
    except OSError as error:
        raise RecipeError(f"a picture cannot be read ({type(error).__name__})", path=path) from None


_READERS: Mapping[Layout, Callable[[Path], Iterator[Provided]]] = {
    Layout.TCIA_PANCREAS: _tcia_pancreas,
    Layout.LITS: _lits,
    Layout.CHAOS_MR: _chaos_mr,
    Layout.ISIC2017: _isic2017,
    Layout.LUNG_2D: _lung_2d,
}
