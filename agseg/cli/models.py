"""``agseg models``: every network, its size and cost, beside what the papers print."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from agseg.cli import console, options

if TYPE_CHECKING:
    from agseg.workflows.models import NetworkRow

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add ``models`` to the command line."""

    @app.command()
    def models(json: options.Json = False) -> None:
        """List every network: our parameter count, the published one, and the cost of one forward pass."""
        from agseg.workflows.models import list_networks

        rows = list_networks()
        if json:
            console.document([row.to_dict() for row in rows])
        else:
            _print(rows)


def _print(rows: tuple[NetworkRow, ...]) -> None:
    from rich.table import Table

    table = Table()
    for title in ("network", "dims", "parameters", "published M", "agreement", "GMAC", "input", "source"):
        table.add_column(title, justify="right" if title in ("parameters", "published M", "GMAC") else "left")
    for row in rows:
        table.add_row(
            row.name,
            f"{row.dims}D",
            f"{row.parameters:,}",
            "" if row.published_m is None else f"{row.published_m:g}",
            row.agreement,
            f"{row.gmac:.2f}",
            "x".join(map(str, row.input_shape)),
            row.source,
        )
    console.print_table(table)
