"""volumes.csv: one row per study and organ, for spreadsheets and statistics."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path

from agseg.io.atomic import write_text
from agseg.io.names import spelled_out
from agseg.report import DISCLAIMER, BatchReport, Measurement, OrganStatus, StudyReport
from agseg.study import Source

COLUMNS = (
    "study", "status", "code", "organ", "organ_status", "volume_ml", "voxels", "mean_hu", "sd_hu", "p05_hu",
    "p50_hu", "p95_hu", "surface_cm2", "extent_lr_mm", "extent_ap_mm", "extent_si_mm", "touches_border", "review",
    "weights", "weights_sha256", "version", "run", "patient", "study_date", "modality", "series_number", "series_description",
    "note",
)  # fmt: skip
"""The first line. ``note`` repeats the disclaimer in each row, because rows get copied out of their file."""

_ORGAN_COLUMNS = (*COLUMNS[COLUMNS.index("organ") : COLUMNS.index("review") + 1], "run")

IDENTIFIERS = {"patient_id": "PatientID", "patient_name": "PatientName", "accession_number": "AccessionNumber"}
"""Columns before ``note`` where the run was asked for identifiers, and the DICOM keyword of each."""

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_FORMULA = ("=", "+", "-", "@")
"""A cell that begins with one of these is run as a formula by spreadsheets: study names get an apostrophe before it."""


class TableStyle(StrEnum):
    """How volumes.csv is written, by the names of ``--csv``."""

    PLAIN = "plain"
    """Commas, decimal points, UTF-8: for programs."""
    EXCEL = "excel"
    """The same with the mark by which Excel knows UTF-8."""
    EXCEL_SEMICOLON = "excel-semicolon"
    """Semicolons and decimal commas, with the mark: for an Excel of most of Europe."""


BYTE_ORDER_MARK = "\ufeff"


def write_volumes(path: Path, report: BatchReport, *, style: TableStyle = TableStyle.PLAIN) -> None:
    """Write the table: a row per organ of every study, and one row for a study without organs.

    Parameters
    ----------
    path
        ``OUT/volumes.csv``.
    report
        The run; the studies it skipped because they were done before are in it with their organs.
    style
        For whom.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    identified = any(study.source is not None and study.source.identifiers for study in report.studies)
    columns = [*COLUMNS[:-1], *(IDENTIFIERS if identified else ()), COLUMNS[-1]]
    rows = [_row(study, organ, report) for study in report.studies for organ in study.organs or (None,)]
    write_text(path, table_text([columns, *([row[name] for name in columns] for row in rows)], style=style))


def table_text(rows: Iterable[Sequence[str]], *, style: TableStyle = TableStyle.PLAIN) -> str:
    """Rows as CSV that every spreadsheet takes as text and numbers, whichever separator its locale has.

    Every cell is quoted, control characters are written out, and a cell that would be run as a formula begins with an
    apostrophe; a number does not, be it negative.
    """
    text = io.StringIO(newline="")
    european = style is TableStyle.EXCEL_SEMICOLON
    separator = ";" if european else ","
    writer = csv.writer(text, delimiter=separator, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        cells = [_safe(cell) for cell in row]
        writer.writerow([cell.replace(".", ",") if european and _NUMBER.fullmatch(cell) else cell for cell in cells])
    return ("" if style is TableStyle.PLAIN else BYTE_ORDER_MARK) + text.getvalue()


def _row(study: StudyReport, organ: Measurement | None, report: BatchReport) -> dict[str, str]:
    """A cell per column; ``weights`` and ``run`` are those that made the organ."""
    made_by = "" if organ is None else _weights_of(organ, study)
    sha256 = {weights.id: weights.sha256 for weights in (*report.weights, *study.weights)}.get(made_by, "")
    return {
        "study": study.input,
        "status": study.status.value,
        "code": str(study.code or ""),
        **_of_organ(organ),
        "weights": made_by,
        "weights_sha256": sha256,
        "version": report.version,
        **_of_source(study),
        "note": DISCLAIMER,
    }


def _of_organ(organ: Measurement | None) -> dict[str, str]:
    if organ is None:
        return dict.fromkeys(_ORGAN_COLUMNS, "")
    percentiles = {} if organ.hu is None else organ.hu.percentiles
    left_right, front_back, feet_head = organ.extent_mm or (None, None, None)
    return {
        "organ": organ.name,
        "organ_status": organ.status.value,
        "volume_ml": _number(organ.volume_ml, 3),
        "voxels": "" if organ.voxels is None else str(organ.voxels),
        "mean_hu": _number(organ.mean_hu, 2),
        "sd_hu": _number(None if organ.hu is None else organ.hu.sd, 2),
        "p05_hu": _number(percentiles.get(5), 0),
        "p50_hu": _number(percentiles.get(50), 0),
        "p95_hu": _number(percentiles.get(95), 0),
        "surface_cm2": _number(organ.surface_cm2, 1),
        "extent_lr_mm": _number(left_right, 1),
        "extent_ap_mm": _number(front_back, 1),
        "extent_si_mm": _number(feet_head, 1),
        "touches_border": "yes" if organ.touches_border else "no",
        "review": "; ".join(organ.review),
        "run": organ.run or "",
    }


def _number(value: float | None, places: int) -> str:
    return "" if value is None else f"{value:.{places}f}"


def _of_source(study: StudyReport) -> dict[str, str]:
    source = study.source or Source()
    named = {column: source.identifiers.get(keyword, "") for column, keyword in IDENTIFIERS.items()}
    return {**source.to_dict(), "modality": study.modality or "", **named}


def _weights_of(organ: Measurement, study: StudyReport) -> str:
    """Id of the weights that made it. Results of before have them once, for the whole study."""
    if organ.weights is None and organ.status is not OrganStatus.NOT_IN_WEIGHTS and len(study.weights) == 1:
        return study.weights[0].id
    return organ.weights or ""


def _safe(cell: str) -> str:
    text = spelled_out(cell)
    return "'" + text if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text
