"""From DICOM headers to series: what is a CT series, what accompanies one, and what must be refused.

A series is one (PatientID, StudyInstanceUID, SeriesInstanceUID), wherever its files lie. An empty UID joins nothing: such
files form one series per folder and SeriesNumber.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agseg.errors import Code, InputError
from agseg.io.dicom.read import frames_of, stack_frames
from agseg.io.dicom.slice_header import CT_SOP_CLASSES, SliceHeader
from agseg.io.walk import FoundFile, Reason
from agseg.study import Rejected, Skipped
from agseg.volume import Warned

__all__ = ["Series", "group_series"]

DICOMDIR_CLASS = "1.2.840.10008.1.3.10"

SECONDARY_CAPTURE_PREFIX = "1.2.840.10008.5.1.4.1.1.7"

NON_IMAGE_PREFIXES = (
    "1.2.840.10008.5.1.4.1.1.66",  # registration, segmentation, surface, label map
    "1.2.840.10008.5.1.4.1.1.88",  # structured reports, key objects
    "1.2.840.10008.5.1.4.1.1.11",  # presentation states
    "1.2.840.10008.5.1.4.1.1.9",  # waveforms
    "1.2.840.10008.5.1.4.1.1.104",  # encapsulated documents
    "1.2.840.10008.5.1.4.1.1.30",  # parametric maps
    "1.2.840.10008.5.1.4.1.1.481",  # radiotherapy objects
    "1.2.840.10008.5.1.4.34",
)
"""SOP classes that are no image series even where they hold pixels."""

KNOWN_MODALITIES = frozenset(
    {"CT", "MR", "PT", "NM", "US", "IVUS", "CR", "DX", "MG", "XA", "RF", "OT", "SC", "ES", "XC", "GM", "SM", "OP", "OPT"}
)
"""Modalities that may be named in a message; anything else could be text that somebody typed."""

BODY_PARTS_WITH_ABDOMEN = (
    "ABD", "CHEST", "THORAX", "TRUNK", "TORSO", "BODY", "PELVIS", "LIVER", "PANCREAS", "KIDNEY", "SPLEEN", "STOMACH", "TAP",
    "CAP",
)  # fmt: skip
"""Parts of BodyPartExamined that raise no warning."""


@dataclass(eq=False)
class Series:
    """Files of one series while it is put together; ``files`` end in order of position if ``rejected`` stays None."""

    key: tuple[str, ...]
    modality: str
    headers: list[tuple[FoundFile, SliceHeader]] = field(default_factory=list)
    files: tuple[FoundFile, ...] = ()
    reason: str = ""
    rejected: Rejected | None = None
    warnings: list[Warned] = field(default_factory=list)

    @property
    def number(self) -> int:
        """SeriesNumber, or 0."""
        return next((abs(header.series_number) for _, header in self.headers if header.series_number is not None), 0)

    @property
    def digest(self) -> str:
        """Six hex digits that tell series apart and from which no UID can be worked out."""
        return hashlib.sha256("\0".join(self.key).encode()).hexdigest()[:6]

    @property
    def study_key(self) -> tuple[str, str]:
        """Patient and study, to find what accompanies a series."""
        _, header = self.headers[0]
        return header.patient_id, header.study_uid


def group_series(found: Iterable[tuple[FoundFile, SliceHeader]]) -> tuple[list[Series], list[Skipped]]:
    """The series to be reported, in order of their first file, and the files that belong to none of them."""
    skipped: list[Skipped] = []
    candidates: dict[tuple[str, ...], Series] = {}
    others: dict[tuple[str, ...], Series] = {}
    for file, header in found:
        word = _left_out(header)
        if word is not None:
            skipped.append(Skipped(file.path, word, _named_modality(header.modality)))
            continue
        is_ct = _is_ct(header)
        home = candidates if is_ct else others
        key = _key(file, header)
        series = home.setdefault(key, Series(key, "CT" if is_ct else _named_modality(header.modality)))
        series.headers.append((file, header))
    kept = [*candidates.values()]
    for series in candidates.values():
        skipped.extend(_drop_copies(series))
        _judge(series)
    folders = {place for series in candidates.values() for place in _places(series)}
    parents = {(series.study_key, place) for series in candidates.values() for place in _parents(series)}
    for series in others.values():
        same_study = series.study_key[1] and any((series.study_key, place) in parents for place in _parents(series))
        if same_study or any(place in folders for place in _places(series)):
            # A PET beside its CT is no failure; an MR in a place of its own is a study that nobody will get a mask for.
            skipped.extend(Skipped(file.path, Reason.OTHER_MODALITY, series.modality) for file, _ in series.headers)
        else:
            series.files = tuple(file for file, _ in series.headers)
            series.rejected = Rejected(Code.MODALITY, f"the series is {series.modality or 'not CT'}: expected CT")
            kept.append(series)
    kept.sort(key=lambda series: (str(series.files[0].root), series.files[0].below))
    return kept, skipped


def _places(series: Series) -> set[tuple[Path, str]]:
    return {(file.root, file.folder) for file, _ in series.headers}


def _parents(series: Series) -> set[tuple[Path, str]]:
    """The folders above those of the series: a disc holds the series of a study side by side."""
    return {(root, folder.rpartition("/")[0]) for root, folder in _places(series)}


def _left_out(header: SliceHeader) -> str | None:
    """The reason why a file takes part in no series, or None."""
    if header.sop_class == DICOMDIR_CLASS:
        return Reason.DICOMDIR
    if header.sop_class.startswith(NON_IMAGE_PREFIXES):
        return Reason.DICOM_OBJECT
    if header.sop_class.startswith(SECONDARY_CAPTURE_PREFIX) and not header.sop_class.startswith(
        SECONDARY_CAPTURE_PREFIX + "7"
    ):
        return Reason.SECONDARY_CAPTURE
    if _is_ct(header):
        return Reason.LOCALIZER if header.is_localizer else None
    return None if header.rows and header.columns else Reason.DICOM_OBJECT


def _is_ct(header: SliceHeader) -> bool:
    if header.sop_class in CT_SOP_CLASSES:
        return header.modality.upper() in ("CT", "")
    return not header.sop_class and header.modality.upper() == "CT"


def _named_modality(modality: str) -> str:
    return modality.upper() if modality.upper() in KNOWN_MODALITIES else ""


def _key(file: FoundFile, header: SliceHeader) -> tuple[str, ...]:
    if header.study_uid and header.series_uid:
        return header.patient_id, header.study_uid, header.series_uid
    place = (str(file.root), file.folder, str(header.series_number))
    return header.patient_id, header.study_uid, header.series_uid, *place


def _drop_copies(series: Series) -> list[Skipped]:
    """Take byte-identical copies out of the series; the first path stays."""
    alike: dict[tuple[object, ...], list[tuple[FoundFile, SliceHeader]]] = defaultdict(list)
    for file, header in series.headers:
        alike[(header.sop_uid, header.position_mm, file.size)].append((file, header))
    dropped: list[Skipped] = []
    for group in alike.values():
        seen: dict[str, Path] = {}
        for file, _ in group if len(group) > 1 else ():
            digest = _digest(file.path)
            if digest and digest in seen:
                dropped.append(Skipped(file.path, Reason.IDENTICAL_COPY))
            else:
                seen[digest] = file.path
    if dropped:
        gone = {skip.path for skip in dropped}
        series.headers = [(file, header) for file, header in series.headers if file.path not in gone]
        series.warnings.append(Warned(Code.DUPLICATE_SLICES, f"{len(dropped)} identical copies of files were left out"))
    return dropped


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""


def _judge(series: Series) -> None:
    """Order the files by position, or say why they make no volume; note what is odd about the headers."""
    files = [file for file, _ in series.headers]
    headers = [header for _, header in series.headers]
    series.warnings.extend(_noted(headers))
    try:
        frames = [frame for header in headers for frame in frames_of(header)]
        stack = stack_frames(frames)
    except InputError as error:
        series.files = tuple(files)
        series.rejected = Rejected(error.code, error.sentence())
        return
    by_path = {file.path: file for file in files}
    ordered = dict.fromkeys(frames[index].header.path for group in stack.order for index in group)
    series.files = tuple(by_path[path] for path in ordered)
    enhanced = "enhanced " if headers[0].is_enhanced else ""
    series.reason = f"{enhanced}CT series, {stack.shape[2]} slices evenly spaced"


def _noted(headers: Sequence[SliceHeader]) -> list[Warned]:
    warnings = []
    uids = [header.sop_uid for header in headers]
    if any(not header.study_uid or not header.series_uid or header.sop_uid_recovered for header in headers):
        warnings.append(
            Warned(Code.MISSING_UIDS, "study, series or instance UIDs are missing; without a study UID no DICOM can be written")
        )
    if len(set(filter(None, uids))) < len([uid for uid in uids if uid]):
        warnings.append(Warned(Code.DUPLICATE_UID, "different slices share a SOPInstanceUID"))
    if any(header.body_part and not _covers_abdomen(header.body_part) for header in headers):
        warnings.append(Warned(Code.BODY_PART, "BodyPartExamined names another part of the body"))
    if any(not header.modality for header in headers):
        warnings.append(Warned(Code.MODALITY_ASSUMED, "Modality is empty; CT is taken from the SOP class"))
    return warnings


def _covers_abdomen(body_part: str) -> bool:
    return any(part in body_part.upper() for part in BODY_PARTS_WITH_ABDOMEN)
