"""Models that others publish as nnU-Net v2 archives, by name: where, under which licence, and what must be known to run them.

They are no entries yet: what they compute is in the archive's own plans. ``agseg weights fetch NAME`` gets the archives, checks
or records their digests, and imports them as an entry of this site. Nothing is fetched whose licence is not open.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from agseg.errors import FieldError, WeightsError
from agseg.weights.entry import WEIGHTS_ID
from agseg.weights.files import FileSource, SourceKind, WeightsFile
from agseg.weights.input_spec import AXIS_CODES, MODALITIES


class LicenceClass(StrEnum):
    """What a licence lets agseg do."""

    OPEN = "open"
    """Any use, with attribution: fetched by name."""
    NON_COMMERCIAL = "non-commercial"
    """Never fetched; a file that the user has may be imported."""
    LICENSED = "licensed"
    """By a licence number of the publisher's: never fetched; a file that the user has may be imported."""


@dataclass(frozen=True)
class Archive:
    """A ZIP of one model.

    Parameters
    ----------
    url
        Where it is released.
    sha256, size_bytes
        Where the publisher states them; without a digest the first fetch is unverified, and binds every later one.
    """

    url: str
    sha256: str | None = None
    size_bytes: int | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("https", "http") or not parts.hostname or not PurePosixPath(parts.path).name:
            raise FieldError("url", "not the address of a file", value=self.url, expected="https://.../model.zip")
        self.file  # noqa: B018 - refuses a digest or size that is none

    @property
    def file(self) -> WeightsFile:
        """As a file of the cache."""
        name = PurePosixPath(urlsplit(self.url).path).name
        source = FileSource(SourceKind.URL, url=self.url)
        return WeightsFile(name, source, self.sha256, self.size_bytes, on_first_fetch=self.sha256 is None)


@dataclass(frozen=True)
class PublishedModel:
    """One model by name.

    Parameters
    ----------
    id
        Its name.
    archives
        Several make one entry; where a later one says organ, it overwrites an earlier one. None where nothing may be fetched.
    licence, licence_class, citation
        For every record.
    modality, spacing_mm, classes
        What it was trained on; None classes where only the archive says.
    organs
        Its classes where they are known; the archive's ``dataset.json`` counts.
    orientation
        What its training scans were turned to.
    input
        Keys of an entry's input that the publisher's own program sets beside the plans.
    scores
        As published.
    caution
        What to know before using it.
    crop_to
        As in an entry.
    """

    id: str
    _: KW_ONLY
    archives: tuple[Archive, ...] = ()
    licence: str
    licence_class: LicenceClass
    citation: str
    modality: str = "CT"
    spacing_mm: tuple[float, ...] = ()
    classes: int | None = None
    organs: tuple[str, ...] = ()
    orientation: str = "RAS"
    input: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    caution: str = ""
    crop_to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not WEIGHTS_ID.fullmatch(self.id):
            raise FieldError("id", "not an id", value=self.id, expected="a-z, 0-9, . and -")
        if self.modality not in (*MODALITIES, "PT"):
            raise FieldError("modality", "unknown modality", value=self.modality)
        if self.orientation not in AXIS_CODES:
            raise FieldError("orientation", "not axis codes", value=self.orientation, expected="three letters such as RAS")
        if self.organs and self.classes is not None and len(self.organs) != self.classes:
            raise FieldError("organs", "another number than classes", value=len(self.organs), expected=self.classes)
        if self.licence_class is LicenceClass.OPEN and not self.archives:
            raise FieldError("archives", "an open model has at least one archive")

    def check_fetchable(self) -> None:
        """Refuse what must not be fetched.

        Raises
        ------
        WeightsError
            With the command that imports a file that the user has.
        """
        if self.licence_class is not LicenceClass.OPEN:
            raise WeightsError(
                f"{self.id} is not fetched: its licence is {self.licence}",
                value=self.licence_class,
                expected=LicenceClass.OPEN,
                hint=f"If you have the file and its licence: agseg weights import FILE --as {self.id} "
                f"--orientation {self.orientation} --licence '{self.licence}'",
            )
