"""An evaluation as data: per-case scores of one method on one test set, read and written, in our form and in nnU-Net's."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agseg.errors import RecipeError
from agseg.io.atomic import make_folder, write_text
from agseg.measure.overlap import Overlap, pooled
from agseg.training.scoring import CaseScore

EVALUATION_FILE = "evaluation.json"
EXPERIMENT = "experiment"
"""Key of ``about``: the published row of the experiment that a recipe repeats, also where ours may not stand beside it."""
COMPUTED = "computed"
"""Key of ``about``: number format of the network, mirroring and clean-up of the masks that were scored."""

POOLED_FOLDS = "pooled_folds"
MISSING_FOLDS = "missing_folds"
"""Keys of ``about``: the folds that an evaluation was put together from, and those of the split that it lacks."""
CHANGED = "changed"
"""Key of ``about``: in what the run differs from the paper's experiment, so that no published row stands beside it."""

UNRECORDED = "unrecorded"
"""Key of ``about``: the weights, or the start of the network, of which it is not recorded which cases they learned from."""
NOT_SCORED = "not_scored"
"""Key of ``about``: case id to the reason why it has no score."""

SUMMARY_FILE = "summary.json"
PER_CASE_FILE = "per_case.csv"


@dataclass(frozen=True)
class Evaluation:
    """One row of a table in the making.

    Parameters
    ----------
    protocol, model
        Its names in the table, e.g. ``aft`` and ``attention-unet3d``; empty where there is none.
    dataset
        The cohort's name.
    cases
        One score per case and organ.
    published
        Key of the row to show beside it.
    about
        What else is known: recipe, split, fold.
    """

    protocol: str
    model: str
    dataset: str
    cases: tuple[CaseScore, ...]
    published: str | None = None
    about: Mapping[str, Any] | None = None

    @property
    def organs(self) -> tuple[str, ...]:
        """Organs in order of appearance."""
        return tuple(dict.fromkeys(score.organ for score in self.cases))

    @property
    def case_ids(self) -> tuple[str, ...]:
        """Cases in order of appearance."""
        return tuple(dict.fromkeys(score.case for score in self.cases))

    @property
    def not_scored(self) -> dict[str, str]:
        """Cases that have no score, with the reason."""
        return dict((self.about or {}).get(NOT_SCORED, {}))

    @property
    def name(self) -> str:
        """Protocol and model, as people say them."""
        return " ".join(part for part in (self.protocol.upper(), self.model) if part) or "prediction"

    def values(self, organ: str, metric: str) -> dict[str, float]:
        """A metric by case id."""
        return {score.case: score.values.get(metric, math.nan) for score in self.cases if score.organ == organ}

    def pooled(self, organ: str) -> Overlap:
        """The counts of all cases together."""
        return pooled(score.counts for score in self.cases if score.organ == organ)

    @property
    def unit(self) -> str:
        """Of the distances: ``mm``, or ``px`` for pictures."""
        return self.cases[0].unit if self.cases else "mm"


def write_evaluation(folder: Path, evaluation: Evaluation, *, files: Mapping[str, tuple[str, str]] | None = None) -> None:
    """Write ``evaluation.json``, ``per_case.csv`` and nnU-Net's ``summary.json``.

    Parameters
    ----------
    files
        Case id to (prediction file, reference file), for nnU-Net's summary.
    """
    make_folder(folder)
    content = without_nan({**asdict(evaluation), "about": dict(evaluation.about or {})})
    write_text(folder / EVALUATION_FILE, json.dumps(content, indent=2, allow_nan=False) + "\n")
    write_text(folder / PER_CASE_FILE, per_case_csv(evaluation))
    write_text(folder / SUMMARY_FILE, json.dumps(nnunet_summary(evaluation, files or {}), indent=2, allow_nan=False) + "\n")


def read_evaluation(folder: Path) -> Evaluation:
    """What :func:`write_evaluation` wrote.

    Raises
    ------
    RecipeError
        If there is no evaluation in the folder.
    """
    path = folder / EVALUATION_FILE
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        content["cases"] = tuple(_case(entry) for entry in content["cases"])
        return Evaluation(**content)
    except OSError:
        raise RecipeError("no evaluation here", path=folder, expected=EVALUATION_FILE) from None
    except (KeyError, TypeError, ValueError) as error:
        raise RecipeError("the evaluation is not as agseg writes it", path=path) from error


_EARLIER_NAMES = {"s2s_mm": "s2s", "s2s_slice_mm": "s2s_slice", "hausdorff95_mm": "hausdorff95"}


def _case(entry: dict[str, Any]) -> CaseScore:
    known: dict[str, Any] = {_EARLIER_NAMES.get(key, key): math.nan if value is None else value for key, value in entry.items()}
    known["counts"] = Overlap(**entry["counts"])
    return CaseScore(**known)


def per_case_csv(evaluation: Evaluation) -> str:
    """One line per case and organ: every metric, and the counts; unknown values are empty."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    counts = ("true_positive", "false_positive", "false_negative", "true_negative")
    metrics = tuple(evaluation.cases[0].values) if evaluation.cases else ()
    table.writerow(["case", "organ", *metrics, *counts])
    for score in evaluation.cases:
        values = ["" if math.isnan(v) else f"{v:.6g}" for v in score.values.values()]
        table.writerow([score.case, score.organ, *values, *(getattr(score.counts, name) for name in counts)])
    return text.getvalue()


def nnunet_summary(evaluation: Evaluation, files: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """``metric_per_case``, ``mean`` and ``foreground_mean`` as nnU-Net v2 writes them; NaN becomes null, as JSON has none.

    Means leave out the cases where neither prediction nor reference has a voxel, as nnU-Net's do.
    """
    index = {organ: str(number) for number, organ in enumerate(evaluation.organs, start=1)}
    per_case: dict[str, dict[str, Any]] = {}
    for score in evaluation.cases:
        prediction, reference = files.get(score.case, (score.case, score.case))
        entry = per_case.setdefault(score.case, {"metrics": {}, "prediction_file": prediction, "reference_file": reference})
        entry["metrics"][index[score.organ]] = _nnunet_metrics(score)
    means = {
        key: _mean_of([case["metrics"][key] for case in per_case.values() if key in case["metrics"]]) for key in index.values()
    }
    return {
        "foreground_mean": _mean_of(list(means.values())) if means else {},
        "mean": means,
        "metric_per_case": list(per_case.values()),
        "labels": {key: organ for organ, key in index.items()},
    }


def _nnunet_metrics(score: CaseScore) -> dict[str, Any]:
    c = score.counts
    ratios = {"Dice": c.dice, "IoU": c.iou}
    plain = {"FN": c.false_negative, "FP": c.false_positive, "TN": c.true_negative, "TP": c.true_positive}
    return {**{k: _number(v) for k, v in ratios.items()}, **plain, "n_pred": c.predicted, "n_ref": c.truth}


def _mean_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    keys = rows[0].keys() if rows else ()
    known = {key: [row[key] for row in rows if row[key] is not None] for key in keys}
    return {key: float(np.mean(values)) if values else None for key, values in known.items()}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def without_nan(value: Any) -> Any:
    """The same value for JSON, which knows no NaN: it becomes null."""
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return value
