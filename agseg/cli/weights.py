"""``agseg weights``: what trained weights there are, and getting them here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agseg.cli import console, options
from agseg.cli.help_pages import Shelf
from agseg.cli.options import Debug, Json, Quiet
from agseg.cli.summaries import Summaries
from agseg.errors import AgsegError, ExitCode, UsageError

if TYPE_CHECKING:
    from agseg.weights.cache import WeightsCache
    from agseg.weights.manifest import Manifest
    from agseg.workflows.weights import Imported

MEGABYTE = 1e6
PUBLISHED = "nnunet"
"""What stands for the architecture of a model that is not here yet: its own plans say more."""

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID...", help="Entries of the manifest.")]


def register(app: typer.Typer) -> None:
    """Add the group to the app."""
    group = Shelf(
        name="weights",
        cls=Summaries,
        help="List, fetch, check, import and export trained weights.",
        no_args_is_help=True,
    )
    group.command("list")(list_)
    group.command("show")(show)
    group.command("fetch")(fetch)
    group.command("pin")(pin)
    group.command("verify")(verify)
    group.command("import")(import_)
    group.command("export")(export)
    app.add_typer(group)


def list_(manifest: options.Manifest = None, as_json: Json = False, quiet: Quiet = False, debug: Debug = False) -> None:
    """Every entry of the manifest, those not fetched included."""
    from agseg.workflows.weights import summaries

    console.setup_logging(quiet=quiet, debug=debug)
    rows = summaries(*_opened(manifest, offline=True))
    if as_json:
        console.document(rows)
    else:
        _print_list(rows)


def show(
    weights_id: Annotated[str, typer.Argument(metavar="ID", help="An entry of the manifest.")],
    manifest: options.Manifest = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """One entry: files and digests, input, organs, scores, licence, attribution, intended use."""
    from agseg.workflows.weights import describe, describe_published

    console.setup_logging(quiet=quiet, debug=debug)
    loaded, cache = _opened(manifest, offline=True)
    if weights_id in loaded.published and weights_id not in loaded.by_id:
        model = describe_published(loaded.published[weights_id], cache)
        if as_json:
            console.document(model)
        else:
            console.print_rows(weights_id, ("", ""), [(key, str(value)) for key, value in model.items() if value])
        return
    content = describe(loaded.entry(weights_id), cache)
    if as_json:
        console.document(content)
    else:
        _print_entry(content)


def fetch(
    ids: Ids = None,
    everything: Annotated[bool, typer.Option("--all", help="Every entry of the manifest.")] = False,
    manifest: options.Manifest = None,
    offline: options.Offline = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Get what is missing, check it and keep it; interrupted downloads are taken up again."""
    from agseg.workflows.weights import fetch_weights

    console.setup_logging(quiet=quiet, debug=debug)
    loaded, cache = _opened(manifest, offline=offline)
    with console.progress("fetching", quiet=quiet or as_json) as advance:
        cache.progress = advance
        done = fetch_weights(loaded, cache, ids or (), everything=everything)
    if as_json:
        console.document([{"id": weights_id, "available": True} for weights_id in done])
    elif not quiet:
        console.note(f"verified: {', '.join(done)}")


def pin(
    weights_id: Annotated[str, typer.Argument(metavar="ID", help="An entry, or a published model, that was fetched.")],
    manifest: options.Manifest = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Print what was found at the first fetch, as a manifest has it: with it, other machines accept no other bytes."""
    from agseg.workflows.weights import pin_weights

    console.setup_logging(quiet=quiet, debug=debug)
    content = pin_weights(*_opened(manifest, offline=True), weights_id)
    if as_json:
        console.document(content)
    else:
        import yaml

        for line in yaml.safe_dump(content, sort_keys=False).splitlines():
            console.print_line(line)


def verify(
    weights_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="One entry; default: all that are here.")] = None,
    manifest: options.Manifest = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Read every file that is here and compare its digest. Exit 7 if one is corrupt, or missing from the entry named."""
    from agseg.weights.cache import FileState
    from agseg.workflows.weights import verify_weights

    console.setup_logging(quiet=quiet, debug=debug)
    checked = verify_weights(*_opened(manifest, offline=True), weights_id)
    bad = {FileState.CORRUPT} if weights_id is None else {FileState.CORRUPT, FileState.MISSING}
    if as_json:
        console.document([file.to_dict() for file in checked])
    elif not quiet:
        console.print_rows("Weights files", ("weights", "file", "state"), [(c.id, c.filename, str(c.state)) for c in checked])
    raise typer.Exit(ExitCode.WEIGHTS if any(file.state in bad for file in checked) else ExitCode.OK)


def import_(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Weights files, bundles of `export`, or one nnU-Net v2 model: folder or ZIP."),
    ],
    as_id: Annotated[
        str | None, typer.Option("--as", metavar="ID", help="Only this entry may be meant; a model's new name.")
    ] = None,
    orientation: Annotated[
        str | None,
        typer.Option(
            metavar="CODES",
            help="Model: what its training scans were turned to (RAS, LPS, ...), or stored: not turned.",
        ),
    ] = None,
    modality: Annotated[
        str | None,
        typer.Option(metavar="CT|MR", help="Model: of its training scans; default: by its normalisation and channel name."),
    ] = None,
    folds: Annotated[str, typer.Option(metavar="0,1,...", help="Model: these folds; default: all that are there.")] = "",
    licence: Annotated[str | None, typer.Option(metavar="TEXT", help="Model: its licence, for every record.")] = None,
    organ_names: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Model: a YAML mapping from its names of organs to agseg's.")
    ] = None,
    manifest: options.Manifest = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Bring weights here without a network: files are known by their digest, a model of nnU-Net becomes a new entry."""
    from agseg.workflows.import_model import ImportRequest, import_model, is_model
    from agseg.workflows.weights import Imported, import_weights

    console.setup_logging(quiet=quiet, debug=debug)
    refused: AgsegError | None = None
    if any(is_model(path) for path in paths):
        if len(paths) != 1:
            raise UsageError("one model at a time", value=len(paths), hint="A folder with a parts.yaml makes several one.")
        if as_id is None:
            raise UsageError("a model becomes a new entry, which needs a name", path=paths[0], hint="Name it: --as ID")
        request = ImportRequest(
            source=paths[0],
            as_id=as_id,
            home=options.home(),
            orientation=orientation,
            modality=modality,
            folds=tuple(part.strip() for part in folds.split(",") if part.strip()),
            licence=licence,
            organ_names=organ_names,
        )
        entry = import_model(request)
        done = [Imported(entry.id, file.filename, 0) for file in entry.files]
    else:
        loaded, cache = _opened(manifest, offline=True)
        done, refused = _each(paths, lambda path: import_weights(loaded, cache, path, as_id=as_id))
    if as_json:
        console.document([file.to_dict() for file in done])
    elif not quiet:
        for file in done:
            rest = "complete" if file.missing == 0 else f"{file.missing} more to come"
            console.note(f"{file.filename} imported into {file.id} ({rest})")
    if refused is not None:
        raise refused


def _each(paths: list[Path], take: Callable[[Path], Iterable[Imported]]) -> tuple[list[Imported], AgsegError | None]:
    """What became of every path: one that cannot be imported (a licence beside the weights) keeps no other from it."""
    done: list[Imported] = []
    refused: list[AgsegError] = []
    for path in paths:
        try:
            done.extend(take(path))
        except AgsegError as error:
            refused.append(error)
    for earlier in refused[:-1]:
        console.fail(earlier)
    return done, refused[-1] if refused else None


def export(
    ids: Ids = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="BUNDLE", help="The tar file to write.")] = Path(
        "bundle.tar"
    ),
    manifest: options.Manifest = None,
    offline: options.Offline = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write weights into one file, for a hospital without a network: there, `agseg weights import` it."""
    from agseg.workflows.weights import export_weights

    console.setup_logging(quiet=quiet, debug=debug)
    loaded, cache = _opened(manifest, offline=offline)
    with console.progress("fetching", quiet=quiet) as advance:
        cache.progress = advance
        names = export_weights(loaded, cache, ids or (), output)
    if not quiet:
        console.note(f"{output}: {', '.join(names)}")


def _opened(manifest: Path | None, *, offline: bool) -> tuple[Manifest, WeightsCache]:
    from agseg.weights.cache import WeightsCache
    from agseg.weights.manifest import Manifest

    loaded = Manifest.load(manifest, home=options.home())
    return loaded, WeightsCache(options.home(), offline=offline, allowed_hosts=loaded.allowed_hosts)


def _print_list(rows: list[dict[str, Any]]) -> None:
    def organs(names: list[str]) -> str:
        return ", ".join(names) if len(names) <= 5 else f"{', '.join(names[:3])} and {len(names) - 3} more"

    columns = ("weights", "modality", "organs", "MB", "here", "default for", "licence")
    cells = [
        (
            row["id"],
            row["modality"],
            organs(row["organs"]),
            "?" if row["size_bytes"] is None else f"{row['size_bytes'] / MEGABYTE:.1f}",
            "yes" if row["available"] else "no",
            organs(row["default_for"]),
            row["licence"],
        )
        for row in rows
        if row["architecture"] != PUBLISHED
    ]
    console.print_rows("Weights", columns, cells)
    others = [(row["id"], row["modality"], row["licence"]) for row in rows if row["architecture"] == PUBLISHED]
    if others:
        console.print_rows("Published models: agseg weights fetch NAME", ("name", "modality", "licence"), others)


def _print_entry(content: dict[str, Any]) -> None:
    files = [f"{file['filename']} ({'here' if file['available'] else 'not here'})" for file in content["files"]]
    digests = [file["sha256"] or "known after the first fetch" for file in content["files"]]
    names = list(content["labels"].values()) or content["classes"]
    told = {
        "architecture": f"{content['architecture']} {content['config'] or ''}",
        "files": "\n".join(files),
        "sha256": "\n".join(digests),
        "in reports": content["sha256"] or "known after the first fetch",
        "knows": ", ".join(names),
        "default for": ", ".join(content["default_for"]) or "nothing: name it with --weights",
        "input": ", ".join(f"{key} {value}" for key, value in content["input"].items() if value is not None),
        "scores": "\n".join(_score_lines(content["scores"])) or "none measured",
        "learned from": _learned(content["learned"]),
        "licence": content["licence"],
        "attribution": content["attribution"],
        "citation": content["citation"],
        "intended use": content["intended_use"],
        "caution": content["caution"],
    }
    console.print_rows(content["id"], ("", ""), [(key, str(value)) for key, value in told.items()])


def _learned(stages: Sequence[Mapping[str, Any]] | None) -> str:
    if stages is None:
        return "not recorded case by case"
    return "; ".join(f"{one['images'] or 'unrecorded'} images of {one['dataset']}" for one in stages)


def _score_lines(scores: Mapping[str, Any]) -> Iterator[str]:
    """A line for each score; where it has parts (per scan, per organ), indented below it, the innermost on one line."""
    for name, value in scores.items():
        if not isinstance(value, Mapping):
            yield f"{name}: {value}"
        elif any(isinstance(part, Mapping) for part in value.values()):
            yield f"{name}:"
            yield from (f"  {line}" for line in _score_lines(value))
        else:
            yield f"{name}: {', '.join(f'{key} {part}' for key, part in value.items())}"
