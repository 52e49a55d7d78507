"""``agseg recipe``: which recipes there are, and what one says."""

from __future__ import annotations

from typing import Annotated

import typer

from agseg.cli import console, options
from agseg.cli.summaries import Summaries
from agseg.cli.training_options import RECIPE, Settings


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(cls=Summaries, no_args_is_help=True, help="Training recipes: list them, show one.")
    app.add_typer(group, name="recipe")

    @group.command("list")
    def list_recipes(json: options.Json = False) -> None:
        """The recipes of the papers' experiments, and those of the packaged networks."""
        from agseg.training.recipe import find_recipe, packaged_names, recipe_names

        known = [find_recipe(name) for name in (*recipe_names(), *packaged_names())]
        if json:
            console.document([{"name": r.name, "dataset": r.dataset, "title": r.title, "source": r.source} for r in known])
            return
        from rich.table import Table

        table = Table("name", "data set", "title")
        for r in known:
            table.add_row(r.name, r.dataset, r.title)
        console.print_table(table)

    @group.command("show")
    def show(
        name: Annotated[str, typer.Argument(metavar="RECIPE", help=RECIPE)],
        settings: Settings = None,
        json: options.Json = False,
    ) -> None:
        """Every key of a recipe with its value, defaults written out: a file of your own to start from."""
        from dataclasses import asdict

        from agseg.training.overrides import overridden
        from agseg.training.recipe import find_recipe, plain, to_yaml

        found = overridden(find_recipe(name), settings or ())
        if json:
            console.document(plain(asdict(found)))
        else:
            console.stdout().print(to_yaml(found), markup=False, highlight=False, soft_wrap=True, end="")
