"""A table of evaluations as people and programs read it: for a page, as Markdown, as CSV, as LaTeX."""

from __future__ import annotations

import csv
import io
import math

from agseg.io.html.evaluation import TableView
from agseg.measure.significance import PairedTest, Summary
from agseg.training.columns import LABELS, Column
from agseg.training.published import Figure, PublishedRow
from agseg.training.table import Table, TableRow


def table_views(table: Table) -> tuple[TableView, ...]:
    """Scores, then tests and published rows of other methods where there are any."""
    views = [_scores(table)]
    views += [_tests(table)] if table.comparisons else []
    views += [_others(table)] if table.others else []
    return tuple(views)


def to_markdown(table: Table) -> str:
    """The table and its tests for people."""
    scores, *more = table_views(table)
    lines = [*_as_markdown(scores), "", *scores.notes]
    for view in more:
        said = [f"{view.title}:", ""] if view.title == _IN_PRINT else []
        lines += ["", *said, *_as_markdown(view), *(["", *view.notes] if view.notes else [])]
    return "\n".join(lines) + "\n"


def _as_markdown(view: TableView) -> list[str]:
    lines = [f"| {' | '.join(view.head)} |", "|" + "---|" * len(view.head)]
    for number, row in enumerate(view.rows):
        first, *cells = row
        lines.append("| " + " | ".join([f"*{first}*" if number in view.in_print else first, *cells]) + " |")
    return lines


def _scores(table: Table) -> TableView:
    columns = table.columns
    rows: list[tuple[str, ...]] = []
    in_print = set()
    for row in table.rows:
        rows.append((row.name, row.organ, str(row.n), *(_cell(row, column) for column in columns)))
        if row.printed is not None and row.published:
            in_print.add(len(rows))
            rows.append((f"published: {_name(row.printed)}", row.organ, "", *(_printed(row.figure(c)) for c in columns)))
    notes = ["Mean ± standard deviation over cases; in brackets the 95 % bootstrap interval of the mean."]
    if any(column.pooled for column in columns):
        notes += ["Pooled: the ratio of the counts of all cases together, as the paper has it; a large organ weighs more."]
    flags = {_name(row.printed): row.printed.flag for row in table.rows if row.printed is not None and row.printed.flag}
    notes += [f"Published, {name}: {flag}" for name, flag in flags.items()]
    notes += table.notes
    short = [f"{row.name}, {row.organ}, {LABELS.get(m, m)}: {s.n} of {s.total}" for row in table.rows for m, s in _partial(row)]
    if short:
        notes += ["Values that rest on fewer cases than n (nothing to compare in the others): " + "; ".join(short) + "."]
    head = ("method", "organ", "n", *(column.label for column in columns))
    return TableView("Scores", head, tuple(rows), 2, frozenset(in_print), tuple(notes))


def _tests(table: Table) -> TableView:
    head = ("first", "second", "organ", "metric", "difference", "p", "p (Holm)", "n")
    rows = tuple(
        (
            c.first,
            c.second,
            c.organ,
            LABELS.get(c.metric, c.metric),
            _difference(c.test),
            _p(c.test.p),
            _p(c.p_holm),
            str(c.test.n),
        )
        for c in table.comparisons
    )
    note = "Paired two-sided Wilcoxon signed-rank tests per case; Holm's correction over all rows above."
    return TableView("Tests", head, tuple(rows), 4, notes=(note,))


_IN_PRINT = "In print on the same data, by other methods, on other splits where one is named; not tested against"


def _others(table: Table) -> TableView:
    """Published rows of other methods on the same data, which nothing here was tested against."""
    columns = [Column(metric) for metric in LABELS if any(metric in f for row in table.others for f in row.scores.values())]
    rows = tuple(
        (_name(row), *(_printed(figures.get(c.metric)) for c in columns))
        for row in table.others
        for figures in row.scores.values()
    )
    return TableView(_IN_PRINT, ("method", *(c.label for c in columns)), rows, 1)


def _name(row: PublishedRow) -> str:
    """A published row, as people say it."""
    return ", ".join(part for part in (row.method, row.setting, row.source) if part)


def to_csv(table: Table) -> str:
    """One line per row and column; a pooled ratio has no standard deviation and no interval."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    header = ["protocol", "model", "organ", "metric", "n", "cases", "mean", "sd", "low95", "high95"]
    out.writerow([*header, "published_mean", "published_sd", "published_source"])
    for row in table.rows:
        for column in table.columns:
            s = row.summaries[column.metric]
            numbers = [s.mean, s.sd, s.interval.low, s.interval.high]
            if column.pooled:
                numbers = [row.pooled[column.metric], math.nan, math.nan, math.nan]
            printed = row.figure(column)
            beside = [None, None] if printed is None else [printed.mean, printed.sd]
            plain = ["" if v is None or math.isnan(v) else f"{v:.6g}" for v in (*numbers, *beside)]
            name = f"{column.metric}_pooled" if column.pooled else column.metric
            source = row.printed.source if row.printed is not None and printed is not None else ""
            out.writerow([row.protocol, row.model, row.organ, name, s.n, s.total, *plain, source])
    return text.getvalue()


def to_latex(table: Table) -> str:
    """A ``tabular`` in the papers' shape, published rows in italics."""
    columns = table.columns
    lines = [r"\begin{tabular}{ll" + "r" * (len(columns) + 1) + "}", r"\hline"]
    lines.append(" & ".join(["Method", "Organ", "$n$", *(column.label for column in columns)]) + r" \\ \hline")
    for row in table.rows:
        cells = [_latex(row.name), _latex(row.organ), str(row.n), *(_plain(row, column) for column in columns)]
        lines.append(" & ".join(cells) + r" \\")
        if row.published:
            printed = [rf"\textit{{{_printed(row.figure(column), sign=_LATEX_SIGN)}}}" for column in columns]
            lines.append(" & ".join([r"\textit{published}", _latex(row.organ), "", *printed]) + r" \\")
    return "\n".join([*lines, r"\hline", r"\end{tabular}"]) + "\n"


def _partial(row: TableRow) -> list[tuple[str, Summary]]:
    return [(metric, s) for metric, s in row.summaries.items() if s.n < s.total]


def _cell(row: TableRow, column: Column) -> str:
    if column.pooled:
        value = row.pooled[column.metric]
        return "–" if math.isnan(value) else f"{value:.4f}"
    s = row.summaries[column.metric]
    if s.n == 0:
        return "–"
    if s.n == 1:
        return f"{s.mean:.3f}"
    return f"{s.mean:.3f} ± {s.sd:.3f} [{s.interval.low:.3f}, {s.interval.high:.3f}]"


def _plain(row: TableRow, column: Column) -> str:
    if column.pooled:
        value = row.pooled[column.metric]
        return "--" if math.isnan(value) else f"${value:.4f}$"
    s = row.summaries[column.metric]
    return "--" if s.n == 0 else f"${s.mean:.3f}$" if s.n == 1 else rf"${s.mean:.3f} \pm {s.sd:.3f}$"


_LATEX_SIGN = r"$\pm$"


def _printed(figure: Figure | None, *, sign: str = "±") -> str:
    """As many digits as the papers print: three, or four where the fourth is not zero."""
    if figure is None:
        return "–"
    digits = 3 if figure.mean == round(figure.mean, 3) else 4
    return f"{figure.mean:.{digits}f}" + ("" if figure.sd is None else f" {sign} {figure.sd:.{digits}f}")


def _difference(test: PairedTest) -> str:
    if math.isnan(test.difference):
        return "–"
    interval = "" if math.isnan(test.interval.low) else f" [{test.interval.low:+.3f}, {test.interval.high:+.3f}]"
    return f"{test.difference:+.3f}{interval}"


def _p(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2g}"


def _latex(text: str) -> str:
    return text.replace("_", r"\_").replace("&", r"\&").replace("%", r"\%")
