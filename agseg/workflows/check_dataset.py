"""Say what is wrong with a prepared cohort. A child process with limits opens its files, as those of any other input."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from agseg.batch.intake import Intake
from agseg.batch.job import DEFAULT_STUDY_TIMEOUT_S
from agseg.batch.memory import reader_memory_bytes
from agseg.errors import AgsegError, Code, InputError, RecipeError
from agseg.io.voxels import check_looks_like_hu
from agseg.io.watch import outcome
from agseg.labels import LabelSet
from agseg.study import Rejected
from agseg.training.cohort import Cohort, content_hash, fits, image_hash, open_cohort
from agseg.training.datasets import dataset
from agseg.training.description import PNG, Meaning, read_description
from agseg.training.frames import FRAMES_FILE, open_frames
from agseg.training.splits import SPLITS_FILE, has_splits, read_split
from agseg.volume import LabelMask, Volume
from agseg.workflows.dataset import CONTENT_FILE
from agseg.workflows.dataset_new import labels_in

PLAUSIBLE_HU = (-150.0, 400.0)
"""Mean HU of any labelled organ; outside it, labels and image do not lie on each other."""


@dataclass(frozen=True)
class CheckReport:
    """What is wrong with a cohort; nothing where ``problems`` is empty."""

    cases: int
    labels: tuple[str, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {"cases": self.cases, "labels": list(self.labels), "problems": list(self.problems), "notes": list(self.notes)}


@dataclass(frozen=True)
class _Opened:
    """What stands beside the cases: ``described`` is None for frames, whose cases have no images of their own to read."""

    cases: int
    labels: tuple[str, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()
    recorded: dict[str, str] = field(default_factory=dict)
    described: Cohort | None = None


def check_dataset(
    root: Path,
    *,
    recipe: str | None = None,
    on_case: Callable[[int, int, str], None] = lambda done, total, case: None,
) -> CheckReport:
    """Read every case and say what is wrong: files, grids, labels, hashes, copies, splits, organs in the wrong place.

    Parameters
    ----------
    recipe
        Whether this recipe's network could learn from it: modality, channels, labels, regions.
    on_case
        Called as ``on_case(done, total, case)`` before each case.

    Raises
    ------
    RecipeError
        If there is no cohort here, or its description does not hold together.
    """
    with Intake(memory_bytes=reader_memory_bytes()) as intake:
        found = _opened(intake, root)
        cohort = found.described
        if cohort is None:
            return CheckReport(found.cases, found.labels, found.problems, found.notes)
        pinned = dataset(cohort.name).hashes if _is_known(cohort.name) else {}
        problems: list[str] = []
        notes = [*found.notes, *([] if found.recorded else ["no content.json: nobody recorded what the images were"])]
        occurring: set[str] = set()
        seen: dict[str, str] = {}
        for number, case in enumerate(cohort.ids):
            on_case(number, len(cohort.ids), case)
            wrong, digest, labels, remarks = _examined(intake, cohort, case)
            problems.extend(f"{case}: {what}" for what in wrong)
            notes.extend(f"{case}: {what}" for what in remarks)
            occurring.update(labels)
            if not digest:
                continue
            if digest in seen:
                problems.append(f"{case}: the same image as {seen[digest]}")
            seen.setdefault(digest, case)
            for known, source in (
                (found.recorded.get(case), "when it was prepared"),
                (pinned.get(case), "in the data set file"),
            ):
                if known not in (None, digest):
                    problems.append(f"{case}: the image is not the one that was recorded {source}")
    gone = [f"{case}: prepared, but no longer here" for case in found.recorded if case not in cohort.ids]
    notes += [f"no case has the label {name}" for name in found.labels if name not in occurring]
    fitting = [] if recipe is None else _fitting(recipe, cohort)
    return CheckReport(found.cases, found.labels, (*problems, *gone, *found.problems, *fitting), tuple(notes))


def _fitting(recipe: str, cohort: Cohort) -> list[str]:
    """Why a recipe cannot be trained on a cohort."""
    from agseg.training.loaders import check_input, kept_of, regions_of
    from agseg.training.recipe import find_recipe

    found: list[str] = []
    wanted = find_recipe(recipe)
    for check in (
        lambda: check_input(wanted, cohort),
        lambda: kept_of(wanted, cohort.label_set),
        lambda: regions_of(wanted, cohort),
    ):
        try:
            check()
        except RecipeError as error:
            found.append(f"{recipe}: {error.sentence()}")
    return found


def _is_known(name: str) -> bool:
    try:
        dataset(name)
    except RecipeError:
        return False
    return True


def _opened(intake: Intake, root: Path) -> _Opened:
    """What the child says of the cohort as a whole."""
    told = intake.ask(_facts, root)
    if "refused" in told:
        refused = told["refused"]
        raise RecipeError(
            str(refused["message"]),
            path=refused["path"],
            value=refused["value"],
            expected=refused["expected"],
            hint=refused["hint"],
        )
    labels, problems, notes = (tuple(map(str, told[key])) for key in ("labels", "problems", "notes"))
    if told["cohort"] is None:
        return _Opened(int(told["cases"]), labels, problems, notes)
    about = told["cohort"]
    numbered = {int(index): str(name) for index, name in about["labels"]}
    labelled = LabelSet.from_mapping(numbered)
    cohort = Cohort(
        root,
        str(about["name"]),
        labelled,
        str(about["modalities"][0]),
        str(about["file_ending"]),
        tuple(map(str, about["ids"])),
        tuple(map(str, about["modalities"])),
        tuple(map(str, about["channels"])),
        Meaning(labelled, {str(n): tuple(map(int, v)) for n, v in about["regions"].items()}, about["ignored"]),
    )
    recorded = {str(case): str(digest) for case, digest in about["recorded"].items()}
    return _Opened(int(told["cases"]), labels, problems, notes, recorded, cohort)


def _examined(intake: Intake, cohort: Cohort, case: str) -> tuple[list[str], str, list[str], list[str]]:
    """What is wrong with a case, the hash of its image (empty where it cannot be read), its labels, and what is to be noted."""
    # Its list of all cases is nothing that reading one of them needs.
    one = replace(cohort, ids=(case,))
    try:
        told = intake.ask(_read, one, limit_s=DEFAULT_STUDY_TIMEOUT_S)
    except InputError as error:
        return [error.sentence()], "", [], []
    problems, labels, notes = ([str(what) for what in told[key]] for key in ("problems", "labels", "notes"))
    return problems, str(told["hash"]), labels, notes


# -- in the child ---------------------------------------------------------------------------------------------------------


def _facts(root: Path, *, note: Callable[[int], None]) -> dict[str, Any]:
    try:
        if (root / FRAMES_FILE).exists():
            frames = open_frames(root)
            problems = _split_problems(root, set(frames.ids))
            about = {"cases": len(frames.ids), "labels": list(frames.labels), "problems": problems}
            return {**about, "notes": [], "cohort": None}
        cohort = open_cohort(root, complete=False)
        recorded = _recorded(root)
        problems = [*_lone_files(cohort), *(_split_problems(root, set(cohort.ids)) if has_splits(root) else [])]
    except RecipeError as error:
        told = ("message", error.message), ("value", error.value), ("expected", error.expected), ("hint", error.hint)
        path = None if error.path is None else str(error.path)
        return {"refused": {"path": path, **{name: None if words is None else str(words) for name, words in told}}}
    return {
        "cases": len(cohort.ids),
        "labels": list(cohort.label_set.names),
        "problems": problems,
        "notes": _not_cut(root),
        "cohort": {
            "name": cohort.name,
            "labels": [[label.index, label.name] for label in cohort.label_set],
            "modalities": list(cohort.modalities),
            "channels": list(cohort.channels),
            "regions": {} if cohort.meaning is None else {n: list(v) for n, v in cohort.meaning.regions.items()},
            "ignored": None if cohort.meaning is None else cohort.meaning.ignored,
            "file_ending": cohort.file_ending,
            "ids": list(cohort.ids),
            "recorded": recorded,
        },
    }


def _lone_files(cohort: Cohort) -> list[str]:
    """Images without labels, labels without an image, channels that nobody named, and a number of cases that is another."""
    ending, images = cohort.file_ending, cohort.root / "imagesTr"
    labelled = {p.name.removesuffix(ending) for p in (cohort.root / "labelsTr").glob(f"*{ending}") if p.name[0] != "."}
    found = [f"{case}: an image without labels" for case in cohort.image_ids if case not in labelled]
    for case in sorted(labelled - set(cohort.ids)):
        missing = [path.name for path in cohort.image_paths(case) if not path.exists()]
        found.append(f"{case}: labels without an image; {', '.join(missing)} is missing")
    surplus = f"_{len(cohort.modalities):04d}{ending}"
    extra = sorted(path.name for path in images.glob(f"*{surplus}"))
    if extra:
        found.append(f"{extra[0]}: a channel that dataset.json does not name ({len(extra)} cases)")
    wanted = read_description(cohort.root).cases
    if wanted not in (None, len(labelled)):
        found.append(f"dataset.json speaks of {wanted} cases (numTraining), {len(labelled)} are labelled")
    return found


def _recorded(root: Path) -> dict[str, str]:
    path = root / CONTENT_FILE
    if not path.exists():
        return {}
    try:
        return {str(case): str(digest) for case, digest in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise RecipeError("the record of the images cannot be read", path=path, value=type(error).__name__) from error


def _not_cut(root: Path) -> list[str]:
    """That no split says which cases are for training: what comes after the check, and no fault of the data."""
    return [] if has_splits(root) else [f"not cut into sides yet: agseg dataset split {root}"]


def _split_problems(root: Path, ids: set[str]) -> list[str]:
    try:
        split = read_split(root)
    except RecipeError as error:
        return [f"{SPLITS_FILE}: {error.sentence()}"]
    named = {*split.train, *split.validation, *split.test}
    return [f"{SPLITS_FILE} names {case}, which is not here" for case in sorted(named - ids)]


def _read(cohort: Cohort, *, note: Callable[[int], None]) -> dict[str, Any]:
    """One case to its last voxel; whatever its files raise is what is wrong with it."""
    told = outcome(lambda: _problems(cohort, cohort.ids[0]))
    if isinstance(told, Rejected):
        if told.code is Code.OUT_OF_MEMORY:
            raise MemoryError
        return {"problems": [told.message], "hash": "", "labels": [], "notes": []}
    problems, digest, labels, notes = told
    return {"problems": problems, "hash": digest, "labels": labels, "notes": notes}


def _problems(cohort: Cohort, case: str) -> tuple[list[str], str, list[str], list[str]]:
    """Problems, hash, the labels that occur, and notes."""
    try:
        wrong = fits(cohort, case)
        if wrong:
            return [wrong], "", [], []
        labels = list(labels_in(cohort, case))
        notes = [] if labels else ["no label: nothing is learned from it but what is no organ"]
        if cohort.file_ending == PNG:
            return [], _hash(cohort, case), labels, notes
        volume = cohort.read_volume(case)
        broken, suspect = _looks(cohort, volume)
        implausible = _implausible(cohort, volume, cohort.read_mask(case, grid=volume.grid))
        return broken + implausible, image_hash(volume), labels, notes + suspect
    except AgsegError as error:
        return [error.sentence()], "", [], []


def _looks(cohort: Cohort, volume: Volume) -> tuple[list[str], list[str]]:
    """What no image is, and what a CT does not look like."""
    broken = [warned.message for warned in volume.warnings if warned.code is Code.NONFINITE]
    for name, values in zip(cohort.channels, (volume.voxels, *volume.more), strict=True):
        if not np.isfinite(values).all():
            broken.append(f"{name}: {int((~np.isfinite(values)).sum())} voxels are NaN or infinite")
        elif values.min() == values.max():
            broken.append(f"{name}: every voxel is {values.min():g}")
    suspect = []
    if cohort.modality == "CT" and not broken:
        try:
            check_looks_like_hu(volume.voxels)
        except InputError as error:
            suspect.append(f"is it CT? {error.sentence()}")
    return broken, suspect


def _hash(cohort: Cohort, case: str) -> str:
    return content_hash(cohort.stored_picture(case))


def _implausible(cohort: Cohort, volume: Volume, mask: LabelMask) -> list[str]:
    """Organs of a CT whose mean HU no organ has: the usual trace of flipped labels."""
    if cohort.modality != "CT":
        return []
    found = []
    for name in cohort.label_set.names:
        inside = volume.voxels[mask.of(name)]
        if inside.size and not PLAUSIBLE_HU[0] < inside.mean() < PLAUSIBLE_HU[1]:
            found.append(f"{name} has a mean of {inside.mean():.0f} HU; do labels and image lie on each other?")
    return found
