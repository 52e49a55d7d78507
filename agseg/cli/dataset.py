"""``agseg dataset``: bring downloads into the internal layout, and check them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agseg.cli import console, options
from agseg.cli.help_pages import Shelf
from agseg.cli.summaries import Summaries
from agseg.errors import ExitCode, UsageError


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = Shelf(cls=Summaries, no_args_is_help=True, help="Bring training data into the internal layout, and check it.")
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

    @group.command("new")
    def new(
        folder: Annotated[Path, typer.Argument(metavar="DIR", help="A raw folder of nnU-Net's: imagesTr and labelsTr.")],
        name: Annotated[
            str | None, typer.Option("--name", help="Of the data set; default: its file's or its folder's.")
        ] = None,
        channel: Annotated[
            list[str] | None,
            typer.Option(
                "--channel", metavar="NAME", help="What a channel shows, once per channel: CT (HU), or T1, PET, ..., RGB."
            ),
        ] = None,
        label: Annotated[
            list[str] | None,
            typer.Option("--label", metavar="VALUE=NAME", help="What a value of the label images means; repeatable."),
        ] = None,
        licence: Annotated[str | None, typer.Option("--licence", help="Of the images: what they may be used for.")] = None,
        reference: Annotated[str | None, typer.Option("--reference", help="How the images are cited.")] = None,
        json: options.Json = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Describe a data set of your own: write or complete its dataset.json. What it says already is kept."""
        from agseg.workflows.dataset_new import NewDataset, new_dataset

        console.setup_logging(quiet=quiet, debug=debug)
        labels = None if label is None else _numbered(label)
        found = new_dataset(folder, NewDataset(name, tuple(channel or ()), labels, licence, reference))
        names = found.meaning.label_set.names
        if json:
            facts = {"name": found.name, "cases": found.cases, "channels": list(found.channels), "labels": list(names)}
            console.document({**facts, "licence": found.licence or None})
        elif not quiet:
            console.note(f"{found.name}: {found.cases} cases; {', '.join(found.channels)}; {', '.join(names)}")
            console.note(f"Next: agseg dataset check {folder}, then agseg dataset split {folder} --folds 5")

    @group.command("split")
    def split(
        folder: Annotated[Path, typer.Argument(metavar="DIR", help="A described data set.")],
        folds: Annotated[int, typer.Option("--folds", min=2, help="Every case is tested in one of so many folds.")] = 5,
        test: Annotated[
            float, typer.Option("--test", metavar="SHARE", min=0, max=0.9, help="Hold so many out of every fold, for one test.")
        ] = 0.0,
        validation: Annotated[
            float,
            typer.Option("--validation", metavar="SHARE", min=0, max=0.9, help="Of a fold, to choose its best checkpoint."),
        ] = 0.1,
        seed: Annotated[int, typer.Option("--seed", help="Another order of the cases.")] = 0,
        patients: Annotated[
            Path | None,
            typer.Option("--patients", metavar="CSV", help="Columns case, patient: a patient's cases stay together."),
        ] = None,
        overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the splits that are there.")] = False,
        json: options.Json = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Cut a data set of your own into folds with every label as common as in the whole; nnU-Net's file is written too."""
        from agseg.training.folds import FoldPlan
        from agseg.workflows.dataset_new import split_dataset

        console.setup_logging(quiet=quiet, debug=debug)
        plan = FoldPlan(folds, test, validation, seed)
        made = split_dataset(folder, plan, patients=patients, overwrite=overwrite)
        sizes = [{"train": len(s.train), "validation": len(s.validation), "test": len(s.test)} for s in made]
        if json:
            console.document({"split": plan.name, "folds": sizes})
        elif not quiet:
            for number, sides in enumerate(sizes):
                told = ", ".join(f"{count} {side}" for side, count in sides.items())
                console.note(f"{plan.name}, fold {number}: {told}")

    @group.command("check")
    def check(
        folder: Annotated[Path, typer.Argument(help="A prepared cohort, or one made for nnU-Net.")],
        recipe: Annotated[
            str | None, typer.Option("--recipe", help="Also whether this recipe's network could learn from it.")
        ] = None,
        json: options.Json = False,
        debug: options.Debug = False,
    ) -> None:
        """Read every case and say what is wrong with it. Exits 3 if anything is."""
        from agseg.workflows.check_dataset import check_dataset

        console.setup_logging(debug=debug)
        with console.progress("checking", quiet=json) as advance:
            report = check_dataset(folder, recipe=recipe, on_case=advance)
        if json:
            console.document(report.to_dict())
        else:
            console.note(f"n = {report.cases} cases, labels: {', '.join(report.labels)}")
            for line in (*report.notes, *report.problems):
                console.note(f"  {line}")
            console.note(f"{len(report.problems)} problems" if report.problems else "no problem found")
        if report.problems:
            raise typer.Exit(ExitCode.SOME_NOT_DONE)


def _numbered(labels: list[str]) -> dict[int, str]:
    """``1=liver`` as number and name."""
    found: dict[int, str] = {}
    for text in labels:
        value, equals, name = text.partition("=")
        if not equals or not value.strip().isdigit() or not name.strip() or int(value) in found:
            raise UsageError(
                "not a label", value=f"--label {text}", expected="VALUE=NAME, each value once, e.g. --label 1=liver"
            )
        found[int(value)] = name.strip()
    return found
