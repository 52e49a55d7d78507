"""``agseg doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agseg.cli import console, options
from agseg.cli.archive import CallingAet, MovePort, TlsCert, TlsKey, limits_of, opened

if TYPE_CHECKING:
    from agseg.io.pacs.archive import Archive
    from agseg.workflows.doctor import Diagnosis

HEALTH_STYLE = {"ok": "green", "warn": "yellow", "fail": "red"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor)


def doctor(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where results are to go.")] = Path("agseg-out"),
    device: options.Device = "auto",
    weights: options.WeightsId = None,
    manifest: options.Manifest = None,
    pacs: Annotated[
        str | None, typer.Option("--pacs", metavar="URL", envvar="AGSEG_PACS", help="Ask this archive too.")
    ] = None,
    credentials: Annotated[
        Path | None, typer.Option("--credentials", metavar="FILE", help="The archive's user and password, mode 0600.")
    ] = None,
    ca_file: Annotated[Path | None, typer.Option("--ca-file", metavar="FILE", help="Certificates to trust.")] = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    aet: CallingAet = "AGSEG",
    move_port: MovePort = None,
    plain_http: Annotated[
        bool, typer.Option("--allow-plain-http", help="Ask over http; credentials never leave this machine that way.")
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Say whether this machine is ready: device, memory, codecs, weights, disk, archive. Exit 0 if so, 3 if not."""
    from agseg.workflows.doctor import DoctorRequest, examine

    console.setup_logging(quiet=quiet, debug=debug)

    def archive() -> Archive:
        limits = limits_of(
            timeout=30.0, retries=0, ca_file=ca_file, aet=aet, plain_http=plain_http, tls_cert=tls_cert, tls_key=tls_key,
            move_port=move_port,
        )  # fmt: skip
        return opened(pacs or "", credentials, limits)

    request = DoctorRequest(output, options.home(), device, weights, manifest, archive if pacs else None)
    diagnosis = examine(request)
    if as_json:
        console.document(diagnosis.to_dict())
    elif not quiet:
        _show(diagnosis)
    if diagnosis.exit_code:
        raise typer.Exit(int(diagnosis.exit_code))


def _show(diagnosis: Diagnosis) -> None:
    """One line per check, then the verdict."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title="This machine")
    for heading in ("part", "", "what was found", "what to do"):
        table.add_column(heading, overflow="fold")
    for check in diagnosis.checks:
        health = check.health.value
        table.add_row(check.name, Text(health, HEALTH_STYLE[health]), Text(check.message), Text(check.hint or ""))
    console.print_table(table)
    console.note("Ready." if not diagnosis.exit_code else "Not ready: see the lines that say fail.")
