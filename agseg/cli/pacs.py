"""``agseg pacs``: pull series from an archive, push results to it, ask whether it is there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agseg.cli import console
from agseg.cli.archive import opened
from agseg.cli.options import Debug, Json, PacsUrl, Quiet, Verbose
from agseg.cli.summaries import Summaries
from agseg.errors import ExitCode

if TYPE_CHECKING:
    from agseg.workflows.pacs import PacsReport

__all__ = ["register"]

group = typer.Typer(
    cls=Summaries,
    help="Pull series from an archive (PACS) and push results to it, by DICOMweb or DIMSE.",
    no_args_is_help=True,
)

CredentialsFile = Annotated[
    Path | None,
    typer.Option(
        "--credentials", metavar="FILE", help="YAML with user and password, or token; mode 0600. Else AGSEG_PACS_USER, ..."
    ),
]
Timeout = Annotated[float, typer.Option("--timeout", metavar="S", help="Longest wait for a connection or an answer.")]
Retries = Annotated[int, typer.Option("--retries", metavar="N", help="Attempts after the first, with growing pauses.")]
CaFile = Annotated[
    Path | None, typer.Option("--ca-file", metavar="FILE", help="Certificates to trust instead of the system's.")
]
CallingAet = Annotated[str, typer.Option("--aet", metavar="TITLE", help="Our own AE title (DIMSE).")]
PlainHttp = Annotated[
    bool, typer.Option("--allow-plain-http", help="Let images leave this machine over http; credentials never do.")
]
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
    dates: Annotated[str, typer.Option("--date", metavar="YYYYMMDD[-YYYYMMDD]", help="Studies of these days.")] = "",
    modality: Annotated[list[str] | None, typer.Option("--modality", metavar="CT|MR|US", help="Default CT.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="At most so many series.")] = None,
    move_port: Annotated[
        int | None, typer.Option("--move-port", metavar="PORT", min=1, max=65535, help="Receive here by C-MOVE, not C-GET.")
    ] = None,
    credentials: CredentialsFile = None,
    timeout: Timeout = 30.0,
    retries: Retries = 3,
    ca_file: CaFile = None,
    aet: CallingAet = "AGSEG",
    plain_http: PlainHttp = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Bring series into a folder that `agseg segment` reads; those that are there already are left alone."""
    from agseg.io.pacs.archive import PacsLimits, PacsQuery
    from agseg.workflows.pacs import pull as run

    console.setup_logging(verbose=verbose, quiet=quiet, debug=debug)
    query = PacsQuery(study_uid, series_uid, accession, patient_id, dates, tuple(modality or ("CT",)))
    archive = opened(pacs, credentials, PacsLimits(timeout, retries, ca_file, aet, move_port, plain_http))
    with console.progress("pulling", quiet=quiet or as_json) as advance:
        report = run(archive, query=query, output=output, limit=limit, dry_run=dry_run, on_progress=advance)
    _finish(report, as_json=as_json, quiet=quiet)


@group.command("push")
def push(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Output folders of `agseg segment`, or files.")],
    pacs: PacsUrl,
    everything: Annotated[
        bool, typer.Option("--all", help="Send every DICOM object below PATH, not only those that agseg made.")
    ] = False,
    credentials: CredentialsFile = None,
    timeout: Timeout = 30.0,
    retries: Retries = 3,
    ca_file: CaFile = None,
    aet: CallingAet = "AGSEG",
    plain_http: PlainHttp = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Send results to the archive; what it holds already is not sent again."""
    from agseg.io.pacs.archive import PacsLimits
    from agseg.workflows.pacs import push as run

    console.setup_logging(verbose=verbose, quiet=quiet, debug=debug)
    archive = opened(pacs, credentials, PacsLimits(timeout, retries, ca_file, aet, None, plain_http))
    with console.progress("pushing", quiet=quiet or as_json) as advance:
        report = run(archive, paths=paths, everything=everything, dry_run=dry_run, on_progress=advance)
    _finish(report, as_json=as_json, quiet=quiet)


@group.command("echo")
def echo(
    pacs: PacsUrl,
    credentials: CredentialsFile = None,
    timeout: Timeout = 30.0,
    retries: Retries = 0,
    ca_file: CaFile = None,
    aet: CallingAet = "AGSEG",
    plain_http: PlainHttp = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Ask whether the archive is there and lets us in; exit 0 if so, 4 if not."""
    from agseg.io.pacs.archive import PacsLimits

    console.setup_logging(quiet=quiet, debug=debug)
    opened(pacs, credentials, PacsLimits(timeout, retries, ca_file, aet, None, plain_http)).echo()
    if not quiet:
        console.note("The archive answers.")


def _finish(report: PacsReport, *, as_json: bool, quiet: bool) -> None:
    if as_json:
        console.document(report.to_dict())
    elif not quiet or report.exit_code is not ExitCode.OK:
        for record in report.records:
            if record.message is not None:
                console.note(f"{record.path}: {record.code}: {record.message}")
        counts = ", ".join(f"{number} {status}" for status, number in report.counts.items() if number)
        if counts and not quiet:
            console.note(f"{report.action}: {counts}")
        if not report.records:
            console.note("Nothing matches.")
    raise typer.Exit(report.exit_code)
