"""``agseg dataset``: bring downloads into the internal layout, and check them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agseg.cli import console, options
from agseg.cli.summaries import Summaries
from agseg.errors import ExitCode


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(cls=Summaries, no_args_is_help=True, help="Bring training data into the internal layout, and check it.")
    app.add_typer(group, name="dataset")

    @group.command("list")
    def list_datasets(json: options.Json = False) -> None:
        """The data sets of the papers: where they come from, their licence, how to get them."""
        from agseg.training.datasets import dataset, dataset_names

        known = [dataset(name) for name in dataset_names()]
        if json:
            console.document(
                [{"name": d.name, "title": d.title, "source": d.source, "doi": d.doi, "licence": d.licence} for d in known]
            )
            return
        from rich.table import Table

        table = Table("name", "data set", "cases", "licence", "source")
        for d in known:
            table.add_row(d.name, d.title, str(d.cases or "?"), d.licence, d.source)
        console.print_table(table)

    @group.command("prepare")
    def prepare(
        name: Annotated[str, typer.Argument(help="A data set, see `agseg dataset list`.")],
        download: Annotated[Path, typer.Option("--from", metavar="DOWNLOAD", help="The folder as its provider ships it.")],
        output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="A new folder.")],
        json: options.Json = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Turn a provider's layout into nnU-Net's (imagesTr, labelsTr, dataset.json), with splits and content hashes."""
        from agseg.workflows.dataset import prepare_dataset

        console.setup_logging(quiet=quiet, debug=debug)
        with console.progress(f"preparing {name}", quiet=quiet or json) as advance:
            report = prepare_dataset(
                name, download=download, output=output, progress=lambda done, case: advance(done, None, case)
            )
        if json:
            console.document(report.to_dict())
        elif not quiet:
            expected = "" if report.expected in (None, len(report.cases)) else f" (a complete copy has {report.expected})"
            console.note(f"n = {len(report.cases)} cases{expected} in {output}")
            for case, reason in report.excluded.items():
                console.note(f"  left out {case}: {reason}")

    @group.command("check")
    def check(
        folder: Annotated[Path, typer.Argument(help="A prepared cohort, or one made for nnU-Net.")],
        json: options.Json = False,
        debug: options.Debug = False,
    ) -> None:
        """Read every case and say what is wrong with it. Exits 3 if anything is."""
        from agseg.workflows.check_dataset import check_dataset

        console.setup_logging(debug=debug)
        with console.progress("checking", quiet=json) as advance:
            report = check_dataset(folder, on_case=advance)
        if json:
            console.document(report.to_dict())
        else:
            console.note(f"n = {report.cases} cases, labels: {', '.join(report.labels)}")
            for line in (*report.notes, *report.problems):
                console.note(f"  {line}")
            console.note(f"{len(report.problems)} problems" if report.problems else "no problem found")
        if report.problems:
            raise typer.Exit(ExitCode.SOME_NOT_DONE)
