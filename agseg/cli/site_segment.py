"""The ``segment`` section of a site's file, read by ``agseg segment``'s own options: same names, same checks, same defaults."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from agseg.cli.site_config import told_for

if TYPE_CHECKING:
    from agseg.workflows.segment import SegmentRequest
    from agseg.workflows.site import Site

DECIDED = frozenset(
    {
        "input",
        "i",
        "output",
        "o",
        "json",
        "quiet",
        "q",
        "verbose",
        "v",
        "debug",
        "dry-run",
        "config",
        "num-parts",
        "part-id",
        "help",
    }
)  # fmt: skip
"""Options of ``segment`` that a site's file, or the command that reads it, decides itself."""


def request_of(context: typer.Context, site: Site, *, inputs: tuple[Path, ...], path: Path, debug: bool) -> SegmentRequest:
    """What the section asks for, with the output of the file.

    Raises
    ------
    UsageError
        For what ``agseg segment`` would refuse, with file and line.
    """
    from agseg.errors import UsageError
    from agseg.workflows.segment import check_request

    root: Any = context.find_root()
    told = told_for(context, root.command.commands["segment"], site.segment, refused=DECIDED)
    settings = {given.key: given.value for given in told.values}
    try:
        request = request_from(context, settings, inputs=inputs, output=site.output, debug=debug)
        check_request(request)
    except UsageError as error:
        told.explain(error)
        error.path = error.path or path
        raise
    return request


def request_from(
    context: typer.Context, settings: dict[str, Any], *, inputs: tuple[Path, ...], output: Path, debug: bool
) -> SegmentRequest:
    """The request that ``agseg segment`` makes of these options, by long name.

    Raises
    ------
    UsageError
        For what it would refuse.
    """
    from agseg.errors import UsageError
    from agseg.workflows.site import option_words

    root: Any = context.find_root()
    command = root.command.commands["segment"]
    known = {option.removeprefix("--") for parameter in command.params for option in parameter.opts}
    if unknown := [key for key in settings if key.replace("_", "-") not in known]:
        raise UsageError(f"agseg segment has no option {unknown[0]!r}", hint="agseg segment --help")
    collected: list[SegmentRequest] = []
    words = [*option_words(settings, refused=DECIDED), *(["--debug"] if debug else [])]
    words += ["--output", str(output), "--", *map(str, inputs)]
    try:
        with command.make_context("segment", words, parent=root, obj=collected) as own:
            command.invoke(own)
    except typer.BadParameter as error:
        raise UsageError(f"segment: {error.format_message()}") from error
    return collected[0]


def handed_over(context: typer.Context, request: SegmentRequest) -> bool:
    """Whether ``segment`` was called only to read its options: then the request is what is wanted, and nothing is run."""
    if not isinstance(context.obj, list):
        return False
    context.obj.append(request)
    return True
