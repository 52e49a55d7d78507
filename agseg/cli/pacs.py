"""``agseg pacs``: pull series from an archive, push results to it, ask what it lets us do."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agseg.cli import console
from agseg.cli.archive import (
    CaFile,
    CallingAet,
    CredentialsFile,
    MoveFrom,
    MovePort,
    PlainHttp,
    Retries,
    Timeout,
    TlsCert,
    TlsKey,
    limits_of,
    needs_of,
    opened,
    service_lines,
)
from agseg.cli.help_pages import Shelf
from agseg.cli.options import Debug, Json, PacsUrl, Quiet, Verbose
from agseg.cli.summaries import Summaries
from agseg.errors import ExitCode

if TYPE_CHECKING:
    from agseg.workflows.pacs import PacsRecord, PacsReport

group = Shelf(
    cls=Summaries,
    help="Pull series from an archive (PACS) and push results to it, by DICOMweb or DIMSE.",
    no_args_is_help=True,
)

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be moved; move nothing.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.add_typer(group, name="pacs")


@group.command("pull")
def pull(
    pacs: PacsUrl,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where series arrive.")] = Path("incoming"),
    study_uid: Annotated[str, typer.Option("--study-uid", metavar="UID", help="One study.")] = "",
    series_uid: Annotated[str, typer.Option("--series-uid", metavar="UID", help="One series.")] = "",
    accession: Annotated[str, typer.Option("--accession", metavar="NUMBER", help="Studies with this accession number.")] = "",
    patient_id: Annotated[str, typer.Option("--patient-id", metavar="ID", help="Studies of this patient.")] = "",
    dates: Annotated[
        str, typer.Option("--date", metavar="DAY[-DAY]", help="Studies of these days: 20260131, 20260101-20260131, today.")
    ] = "",
    since: Annotated[str, typer.Option("--since", metavar="36h|2d|today", help="Studies of the days from then on.")] = "",
    modality: Annotated[list[str] | None, typer.Option("--modality", metavar="CT|MR|US", help="Default CT.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="At most so many series.")] = None,
    move_port: MovePort = None,
    move_from: MoveFrom = None,
    credentials: CredentialsFile = None,
    timeout: Timeout = 30.0,
    retries: Retries = 3,
    ca_file: CaFile = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    aet: CallingAet = "AGSEG",
    plain_http: PlainHttp = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Bring series into a folder that `agseg segment` reads; those that are there already are left alone."""
    from agseg.errors import UsageError
    from agseg.io.pacs.days import dates_of, dates_since
    from agseg.io.pacs.query import PacsQuery
    from agseg.workflows.pull import pull as run

    console.setup_logging(verbose=verbose, quiet=quiet, debug=debug)
    if dates and since:
        raise UsageError("--date and --since exclude each other", value=f"{dates}, {since}", expected="one of them")
    now = datetime.now()
    days = dates_since(since, now=now) if since else dates_of(dates, today=now.date())
    query = PacsQuery(study_uid, series_uid, accession, patient_id, days, tuple(modality or ("CT",)))
    limits = limits_of(
        timeout=timeout, retries=retries, ca_file=ca_file, aet=aet, plain_http=plain_http, tls_cert=tls_cert, tls_key=tls_key,
        move_port=move_port, move_from=move_from,
    )  # fmt: skip
    archive = opened(pacs, credentials, limits)
    with console.progress("pulling", quiet=quiet or as_json) as advance:
        report = run(archive, query=query, output=output, limit=limit, dry_run=dry_run, on_progress=advance)
    _finish(report, as_json=as_json, quiet=quiet, verbose=verbose)


@group.command("push")
def push(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Output folders of `agseg segment`, or files.")],
    pacs: PacsUrl,
    everything: Annotated[
        bool, typer.Option("--all", help="Send every DICOM object below PATH, not only those that agseg made.")
    ] = False,
    move_port: Annotated[
        int | None,
        typer.Option("--move-port", metavar="PORT", min=1, max=65535, help="Fetch back by C-MOVE, not C-GET, to compare."),
    ] = None,
    move_from: MoveFrom = None,
    credentials: CredentialsFile = None,
    timeout: Timeout = 30.0,
    retries: Retries = 3,
    ca_file: CaFile = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    aet: CallingAet = "AGSEG",
    plain_http: PlainHttp = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Send results to the archive; what it holds already is not sent again."""
    from agseg.workflows.push import push as run

    console.setup_logging(verbose=verbose, quiet=quiet, debug=debug)
    limits = limits_of(
        timeout=timeout, retries=retries, ca_file=ca_file, aet=aet, plain_http=plain_http, tls_cert=tls_cert, tls_key=tls_key,
        move_port=move_port, move_from=move_from,
    )  # fmt: skip
    archive = opened(pacs, credentials, limits)
    with console.progress("pushing", quiet=quiet or as_json) as advance:
        report = run(archive, paths=paths, everything=everything, dry_run=dry_run, on_progress=advance)
    _finish(report, as_json=as_json, quiet=quiet, verbose=verbose)


@group.command("echo")
def echo(
    pacs: PacsUrl,
    need: Annotated[
        list[str] | None, typer.Option("--need", metavar="find|retrieve|store", help="Ask for these only (repeatable).")
    ] = None,
    move_port: MovePort = None,
    move_from: MoveFrom = None,
    credentials: CredentialsFile = None,
    timeout: Timeout = 30.0,
    retries: Retries = 0,
    ca_file: CaFile = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    aet: CallingAet = "AGSEG",
    plain_http: PlainHttp = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Ask whether the archive is there and grants what a night needs; exit 0 if so, 4 if not."""
    console.setup_logging(quiet=quiet, debug=debug)
    needs = needs_of(need)
    limits = limits_of(
        timeout=timeout, retries=retries, ca_file=ca_file, aet=aet, plain_http=plain_http, tls_cert=tls_cert, tls_key=tls_key,
        move_port=move_port, move_from=move_from,
    )  # fmt: skip
    archive = opened(pacs, credentials, limits)
    archive.echo()
    answers = archive.check(needs)
    refused = any(answer.problem is not None for answer in answers)
    if not quiet:
        console.note("The archive answers.")
    if not quiet or refused:
        for line in service_lines(answers):
            console.note(line)
    if refused:
        raise typer.Exit(ExitCode.NONE_DONE)


def _finish(report: PacsReport, *, as_json: bool, quiet: bool, verbose: bool) -> None:
    if as_json:
        console.document(report.to_dict())
    else:
        for line in (*pacs_lines(report), *told_lines(report, quiet=quiet, verbose=verbose)):
            console.note(line)
    raise typer.Exit(report.exit_code)


def told_lines(report: PacsReport, *, quiet: bool = False, verbose: bool = False) -> list[str]:
    """What is said beside failures: of a dry run each series or object that would be moved, of ``-v`` every one; the counts."""
    told = [record for record in report.records if verbose or (record.status == "would" and not quiet)]
    lines = [_record_line(record, report.action) for record in told]
    if not quiet:
        counts = ", ".join(f"{number} {_word(status, report.action)}" for status, number in report.counts.items() if number)
        lines.append(f"{report.action}: {counts}" if report.records else "Nothing matches.")
    return lines


def _record_line(record: PacsRecord, action: str) -> str:
    images = f", {record.instances} image{'' if record.instances == 1 else 's'}" if action == "pull" else ""
    why = "" if record.message is None else f": {record.message}"
    return f"{_word(record.status, action)} {record.path}{images}{why}"


def _word(status: str, action: str) -> str:
    return f"to {action}" if status == "would" else str(status)


def pacs_lines(report: PacsReport) -> list[str]:
    """A line for each kind of failure, the path of a single one, the number of several; and what to do about it."""
    lines = []
    for text, records in report.problems.items():
        which = records[0].path if len(records) == 1 else f"{len(records)} of {len(report.records)}"
        lines.append(f"{which}: {text}")
        lines += [f"  {records[0].hint}"] if records[0].hint else []
    return lines
