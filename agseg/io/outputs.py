"""What is written of a finished mask. It shapes no voxel: the same mask is written in any of these ways."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agseg.volume import Warned

__all__ = ["OutputType", "Outputs", "Written"]


class OutputType(StrEnum):
    """Forms of a mask, by the names of ``--output-type``. :mod:`agseg.io.writers` has the writer of each."""

    NIFTI = "nifti"
    DICOM_SEG = "dicom-seg"
    DICOM_SR = "dicom-sr"
    RTSTRUCT = "rtstruct"
    STL = "stl"


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What a run writes per study, beside the records.

    Parameters
    ----------
    kinds
        Names of writers.
    multilabel
        NIfTI as one file with all organs instead of a file per organ.
    preview, attention
        An overlay picture; the attention gates' coefficients (these need the network, not only the mask).
    """

    kinds: tuple[str, ...] = (OutputType.NIFTI,)
    multilabel: bool = False
    preview: bool = True
    attention: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As in records."""
        return {
            "outputs": [str(kind) for kind in self.kinds],
            "multilabel": self.multilabel,
            "preview": self.preview,
            "attention": self.attention,
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
