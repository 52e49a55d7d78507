"""One patient's volumes over time: the studies of each patient that the folder holds, by their date."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from agseg.io.html.study import StudyView, Volumes
from agseg.labels import Label
from agseg.report import StudyReport

ORGANS_SHOWN = 8
"""Columns that fit a printed page; a patient's other organs are in volumes.csv."""


@dataclass(frozen=True)
class Visit:
    """A study of the patient: its date, the study on the page, and each organ's volume with the change since the one before."""

    date: str
    study: StudyView
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Patient:
    """A patient with studies of several days, oldest first."""

    name: str
    organs: tuple[str, ...]
    visits: tuple[Visit, ...]


def patients_of(pairs: Sequence[tuple[StudyReport, StudyView]]) -> tuple[Patient, ...]:
    """Patients with finished studies of at least two days; studies that say no patient or no date are left out.

    Parameters
    ----------
    pairs
        Each study as record and as the page shows it.
    """
    by_patient: dict[str, list[tuple[StudyReport, StudyView]]] = defaultdict(list)
    for study, shown in pairs:
        source = study.source
        if source is not None and source.study_date and any(organ.volume_ml is not None for organ in study.organs):
            key = source.patient or source.identifiers.get("PatientID", "")
            if key:
                by_patient[key].append((study, shown))
    found = []
    for key, studies in sorted(by_patient.items()):
        if len({_date(study) for study, _ in studies}) > 1:
            studies.sort(key=lambda pair: (_date(pair[0]), pair[0].input))
            found.append(_patient(key, studies))
    return tuple(found)


def _date(study: StudyReport) -> str:
    return "" if study.source is None else study.source.study_date


def _patient(key: str, studies: Sequence[tuple[StudyReport, StudyView]]) -> Patient:
    names = list(dict.fromkeys(organ.name for study, _ in studies for organ in study.organs if organ.volume_ml is not None))
    names = names[:ORGANS_SHOWN]
    last: dict[str, float] = {}
    visits = []
    for study, shown in studies:
        volumes: Volumes = shown.volumes
        measured = {organ.name: organ for organ in study.organs}
        cells = []
        for name in names:
            organ, text = measured.get(name), volumes[name].text
            if organ is not None and organ.volume_ml is not None and not organ.touches_border:
                # What a scan cuts off is smaller for that reason: it is compared with nothing.
                if name in last:
                    text += f" ({100 * (organ.volume_ml / last[name] - 1):+.0f} %)"
                last[name] = organ.volume_ml
            cells.append(text)
        visits.append(Visit(_date(study), shown, tuple(cells)))
    told = next((study.source.identifiers for study, _ in studies if study.source and study.source.identifiers), {})
    named = told.get("PatientName", "").replace("^", " ").strip()
    title = f"{named} ({told.get('PatientID', '')})" if named else key
    return Patient(title, tuple(Label(1, name).title for name in names), tuple(visits))
