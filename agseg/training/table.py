"""The table of a paper from evaluations: mean ± sd, intervals, paired tests, the published row beside ours."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from agseg.errors import RecipeError
from agseg.measure.significance import PairedTest, Summary, holm, paired_wilcoxon, summarise
from agseg.training.beside import PRIVATE, is_private
from agseg.training.columns import AGAIN, BASE, COUNTED, LABELS, Column, columns_of, other_methods
from agseg.training.evaluation import CHANGED, COMPUTED, MISSING_FOLDS, POOLED_FOLDS, UNRECORDED, Evaluation
from agseg.training.published import Figure, PublishedRow, published_row

METRICS = {metric: LABELS[metric] for metric in BASE}
"""Columns of every table of scans, by our name."""


@dataclass(frozen=True)
class TableRow:
    """One method and organ: a summary per metric over cases, ratios of all cases' counts together, and the published row."""

    protocol: str
    model: str
    organ: str
    n: int
    summaries: dict[str, Summary]
    pooled: dict[str, float]
    printed: PublishedRow | None

    @property
    def published(self) -> dict[str, Figure]:
        """The published figures of this organ."""
        return {} if self.printed is None else self.printed.scores.get(self.organ, {})

    def figure(self, column: Column) -> Figure | None:
        """What is published in a column: means over cases and pooled ratios never stand in one."""
        is_there = self.printed is not None and self.printed.pooled == column.pooled
        return self.published.get(column.metric) if is_there else None

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
    """Rows in the order given, and comparisons: of the papers' rows between those that differ in protocol or in model, not in
    both; of all others between any two.

    ``others`` are published rows of methods that are not here; ``notes`` say what a reader of the rows must know: what was not
    scored or not compared, and why.
    """

    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    comparisons: tuple[Comparison, ...]
    others: tuple[PublishedRow, ...] = ()
    notes: tuple[str, ...] = ()


def make_table(evaluations: Sequence[Evaluation]) -> Table:
    """Summaries and tests of one or more evaluations; the tests are on every column of values per case but those by area.

    Two rows of the papers' protocols must have been made on the same cases. Any other two are tested on the cases that both
    have, and a note names the rest.

    Raises
    ------
    RecipeError
        If two evaluations under protocols were not made on the same cases: nothing is compared on different test sets.
    """
    columns = columns_of(evaluations)
    metrics = [column.metric for column in columns if not column.pooled and column.metric not in AGAIN]
    shown = list(dict.fromkeys(column.metric for column in columns))
    rows = tuple(_row(evaluation, organ, shown) for evaluation in evaluations for organ in evaluation.organs)
    raw: list[tuple[str, str, str, str, PairedTest]] = []
    notes = [note for evaluation in evaluations for note in _unscored(evaluation)]
    notes += [
        f"{evaluation.name}: which cases {_weights(evaluation)} learned from is not recorded; their card says what is known."
        for evaluation in evaluations
        if (evaluation.about or {}).get(UNRECORDED)
    ]
    notes += [
        f"{evaluation.name}: no published row stands beside it, as it does not repeat the paper's experiment ({_few(changed)})."
        for evaluation in evaluations
        if (changed := (evaluation.about or {}).get(CHANGED))
    ]
    untested: list[str] = []
    for first, second in itertools.combinations(evaluations, 2):
        under_protocols = bool(first.protocol and second.protocol)
        if under_protocols and first.protocol != second.protocol and first.model != second.model:
            # Two things differ at once: such a test answers no question, and costs every other one power.
            untested.append(f"{first.name} and {second.name}")
            continue
        shared = [organ for organ in first.organs if organ in second.organs]
        if not shared:
            notes.append(f"{first.name} and {second.name} are not tested: they have no label in common.")
        notes += [] if under_protocols else _not_shared(first, second)
        for organ in shared:
            for metric in metrics:
                one, other = first.values(organ, metric), second.values(organ, metric)
                if under_protocols and one.keys() != other.keys():
                    raise RecipeError(
                        "these evaluations were not made on the same cases",
                        value=second.name,
                        expected=f"the cases of {first.name}",
                    )
                cases = [case for case in one if case in other]
                test = paired_wilcoxon([one[case] for case in cases], [other[case] for case in cases])
                raw.append((first.name, second.name, organ, metric, test))
    notes += [f"Not tested, as they differ in protocol and in network: {'; '.join(untested)}."] if untested else []
    corrected = holm([test.p for *_, test in raw])
    comparisons = tuple(Comparison(*facts, p_holm=p) for facts, p in zip(raw, corrected, strict=True))
    notes += [PRIVATE] if any(e.published is not None and is_private(e.dataset) for e in evaluations) else []
    notes += [note for evaluation in evaluations for note in _folds(evaluation)] + _computed(evaluations)
    return Table(columns, rows, comparisons, other_methods(evaluations), tuple(notes))


def _few(names: Sequence[str]) -> str:
    return ", ".join([*names[:5], *(["..."] if len(names) > 5 else [])])


def _weights(evaluation: Evaluation) -> str:
    """What is unrecorded, by name; evaluations of earlier versions do not tell it."""
    name = (evaluation.about or {}).get(UNRECORDED)
    return f"the weights of {name}" if isinstance(name, str) else "these weights"


def _computed(evaluations: Sequence[Evaluation]) -> list[str]:
    """How masks were computed, once for all rows of which it is told alike."""
    told: dict[str, list[str]] = {}
    for evaluation in evaluations:
        facts = (evaluation.about or {}).get(COMPUTED)
        if facts is not None:
            parts = [f"in {facts['precision']}"]
            parts += ["averaged over the mirrored scan"] if facts["mirror"] else []
            parts += [f"only the largest component of {', '.join(facts['largest'])} kept"] if facts["largest"] else []
            told.setdefault(", ".join(parts), []).append(evaluation.name)
    if len(told) == 1 and len(next(iter(told.values()))) == len(evaluations):
        return [f"Masks computed {how}." for how in told]
    return [f"Masks of {', '.join(names)} computed {how}." for how, names in told.items()]


def _folds(evaluation: Evaluation) -> list[str]:
    """Of which folds a pooled evaluation is, and which are missing."""
    about = evaluation.about or {}
    if POOLED_FOLDS not in about:
        return []
    there = f"{evaluation.name}: folds {', '.join(map(str, about[POOLED_FOLDS]))} together, each case scored by the network"
    missing = ", ".join(map(str, about[MISSING_FOLDS]))
    return [f"{there} that had not learned from it.{f' Not there: folds {missing}.' if missing else ''}"]


def _unscored(evaluation: Evaluation) -> list[str]:
    missing = evaluation.not_scored
    total = len(missing) + len(evaluation.case_ids)
    alike: dict[str, list[str]] = {}
    for case, reason in missing.items():
        alike.setdefault(reason, []).append(case)
    reasons = "; ".join(f"{', '.join(cases)}: {reason}" for reason, cases in alike.items())
    return [f"{evaluation.name}: {len(missing)} of {total} cases have no score. {reasons}."] if missing else []


def _not_shared(first: Evaluation, second: Evaluation) -> list[str]:
    """Which cases only one of two evaluations has."""
    lone = [
        f"{len(only)} only in {evaluation.name} ({', '.join(only[:5])}{', ...' if len(only) > 5 else ''})"
        for evaluation, other in ((first, second), (second, first))
        if (only := [case for case in evaluation.case_ids if case not in other.case_ids])
    ]
    if not lone:
        return []
    both = len(set(first.case_ids) & set(second.case_ids))
    verdict = f"are compared on the {both} cases that both have" if both else "are not tested: they have no case in common"
    return [f"{first.name} and {second.name} {verdict}: {'; '.join(lone)}."]


def _row(evaluation: Evaluation, organ: str, metrics: Sequence[str]) -> TableRow:
    values = {metric: evaluation.values(organ, metric) for metric in metrics}
    counts = evaluation.pooled(organ)
    return TableRow(
        protocol=evaluation.protocol,
        model=evaluation.model,
        organ=organ,
        n=len(next(iter(values.values()))),
        summaries={metric: summarise(list(found.values())) for metric, found in values.items()},
        pooled={metric: float(getattr(counts, metric)) for metric in COUNTED},
        printed=published_row(evaluation.published),
    )
