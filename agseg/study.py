"""What discovery found, before any pixel is read: studies, and every other file with the reason it was left out.

Law of the ledger: every regular file below the input is in exactly one study or in ``skipped``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from agseg.errors import Code
from agseg.volume import Warned

__all__ = ["Discovery", "Reason", "Rejected", "Skipped", "Source", "Study", "StudyKind"]


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
class Source:
    """Whose a DICOM study is, as far as records may say it (see :mod:`agseg.batch.sources`).

    Parameters
    ----------
    patient
        The patient's pseudonym at this site; empty where the headers name no patient, or the site has no key.
    study_date
        ISO date; empty where the header has none.
    series_number
        The header's.
    series_description
        Its words that are known to describe a protocol; ``…`` stands for others.
    identifiers
        What the headers say about patient and study, by DICOM keyword; empty unless the run was asked for it.
    """

    patient: str = ""
    study_date: str = ""
    series_number: str = ""
    series_description: str = ""
    identifiers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def to_dict(self) -> dict[str, str]:
        """As ``source`` in a record; identifiers stand beside it."""
        return {
            "patient": self.patient,
            "study_date": self.study_date,
            "series_number": self.series_number,
            "series_description": self.series_description,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Source | None:
        """The source of a record, None where it has none; raises TypeError if it is something else."""
        told, identifiers = record.get("source") or {}, record.get("identifiers") or {}
        if not isinstance(told, Mapping) or not isinstance(identifiers, Mapping):
            raise TypeError("source and identifiers are objects")
        if not told and not identifiers:
            return None
        known = {name: str(value) for name, value in told.items() if name in cls().to_dict()}
        return cls(**known, identifiers={str(name): str(value) for name, value in identifiers.items()})


@dataclass(frozen=True)
class Study:
    """One image series, or ultrasound clip, that becomes one result.

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
        Name of its reader and DICOM modality; formats that carry none are taken for the modality that was looked for.
    reason
        Why it was chosen, for ``agseg inspect``.
    rejected
        Set if the headers alone already say that it must not be segmented.
    warnings
        What was noted while grouping.
    source
        Whose it is; None for formats that do not say it, and until a run has asked.
    channels
        Registered images that are one input: more than 1 for networks of several series, with one file for each.
    """

    id: str
    root: Path
    files: tuple[Path, ...]
    kind: str
    modality: str = "CT"
    reason: str = ""
    rejected: Rejected | None = None
    warnings: tuple[Warned, ...] = field(default=())
    source: Source | None = None
    channels: int = 1


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
