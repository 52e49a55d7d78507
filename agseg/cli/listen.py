"""``agseg listen``: a C-STORE port and a watched folder, from one site file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from agseg.cli import console, options
from agseg.cli.archive import opened
from agseg.cli.night import SiteFile
from agseg.cli.site_segment import request_of

if TYPE_CHECKING:
    from agseg.errors import AgsegError
    from agseg.workflows.listen import ListenPlan
    from agseg.workflows.night_record import NightReport
    from agseg.workflows.site import Site

RECEIVED = "received"
"""Folder of images below ``incoming``, and of their results, where no archive gets these."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("listen")(listen)


def listen(
    context: typer.Context,
    config: SiteFile,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> None:
    """Segment what archives and routers send here, or what arrives in a folder, until told to stop."""
    from agseg.errors import AgsegError
    from agseg.workflows.listen import run_listen
    from agseg.workflows.site import load_site

    console.setup_logging(verbose=verbose, quiet=quiet, debug=debug)
    site = load_site(config)
    plan = _plan(context, site, path=config, debug=debug)
    console.setup_logging(verbose=verbose, quiet=quiet, debug=debug)

    def ready(port: int | None) -> None:
        if not quiet:
            console.note(f"listening on port {port}" if port is not None else f"watching {plan.site.watch}")

    def ran(outcome: NightReport | AgsegError) -> None:
        if isinstance(outcome, AgsegError):
            console.fail(outcome)
            return
        for line in outcome.lines():
            console.note(line)
        if verbose or (not quiet and outcome.did_something):
            console.note(outcome.summary())

    code = run_listen(plan, on_ready=ready, on_run=ran)
    if code:
        raise typer.Exit(int(code))


def _plan(context: typer.Context, site: Site, *, path: Path, debug: bool) -> ListenPlan:
    from agseg.errors import UsageError
    from agseg.io.pacs.days import seconds_of
    from agseg.workflows.listen import ListenPlan
    from agseg.workflows.night import NightArchive, NightPlan

    if site.listen is None:
        raise UsageError("the file has no section listen", path=path, expected="listen: {port: 11112, allow: [AETITLE@HOST]}")
    name = site.listen.send_to or RECEIVED
    archives = {}
    if site.listen.send_to is not None:
        archive = site.archives[name]
        opening = partial(opened, archive.pacs, archive.credentials, archive.limits())
        archives[name] = NightArchive(opening, None, asks=archive.find, is_source=False)
    inputs = (site.incoming, *([] if site.listen.watch is None else [site.listen.watch]))
    request = request_of(context, site, inputs=inputs, path=path, debug=debug)
    night = NightPlan(archives, site.incoming, request)
    keep_s = None if site.keep is None else seconds_of(site.keep)
    return ListenPlan(site.listen, site.incoming / name, night, seconds_of(site.listen.quiet), keep_s)
