"""report.html of an evaluation: the worst cases first, with pictures, then the tables; it asks nothing of any network.

It has the look, the script and the content security policy of a run's page (:mod:`agseg.io.html.page`); whatever comes from
outside (cases, organs, methods) is escaped by Jinja2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from agseg.io.atomic import write_text
from agseg.io.html.render import render
from agseg.io.html.thumbnail import Picture

REPORT_HTML = "report.html"

CASES_SHOWN = 2000
"""Rows of the table of cases, the worst; more would not open in a browser, and per_case.csv has them all."""


class Kind(StrEnum):
    """What an evaluation is of: organs of scans (three planes each) or of pictures, or frames that were classified."""

    SCANS = "scans"
    PICTURES = "pictures"
    FRAMES = "frames"


@dataclass(frozen=True)
class Outcome:
    """What became of an organ of a case: a word of the filter, and how people say it."""

    key: str
    said: str
    is_bad: bool = False


@dataclass(frozen=True)
class Number:
    """A number in the table of cases: its text, and what it is sorted by (empty: unknown)."""

    text: str
    value: str


@dataclass(frozen=True)
class CaseRow:
    """An organ of a case; ``anchor`` is that of its picture, empty where it has none."""

    case: str
    organ: str
    outcome: Outcome
    numbers: tuple[Number, ...]
    anchor: str = ""


@dataclass(frozen=True)
class WorstView:
    """An organ of a case with its picture."""

    anchor: str
    case: str
    organ: str
    outcome: Outcome
    said: str
    picture: Picture | None


@dataclass(frozen=True)
class TableView:
    """A table of texts: the first columns are words, from ``numbers_from`` on they are numbers; rows in print are set apart."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers_from: int
    in_print: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvaluationView:
    """What the page shows.

    Parameters
    ----------
    title
        The method and the data.
    facts
        Name and value of what is known about the evaluation.
    counts
        How many cases had which outcome, in words.
    not_scored
        Case and reason.
    worst
        The worst organs of cases, with pictures.
    metrics
        Columns of the table of cases.
    cases
        Its rows, the worst first.
    outcomes
        Those that occur, for the filter.
    tables
        The tables of ``table.md``.
    kind
        What was evaluated.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    counts: tuple[tuple[str, int], ...]
    not_scored: tuple[tuple[str, str], ...]
    worst: tuple[WorstView, ...]
    metrics: tuple[str, ...]
    cases: tuple[CaseRow, ...]
    outcomes: tuple[Outcome, ...]
    tables: tuple[TableView, ...]
    version: str
    kind: Kind = Kind.SCANS


def write_evaluation_page(folder: Path, shown: EvaluationView) -> None:
    """Write the page into an evaluation's folder.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    write_text(folder / REPORT_HTML, render_evaluation(shown))


def render_evaluation(shown: EvaluationView) -> str:
    """The page as text."""
    cases: Sequence[CaseRow] = shown.cases[:CASES_SHOWN]
    return render("evaluation.html.j2", shown=shown, cases=cases, left_out=len(shown.cases) - len(cases))
