"""Say what is wrong with a prepared cohort. A child process with limits opens its files, as those of any other input."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agseg.batch.intake import Intake
from agseg.batch.job import DEFAULT_STUDY_TIMEOUT_S
from agseg.batch.memory import reader_memory_bytes
from agseg.errors import AgsegError, Code, InputError, RecipeError
from agseg.io.watch import outcome
from agseg.labels import LabelSet
from agseg.study import Rejected
from agseg.training.cohort import Cohort, content_hash, fits, open_cohort
from agseg.training.datasets import dataset
from agseg.training.frames import FRAMES_FILE, open_frames
from agseg.training.splits import SPLITS_FILE, read_split
from agseg.workflows.dataset import CONTENT_FILE

__all__ = ["CheckReport", "check_dataset"]

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
    recorded: dict[str, str] = field(default_factory=dict)
    described: Cohort | None = None


def check_dataset(root: Path, *, on_case: Callable[[int, int, str], None] = lambda done, total, case: None) -> CheckReport:
    """Read every case and say what is wrong: files, grids, labels, hashes, copies, splits, organs in the wrong place.

    Parameters
    ----------
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
            return CheckReport(found.cases, found.labels, found.problems)
        pinned = dataset(cohort.name).hashes if _is_known(cohort.name) else {}
        problems: list[str] = []
        seen: dict[str, str] = {}
        for number, case in enumerate(cohort.ids):
            on_case(number, len(cohort.ids), case)
            wrong, digest = _examined(intake, cohort, case)
            problems.extend(f"{case}: {what}" for what in wrong)
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
    notes = () if found.recorded else ("no content.json: nobody recorded what the images were",)
    return CheckReport(found.cases, found.labels, (*problems, *gone, *found.problems), notes)


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
    labels, problems = tuple(map(str, told["labels"])), tuple(map(str, told["problems"]))
    if told["cohort"] is None:
        return _Opened(int(told["cases"]), labels, problems)
    about = told["cohort"]
    numbered = {int(index): str(name) for index, name in about["labels"]}
    cohort = Cohort(
        root,
        str(about["name"]),
        LabelSet.from_mapping(numbered),
        str(about["modality"]),
        str(about["file_ending"]),
        tuple(map(str, about["ids"])),
    )
    recorded = {str(case): str(digest) for case, digest in about["recorded"].items()}
    return _Opened(int(told["cases"]), labels, problems, recorded, cohort)


def _examined(intake: Intake, cohort: Cohort, case: str) -> tuple[list[str], str]:
    """What is wrong with a case, and the hash of its image; empty where it cannot be read."""
    # Its list of all cases is nothing that reading one of them needs.
    one = Cohort(cohort.root, cohort.name, cohort.label_set, cohort.modality, cohort.file_ending, (case,))
    try:
        told = intake.ask(_read, one, limit_s=DEFAULT_STUDY_TIMEOUT_S)
    except InputError as error:
        return [error.sentence()], ""
    return [str(what) for what in told["problems"]], str(told["hash"])


# -- in the child ---------------------------------------------------------------------------------------------------------


def _facts(root: Path, *, note: Callable[[int], None]) -> dict[str, Any]:
    try:
        if (root / FRAMES_FILE).exists():
            frames = open_frames(root)
            problems = _split_problems(root, set(frames.ids))
            return {"cases": len(frames.ids), "labels": list(frames.labels), "problems": problems, "cohort": None}
        cohort = open_cohort(root)
        recorded = _recorded(root)
    except RecipeError as error:
        told = ("message", error.message), ("value", error.value), ("expected", error.expected), ("hint", error.hint)
        path = None if error.path is None else str(error.path)
        return {"refused": {"path": path, **{name: None if words is None else str(words) for name, words in told}}}
    return {
        "cases": len(cohort.ids),
        "labels": list(cohort.label_set.names),
        "problems": _split_problems(root, set(cohort.ids)),
        "cohort": {
            "name": cohort.name,
            "labels": [[label.index, label.name] for label in cohort.label_set],
            "modality": cohort.modality,
            "file_ending": cohort.file_ending,
            "ids": list(cohort.ids),
            "recorded": recorded,
        },
    }


def _recorded(root: Path) -> dict[str, str]:
    path = root / CONTENT_FILE
    if not path.exists():
        return {}
    try:
        return {str(case): str(digest) for case, digest in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise RecipeError("the record of the images cannot be read", path=path, value=type(error).__name__) from error


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
        return {"problems": [told.message], "hash": ""}
    problems, digest = told
    return {"problems": problems, "hash": digest}


def _problems(cohort: Cohort, case: str) -> tuple[list[str], str]:
    try:
        wrong = fits(cohort, case)
        return ([wrong], "") if wrong else (_implausible(cohort, case), _hash(cohort, case))
    except AgsegError as error:
        return [error.sentence()], ""


def _hash(cohort: Cohort, case: str) -> str:
    if cohort.file_ending == ".png":
        pixels = cohort.read_picture(case).astype(np.uint8)
        return content_hash(np.ascontiguousarray(pixels.transpose(1, 2, 0)) if len(pixels) == 3 else pixels[0])
    return content_hash(cohort.read_volume(case).voxels)


def _implausible(cohort: Cohort, case: str) -> list[str]:
    """Organs of a CT whose mean HU no organ has: the usual trace of flipped labels."""
    if cohort.modality != "CT" or cohort.file_ending == ".png":
        return []
    volume = cohort.read_volume(case)
    mask = cohort.read_mask(case, grid=volume.grid)
    found = []
    for name in mask.label_set.names:
        inside = volume.voxels[mask.of(name)]
        if inside.size and not PLAUSIBLE_HU[0] < inside.mean() < PLAUSIBLE_HU[1]:
            found.append(f"{name} has a mean of {inside.mean():.0f} HU; do labels and image lie on each other?")
    return found
