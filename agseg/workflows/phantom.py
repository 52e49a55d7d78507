"""Write a synthetic, labelled cohort with its splits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agseg.errors import RecipeError
from agseg.training.cohort import check_new, describe_cohort, write_volume_case
from agseg.training.datasets import dataset
from agseg.training.frames import FrameRow, subject_of, write_frames
from agseg.training.phantom import SITES, make_cohort
from agseg.training.phantom_us import make_frames
from agseg.training.splits import Split, plan_of, split_cases, write_splits
from agseg.ultrasound.timeline import PLANES

PHANTOMS = (*SITES, "us")
"""What ``agseg phantom`` makes."""

Progress = Callable[[int, int], None]

_REFERENCE = "Synthetic; made by agseg phantom. Not a patient."


def make_phantom(
    kind: str,
    *,
    cases: int,
    output: Path,
    seed: int = 0,
    coarsen: float = 1.0,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Write a cohort in nnU-Net's layout (or frames with their list), and its split file.

    Parameters
    ----------
    kind
        One of :data:`PHANTOMS`.
    cases
        How many scans; for ``us`` how many subjects, each with a frame of every class.
    output
        The folder to write; it must be new or empty.
    seed
        The same seed gives the same voxels.
    coarsen
        Multiplies the voxel spacing of CT cohorts.
    progress
        Called with (done, all).

    Returns
    -------
    dict
        Number of cases, and of splits.
    """
    if kind not in PHANTOMS:
        raise RecipeError(f"unknown phantom {kind!r}", expected=f"one of {', '.join(PHANTOMS)}")
    if cases < 3:
        raise RecipeError("a cohort needs a case to train on, one to validate, one to test", value=cases, expected="at least 3")
    check_new(output)
    ids: list[str] = []
    if kind == "us":
        ids.extend(write_frames(output, _frames(cases, seed, progress)))
        name, labels, modality, ending = "fetal-us", dataset("fetal-us").label_set, "US", ".png"
    else:
        for case in make_cohort(kind, cases=cases, seed=seed, coarsen=coarsen):
            write_volume_case(output, case.id, case.volume, case.mask)
            ids.append(case.id)
            if progress:
                progress(len(ids), cases)
        name, labels, modality, ending = kind, SITES[kind].label_set, "CT", ".nii.gz"
    describe_cohort(
        output,
        name=name,
        label_set=labels,
        modality=modality,
        file_ending=ending,
        cases=len(ids),
        reference=_REFERENCE,
        licence="CC0-1.0",
        synthetic=True,
        seed=seed,
    )
    splits = split_cohort(name, ids)
    write_splits(output, splits)
    return {"cases": len(ids), "splits": len(splits)}


def _frames(subjects: int, seed: int, progress: Progress | None) -> Iterator[tuple[FrameRow, NDArray[np.uint8]]]:
    total = subjects * len(PLANES)
    for number, frame in enumerate(make_frames(subjects=subjects, seed=seed), start=1):
        name = f"{frame.subject}/{number % len(PLANES):02d}"
        yield FrameRow(name, f"frames/{name}.png", frame.subject, frame.label, frame.box), frame.pixels
        if progress:
            progress(number, total)


def _chaos_patient(case_id: str) -> str:
    """``chaos_01_t1dual_in`` -> ``chaos_01``: three series of one patient."""
    return "_".join(case_id.split("_")[:2])


_GROUPS: dict[str, Callable[[str], str]] = {"fetal-us": subject_of, "chaos": _chaos_patient}
"""Which cases of a data set must stay on one side of a split."""


def split_cohort(data: str, ids: list[str]) -> dict[str, tuple[Split, ...]]:
    """Every named split of a data set for these cases; rules that these few cases cannot fill are left out."""
    plan = plan_of(data)
    group_of = _GROUPS.get(data)
    ordered = {plan.default: plan.splits[plan.default], **plan.splits}
    splits = {}
    for name, rule in ordered.items():
        if name == plan.default or len(ids) > max(rule.folds, 3):
            splits[name] = split_cases(ids, rule, group_of=group_of)
    return splits
