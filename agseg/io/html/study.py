"""One study as the page shows it: plain texts, links and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from agseg.io.html.clip import MODALITY, TIMELINE, ClipView, clip_of
from agseg.io.html.thumbnail import PICTURES, PLANE_WIDTH_PX, Picture, thumbnail
from agseg.io.names import spelled_out
from agseg.labels import Label
from agseg.report import Measurement, OrganStatus, StudyReport, StudyStatus

OUTCOMES: Mapping[StudyStatus, str] = {
    StudyStatus.DONE: "done",
    StudyStatus.SKIPPED: "done earlier",
    StudyStatus.REJECTED: "rejected",
    StudyStatus.FAILED: "failed",
    StudyStatus.DEFERRED: "deferred",
}
"""How the page names an outcome. ``skipped`` is a finished result of an earlier run, which nothing had to be done for."""

_NOT_ASKED = "–"


@dataclass(frozen=True)
class Organ:
    """A column of the table of volumes."""

    name: str
    title: str


@dataclass(frozen=True)
class Cell:
    """A volume in the table: its text, the number that it is sorted by, and the class of one to look at."""

    text: str
    value: str = ""
    look: str = ""


@dataclass(frozen=True)
class OrganRow:
    """An organ of one study."""

    title: str
    status: str
    ml: str
    mean_hu: str
    review: tuple[str, ...]
    weights: str


@dataclass(frozen=True)
class Link:
    """A file of the study's folder."""

    name: str
    href: str


class Volumes(dict[str, Cell]):
    """Cells by organ; an organ that was not asked for has a dash."""

    def __missing__(self, name: str) -> Cell:
        """A dash."""
        return Cell(_NOT_ASKED)


@dataclass(frozen=True)
class Notice:
    """A warning of the record."""

    code: str
    message: str


@dataclass(frozen=True)
class StudyView:
    """A study of the page. ``look`` is 1 for one on the review list, as the filter reads it."""

    name: str
    whose: str
    anchor: str
    status: StudyStatus
    outcome: str
    code: str
    message: str
    geometry: str
    seconds: str
    reasons: tuple[str, ...]
    warnings: tuple[Notice, ...]
    volumes: Volumes
    organs: tuple[OrganRow, ...]
    links: tuple[Link, ...]
    pictures: tuple[Picture, ...]
    is_clip: bool
    clip: ClipView | None

    @property
    def has_mosaic(self) -> bool:
        """Whether the preview has the mosaic beside it: in print they share a sheet with the table."""
        return not self.is_clip and len(self.pictures) > 1

    @property
    def look(self) -> int:
        """Whether there is a reason to look first."""
        return int(bool(self.reasons))


def view(study: StudyReport, anchor: str, reasons: Sequence[str], root: Path | None) -> StudyView:
    """Prepare a study for the template.

    Parameters
    ----------
    study
        Its record.
    anchor
        Its id on the page.
    reasons
        Why to look first; empty if it is not on the review list.
    root
        Folder of the study folders, for pictures inside the page; None leaves links.
    """
    seconds = (study.seconds or {}).get("total")
    clip = clip_of(study)
    return StudyView(
        name=study.input,
        whose=whose(study),
        anchor=anchor,
        status=study.status,
        outcome=_outcome(study),
        code=str(study.code or ""),
        message=study.message or "",
        geometry=_geometry(study),
        seconds="" if seconds is None else f"{seconds:.1f} s",
        reasons=tuple(reasons),
        warnings=tuple(Notice(str(warned.code), warned.message) for warned in study.warnings),
        volumes=Volumes({organ.name: _cell(organ) for organ in study.organs}),
        organs=tuple(_row(organ) for organ in study.organs),
        links=tuple(Link(name, _href(study, name)) for name in study.files) if study.output is not None else (),
        pictures=_pictures(study, root) if clip is None else _clip_pictures(study, clip, root),
        is_clip=clip is not None or study.modality == MODALITY,
        clip=clip,
    )


def whose(study: StudyReport) -> str:
    """Patient, date and series in one line: names where the record has them, else the pseudonym."""
    source = study.source
    if source is None:
        return ""
    told = source.identifiers
    patient = told.get("PatientName", "").replace("^", " ").strip()
    number = told.get("PatientID", "")
    described = told.get("SeriesDescription", "") or source.series_description
    parts = [
        f"{patient} ({number})" if patient and number else patient or number or source.patient,
        f"accession {told['AccessionNumber']}" if told.get("AccessionNumber") else "",
        source.study_date,
        study.modality or "",
        f"series {source.series_number}" if source.series_number else "",
        spelled_out(described),
    ]
    return ", ".join(part for part in parts if part)


def _outcome(study: StudyReport) -> str:
    """How it ended; a result without any organ (a neck, a leg, or a network that failed) must not look like one with all."""
    is_empty = bool(study.organs) and all(organ.status is OrganStatus.ABSENT for organ in study.organs)
    return f"{OUTCOMES[study.status]}, nothing found" if is_empty else OUTCOMES[study.status]


def _geometry(study: StudyReport) -> str:
    if study.shape is None or study.spacing_mm is None:
        return ""
    shape, spacing = " x ".join(map(str, study.shape)), " x ".join(f"{mm:.3g}" for mm in study.spacing_mm)
    return f"{study.modality or ''} {shape} voxels of {spacing} mm".strip()


def _cell(organ: Measurement) -> Cell:
    if organ.status is OrganStatus.NOT_IN_WEIGHTS:
        return Cell("unknown")
    look = " look" if organ.review else ""
    if organ.volume_ml is None:
        return Cell("absent", look=look)
    mark = " *" if organ.touches_border else ""
    return Cell(f"{organ.volume_ml:.1f}{mark}", f"{organ.volume_ml:.3f}", look)


def _row(organ: Measurement) -> OrganRow:
    return OrganRow(
        Label(1, organ.name).title,
        organ.status.value.replace("_", " "),
        "" if organ.volume_ml is None else f"{organ.volume_ml:.1f}",
        "" if organ.mean_hu is None else f"{organ.mean_hu:.0f}",
        organ.review,
        organ.weights or "",
    )


def _href(study: StudyReport, name: str) -> str:
    return "./" + quote(f"{study.output}/{name}", safe="/", errors="surrogateescape")


def _pictures(study: StudyReport, root: Path | None) -> tuple[Picture, ...]:
    """The study's pictures inside the page; one that cannot be read is left out."""
    if root is None or study.output is None:
        return ()
    said = ", ".join(
        f"{Label(1, organ.name).title} {organ.volume_ml:.1f} ml" for organ in study.organs if organ.volume_ml is not None
    )
    found = []
    for name, what in PICTURES.items():
        if name in study.files:
            alt = f"{what} of {study.input} with contours: {said or 'no organ found'}"
            found.append(thumbnail(root / study.output / name, href=_href(study, name), alt=alt))
    return tuple(picture for picture in found if picture is not None)


def _clip_pictures(study: StudyReport, clip: ClipView, root: Path | None) -> tuple[Picture, ...]:
    """The timeline, and the best frame of each plane with the box."""
    if root is None or study.output is None:
        return ()
    said: dict[str, tuple[str, int | None]] = {TIMELINE: (f"Probability of each plane over the frames of {study.input}", None)}
    for row in clip.rows:
        said[row.overlay] = (f"{row.plane} in {study.input}: frame {row.frame} of {row.file}, with its box", PLANE_WIDTH_PX)
    found = [
        thumbnail(root / study.output / name, href=_href(study, name), alt=alt, width=width)
        for name, (alt, width) in said.items()
        if name in study.files
    ]
    return tuple(picture for picture in found if picture is not None)
