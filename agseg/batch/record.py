"""Writes the files of a whole run: run.json, volumes.csv, report.html, and the records of earlier runs.

Parts of one run (``--num-parts``) each keep their own record, ``run.part-<index>-of-<count>.json``; run.json, volumes.csv and
report.html unite the newest record of every part. The record of an earlier run is filed below ``runs`` by the run's id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from agseg.batch.decide import FAILURES
from agseg.batch.exit_code import united_exit_code
from agseg.batch.job import REPORT_HTML, Part
from agseg.batch.json_text import json_text
from agseg.batch.output import Output, make_folders
from agseg.batch.run_id import EARLIER_RUNS, RUN_JSON, load_run, open_run, part_record, record_turn
from agseg.batch.style import DEFAULT_STYLE, Style
from agseg.errors import Code, ExitCode, UsageError
from agseg.io.atomic import output_error, write_bytes, write_text
from agseg.io.html.unfinished import mark_unfinished
from agseg.report import BatchReport, StudyReport, StudyStatus


def write_records(report: BatchReport, output: Output, tables: Collection[str], *, style: Style = DEFAULT_STYLE) -> None:
    """Write the run's files; run.json comes last, so that it never speaks of files that are not there.

    Parameters
    ----------
    tables
        Names of those of the whole folder: volumes.csv, report.html.
    style
        How tables and page are written.

    Raises
    ------
    OutputError
        If one cannot be written.
    """
    with _turn(report, output) as whole:
        _keep_earlier(output.root, whole.run_id)
        if whole.run_id != report.run_id:
            _join_filed(output.root, report)
        _write_tables(whole, output, tables, style)
        write_text(output.root / RUN_JSON, json_text(whole.to_dict()))


def write_begun(report: BatchReport, output: Output) -> None:
    """Write run.json of a run that has begun, and say so on the last run's page: should it die, nothing tells of success.

    Where there is no page yet none is written: it would have nothing to show, and the first study would wait for it.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    mark_unfinished(output.root / REPORT_HTML, started=report.started)
    with _turn(report, output) as whole:
        _keep_earlier(output.root, whole.run_id)
        write_text(output.root / RUN_JSON, json_text(whole.to_dict()))


@contextmanager
def undone_if_refused(output: Output, tables: Collection[str]) -> Iterator[None]:
    """A run that is refused as it was asked for (:class:`UsageError`) leaves its folder's records as they were.

    Raises
    ------
    OutputError
        If those of an earlier run cannot be read: they are another user's.
    """
    names = [RUN_JSON, *tables, *(() if output.part.is_whole else (part_record(output),))]
    try:
        before = {name: (output.root / name).read_bytes() if (output.root / name).is_file() else None for name in names}
    except OSError as error:
        raise output_error(error, "records of an earlier run cannot be read", path=output.root) from error
    try:
        yield
    except UsageError:
        for name, content in before.items():
            if content is None:
                (output.root / name).unlink(missing_ok=True)
            else:
                write_bytes(output.root / name, content)
        raise


def write_unlooked(report: BatchReport, output: Output, tables: Collection[str], *, style: Style = DEFAULT_STYLE) -> None:
    """Write run.json of a run that ended before it had found its studies; the last run's tables stay where there are any.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    with _turn(report, output) as whole:
        _keep_earlier(output.root, whole.run_id)
        if not all((output.root / name).is_file() for name in tables):
            _write_tables(whole, output, tables, style)
        write_text(output.root / RUN_JSON, json_text(whole.to_dict()))


def unlooked(output: Output) -> dict[str, StudyReport]:
    """The studies of this part's last record as a run leaves them that ended before it looked at them, by output folder.

    Rejections stay, because the next run need not read their studies again; all others wait.
    """
    last = load_run(output.root / (RUN_JSON if output.part.is_whole else part_record(output)))
    try:
        known = [StudyReport.from_dict(study) for study in ([] if last is None else last["studies"])]
    except (KeyError, TypeError, ValueError):
        return {}
    return {
        study.output or study.input: replace(study, new=False, seconds=None)
        if study.status is StudyStatus.REJECTED
        else StudyReport(
            input=study.input,
            status=StudyStatus.DEFERRED,
            code=Code.INTERRUPTED,
            message="the run was interrupted before it looked at this study",
            modality=study.modality,
            source=study.source,
            extra={name: study.extra[name] for name in (FAILURES,) if name in study.extra},
        )
        for study in known
    }


@contextmanager
def _turn(report: BatchReport, output: Output) -> Iterator[BatchReport]:
    """The record of the whole run, while no other part writes it."""
    if output.part.is_whole:
        yield report
        return
    write_text(output.root / part_record(output), json_text(report.to_dict()))
    with record_turn(output):
        yield _united(report, output)


def prepare_tables() -> None:
    """Import what the tables are made with: 0.1 s, best spent while a writer works."""
    import agseg.batch.tables

    agseg.batch.tables.prepare()


def _write_tables(whole: BatchReport, output: Output, tables: Collection[str], style: Style) -> None:
    from agseg.batch.tables import write_tables

    write_tables(whole, output, tables, style=style)


def _united(report: BatchReport, output: Output) -> BatchReport:
    """One part's record with the studies of the other parts.

    A part that ends when its run is over already, because others have begun the next one, joins its record to that run's. Each
    study says which run made it.
    """
    studies = {study.output or study.input: study for study in report.studies}
    codes = [report.exit_code]
    for part in (Part(index, output.part.count) for index in range(output.part.count)):
        other = None if part == output.part else load_run(output.root / part_record(output, part.index))
        if other is None:
            continue
        codes.append(ExitCode(other["exit_code"]))
        for study in other["studies"]:
            found = StudyReport.from_dict(study)
            if part.has(found.input):
                studies[found.output or found.input] = found
    together = tuple(studies[name] for name in sorted(studies))
    now = open_run(output.root)
    whole = replace(report, exit_code=united_exit_code(together, codes), studies=together)
    return whole if now is None else replace(whole, run_id=now.id, run_number=now.number)


def _keep_earlier(root: Path, run_id: str) -> None:
    """File the last run's record if it measured something and was another run."""
    last = load_run(root / RUN_JSON)
    if last is None or _id_of(last) == run_id:
        return
    if not any(study.get("status") == StudyStatus.DONE for study in last["studies"]):
        return
    stamp = "".join(c for c in str(last.get("finished", ""))[:19] if c.isascii() and (c.isdigit() or c in "-T"))
    folder = make_folders(root, EARLIER_RUNS)
    write_text(folder / f"run-{stamp}-{_id_of(last)}.json", json_text(last))


def _join_filed(root: Path, report: BatchReport) -> None:
    """Add what a part measured to its run's record, which has been filed already."""
    for path in (root / EARLIER_RUNS).glob(f"run-*-{report.run_id}.json"):
        filed = load_run(path)
        if filed is not None:
            studies = {study["input"]: study for study in filed["studies"]}
            studies |= {study.input: study.to_dict() for study in report.studies}
            write_text(path, json_text({**filed, "studies": [studies[name] for name in sorted(studies)]}))


def _id_of(run: dict[str, Any]) -> str:
    """The id of a run; a record that was written before runs had one is known by its content."""
    return str(run.get("run_id") or hashlib.sha256(json_text(run).encode()).hexdigest()[:16])
