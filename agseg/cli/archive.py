"""From the command line's words to an archive, for the commands that talk to one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agseg.cli.options import pacs_secret

if TYPE_CHECKING:
    from agseg.io.pacs.archive import Archive, Need, ServiceAnswer
    from agseg.io.pacs.limits import PacsLimits

CredentialsFile = Annotated[
    Path | None,
    typer.Option(
        "--credentials", metavar="FILE", help="YAML with user and password, or token; mode 0600. Else AGSEG_PACS_USER, ..."
    ),
]
Timeout = Annotated[
    float, typer.Option("--timeout", metavar="S", help="Longest wait for a connection, an answer, or its next bytes.")
]
Retries = Annotated[int, typer.Option("--retries", metavar="N", help="Attempts after the first, with growing pauses.")]
CaFile = Annotated[
    Path | None, typer.Option("--ca-file", metavar="FILE", help="Certificates to trust instead of the system's.")
]
CallingAet = Annotated[str, typer.Option("--aet", metavar="TITLE", help="Our own AE title (DIMSE).")]
PlainHttp = Annotated[
    bool, typer.Option("--allow-plain-http", help="Let images leave this machine over http; credentials never do.")
]
MovePort = Annotated[
    int | None, typer.Option("--move-port", metavar="PORT", min=1, max=65535, help="Receive here by C-MOVE, not C-GET.")
]
MoveFrom = Annotated[
    list[str] | None,
    typer.Option("--move-from", metavar="AET@HOST", help="Who may send to that port, beside the archive's own address."),
]
TlsCert = Annotated[
    Path | None, typer.Option("--tls-cert", metavar="FILE", help="Our own certificate (PEM), for archives that ask for one.")
]
TlsKey = Annotated[Path | None, typer.Option("--tls-key", metavar="FILE", help="Its key (PEM).")]


def opened(address: str, credentials: Path | None, limits: PacsLimits) -> Archive:
    """The archive behind an address, with the secrets of a file or else of the environment; nothing is sent yet."""
    from agseg.io.pacs.address import Credentials, PacsAddress
    from agseg.io.pacs.connect import open_archive

    if credentials is not None:
        secrets = Credentials.from_file(credentials)
    else:
        secrets = Credentials(pacs_secret("USER"), pacs_secret("PASSWORD"), pacs_secret("TOKEN"))
    return open_archive(PacsAddress.parse(address), credentials=secrets, limits=limits)


def limits_of(
    *,
    timeout: float,
    retries: int,
    ca_file: Path | None,
    aet: str,
    plain_http: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
    move_port: int | None = None,
    move_from: list[str] | None = None,
) -> PacsLimits:
    """What the options of an archive say together."""
    from agseg.io.pacs.limits import PacsLimits
    from agseg.io.pacs.senders import Sender

    senders = tuple(Sender.parse(text) for text in move_from or ())
    return PacsLimits(timeout, retries, ca_file, aet, move_port, plain_http, tls_cert, tls_key, senders)


def needs_of(names: list[str] | None) -> tuple[Need, ...]:
    """The services that were named; all of a night's without names."""
    from agseg.errors import UsageError
    from agseg.io.pacs.archive import Need

    try:
        return tuple(Need(name) for name in names) if names else tuple(Need)
    except ValueError:
        raise UsageError("this is no service", value=", ".join(names or ()), expected=", ".join(Need)) from None


def service_lines(answers: list[ServiceAnswer]) -> list[str]:
    """A line for each service, and one for the likely reason of a refusal."""
    lines = []
    for answer in answers:
        if answer.problem is None:
            lines.append(f"{answer.service}: {'granted' if answer.is_known else 'not tried: the archive is empty'}")
        else:
            lines.append(f"{answer.service}: refused: {answer.problem}")
            lines += [f"  {answer.hint}"] if answer.hint else []
    return lines
