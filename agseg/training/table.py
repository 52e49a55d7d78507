"""The table of a paper from evaluations: mean ± sd, intervals, paired tests, the published row beside ours."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from agseg.errors import RecipeError
from agseg.measure.significance import PairedTest, Summary, holm, paired_wilcoxon, summarise
from agseg.training.evaluation import Evaluation
from agseg.training.published import Figure, published_row

__all__ = ["METRICS", "Comparison", "Table", "TableRow", "make_table", "to_csv", "to_latex", "to_markdown"]

METRICS = {"dice": "DSC", "precision": "Precision", "recall": "Recall", "s2s_mm": "S2S (mm)"}
"""Columns of the papers' tables, by our name."""


@dataclass(frozen=True)
class TableRow:
    """One method and organ: a summary per metric, the counts-pooled Dice, and the published figures."""

    protocol: str
    model: str
    organ: str
    n: int
    summaries: dict[str, Summary]
    published: dict[str, Figure]
    source: str

    @property
    def name(self) -> str:
        """For the first column."""
        return " ".join(part for part in (self.protocol.upper(), self.model) if part) or "prediction"


@dataclass(frozen=True)
class Comparison:
    """A paired Wilcoxon test between two rows; ``p_holm`` is corrected over the whole table."""

    first: str
    second: str
    organ: str
    metric: str
    test: PairedTest
    p_holm: float


@dataclass(frozen=True)
class Table:
    """Rows in the order given, and the comparisons between rows that differ in protocol or in model, not in both."""

    rows: tuple[TableRow, ...]
    comparisons: tuple[Comparison, ...]


def make_table(evaluations: Sequence[Evaluation], *, metrics: Sequence[str] = tuple(METRICS)) -> Table:
    """Summaries and tests of one or more evaluations.

    Raises
    ------
    RecipeError
        If two evaluations of one data set were not made on the same cases: nothing is compared on different test sets.
    """
    rows = tuple(_row(evaluation, organ, metrics) for evaluation in evaluations for organ in evaluation.organs)
    raw: list[tuple[str, str, str, str, PairedTest]] = []
    for first, second in itertools.combinations(evaluations, 2):
        if first.protocol != second.protocol and first.model != second.model:
            continue  # two things differ at once: such a test answers no question, and costs every other one power
        for organ in (o for o in first.organs if o in second.organs):
            for metric in metrics:
                one, other = first.values(organ, metric), second.values(organ, metric)
                if one.keys() != other.keys():
                    raise RecipeError(
                        "these evaluations were not made on the same cases",
                        value=second.name,
                        expected=f"the cases of {first.name}",
                    )
                test = paired_wilcoxon([one[case] for case in one], [other[case] for case in one])
                raw.append((first.name, second.name, organ, metric, test))
    corrected = holm([test.p for *_, test in raw])
    return Table(rows, tuple(Comparison(*facts, p_holm=p) for facts, p in zip(raw, corrected, strict=True)))


def _row(evaluation: Evaluation, organ: str, metrics: Sequence[str]) -> TableRow:
    values = {metric: evaluation.values(organ, metric) for metric in metrics}
    printed = published_row(evaluation.published)
    return TableRow(
        protocol=evaluation.protocol,
        model=evaluation.model,
        organ=organ,
        n=len(next(iter(values.values()))),
        summaries={metric: summarise(list(found.values())) for metric, found in values.items()},
        published={} if printed is None else printed.scores.get(organ, {}),
        source="" if printed is None else printed.source,
    )


def to_markdown(table: Table) -> str:
    """The table and its tests for people."""
    metrics = list(table.rows[0].summaries) if table.rows else []
    lines = [
        "| method | organ | n | " + " | ".join(METRICS.get(m, m) for m in metrics) + " |",
        "|---|---|---|" + "---|" * len(metrics),
    ]
    for row in table.rows:
        lines.append(f"| {row.name} | {row.organ} | {row.n} | " + " | ".join(_cell(row.summaries[m]) for m in metrics) + " |")
        if row.published:
            printed = " | ".join(_printed(row.published.get(m)) for m in metrics)
            lines.append(f"| *published: {row.source}* | {row.organ} | | {printed} |")
    lines += ["", "Mean ± standard deviation over cases; in brackets the 95 % bootstrap interval of the mean."]
    short = [
        f"{row.name}, {row.organ}, {METRICS.get(m, m)}: {s.n} of {s.total}" for row in table.rows for m, s in _partial(row)
    ]
    if short:
        lines += ["Values that rest on fewer cases than n (nothing to compare in the others): " + "; ".join(short) + "."]
    if table.comparisons:
        lines += [
            "",
            "| first | second | organ | metric | difference | p | p (Holm) | n |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {c.first} | {c.second} | {c.organ} | {METRICS.get(c.metric, c.metric)} | {_difference(c.test)} | "
            f"{_p(c.test.p)} | {_p(c.p_holm)} | {c.test.n} |"
            for c in table.comparisons
        ]
        lines += ["", "Paired two-sided Wilcoxon signed-rank tests per case; Holm's correction over all rows above."]
    return "\n".join(lines) + "\n"


def to_csv(table: Table) -> str:
    """One line per row and metric."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    header = ["protocol", "model", "organ", "metric", "n", "cases", "mean", "sd", "low95", "high95"]
    out.writerow([*header, "published_mean", "published_sd", "published_source"])
    for row in table.rows:
        for metric, s in row.summaries.items():
            printed = row.published.get(metric)
            numbers = [s.mean, s.sd, s.interval.low, s.interval.high]
            beside = [None, None] if printed is None else [printed.mean, printed.sd]
            plain = ["" if v is None or math.isnan(v) else f"{v:.6g}" for v in (*numbers, *beside)]
            out.writerow([row.protocol, row.model, row.organ, metric, s.n, s.total, *plain, row.source if printed else ""])
    return text.getvalue()


def to_latex(table: Table) -> str:
    """A ``tabular`` in the papers' shape, published rows in italics."""
    metrics = list(table.rows[0].summaries) if table.rows else []
    lines = [r"\begin{tabular}{ll" + "r" * (len(metrics) + 1) + "}", r"\hline"]
    lines.append(" & ".join(["Method", "Organ", "$n$", *(METRICS.get(m, m) for m in metrics)]) + r" \\ \hline")
    for row in table.rows:
        cells = [_latex(row.name), _latex(row.organ), str(row.n), *(_plain(row.summaries[m]) for m in metrics)]
        lines.append(" & ".join(cells) + r" \\")
        if row.published:
            printed = [rf"\textit{{{_printed(row.published.get(m), sign=_LATEX_SIGN)}}}" for m in metrics]
            lines.append(" & ".join([r"\textit{published}", _latex(row.organ), "", *printed]) + r" \\")
    return "\n".join([*lines, r"\hline", r"\end{tabular}"]) + "\n"


def _partial(row: TableRow) -> list[tuple[str, Summary]]:
    return [(metric, s) for metric, s in row.summaries.items() if s.n < s.total]


def _cell(s: Summary) -> str:
    if s.n == 0:
        return "–"
    if s.n == 1:
        return f"{s.mean:.3f}"
    return f"{s.mean:.3f} ± {s.sd:.3f} [{s.interval.low:.3f}, {s.interval.high:.3f}]"


def _plain(s: Summary) -> str:
    return "--" if s.n == 0 else f"${s.mean:.3f}$" if s.n == 1 else rf"${s.mean:.3f} \pm {s.sd:.3f}$"


_LATEX_SIGN = r"$\pm$"


def _printed(figure: Figure | None, *, sign: str = "±") -> str:
    return "–" if figure is None else f"{figure.mean:.3f}" + ("" if figure.sd is None else f" {sign} {figure.sd:.3f}")


def _difference(test: PairedTest) -> str:
    if math.isnan(test.difference):
        return "–"
    interval = "" if math.isnan(test.interval.low) else f" [{test.interval.low:+.3f}, {test.interval.high:+.3f}]"
    return f"{test.difference:+.3f}{interval}"


def _p(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2g}"


def _latex(text: str) -> str:
    return text.replace("_", r"\_").replace("&", r"\&").replace("%", r"\%")
