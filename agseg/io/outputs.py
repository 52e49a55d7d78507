"""What is written of a finished mask. It shapes no voxel: the same mask is written in any of these ways."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agseg.volume import Warned

NIFTI, LABELS, PREVIEW, STATISTICS, ATTENTION = "nifti", "labels", "preview", "statistics", "attention"
"""Outputs by the names of records: masks in a file per organ and in one file, picture, table, and coefficients of the gates."""

SECOND_LOOK = "second-look"
"""What another network makes of the organs; records name it with that network, ``second-look:<id> <digest>``."""

SEG_FILE = "seg.dcm"

MASK_FORMS = (NIFTI, LABELS, "dicom-seg", "dicom-seg:labelmap")
"""Outputs from which masks can be read back, voxel for voxel."""


def needs_network(name: str) -> bool:
    """Whether an output shows what only a network knows: it cannot be written from the masks."""
    return name == ATTENTION or name.partition(":")[0] == SECOND_LOOK


class OutputType(StrEnum):
    """Forms of a mask, by the names of ``--output-type``. :mod:`agseg.io.writers` has the writer of each."""

    NIFTI = "nifti"
    DICOM_SEG = "dicom-seg"
    DICOM_SR = "dicom-sr"
    RTSTRUCT = "rtstruct"
    SC = "sc"
    PDF = "pdf"
    STL = "stl"
    OBJ = "obj"
    VIEWER = "viewer"


class SegEncoding(StrEnum):
    """How a DICOM segmentation stores its segments, by the names of ``--seg-encoding`` (and ``fractional``)."""

    BINARY = "binary"
    """A bit per voxel, a frame per segment and slice: what archives and viewers know."""
    LABELMAP = "labelmap"
    """A number per voxel, a frame per slice (DICOM 2024d): small with many organs, but newer than most viewers."""
    FRACTIONAL = "fractional"
    """A share per voxel."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What a run writes per study, beside the records.

    Parameters
    ----------
    kinds
        Names of writers.
    multilabel
        NIfTI as one file with all organs instead of a file per organ.
    seg_encoding
        How DICOM segmentations store their segments.
    preview, attention
        An overlay picture; the attention gates' coefficients (these need the network, not only the mask).
    """

    kinds: tuple[str, ...] = (OutputType.NIFTI,)
    multilabel: bool = False
    preview: bool = True
    attention: bool = False
    seg_encoding: SegEncoding = SegEncoding.BINARY

    @property
    def wanted(self) -> tuple[str, ...]:
        """Names of the outputs that a finished study has, by which its record tells them apart."""
        forms = [self._form(kind) for kind in self.kinds]
        return (*forms, STATISTICS, *([PREVIEW] if self.preview else []), *([ATTENTION] if self.attention else []))

    def _form(self, kind: str) -> str:
        if kind == OutputType.NIFTI and self.multilabel:
            return LABELS
        if kind in (OutputType.DICOM_SEG, OutputType.DICOM_SR) and self.seg_encoding is not SegEncoding.BINARY:
            return f"{kind}:{self.seg_encoding}"
        return str(kind)

    def to_dict(self) -> dict[str, Any]:
        """As in records."""
        return {
            "outputs": [str(kind) for kind in self.kinds],
            "multilabel": self.multilabel,
            "preview": self.preview,
            "attention": self.attention,
            **({} if self.seg_encoding is SegEncoding.BINARY else {"seg_encoding": str(self.seg_encoding)}),
        }


@dataclass(frozen=True)
class Written:
    """What a writer has written.

    Parameters
    ----------
    files
        Names below the given folder.
    warnings
        What could not be written, and why.
    is_complete
        False if an organ that is present is missing from the files: its mask is then written as NIfTI.
    """

    files: tuple[str, ...] = ()
    warnings: tuple[Warned, ...] = ()
    is_complete: bool = True


@dataclass(frozen=True)
class OutputFiles:
    """One output of a finished study: its files, below the study's folder, and the organs that they show."""

    files: tuple[str, ...]
    organs: tuple[str, ...]

    def to_dict(self) -> dict[str, list[str]]:
        """As in study.json."""
        return {"files": list(self.files), "organs": list(self.organs)}

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> OutputFiles:
        """What :meth:`to_dict` wrote; raises KeyError or TypeError if it is none."""
        return cls(tuple(map(str, told["files"])), tuple(map(str, told["organs"])))
