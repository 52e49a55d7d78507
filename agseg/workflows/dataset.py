"""Bring a download into the internal layout, and say what is wrong with a prepared cohort."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agseg.errors import RecipeError
from agseg.io.atomic import write_text
from agseg.training.cohort import (
    Cohort,
    check_new,
    content_hash,
    describe_cohort,
    fits,
    open_cohort,
    write_picture_case,
    write_volume_case,
)
from agseg.training.datasets import Dataset, Task, dataset
from agseg.training.frames import FRAMES_FILE, open_frames, provided_frames, write_frames
from agseg.training.providers import ProvidedPicture, ProvidedVolume, provided
from agseg.training.splits import SPLITS_FILE, Split, read_split, write_splits
from agseg.volume import LabelMask
from agseg.workflows.phantom import split_cohort

__all__ = ["CheckReport", "PrepareReport", "check_dataset", "prepare_dataset"]

CONTENT_FILE = "content.json"
"""Case id to content hash, written by ``prepare``; ``check`` compares."""

PLAUSIBLE_HU = (-150.0, 400.0)
"""Mean HU of any labelled organ; outside it, labels and image do not lie on each other."""

Progress = Callable[[int, str], None]


@dataclass(frozen=True)
class PrepareReport:
    """What became of a download: cases written, and cases left out with their reason."""

    dataset: str
    cases: tuple[str, ...]
    excluded: dict[str, str]
    expected: int | None

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {"dataset": self.dataset, "cases": len(self.cases), "expected": self.expected, "excluded": self.excluded}


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


def prepare_dataset(name: str, *, download: Path, output: Path, progress: Progress | None = None) -> PrepareReport:
    """Turn a provider's layout into nnU-Net's, with splits and content hashes.

    Excluded cases and exact copies of an earlier case are left out, with a reason.

    Raises
    ------
    RecipeError
        If the download is not in the provider's layout, or the output folder is not empty.
    """
    facts = dataset(name)
    check_new(output)
    if facts.task is Task.FRAME:
        classes = tuple(facts.labels.values())
        ids = write_frames(output, provided_frames(download, classes=classes))
        if not ids:
            raise RecipeError("no frames in the layout <subject>/<class>/<frame>.png", path=download)
        _describe(output, facts, len(ids))
        write_splits(output, split_cohort(name, list(ids)))
        return PrepareReport(name, ids, {}, facts.cases)
    hashes: dict[str, str] = {}
    left_out: dict[str, str] = {}
    sides: dict[str, str] = {}
    for case in provided(facts.layout, download):
        if progress:
            progress(len(hashes) + len(left_out) + 1, case.id)
        reason = facts.excluded.get(case.id) or _twin(case, hashes)
        if reason:
            left_out[case.id] = reason
            continue
        hashes[case.id] = _write(output, facts, case)
        if isinstance(case, ProvidedPicture):
            sides[case.id] = case.side
    _describe(output, facts, len(hashes))
    write_text(output / CONTENT_FILE, json.dumps(hashes, indent=2) + "\n")
    write_splits(output, {**split_cohort(name, list(hashes)), **_provided_split(sides)})
    return PrepareReport(name, tuple(hashes), left_out, facts.cases)


def _twin(case: ProvidedVolume | ProvidedPicture, hashes: dict[str, str]) -> str | None:
    values: NDArray[Any] = case.volume.voxels if isinstance(case, ProvidedVolume) else case.pixels
    found = content_hash(values)
    for other, known in hashes.items():
        if known == found:
            return f"the same image as {other}"
    return None


def _write(output: Path, facts: Dataset, case: ProvidedVolume | ProvidedPicture) -> str:
    if isinstance(case, ProvidedPicture):
        return write_picture_case(output, case.id, case.pixels, case.labels)
    if not case.label_grid.matches(case.volume.grid):
        raise RecipeError(
            f"the labels of {case.id} lie on another grid than its image",
            value=f"{case.label_grid.shape}, {case.label_grid.axis_codes}",
            expected=f"{case.volume.grid.shape}, {case.volume.grid.axis_codes}",
            hint="Correct the label file's affine; agseg does not guess geometry.",
        )
    labels = _merged(case.labels, facts, case.id)
    return write_volume_case(output, case.id, case.volume, LabelMask(labels, case.volume.grid, facts.label_set))


def _merged(labels: NDArray[Any], facts: Dataset, case_id: str) -> NDArray[np.uint8]:
    """The provider's values as ours; without a rule they must be ours already."""
    values = np.unique(labels)
    if not facts.merged:
        unknown = sorted(set(values.tolist()) - {0, *facts.labels})
        if unknown:
            raise RecipeError(f"{case_id} holds labels that the data set does not name", value=unknown[:5])
        return np.asfortranarray(labels.astype(np.uint8))
    merged = np.zeros(labels.shape, dtype=np.uint8, order="F")
    for theirs, ours in facts.merged.items():
        merged[labels == theirs] = ours
    return merged


def _describe(output: Path, facts: Dataset, cases: int) -> None:
    ending = ".nii.gz" if facts.task is Task.VOLUME else ".png"
    describe_cohort(
        output,
        name=facts.name,
        label_set=facts.label_set,
        modality=facts.modality,
        file_ending=ending,
        cases=cases,
        licence=facts.licence,
        reference=facts.citation,
    )


def _provided_split(sides: dict[str, str]) -> dict[str, tuple[Split, ...]]:
    """The provider's own sides, where it has any."""
    if len(set(sides.values())) < 2:
        return {}
    by_side = {side: tuple(sorted(c for c, s in sides.items() if s == side)) for side in ("train", "validation", "test")}
    return {"provider": (Split(**by_side),)}


def check_dataset(root: Path) -> CheckReport:
    """Read every case and say what is wrong: files, grids, labels, hashes, copies, splits, organs in the wrong place."""
    if (root / FRAMES_FILE).exists():
        frames = open_frames(root)
        return CheckReport(len(frames.ids), frames.labels, tuple(_split_problems(root, set(frames.ids))))
    cohort = open_cohort(root)
    recorded = _recorded(root)
    pinned = dataset(cohort.name).hashes if _is_known(cohort.name) else {}
    problems: list[str] = []
    seen: dict[str, str] = {}
    for case_id in cohort.ids:
        wrong = fits(cohort, case_id)
        if wrong:
            problems.append(f"{case_id}: {wrong}")
            continue
        found = _hash(cohort, case_id)
        if found in seen:
            problems.append(f"{case_id}: the same image as {seen[found]}")
        seen.setdefault(found, case_id)
        for known, source in ((recorded.get(case_id), "when it was prepared"), (pinned.get(case_id), "in the data set file")):
            if known not in (None, found):
                problems.append(f"{case_id}: the image is not the one that was recorded {source}")
        problems.extend(_implausible(cohort, case_id))
    problems.extend(f"{case_id}: prepared, but no longer here" for case_id in recorded if case_id not in cohort.ids)
    problems.extend(_split_problems(root, set(cohort.ids)))
    notes = () if recorded else ("no content.json: nobody recorded what the images were",)
    return CheckReport(len(cohort.ids), cohort.label_set.names, tuple(problems), notes)


def _is_known(name: str) -> bool:
    try:
        dataset(name)
    except RecipeError:
        return False
    return True


def _recorded(root: Path) -> dict[str, str]:
    path = root / CONTENT_FILE
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _hash(cohort: Cohort, case_id: str) -> str:
    if cohort.file_ending == ".png":
        pixels = cohort.read_picture(case_id).astype(np.uint8)
        return content_hash(np.ascontiguousarray(pixels.transpose(1, 2, 0)) if len(pixels) == 3 else pixels[0])
    return content_hash(cohort.read_volume(case_id).voxels)


def _implausible(cohort: Cohort, case_id: str) -> list[str]:
    """Organs of a CT whose mean HU no organ has: the usual trace of flipped labels."""
    if cohort.modality != "CT" or cohort.file_ending == ".png":
        return []
    volume = cohort.read_volume(case_id)
    mask = cohort.read_mask(case_id, grid=volume.grid)
    found = []
    for name in mask.label_set.names:
        inside = volume.voxels[mask.of(name)]
        if inside.size and not PLAUSIBLE_HU[0] < inside.mean() < PLAUSIBLE_HU[1]:
            found.append(f"{case_id}: {name} has a mean of {inside.mean():.0f} HU; do labels and image lie on each other?")
    return found


def _split_problems(root: Path, ids: set[str]) -> list[str]:
    try:
        split = read_split(root)
    except RecipeError as error:
        return [f"{SPLITS_FILE}: {error.sentence()}"]
    named = {*split.train, *split.validation, *split.test}
    return [f"{SPLITS_FILE} names {case}, which is not here" for case in sorted(named - ids)]
