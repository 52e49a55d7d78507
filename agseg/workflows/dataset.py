"""Bring a download into the internal layout."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agseg.errors import RecipeError
from agseg.io.atomic import write_text
from agseg.training.cohort import (
    check_new,
    content_hash,
    describe_cohort,
    write_picture_case,
    write_volume_case,
)
from agseg.training.datasets import Dataset, Task, dataset
from agseg.training.frames import provided_frames, write_frames
from agseg.training.providers import ProvidedPicture, ProvidedVolume, provided
from agseg.training.splits import Split, write_splits
from agseg.volume import LabelMask
from agseg.workflows.phantom import split_cohort

CONTENT_FILE = "content.json"
"""Case id to content hash; ``agseg dataset check`` compares."""

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
