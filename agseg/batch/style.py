"""How the tables of a folder are written."""

from __future__ import annotations

from dataclasses import dataclass

from agseg.io.tables import TableStyle


@dataclass(frozen=True)
class Style:
    """How tables and page are written.

    Parameters
    ----------
    identified
        They may name patients.
    table
        For whom volumes.csv is.
    """

    identified: bool = False
    table: TableStyle = TableStyle.PLAIN


DEFAULT_STYLE = Style()
