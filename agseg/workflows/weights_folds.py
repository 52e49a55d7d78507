"""``make weights-folds``: a packaged network's training once per fold of patients, each network scored on its own fold."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agseg.inference.allocator import keep_freed_memory
from agseg.inference.by_entry import segment_with_entry
from agseg.inference.network import load_network
from agseg.inference.segment import Segmentation
from agseg.measure.reliability import Tally
from agseg.training.listed_folds import ListedFolds, find_plan, plan_names
from agseg.training.recipe import Recipe
from agseg.volume import Volume
from agseg.weights.digest import Digest
from agseg.weights.entry import WeightsEntry
from agseg.weights.manifest import Manifest
from agseg.workflows.finetune import entry_network
from agseg.workflows.fold_tables import calibration_table, calibrations_of, draw_reliability, means_table, wins_from_table
from agseg.workflows.make_weights import OPEN_SCANS, make_weights
from agseg.workflows.weights_eval import HOME, Invented, OrganScore, evaluate_left_out, evaluate_negatives, table

_log = logging.getLogger(__name__)

BUILD = Path("build") / "weights-folds"
"""Where ``make weights-folds`` works: a run's folder per fold, and what they say together."""

SCORES = "scores.json"
"""A fold's scores in its run's folder."""


@dataclass(frozen=True)
class FoldScores:
    """What a fold's network scored on its patients; ``sha256`` is the network's, ``steps`` its training's."""

    fold: str
    sha256: str
    steps: int
    scores: tuple[OrganScore, ...]
    negatives: tuple[Invented, ...]

    def to_json(self) -> str:
        """As it lies in the run's folder; of tallies only the bins that hold voxels."""
        scores = [{**vars(score), "tally": _written(score.tally)} for score in self.scores]
        return json.dumps({**vars(self), "scores": scores, "negatives": [vars(item) for item in self.negatives]}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> FoldScores:
        """What :meth:`to_json` gave."""
        told = json.loads(text)
        scores = tuple(OrganScore(**{**score, "tally": _read(score["tally"])}) for score in told["scores"])
        return cls(**{**told, "scores": scores, "negatives": tuple(Invented(**item) for item in told["negatives"])})


def _written(tally: Tally | None) -> list[list[int]] | None:
    if tally is None:
        return None
    filled = np.flatnonzero(tally.right + tally.wrong)
    return [[int(at), int(tally.right[at]), int(tally.wrong[at])] for at in filled]


def _read(written: list[list[int]] | None) -> Tally | None:
    if written is None:
        return None
    tally = Tally.of(np.zeros(0), np.zeros(0, dtype=bool))
    for at, right, wrong in written:
        tally.right[at], tally.wrong[at] = right, wrong
    return tally


def train_fold(recipe: Recipe, *, data: Path, build: Path, home: Path, workers: int = 1) -> Path | None:
    """A fold's network, from its start as packaged or from random weights; see :func:`make_weights`."""
    start = recipe.start
    source = None if start is None else entry_network(start.recipe, manifest=None, home=home, offline=True)
    return make_weights(recipe, data=data, build=build, workers=workers, source=source)


def score_fold(recipe: Recipe, file: Path, *, packaged: WeightsEntry, data: Path) -> FoldScores:
    """A fold's network on its own patients, by the product's prediction path and with the packaged network's clean-up."""
    entry = replace(packaged, input=recipe.input, calibration={})
    network = load_network(entry, (file,), device=torch.device("cpu"))

    def segment(volume: Volume) -> Segmentation:
        return segment_with_entry(volume, network, entry, keep_certainty=True)

    scores, negatives = evaluate_left_out(recipe, data, segment), evaluate_negatives(recipe, data, segment)
    return FoldScores(recipe.name, Digest.of(file).sha256, recipe.loop.steps, tuple(scores), tuple(negatives))


def summary(plan: ListedFolds, folds: Sequence[FoldScores]) -> str:
    """All folds' scores as tables (Markdown)."""
    scores = [score for fold in folds for score in fold.scores]
    most: dict[str, Invented] = {}
    for item in (item for fold in folds for item in fold.negatives):
        most[item.name] = max(item, most.get(item.name, item), key=lambda found: found.found_ml)
    told = [f"{fold.fold}: {fold.steps} steps, sha256 {fold.sha256}" for fold in folds]
    parts = [
        "\n".join(told),
        table(scores, [*most.values()]),
        means_table(scores, plan.patient_of),
        calibration_table(scores, plan.patient_of),
        wins_from_table(scores, plan.patient_of),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def main(arguments: Sequence[str]) -> None:
    """``make weights-folds``: train and score the folds of a packaged network, all or some, and say what they say together.

    Goes on with what an earlier call left; folds that are not asked for count where their scores are there.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    keep_freed_memory()
    parser = argparse.ArgumentParser(prog="make weights-folds", description=main.__doc__)
    parser.add_argument("network", nargs="?", default=plan_names()[0], help="a packaged network with a plan in train/folds")
    parser.add_argument("--fold", type=int, action="append", help="this fold alone; repeatable")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw samples")
    asked = parser.parse_args(arguments)
    plan = find_plan(asked.network)
    recipes = plan.recipes()
    for number, recipe in enumerate(recipes):
        if asked.fold and number not in asked.fold:
            continue
        file = train_fold(recipe, data=OPEN_SCANS, build=BUILD, home=HOME, workers=asked.workers)
        if file is None:
            _log.info("%s: interrupted; the next call goes on from its checkpoint", recipe.name)
            return
        scores = score_fold(recipe, file, packaged=Manifest.load().entry(plan.recipe), data=OPEN_SCANS)
        (file.parent / SCORES).write_text(scores.to_json(), encoding="utf-8")
    _tell(plan, [*_finished(recipes)], BUILD / asked.network)


def _finished(recipes: Iterable[Recipe]) -> Iterable[FoldScores]:
    for recipe in recipes:
        path = BUILD / recipe.name / SCORES
        if path.exists():
            yield FoldScores.from_json(path.read_text(encoding="utf-8"))


def _tell(plan: ListedFolds, folds: Sequence[FoldScores], output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    text = summary(plan, folds)
    scores = [score for fold in folds for score in fold.scores]
    (output / "table.md").write_text(text, encoding="utf-8")
    found: dict[str, Any] = {organ: vars(fit.calibration) for organ, fit in calibrations_of(scores, plan.patient_of).items()}
    (output / "calibration.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    draw_reliability(output / "reliability.png", scores, plan.patient_of)
    _log.info("%s\n%s", output, text)


if __name__ == "__main__":
    main(sys.argv[1:])
