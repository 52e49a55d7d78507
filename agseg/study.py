"""What discovery found, before any pixel is read: studies, and every other file with the reason it was left out.

Law of the ledger: every regular file below the input is in exactly one study or in ``skipped``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from agseg.errors import Code
from agseg.volume import Warned

__all__ = ["Discovery", "Reason", "Rejected", "Skipped", "Study", "StudyKind"]


class Reason(StrEnum):
    """Why a file belongs to no study, where no error code fits; part of the public record (``files.skipped`` in run.json)."""

    EXCLUDED = "excluded"
    HIDDEN = "hidden_file"
    NOT_REGULAR = "not_a_regular_file"
    OWN_OUTPUT = "own_output"
    NOT_AN_IMAGE = "not_an_image"
    LABEL_MAP = "label_map"
    DICOMDIR = "dicomdir"
    DICOM_OBJECT = "dicom_object"
    SECONDARY_CAPTURE = "secondary_capture"
    LOCALIZER = "localizer"
    OTHER_MODALITY = "other_modality"
    IDENTICAL_COPY = "identical_copy"
    OTHER_KIND = "other_kind"
    MONITORING = "monitoring"


class StudyKind(StrEnum):
    """Formats that agseg brings; :data:`agseg.io.readers.READERS` is the whole table."""

    DICOM = "dicom"
    NIFTI = "nifti"
    NRRD = "nrrd"
    METAIMAGE = "mha"


@dataclass(frozen=True)
class Study:
    """One image series that becomes one result.

    Parameters
    ----------
    id
        Path below INPUT without suffix, ``/``-separated; where several series share a folder, with
        ``series-<number>-<6 hex>`` behind it. It names the output folder and carries nothing from a header.
    root
        The INPUT it was found under.
    files
        Absolute paths. For DICOM in order of position; for a ``.hdr``/``.img`` pair the header first.
    kind, modality
        Name of its reader and DICOM modality (``"CT"`` assumed for formats that carry none).
    reason
        Why it was chosen, for ``agseg inspect``.
    rejected
        Set if the headers alone already say that it must not be segmented.
    warnings
        What was noted while grouping.
    """

    id: str
    root: Path
    files: tuple[Path, ...]
    kind: str
    modality: str = "CT"
    reason: str = ""
    rejected: Rejected | None = None
    warnings: tuple[Warned, ...] = field(default=())


@dataclass(frozen=True)
class Rejected:
    """Why a study must not be segmented: an ``E_`` code and one sentence free of patient data."""

    code: Code
    message: str


@dataclass(frozen=True)
class Skipped:
    """A file that belongs to no study, and why: an ``E_`` code or a :class:`Reason`. Clips have words of their own."""

    path: Path
    reason: Code | Reason | str
    detail: str = ""


@dataclass(frozen=True)
class Discovery:
    """Everything found below the inputs, each file exactly once."""

    studies: tuple[Study, ...]
    skipped: tuple[Skipped, ...]

    @property
    def files_found(self) -> int:
        """Number of files seen."""
        return self.files_used + len(self.skipped)

    @property
    def files_used(self) -> int:
        """Number of files that belong to a study."""
        return sum(len(study.files) for study in self.studies)

    @property
    def skipped_reasons(self) -> dict[str, int]:
        """How many files were left out for each reason."""
        return dict(sorted(Counter(str(skip.reason) for skip in self.skipped).items()))
