"""A finished mask on its way to DICOM: everything the three objects (SEG, SR, RTSTRUCT) are made from."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agseg import __version__
from agseg.errors import AgsegError, OutputError
from agseg.io.atomic import replacing
from agseg.io.dicom_out.frames import FrameMap, map_frames
from agseg.io.dicom_out.identity import ResultIdentity, derived_uid
from agseg.io.dicom_out.source import DicomSource
from agseg.labels import Label
from agseg.report import Measurement, WeightsRef
from agseg.volume import LabelMask

MANUFACTURER = "agseg"
MODEL_NAME = "agseg"
"""Manufacturer and ManufacturerModelName of everything agseg makes; by them it knows its own results again."""

SHORT_DISCLAIMER = "Not for clinical decisions without review"
"""Fits the 64 characters of a LO value; stands in every object."""

FIRST_SERIES_NUMBER = 9600
_RESULTS_TOLD_APART = 40
"""Numbers 9600 to 9999, in tens."""

_SERIES_OFFSETS = {"seg": 0, "sr": 1, "rtstruct": 2, "sc": 3, "pdf": 4}

VOLUME_TOLERANCE = 1e-9
"""A measured volume equals voxels x voxel volume within this (relative)."""


@dataclass(frozen=True, eq=False)
class DicomResult:
    """One mask, its source and its provenance.

    Parameters
    ----------
    mask
        uint8 labels (i, j, k) on the source's grid.
    source
        The series it was made from.
    weights, parameters
        What made it, the weights in the order of the run; both are part of the derived UIDs.
    measurements
        Of the labels; those that the weights do not know are left out of DICOM.
    created
        Date and time that stand in the objects.
    """

    mask: LabelMask
    source: DicomSource
    weights: tuple[WeightsRef, ...]
    parameters: Mapping[str, Any]
    measurements: tuple[Measurement, ...] = ()
    created: datetime = field(default_factory=datetime.now)

    def __post_init__(self) -> None:
        if not self.weights:
            raise OutputError("a DICOM result names the weights that made it, and there are none")
        for measurement in self.measurements:
            if measurement.name not in self.mask.label_set or not measurement.voxels:
                continue
            voxels = int(np.count_nonzero(self.mask.of(measurement.name)))
            volume_ml = voxels * self.mask.grid.voxel_volume_ml
            if voxels != measurement.voxels or abs((measurement.volume_ml or 0) - volume_ml) > VOLUME_TOLERANCE * volume_ml:
                raise OutputError(
                    f"the volume of {measurement.name} is not that of its mask",
                    value=measurement.volume_ml,
                    expected=volume_ml,
                )

    @cached_property
    def identity(self) -> ResultIdentity:
        """What all UIDs are derived from."""
        return ResultIdentity.of(
            patient_id=str(self.source.first.get("PatientID") or ""),
            study_uid=str(self.source.first.StudyInstanceUID),
            series_uid=self.source.series_uid,
            first_image_uid=str(self.source.first.SOPInstanceUID),
            weights_sha256=[weights.sha256 for weights in self.weights],
            parameters=self.parameters,
            mask=self.mask,
        )

    @cached_property
    def frame_map(self) -> FrameMap:
        """Which voxels the source's frames are.

        Raises
        ------
        OutputError
            If a slice of the mask that holds a label has no frame in the source, or two have the same.
        """
        frame_map = map_frames(self.source.planes, self.mask.grid)
        inside = frame_map.slices[frame_map.slices >= 0]
        other_axes = frame_map.axes[1:]
        filled = np.flatnonzero((self.mask.labels > 0).any(axis=other_axes))
        if len(np.unique(inside)) != len(inside) or not np.isin(filled, inside).all():
            raise OutputError("the source's frames do not cover the mask one to one")
        return frame_map

    @cached_property
    def _slice_voxels(self) -> NDArray[np.int64]:
        """Voxels of each label in each slice along the frame axis, shape (slices, 256)."""
        slices = np.moveaxis(self.mask.labels, self.frame_map.axes[0], 0)
        return np.stack([np.bincount(plane.ravel(order="K"), minlength=256) for plane in slices])

    @cached_property
    def present(self) -> tuple[Label, ...]:
        """Labels with a code and at least one voxel, in order of the index."""
        voxels = self._slice_voxels.sum(axis=0)
        return tuple(label for label in self.mask.label_set if label.structure is not None and voxels[label.index])

    def frames_of(self, label: Label) -> int:
        """How many slices hold a label."""
        return int(np.count_nonzero(self._slice_voxels[:, label.index]))

    @property
    def uncoded(self) -> tuple[str, ...]:
        """Names of labels that no DICOM object can hold, because they have no code."""
        return tuple(label.name for label in self.mask.label_set if label.structure is None)

    def coded_labels(self, labels: tuple[Label, ...] | None = None) -> NDArray[np.uint8]:
        """The mask in segment numbers: 1 for the first of ``labels`` (of :attr:`present`), and so on; uint8 (i, j, k)."""
        numbers = np.zeros(256, dtype=np.uint8)
        for number, label in enumerate(self.present if labels is None else labels, start=1):
            numbers[label.index] = number
        return numbers[self.mask.labels]

    def tracking_uid(self, organ: str) -> str:
        """The UID by which SEG and SR mean the same organ."""
        return self.identity.uid("organ", organ)

    def series_number(self, role: str) -> int:
        """SeriesNumber of an object's own series, behind those that scanners use; another result mostly has another one."""
        return FIRST_SERIES_NUMBER + 10 * (int(self.identity.digest[:8], 16) % _RESULTS_TOLD_APART) + _SERIES_OFFSETS[role]

    def series_description(self, what: str) -> str:
        """SeriesDescription (64 characters): what it is, that nobody has looked at it, and which weights made it."""
        return f"{what}, unreviewed, {self.model_name}"[:64]

    @property
    def version(self) -> str:
        """Version of agseg."""
        return __version__

    @property
    def software_versions(self) -> list[str]:
        """Agseg's version and the weights."""
        return [f"agseg {__version__}", *(weights.id[:64] for weights in self.weights)]

    @property
    def model_name(self) -> str:
        """The weights' ids in the 64 characters that a model's name may have."""
        return " + ".join(weights.id for weights in self.weights)[:64]

    def made_by(self, organ: str) -> WeightsRef:
        """The weights that made an organ's mask."""
        named = {m.weights for m in self.measurements if m.name == organ}
        return next((weights for weights in self.weights if weights.id in named), self.weights[0])

    @cached_property
    def _joint_sha256(self) -> str:
        digests = [weights.sha256 for weights in self.weights]
        return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()

    @property
    def device_serial_number(self) -> str:
        """The weights' digest, shortened: it tells one 'device' from another."""
        return self._joint_sha256[:16]

    @property
    def device_uid(self) -> str:
        """UID of the observer in reports."""
        return derived_uid("device", self._joint_sha256)

    @property
    def slice_distance_mm(self) -> float:
        """Distance between neighbouring slices along their normal (mm), also where the gantry was tilted."""
        grid = self.mask.grid
        frame_axis, row_axis, column_axis = self.frame_map.axes
        normal = np.cross(grid.directions[:, row_axis], grid.directions[:, column_axis])
        return float(abs(normal @ grid.affine[:3, frame_axis]) / np.linalg.norm(normal))

    def keep_character_set(self, dataset: Any) -> None:
        """Give an object the source's character set; highdicom knows fewer of them than patients' names are written in."""
        names = self.source.first.get("SpecificCharacterSet")
        if names:
            dataset.SpecificCharacterSet = names

    @contextmanager
    def building(self, what: str) -> Iterator[None]:
        """Build an object without letting a library's warning or error, which quote header values, out."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except AgsegError:
            raise
        except Exception as error:
            raise OutputError(f"the DICOM {what} could not be built ({type(error).__name__})") from error


def saved(dataset: Any, path: Path, *, check: Callable[[Path], None]) -> None:
    """Write a data set under a temporary name, check it, and give it its name; what cannot be read fails the check."""

    def checked(temporary: Path) -> None:
        try:
            check(temporary)
        except (AgsegError, OSError):
            raise
        except Exception as error:
            raise OutputError(f"a DICOM object does not read back ({type(error).__name__})", path=path) from error

    with replacing(path, check=checked) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(temporary, enforce_file_format=True)


OWN_SOP_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation
        "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation
        "1.2.840.10008.5.1.4.1.1.88.34",  # Comprehensive 3D SR
        "1.2.840.10008.5.1.4.1.1.481.3",  # RT Structure Set
        "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture Image
        "1.2.840.10008.5.1.4.1.1.104.1",  # Encapsulated PDF
    }
)
"""SOP classes that agseg writes."""


def is_own_object(header: Any) -> bool:
    """Whether agseg made this object (a pydicom data set), which must never become its input."""
    return str(header.get("SOPClassUID", "")) in OWN_SOP_CLASSES and str(header.get("Manufacturer", "")) == MANUFACTURER
