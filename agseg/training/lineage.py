"""Which cases a network has learned from: no case is scored by a network that knows it, no run goes on with other data.

A run's ``run.json`` lists them under ``learned``, one stage per training: its own first, then those of the network it started
from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agseg.errors import UsageError
from agseg.training.cohort import PNG, Cohort, content_hash, open_cohort
from agseg.training.datasets import Task
from agseg.training.frames import open_frames
from agseg.training.material import task_of
from agseg.training.recipe import Recipe
from agseg.training.splits import Split, read_split
from agseg.training.trained import Trained

__all__ = ["LEARNED", "Content", "Stage", "case_contents", "refuse_known", "stage_of", "stages_in"]

LEARNED = "learned"
"""Key of run.json."""


@dataclass(frozen=True)
class Content:
    """What a case holds, as SHA-256: of its image (decoded for volumes), and of what is to be learned of it."""

    image: str
    labels: str


@dataclass(frozen=True)
class Stage:
    """One training: the data set's name, and the cases of the training and of the validation side by id."""

    dataset: str
    train: Mapping[str, Content]
    validation: Mapping[str, Content]

    @property
    def cases(self) -> dict[str, Content]:
        """Both sides."""
        return {**self.train, **self.validation}

    def to_dict(self) -> dict[str, Any]:
        """As it stands in run.json."""
        sides = {"train": self.train, "validation": self.validation}
        return {"dataset": self.dataset, **{side: {i: vars(c) for i, c in cases.items()} for side, cases in sides.items()}}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Stage:
        """What :meth:`to_dict` gave."""
        sides = ({i: Content(**c) for i, c in found[side].items()} for side in ("train", "validation"))
        return cls(found["dataset"], *sides)

    def digest(self, test: Sequence[str]) -> str:
        """SHA-256 of the three sides' ids, and of the content of those that are learned from."""
        whole = [self.to_dict(), sorted(test)]
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()

    def differing(self, other: Stage) -> tuple[str, ...]:
        """Ids that only one of two stages has, or that differ in side or content."""
        mine, theirs = (
            {(side, i, c) for side in ("train", "validation") for i, c in getattr(s, side).items()} for s in (self, other)
        )
        return tuple(sorted({case for _, case, _ in mine ^ theirs}))


def stage_of(recipe: Recipe, root: Path, split: Split) -> Stage:
    """The stage that a recipe's training on a cohort is; every case of both sides is read once, no test case."""
    task = task_of(recipe)
    sides = (case_contents(root, side, task=task) for side in (split.train, split.validation))
    return Stage(recipe.dataset if task is Task.FRAME else open_cohort(root).name, *sides)


def case_contents(root: Path, ids: Sequence[str], *, task: Task) -> dict[str, Content]:
    """What cases of a cohort hold, by id."""
    if task is Task.FRAME:
        frames = open_frames(root)
        return {i: _frame_content((root / frames.rows[i].file).read_bytes(), frames.rows[i].label) for i in ids}
    cohort = open_cohort(root)
    return {case: Content(_image_hash(cohort, case), _sha256(cohort.label_path(case).read_bytes())) for case in ids}


def _frame_content(pixels: bytes, label: str) -> Content:
    return Content(_sha256(pixels), _sha256(pixels + label.encode()))


def _image_hash(cohort: Cohort, case_id: str) -> str:
    if cohort.file_ending == PNG:
        return _sha256(cohort.image_path(case_id).read_bytes())
    return content_hash(cohort.read_volume(case_id).voxels)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def stages_in(about: Mapping[str, Any] | None) -> tuple[Stage, ...] | None:
    """The stages that a run's run.json tells of; None where an earlier version wrote it, or it is no run of ours."""
    if about is None or LEARNED not in about:
        return None
    return tuple(Stage.from_dict(found) for found in about[LEARNED])


def refuse_known(trained: Trained, root: Path, ids: Sequence[str]) -> None:
    """See that a network does not meet any of these cases for the second time.

    A case is known if its image was learned from under whatever name, or if a case of this data set and id was that has the
    labels in common with it. Runs of earlier versions, which list no cases, are held against the split that they name.

    Raises
    ------
    UsageError
        If the network was trained on a case, or chosen by it.
    """
    about = dict(trained.about or {})
    learned = _known(trained, about, root, ids)
    known = [case for case in ids if case in learned]
    if known:
        raise UsageError(
            "the run has learned from cases of this test set",
            path=root,
            value=f"{', '.join(known[:5])}{', ...' if len(known) > 5 else ''} ({len(known)} of {len(ids)})",
            expected="cases that it neither trained nor validated on",
            hint=f"Leave out --split and --fold: its own test side is fold {about['fold']} of split {about['split']}. "
            "Copies of training images must leave a test side.",
        )


def _known(trained: Trained, about: Mapping[str, Any], root: Path, ids: Sequence[str]) -> set[str]:
    stages, task = stages_in(about), task_of(trained.recipe)
    dataset = trained.recipe.dataset if task is Task.FRAME else open_cohort(root).name
    if stages is not None:
        contents = case_contents(root, ids, task=task)
        images = {content.image for stage in stages for content in stage.cases.values()}
        namesakes = {(i, c.labels) for stage in stages if stage.dataset == dataset for i, c in stage.cases.items()}
        return {case for case, found in contents.items() if found.image in images or (case, found.labels) in namesakes}
    if about and dataset == trained.recipe.dataset:
        split = read_split(root, trained.recipe.split, fold=about["fold"])
        return {*split.train, *split.validation}
    return set()
