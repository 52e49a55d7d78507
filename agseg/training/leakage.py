"""Checks against data leakage: no case is scored by a network that has learned from it, and no run goes on with other data.

A run's ``run.json`` lists them under ``learned``, one stage per training: its own first, then those of the network it started
from. An entry of the weights manifest lists digests of images, without names (:class:`agseg.weights.entry.Learned`).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agseg.errors import RecipeError, UsageError
from agseg.training.case_cache import CaseCache
from agseg.training.cohort import Cohort, image_hash, open_cohort
from agseg.training.datasets import Task
from agseg.training.description import PNG
from agseg.training.frames import open_frames
from agseg.training.loaders import task_of
from agseg.training.open_cases import label_path, read_scan
from agseg.training.recipe import Recipe
from agseg.training.splits import Split, read_split
from agseg.training.trained_model import TrainedModel
from agseg.weights.entry import IMAGE_DIGITS, Learned

_log = logging.getLogger(__name__)

LEARNED = "learned"
"""Key of run.json."""

SAME_IMAGE = "same_image"
"""Key of an evaluation: its test cases that hold the same image as a learned case, whose id it gives."""


@dataclass(frozen=True)
class Content:
    """What a case holds, as SHA-256: of its image (decoded for volumes), and of what is to be learned of it."""

    image: str
    labels: str


@dataclass(frozen=True)
class Stage:
    """One training: the data set's name, and the cases of the training and of the validation side by id.

    Of weights of the manifest only ``images`` are known, the first digits of their hashes; a stage without any case is one of
    which nothing was recorded.
    """

    dataset: str
    train: Mapping[str, Content]
    validation: Mapping[str, Content]
    images: tuple[str, ...] = ()

    @property
    def cases(self) -> dict[str, Content]:
        """Both sides."""
        return {**self.train, **self.validation}

    def to_dict(self) -> dict[str, Any]:
        """As it stands in run.json."""
        sides = {"train": self.train, "validation": self.validation}
        told = {side: {i: vars(c) for i, c in cases.items()} for side, cases in sides.items()}
        return {"dataset": self.dataset, **told, **({"images": list(self.images)} if self.images else {})}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Stage:
        """What :meth:`to_dict` gave."""
        train, validation = ({i: Content(**c) for i, c in found[side].items()} for side in ("train", "validation"))
        return cls(found["dataset"], train, validation, tuple(found.get("images", ())))

    def is_of(self, split: Split, *, dataset: str) -> bool:
        """Whether it learned from the very sides of a split of a data set."""
        sides = (set(self.train), set(self.validation))
        return self.dataset == dataset and sides == (set(split.train), set(split.validation))

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


def stage_of(recipe: Recipe, root: Path, split: Split, *, cache: CaseCache | None = None) -> Stage:
    """The stage that a recipe's training is; every case of both sides is read once, no test case.

    With a cache, a cohort's scan is read only where its digest was not noted there before.
    """
    if recipe.cases:
        return Stage(recipe.dataset, _listed_contents(recipe, root, split.train), {})
    task = task_of(recipe)
    train, validation = (case_contents(root, side, task=task, cache=cache) for side in (split.train, split.validation))
    return Stage(recipe.dataset if task is Task.FRAME else open_cohort(root).name, train, validation)


def case_contents(root: Path, ids: Sequence[str], *, task: Task, cache: CaseCache | None = None) -> dict[str, Content]:
    """What cases of a cohort hold, by id."""
    if task is Task.FRAME:
        frames = open_frames(root)
        return {i: _frame_content((root / frames.rows[i].file).read_bytes(), frames.rows[i].label) for i in ids}
    cohort = open_cohort(root)
    return {case: Content(_image_hash(cohort, case, cache), _sha256(cohort.label_path(case).read_bytes())) for case in ids}


def _listed_contents(recipe: Recipe, root: Path, ids: Sequence[str]) -> dict[str, Content]:
    """What cases hold that a recipe lists; a label map that images are drawn from stands for its image too."""
    found = {}
    for case in recipe.cases:
        if case.id in ids:
            labels = _sha256(label_path(case, root).read_bytes())
            found[case.id] = Content(labels if case.image is None else image_hash(read_scan(root / case.image)), labels)
    return found


def _frame_content(pixels: bytes, label: str) -> Content:
    return Content(_sha256(pixels), _sha256(pixels + label.encode()))


def _image_hash(cohort: Cohort, case_id: str, cache: CaseCache | None) -> str:
    if cohort.file_ending == PNG:
        return _sha256(cohort.image_path(case_id).read_bytes())
    if cache is None:
        return image_hash(cohort.read_volume(case_id))
    facts = {"image": cohort.modalities}
    return cache.digest(files=cohort.image_paths(case_id), facts=facts, make=lambda: image_hash(cohort.read_volume(case_id)))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def stages_in(about: Mapping[str, Any] | None) -> tuple[Stage, ...] | None:
    """The stages that a run's run.json tells of; None where an earlier version wrote it, or it is no run of ours."""
    if about is None or LEARNED not in about:
        return None
    return tuple(Stage.from_dict(found) for found in about[LEARNED])


def stages_of(trained: TrainedModel) -> tuple[Stage, ...] | None:
    """The stages of a run, or of weights as far as their entry tells; None where nothing was recorded."""
    if trained.about is not None or trained.learned is None:
        return stages_in(trained.about)
    return tuple(Stage(learned.dataset, {}, {}, tuple(learned.images.split())) for learned in trained.learned)


def started_from(source: TrainedModel | None) -> tuple[Stage, ...]:
    """What a training begins with behind it: the stages of its start, or an empty one of its name where nothing is recorded."""
    if source is None:
        return ()
    stages = stages_of(source)
    return (Stage(source.recipe.name, {}, {}),) if stages is None else stages


def unrecorded(trained: TrainedModel) -> str | None:
    """The name of that of which nobody recorded what it learned from: the network itself, or one that it started from."""
    stages = stages_of(trained)
    if stages is None:
        return trained.recipe.name
    return next((stage.dataset for stage in stages if not stage.cases and not stage.images), None)


def learned_by(networks: Sequence[TrainedModel]) -> tuple[Learned, ...] | None:
    """What an entry of these networks says that they learned from; None where one of them does not know."""
    images: dict[str, set[str]] = {}
    for trained in networks:
        stages = stages_of(trained)
        if stages is None:
            return None
        for stage in stages:
            found = {content.image[:IMAGE_DIGITS] for content in stage.cases.values()}
            images.setdefault(stage.dataset, set()).update(found, stage.images)
    return tuple(Learned(name, " ".join(sorted(digests))) for name, digests in images.items())


def refuse_learned(learned: Sequence[Learned], root: Path, ids: Sequence[str]) -> None:
    """See that none of these cases of scans is one that weights of the manifest have learned from.

    Raises
    ------
    UsageError
        If one is.
    """
    digests = {digest for one in learned for digest in one.images.split()}
    contents = case_contents(root, ids, task=Task.VOLUME) if digests else {}
    _refuse({case: case for case, c in contents.items() if c.image[:IMAGE_DIGITS] in digests}, ids, root, _OTHERS)


def _refuse(known: Mapping[str, str], ids: Sequence[str], root: Path, hint: str) -> None:
    if known:
        pairs = [case if twin == case else f"{case} (the image of {twin})" for case, twin in known.items()]
        raise UsageError(
            "the network has learned from cases of this test set",
            path=root,
            value=f"{_few(pairs)} ({len(pairs)} of {len(ids)})",
            expected="cases that it neither trained nor validated on",
            hint=hint,
        )


_OTHERS = "Take these cases out of the test side in splits.json, or evaluate a network that has not learned from them."


def refuse_known(trained: TrainedModel, root: Path, ids: Sequence[str], *, split: Split | None = None) -> dict[str, str]:
    """See that a network does not meet any of these cases for the second time.

    A case is known if its image was learned from under whatever name, or if a case of this data set and id was that has the
    labels in common with it. Runs of earlier versions, which list no cases, are held against the split that they name.

    Parameters
    ----------
    trained
        The network.
    root
        The cohort's folder.
    ids
        The cases.
    split
        The split whose test side they are. Where it is the run's own, patients are kept apart by id, and equal images under two
        ids (black or frozen frames) are told of instead of refused.

    Returns
    -------
    dict of str to str
        Test cases of the run's own split that hold the same image as a learned one, whose id it gives.

    Raises
    ------
    UsageError
        If the network was trained on a case, or chosen by it.
    """
    about = dict(trained.about or {})
    known, same = _known(trained, about, root, ids, split)
    _refuse(known, ids, root, _way_out(trained, about, root, split) if known else "")
    if same:
        pairs = [f"{case} = {twin}" for case, twin in same.items()]
        _log.warning("%d of %d test cases hold the image of a learned case: %s", len(pairs), len(ids), _few(pairs))
    return same


def _few(words: Sequence[str]) -> str:
    return ", ".join([*words[:5], *(["..."] if len(words) > 5 else [])])


def _way_out(trained: TrainedModel, about: Mapping[str, Any], root: Path, split: Split | None) -> str:
    """What to do about a refusal: the run's own test side, where that is another one."""
    if _dataset(trained, root) == trained.recipe.dataset and _own_split(about, root) not in (None, split):
        return f"Leave out --split and --fold: its own test side is fold {about['fold']} of split {about['split']}."
    return _OTHERS


def _own_split(about: Mapping[str, Any], root: Path) -> Split | None:
    """The split of a cohort that a run's run.json names, where the cohort has it; weights of the manifest name none."""
    if "split" not in about:
        return None
    try:
        return read_split(root, about["split"], fold=about["fold"])
    except RecipeError:
        return None


def _dataset(trained: TrainedModel, root: Path) -> str:
    """The name of the data set in a folder; frames have none of their own."""
    return trained.recipe.dataset if task_of(trained.recipe) is Task.FRAME else open_cohort(root).name


def _known(
    trained: TrainedModel, about: Mapping[str, Any], root: Path, ids: Sequence[str], split: Split | None
) -> tuple[dict[str, str], dict[str, str]]:
    """Cases that are known, and those that the run's own split keeps apart from an equal image; each with the learned id."""
    stages, name = stages_of(trained), _dataset(trained, root)
    if stages is None:
        if not about or name != trained.recipe.dataset:
            return {}, {}
        begun = read_split(root, trained.recipe.split, fold=about["fold"])
        seen = {*begun.train, *begun.validation}
        return {case: case for case in ids if case in seen}, {}
    contents = case_contents(root, ids, task=task_of(trained.recipe))
    apart = [stage for stage in stages if split is not None and stage.is_of(split, dataset=name)]
    if apart[:1] != [*stages[:1]]:
        apart = []
    known = _learned(contents, [stage for stage in stages if stage not in apart], name)
    same = {case: twin for case, twin in _learned(contents, apart, name).items() if case not in known}
    if not same:
        return known, {}
    # Ids keep apart what they name: a cohort that was numbered anew holds other images under them.
    frames = task_of(trained.recipe) is Task.FRAME
    held = {*same.values()}.intersection(open_frames(root).rows if frames else open_cohort(root).ids)
    here = case_contents(root, sorted(held), task=task_of(trained.recipe))
    renamed = {case: twin for case, twin in same.items() if twin not in here or here[twin].image != contents[case].image}
    return known | renamed, {case: twin for case, twin in same.items() if case not in renamed}


def _learned(contents: Mapping[str, Content], stages: Sequence[Stage], name: str) -> dict[str, str]:
    """Which cases, by id, some trainings have learned from, and under which id."""
    images = {content.image: case for stage in stages for case, content in stage.cases.items()}
    namesakes = {(case, c.labels) for stage in stages if stage.dataset == name for case, c in stage.cases.items()}
    found = {case: case if (case, c.labels) in namesakes else images.get(c.image) for case, c in contents.items()}
    digests = {digest for stage in stages for digest in stage.images}
    nameless = {case: case for case, c in contents.items() if c.image[:IMAGE_DIGITS] in digests}
    return nameless | {case: twin for case, twin in found.items() if twin is not None}
