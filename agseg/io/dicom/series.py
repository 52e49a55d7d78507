"""From DICOM headers to series: what is a series of a scan, what accompanies one, and what must be refused.

A series is one SeriesInstanceUID of one patient and study, wherever its files lie; it becomes one study for each pass of the
scanner. An empty UID joins nothing: such files form one series per folder and SeriesNumber.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from agseg.errors import Code, InputError
from agseg.io.dicom.acquisitions import Pass, split_passes
from agseg.io.dicom.classes import left_out, named_modality
from agseg.io.dicom.complete import count_missing
from agseg.io.dicom.derived import derived_from
from agseg.io.dicom.image import Image
from agseg.io.dicom.owners import contradictions, split_owners
from agseg.io.dicom.pages import is_page, set_pages_aside
from agseg.io.dicom.read import frames_of, stack_frames
from agseg.io.dicom.slice_header import SliceHeader
from agseg.io.names import naming
from agseg.io.opening import open_regular
from agseg.io.walk import FoundFile
from agseg.io.watch import outcome
from agseg.study import Reason, Rejected, Skipped
from agseg.volume import Warned

MOST_PLANNING_IMAGES = 60
"""An MR series of planes in several directions with more images than this is not taken for a localizer without that name."""

BODY_PARTS_WITH_ABDOMEN = (
    "ABD", "CHEST", "THORAX", "TRUNK", "TORSO", "BODY", "PELVIS", "LIVER", "PANCREAS", "KIDNEY", "SPLEEN", "STOMACH", "TAP",
    "CAP",
)  # fmt: skip
"""Parts of BodyPartExamined that raise no warning."""


@dataclass(eq=False)
class Series:
    """Images of one series, or of one pass of it, while it is put together; ``files`` end in order of position if ``rejected``
    stays None. ``acquisition`` tells the passes of one series apart.
    """

    key: tuple[str, ...]
    modality: str
    headers: list[tuple[FoundFile, SliceHeader]] = field(default_factory=list)
    acquisition: str | None = None
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

    def name(self, *, alone: bool) -> str:
        """What stands behind the folder in the study's id: nothing for the only series of a folder that has one pass."""
        series = "" if alone else f"/series-{self.number}-{self.digest}"
        return series if self.acquisition is None else f"{series}/acquisition-{self.acquisition}"

    @property
    def study_key(self) -> tuple[str, str]:
        """Patient and study, to find what accompanies a series."""
        _, header = self.headers[0]
        return header.patient_id, header.study_uid


def group_series(
    found: Iterable[tuple[FoundFile, SliceHeader]], *, modalities: Sequence[str] = ("CT",)
) -> tuple[list[Series], list[Skipped]]:
    """The series to be reported, in order of their first file, and the files that belong to none of them.

    ``modalities`` are those of the scans that are looked for, ``"CT"`` and ``"MR"``; series of others are refused, or skipped
    beside a scan.
    """
    skipped: list[Skipped] = []
    families: dict[tuple[str, ...], list[Image]] = defaultdict(list)
    others: dict[tuple[str, ...], Series] = {}
    for file, header in found:
        word = left_out(header, modalities)
        if word is not None:
            skipped.append(Skipped(file.path, word, named_modality(header.modality)))
        elif header.scan in modalities:
            families[_family(file, header)].append(Image.of(file, header))
        else:
            key = _key(file, header)
            series = others.setdefault(key, Series(key, named_modality(header.modality)))
            series.headers.append((file, header))
    candidates = [series for images in families.values() for series in _sorted_out(images, skipped)]
    kept = _without_companions(candidates, skipped)
    folders = {place for series in candidates for place in _places(series)}
    parents = {(series.study_key, place) for series in candidates for place in _parents(series)}
    wanted = " or ".join(modalities)
    for series in others.values():
        same_study = series.study_key[1] and any((series.study_key, place) in parents for place in _parents(series))
        if same_study or any(place in folders for place in _places(series)):
            # A PET beside its CT is no failure; an MR in a place of its own is a study that nobody will get a mask for.
            skipped.extend(Skipped(file.path, Reason.OTHER_MODALITY, series.modality) for file, _ in series.headers)
        else:
            series.files = tuple(file for file, _ in series.headers)
            is_us = "; agseg classify-us takes ultrasound" if series.modality == "US" else ""
            said = f"the series is {series.modality or f'not {wanted}'}: expected {wanted}{is_us}"
            series.rejected = Rejected(Code.MODALITY, said)
            kept.append(series)
    kept.sort(key=lambda series: (str(series.files[0].root), series.files[0].below))
    return kept, skipped


def _sorted_out(family: list[Image], skipped: list[Skipped]) -> list[Series]:
    """What becomes of one SeriesInstanceUID, whatever its headers make the sorting raise."""
    aside: list[Skipped] = []
    made = outcome(partial(_series_of, family, aside))
    if isinstance(made, Rejected):
        headers = [(image.file, image.header) for image in family]
        files = tuple(image.file for image in family)
        return [Series(_key(*headers[0]), headers[0][1].scan, headers, files=files, rejected=made)]
    skipped.extend(aside)
    return made


def _series_of(family: list[Image], skipped: list[Skipped]) -> list[Series]:
    """What becomes of the images of one SeriesInstanceUID: one series for each owner and pass; pages are skipped."""
    made = []
    for owned, rejected, warnings in split_owners(family):
        key = _key(owned[0].file, owned[0].header)
        images, copies = _without_copies(owned)
        skipped.extend(Skipped(image.file.path, Reason.IDENTICAL_COPY) for image in copies)
        noted = list(warnings)
        if copies:
            noted.append(Warned(Code.DUPLICATE_SLICES, f"{len(copies)} identical copies of files were left out"))
        if rejected is not None:
            made.append(_series(key, Pass(tuple(images)), noted, rejected))
            continue
        slices, aside = set_pages_aside(images)
        for what, pages in aside.items():
            skipped.extend(Skipped(page.file.path, Reason.OTHER_KIND, what) for page in pages)
            noted.append(Warned(Code.LEFT_OUT, f"left out of the series: {what}, {len(pages)} times"))
        made.extend(_passes(key, slices, images, noted, skipped))
    return made


def _passes(
    key: tuple[str, ...], slices: list[Image], whole: list[Image], noted: list[Warned], skipped: list[Skipped]
) -> list[Series]:
    try:
        passes = split_passes(slices)
    except InputError as error:
        return [_series(key, Pass(tuple(slices)), noted, Rejected(error.code, error.sentence()))]
    made = []
    for one in passes:
        skipped.extend(Skipped(image.file.path, Reason.MONITORING, "an image apart from its scan") for image in one.strays)
        more = [Warned(Code.LEFT_OUT, f"left out: {len(one.strays)} monitoring images")] if one.strays else []
        series = _series(key, one, [*noted, *one.warnings, *more], None)
        missing = count_missing([image.header for image in one.images], len(whole))
        if missing:
            series.warnings.append(
                Warned(Code.INCOMPLETE, f"the header counts {missing} images more than there are: an end may be missing")
            )
        made.append(series)
    return made


def _series(key: tuple[str, ...], one: Pass, noted: list[Warned], rejected: Rejected | None) -> Series:
    """The series of one pass, judged: in order of position, or with the reason why it makes no volume."""
    headers = [(image.file, image.header) for image in one.images]
    series = Series(key, headers[0][1].scan, headers, one.name, warnings=list(noted))
    _judge(series, rejected)
    return series


def _without_companions(candidates: list[Series], skipped: list[Skipped]) -> list[Series]:
    """Leave out what a normal examination has beside its volumes: monitoring and planning images, pages of a scan's class.

    So it is while the same study has a series with enough positions, and the header does not count more images than there are.
    """
    volumes = {series.study_key for series in candidates if series.study_key[1] and not _is_small(series)}
    kept = []
    for series in candidates:
        whole = not count_missing([header for _, header in series.headers], len(series.headers))
        if _is_small(series) and whole and series.study_key in volumes:
            skipped.extend(
                Skipped(file.path, Reason.MONITORING, f"beside a {series.modality} volume of the same study")
                for file in series.files
            )
        else:
            kept.append(series)
    return kept


def _is_small(series: Series) -> bool:
    if series.rejected is None:
        return False
    if series.modality == "MR" and series.rejected.code is Code.MIXED_SERIES and len(series.headers) <= MOST_PLANNING_IMAGES:
        # Planes in several directions: MR is planned on them, and their ImageType does not always say so.
        return True
    return series.rejected.code is Code.TOO_FEW_SLICES or all(is_page(header) for _, header in series.headers)


def _places(series: Series) -> set[tuple[Path, str]]:
    return {(file.root, file.folder) for file, _ in series.headers}


def _parents(series: Series) -> set[tuple[Path, str]]:
    """The folders above those of the series: a disc holds the series of a study side by side."""
    return {(root, folder.rpartition("/")[0]) for root, folder in _places(series)}


def _key(file: FoundFile, header: SliceHeader) -> tuple[str, ...]:
    if header.study_uid and header.series_uid:
        return header.patient_id, header.study_uid, header.series_uid
    place = (str(file.root), file.folder, str(header.series_number))
    return header.patient_id, header.study_uid, header.series_uid, *place


def _family(file: FoundFile, header: SliceHeader) -> tuple[str, ...]:
    """What the images of one series have in common whoever they belong to; without UIDs as in :func:`_key`."""
    return (header.series_uid, header.scan) if header.study_uid and header.series_uid else (*_key(file, header), header.scan)


def _without_copies(images: Sequence[Image]) -> tuple[list[Image], list[Image]]:
    """The images without byte-identical copies, of which the first path stays; and the copies."""
    alike: dict[tuple[object, ...], list[Image]] = defaultdict(list)
    for image in images:
        alike[(image.header.sop_uid, image.header.position_mm, image.file.size)].append(image)
    copies: set[Path] = set()
    for group in alike.values():
        seen: dict[str, Path] = {}
        for image in group if len(group) > 1 else ():
            digest = _digest(image.file.path)
            if digest and digest in seen:
                copies.add(image.file.path)
            else:
                seen[digest] = image.file.path
    kept = [image for image in images if image.file.path not in copies]
    return kept, [image for image in images if image.file.path in copies]


def _digest(path: Path) -> str:
    try:
        with open_regular(path) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, InputError):
        return ""


def _judge(series: Series, rejected: Rejected | None) -> None:
    """Order the files by position, or say why they make no volume; note what is odd about the headers."""
    files = [file for file, _ in series.headers]
    headers = [header for _, header in series.headers]
    series.warnings.extend(_noted(headers))
    contradicted, odd = contradictions(headers)
    series.warnings.extend(odd)
    if rejected is not None or contradicted is not None:
        series.files, series.rejected = tuple(files), rejected or contradicted
        return
    try:
        frames = [frame for header in headers for frame in frames_of(header)]
        stack = stack_frames(frames)
    except InputError as error:
        series.files = tuple(files)
        message, below = error.sentence(), {file.path: file.below for file in files}
        known = below.get(error.path) if error.path is not None and len(files) > 1 else None
        series.rejected = Rejected(error.code, message if known is None else naming(message, known))
        return
    by_path = {file.path: file for file in files}
    ordered = dict.fromkeys(frames[index].header.path for group in stack.order for index in group)
    series.files = tuple(by_path[path] for path in ordered)
    enhanced = "enhanced " if headers[0].is_enhanced else ""
    series.reason = f"{enhanced}{series.modality} series, {stack.shape[2]} slices evenly spaced"


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
        warnings.append(Warned(Code.MODALITY_ASSUMED, f"Modality is empty; {headers[0].scan} is taken from the SOP class"))
    for kind in dict.fromkeys(kind for header in headers for kind in derived_from(header)):
        warnings.append(Warned(Code.DERIVED, f"the volume is {kind.text}, not the scan itself"))
    return warnings


def _covers_abdomen(body_part: str) -> bool:
    return any(part in body_part.upper() for part in BODY_PARTS_WITH_ABDOMEN)
