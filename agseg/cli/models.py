"""``agseg models``: every network, its size and cost, beside what the papers print."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from agseg.cli import console, options

if TYPE_CHECKING:
    from agseg.workflows.models import NetworkRow


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

    # Narrow enough for 80 columns; the sources are in --json.
    table = Table(box=None, padding=(0, 2, 0, 0), caption="truncated: the paper's table cuts digits off instead of rounding")
    for title in ("network", "parameters", "in print", "agreement", "GMAC", "input"):
        table.add_column(title, justify="right" if title in ("parameters", "in print", "GMAC") else "left", no_wrap=True)
    for row in rows:
        table.add_row(
            row.name,
            f"{row.parameters:,}",
            "" if row.published_m is None else f"{_millions(row.published_m)} M",
            "" if row.published_m is None else row.agreement,
            f"{row.gmac:.2f}",
            "x".join(map(str, row.input_shape[2:])),
        )
    console.print_table(table)


def _millions(published_m: float) -> str:
    """As many decimals as are printed, two at least."""
    return f"{published_m:.4f}" if round(published_m, 2) != published_m else f"{published_m:.2f}"
