"""``agseg night``: pull, segment, push, from one site file."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agseg.cli import console, options
from agseg.cli.archive import opened
from agseg.cli.site_segment import request_of

if TYPE_CHECKING:
    from agseg.batch import BatchEvent
    from agseg.workflows.night import NightArchive, NightPlan
    from agseg.workflows.pacs import Progress
    from agseg.workflows.site import Site

SiteFile = Annotated[
    Path, typer.Option("--config", metavar="FILE", help="The site's file: archives, folders, options of segment.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("night")(night)


def night(
    context: typer.Context,
    config: SiteFile,
    since: Annotated[
        str, typer.Option("--since", metavar="36h|2d|today", help="Studies of the days from then on; else as the file says.")
    ] = "",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> None:
    """Pull what is new, segment it, push the results: one lock, one record (night.json), one exit code."""
    from agseg.workflows.night import run_night
    from agseg.workflows.site import load_site

    console.setup_logging(verbose=verbose, quiet=quiet, debug=debug)
    site = load_site(config)
    site = replace(site, since=since) if since else site
    plan = _plan(context, site, path=config, debug=debug)
    console.setup_logging(verbose=verbose, quiet=quiet, debug=debug)
    with console.progress("tonight", quiet=quiet or as_json) as advance:

        def tell(event: BatchEvent) -> None:
            advance(event.done, event.total, f"{event.study} {event.stage}".strip() or None)

        def moving(name: str) -> Progress:
            return lambda done, total: advance(done, total, name)

        report = run_night(plan, on_event=tell, on_progress=moving)
    if as_json:
        console.document(report.to_dict())
    else:
        lines = report.lines()
        for line in lines:
            console.note(line)
        if lines or verbose or (console.is_terminal() and not quiet):
            console.note(f"{report.summary()}; see {site.output / 'night.json'}")
    if report.exit_code:
        raise typer.Exit(int(report.exit_code))


def _plan(context: typer.Context, site: Site, *, path: Path, debug: bool) -> NightPlan:
    from agseg.errors import UsageError
    from agseg.io.pacs.days import dates_since, seconds_of
    from agseg.workflows.night import NightPlan

    if not site.archives:
        raise UsageError("the file names no archive", path=path, expected="archives: {name: {pacs: dicom://AET@host:port}}")
    now = datetime.now()
    dates = dates_since(site.since, now=now)
    keep_s = None if site.keep is None else seconds_of(site.keep)
    if keep_s is not None and keep_s < (now - datetime.strptime(dates[:8], "%Y%m%d")).total_seconds() + 86_400:
        raise UsageError("images would be removed, and fetched again the next night", path=path, value=f"keep: {site.keep}",
                         expected=f"at least a day longer than since ({site.since})")  # fmt: skip
    request = request_of(context, site, inputs=(site.incoming,), path=path, debug=debug)
    return NightPlan(_archives(site, dates), site.incoming, request, keep_s)


def _archives(site: Site, dates: str) -> dict[str, NightArchive]:
    from agseg.io.pacs.query import PacsQuery
    from agseg.workflows.night import NightArchive

    found = {}
    for name, archive in site.archives.items():
        query = PacsQuery(dates=dates, modalities=archive.modality) if archive.pull else None
        opening = partial(opened, archive.pacs, archive.credentials, archive.limits())
        found[name] = NightArchive(opening, query, archive.send, archive.find, is_source=archive.pull)
    return found
