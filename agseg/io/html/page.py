"""report.html: what a run did, on one self-contained page that asks nothing of any network.

Everything that comes from outside (names, messages) is escaped; the page's content security policy lets nothing else run. It
can be read, and printed, without JavaScript; with it, it can be sorted and filtered.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from agseg.errors import ExitCode
from agseg.io.atomic import write_text
from agseg.io.html.assets import POLICY, SCRIPT, STYLE
from agseg.io.html.trend import trend_section
from agseg.labels import Label
from agseg.report import DISCLAIMER, BatchReport, Measurement, StudyReport, StudyStatus

__all__ = ["PREVIEWS_EMBEDDED", "STUDIES_SHOWN", "render_report", "write_report"]

PREVIEWS_EMBEDDED = 200
"""Studies whose preview stands in the page, the review list's first; the others link to their file. Keeps the page small."""

STUDIES_SHOWN = 2000
"""Studies on the page: the review list's, those that were not segmented, then the others. More would not open in a browser."""

_PREVIEW = "preview.png"
_THUMBNAIL_PX = 840
_JPEG_QUALITY = 72
_LARGEST_PREVIEW_BYTES = 8 << 20

Review = Mapping[str, Sequence[str]]
"""Study (path below INPUT) to its reasons, worst study first."""

_GOOD = frozenset({StudyStatus.DONE, StudyStatus.SKIPPED})

_MEANING = {
    ExitCode.OK: "everything that was to be done is done",
    ExitCode.BUG: "an unexpected error happened",
    ExitCode.SOME_NOT_DONE: "some studies were not segmented",
    ExitCode.NONE_DONE: "no study was segmented",
    ExitCode.NO_STUDY: "no study was found",
    ExitCode.WEIGHTS: "weights are missing, unverified or corrupt",
    ExitCode.OUTPUT: "the output could not be written",
    ExitCode.DEADLINE: "the deadline was reached; the rest is left for the next run",
    ExitCode.INTERRUPTED: "the run was interrupted",
    ExitCode.TERMINATED: "the run was terminated",
}


def write_report(
    path: Path, report: BatchReport, *, review: Review | None = None, earlier: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Write the page.

    Parameters
    ----------
    path
        ``OUT/report.html``; previews are taken from the study folders beside it.
    report
        The run.
    review
        Studies to look at first, with the reasons.
    earlier
        Earlier runs' records, oldest first, for the trend.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    write_text(path, render_report(report, review=review, earlier=earlier, root=path.parent))


def render_report(
    report: BatchReport, *, review: Review | None = None, earlier: Sequence[Mapping[str, Any]] = (), root: Path | None = None
) -> str:
    """The page as text; ``root`` is the folder of the study folders (none: no previews)."""
    review = review or {}
    by_name = {study.input: study for study in report.studies}
    first = [by_name[name] for name in review if name in by_name]
    others = [study for study in report.studies if study.input not in review]
    others.sort(key=lambda study: study.status in _GOOD)
    ordered = [*first, *others][:STUDIES_SHOWN]
    first = first[:STUDIES_SHOWN]
    anchors = {id(study): f"study-{number}" for number, study in enumerate(ordered, 1)}
    shown = [study for study in report.studies if id(study) in anchors]
    with_preview = [study for study in ordered if _PREVIEW in study.files][:PREVIEWS_EMBEDDED]
    embedded = {id(study) for study in with_preview}
    details = "".join(
        _study(study, anchors[id(study)], review.get(study.input, ()), root if id(study) in embedded else None)
        for study in ordered
    )
    body = "".join(
        (
            _head(report),
            _review(first, review, anchors),
            _not_done(shown, anchors),
            _table(shown, review, anchors, left_out=len(report.studies) - len(shown)),
            f'<section aria-labelledby="h-studies"><h2 id="h-studies">Studies</h2>{details}</section>',
            trend_section([*earlier, report.to_dict()]),
            _foot(report),
        )
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="referrer" content="no-referrer">'
        f"<title>agseg report, {escape(report.finished)}</title><style>{STYLE}</style></head>\n"
        f'<body><a class="skip" href="#volumes">Skip to the table of volumes</a><main>{body}</main>'
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def _head(report: BatchReport) -> str:
    told = [f"{weights.id} ({weights.architecture}), licence {weights.licence}" for weights in report.weights]
    facts = {
        "Started": report.started,
        "Finished": report.finished,
        "Result": f"exit code {int(report.exit_code)}: {_MEANING.get(report.exit_code, '')}",
        "Weights": "; ".join(told) or "none",
        "Device": str(report.environment.get("device", "not used")),
        "Version": report.version,
        "Files": f"{report.files.get('found', 0)} found, {report.files.get('used', 0)} belong to studies",
    }
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    counts = "".join(f"<li><strong>{number}</strong>{escape(name)}</li>" for name, number in report.counts.items())
    return (
        f'<header><h1>agseg report</h1><p class="disclaimer">{escape(DISCLAIMER)}</p><dl>{listed}</dl>'
        f'<ul class="counts" aria-label="Studies by outcome">{counts}</ul></header>'
    )


def _review(first: Sequence[StudyReport], review: Review, anchors: Mapping[int, str]) -> str:
    rows = "".join(
        f'<tr><td><a href="#{anchors[id(study)]}">{escape(study.input)}</a></td>'
        f'<td class="look">{"<br>".join(escape(reason) for reason in review[study.input])}</td></tr>'
        for study in first
    )
    said = (
        '<table><thead><tr><th scope="col">study</th><th scope="col">why to look first</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
        if rows
        else "<p>No result has a reason to be looked at before the others. All need review all the same.</p>"
    )
    return f'<section aria-labelledby="h-review"><h2 id="h-review">Review list, worst first</h2>{said}</section>'


def _not_done(shown: Sequence[StudyReport], anchors: Mapping[int, str]) -> str:
    left = [study for study in shown if study.status not in _GOOD]
    if not left:
        return ""
    rows = "".join(
        f'<tr><td><a href="#{anchors[id(study)]}">{escape(study.input)}</a></td>'
        f'<td class="s-{study.status.value}">{study.status.value}</td><td>{escape(str(study.code or ""))}</td>'
        f"<td>{escape(study.message or '')}</td></tr>"
        for study in left
    )
    return (
        '<section aria-labelledby="h-left"><h2 id="h-left">Not segmented</h2><table><thead><tr><th scope="col">study</th>'
        '<th scope="col">outcome</th><th scope="col">code</th><th scope="col">reason</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></section>"
    )


def _table(shown: Sequence[StudyReport], review: Review, anchors: Mapping[int, str], *, left_out: int) -> str:
    organs = list(dict.fromkeys(organ.name for study in shown for organ in study.organs))
    head = "".join(f'<th scope="col" class="n">{escape(Label(1, organ).title)} (ml)</th>' for organ in organs)
    rows = []
    for study in shown:
        by_name = {organ.name: organ for organ in study.organs}
        cells = "".join(_volume_cell(by_name.get(organ)) for organ in organs)
        rows.append(
            f"<tr {_data(study, review)}>"
            f'<th scope="row"><a href="#{anchors[id(study)]}">{escape(study.input)}</a></th>'
            f'<td class="s-{study.status.value}">{study.status.value}</td>{cells}</tr>'
        )
    more = f"<p>{left_out} more studies stand in volumes.csv and run.json only.</p>" if left_out else ""
    choices = "".join(f'<option value="{status.value}">{status.value}</option>' for status in StudyStatus)
    return (
        '<section aria-labelledby="h-volumes"><h2 id="h-volumes">Volumes</h2>'
        f"{more}"
        '<div class="controls" id="controls" hidden>'
        '<div><label for="filter-text">Study contains</label><input id="filter-text" type="search"></div>'
        f'<div><label for="filter-status">Outcome</label><select id="filter-status"><option value="">all</option>{choices}'
        '</select></div><div><label for="filter-look"><input id="filter-look" type="checkbox"> only those to look at first'
        '</label></div><p id="shown" role="status"></p></div>'
        '<div class="wide" tabindex="0" role="region" aria-labelledby="h-volumes"><table id="volumes">'
        "<caption>Volumes in ml; * cut off by the field of view; empty: absent, unknown to the weights, or not segmented."
        f'</caption><thead><tr><th scope="col">study</th><th scope="col">outcome</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _data(study: StudyReport, review: Review) -> str:
    """Attributes that the filter looks at."""
    look = int(study.input in review)
    return f'data-study="{escape(study.input)}" data-status="{study.status.value}" data-look="{look}"'


def _volume_cell(organ: Measurement | None) -> str:
    if organ is None or organ.volume_ml is None:
        return '<td class="n" data-value=""></td>'
    mark = " *" if organ.touches_border else ""
    look = " look" if organ.review else ""
    return f'<td class="n{look}" data-value="{organ.volume_ml:.3f}">{organ.volume_ml:.1f}{mark}</td>'


def _study(study: StudyReport, anchor: str, reasons: Sequence[str], root: Path | None) -> str:
    parts = [
        f'<article id="{anchor}" {_data(study, {study.input: reasons} if reasons else {})}><h3>{escape(study.input)}</h3>'
        f'<p><span class="s-{study.status.value}">{study.status.value}</span>'
    ]
    if study.shape is not None and study.spacing_mm is not None:
        shape, spacing = " x ".join(map(str, study.shape)), " x ".join(f"{mm:.3g}" for mm in study.spacing_mm)
        parts.append(f", {escape(study.modality or '')} {shape} voxels of {spacing} mm")
    if study.seconds and "total" in study.seconds:
        parts.append(f", {study.seconds['total']:.1f} s")
    parts.append("</p>")
    if study.message:
        parts.append(f"<p>{escape(str(study.code or ''))}: {escape(study.message)}</p>")
    if reasons:
        parts.append(f'<p class="look">Look first: {escape("; ".join(reasons))}</p>')
    for warned in study.warnings:
        parts.append(f"<p>Warning {escape(str(warned.code))}: {escape(warned.message)}</p>")
    parts.append(_preview(study, root))
    parts.append(_organs(study))
    if study.files and study.output is not None:
        links = ", ".join(f'<a href="{_link(study.output, name)}">{escape(name)}</a>' for name in study.files)
        parts.append(f'<p class="files">Files: {links}</p>')
    return "".join((*parts, "</article>"))


def _link(output: str, name: str) -> str:
    return escape("./" + quote(f"{output}/{name}", safe="/", errors="surrogateescape"))


def _organs(study: StudyReport) -> str:
    if not study.organs:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(Label(1, organ.name).title)}</th><td>{organ.status.value.replace("_", " ")}</td>'
        f'<td class="n">{_number(organ.volume_ml, 1)}</td><td class="n">{_number(organ.mean_hu, 0)}</td>'
        f"<td>{escape('; '.join(organ.review))}</td></tr>"
        for organ in study.organs
    )
    return (
        '<div class="wide"><table><thead><tr><th scope="col">organ</th><th scope="col">status</th>'
        '<th scope="col" class="n">ml</th><th scope="col" class="n">mean HU</th><th scope="col">look twice</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _preview(study: StudyReport, root: Path | None) -> str:
    """The study's preview as a small JPEG inside the page; nothing if there is none that can be read."""
    if root is None or study.output is None or _PREVIEW not in study.files:
        return ""
    said = ", ".join(
        f"{Label(1, organ.name).title} {organ.volume_ml:.1f} ml" for organ in study.organs if organ.volume_ml is not None
    )
    alt = f"Axial, coronal and sagittal plane of {study.input} with contours: {said or 'no organ found'}"
    with suppress(OSError, ValueError):
        thumbnail, width, height = _thumbnail(root / study.output / _PREVIEW)
        return f'<img alt="{escape(alt)}" width="{width}" height="{height}" src="data:image/jpeg;base64,{thumbnail}">'
    return ""


def _thumbnail(path: Path) -> tuple[str, int, int]:
    import PIL.Image

    if path.is_symlink() or path.stat().st_size > _LARGEST_PREVIEW_BYTES:
        raise ValueError("not a preview of ours")
    with PIL.Image.open(path, formats=("PNG",)) as picture:
        small = picture.convert("RGB")
    small.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    stream = io.BytesIO()
    small.save(stream, format="JPEG", quality=_JPEG_QUALITY, optimize=True)
    return base64.b64encode(stream.getvalue()).decode(), small.width, small.height


def _foot(report: BatchReport) -> str:
    skipped = report.files.get("skipped") or {}
    listed = "".join(f"<li>{escape(str(reason))}: {int(number)}</li>" for reason, number in skipped.items())
    files = f"<h2>Files that belong to no study</h2><ul>{listed}</ul>" if listed else ""
    version = escape(report.version)
    return f"<footer>{files}<p>{escape(DISCLAIMER)} Written by agseg {version}; the same as data: run.json.</p></footer>"
