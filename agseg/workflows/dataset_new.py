"""Make a data set of one's own from a raw folder of nnU-Net's: describe it, and cut it into folds."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agseg.errors import RecipeError
from agseg.io.atomic import write_text
from agseg.io.nifti import read_labels
from agseg.io.os_errors import no_folder
from agseg.training.cohort import Cohort, open_cohort
from agseg.training.datasets import dataset_names
from agseg.training.description import DESCRIPTION, ENDINGS, NUMBERED, PNG, Description, read_description
from agseg.training.folds import FoldPlan, stratified_folds
from agseg.training.splits import SPLITS_FILE, Split, write_splits

DATASET_NAME = re.compile(r"[a-z0-9][a-z0-9.\-]{0,63}")
"""A name for files, recipes and tables."""

_CHANNEL = re.compile(r"_(\d{4})$")


@dataclass(frozen=True)
class NewDataset:
    """What is said of a data set; None and empty keep what ``dataset.json`` says already.

    Parameters
    ----------
    name
        Lower-case letters, digits, dots and hyphens; by default made of the file's name or the folder's.
    channels
        What each channel is, in order: ``CT`` for HU, any other word (``T1``, ``PET``) for a signal, ``RGB`` for colour.
    labels
        Value to name.
    licence, reference
        Of the images: what they may be used for, and how to cite them.
    """

    name: str | None = None
    channels: tuple[str, ...] = ()
    labels: Mapping[int, str] | None = None
    licence: str | None = None
    reference: str | None = None


def new_dataset(root: Path, request: NewDataset) -> Description:
    """Write or complete the ``dataset.json`` of a folder with ``imagesTr`` and ``labelsTr``; other keys of it are kept.

    Returns
    -------
    Description
        As it is read back.

    Raises
    ------
    RecipeError
        If the folder holds no labelled cases, the name is another data set's, or something is missing that nobody can guess.
    """
    if missing := no_folder(root / "labelsTr") or no_folder(root / "imagesTr"):
        raise RecipeError(missing, path=root, expected="a raw folder of nnU-Net's: imagesTr and labelsTr")
    content = _content(root)
    ending = str(content.get("file_ending") or _ending(root))
    content["name"] = _name(request.name or str(content.get("name") or NUMBERED.sub("", root.resolve().name)), root, content)
    if request.channels:
        content.pop("modality", None)
        content["channel_names"] = {str(number): name for number, name in enumerate(request.channels)}
    if not {"channel_names", "modality"} & set(content):
        raise RecipeError(
            "what the images show stands nowhere",
            path=root,
            value=f"{_channels(root, ending)} file(s) per case",
            expected="--channel CT, once per channel and in their order",
        )
    if request.labels is not None:
        content["labels"] = {"background": 0, **{name: value for value, name in sorted(request.labels.items())}}
    if not content.get("labels"):
        raise RecipeError("the labels have no names", path=root, expected="--label 1=liver, once per label")
    for key, said in (("licence", request.licence), ("reference", request.reference)):
        if said is not None:
            content[key] = said
    content["file_ending"] = ending
    content["numTraining"] = len(list(_files(root / "labelsTr", ending)))
    if not content["numTraining"]:
        raise RecipeError("no labelled case", path=root / "labelsTr", expected=f"*{ending}")
    before = (root / DESCRIPTION).read_bytes() if (root / DESCRIPTION).exists() else None
    write_text(root / DESCRIPTION, json.dumps(content, indent=2) + "\n")
    try:
        described = read_description(root)
        open_cohort(root)
    except RecipeError:
        # What cannot be read back does not stay.
        if before is None:
            (root / DESCRIPTION).unlink()
        else:
            write_text(root / DESCRIPTION, before.decode())
        raise
    return described


def _name(said: str, root: Path, content: Mapping[str, Any]) -> str:
    name = re.sub(r"[^a-z0-9.]+", "-", said.casefold()).strip("-.")
    if not DATASET_NAME.fullmatch(name):
        raise RecipeError("not a name for a data set", path=root, value=said, expected="letters, digits, dots and hyphens")
    if name in dataset_names() and content.get("name") != name:
        raise RecipeError(
            "a data set of the papers is called so, and its protocols and figures do not belong to this one",
            path=root,
            value=name,
            expected="another --name",
        )
    return name


def _content(root: Path) -> dict[str, Any]:
    path = root / DESCRIPTION
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecipeError("dataset.json is no JSON", path=path) from error
    if not isinstance(content, dict):
        raise RecipeError("dataset.json is no mapping", path=path)
    return content


def _files(folder: Path, ending: str) -> list[Path]:
    return sorted(path for path in folder.glob(f"*{ending}") if not path.name.startswith("."))


def _ending(root: Path) -> str:
    found = [ending for ending in ENDINGS if _files(root / "labelsTr", ending)]
    if len(found) != 1:
        raise RecipeError(
            "label images of several kinds" if found else "no label image is here",
            path=root / "labelsTr",
            value=found or None,
            expected=f"one of {', '.join(ENDINGS)}",
        )
    return found[0]


def _channels(root: Path, ending: str) -> int:
    """How many channels the first case has."""
    numbers = [_CHANNEL.search(path.name.removesuffix(ending)) for path in _files(root / "imagesTr", ending)]
    return len({found[1] for found in numbers if found}) or 1


def labels_in(cohort: Cohort, case_id: str) -> tuple[str, ...]:
    """The names of the labels that occur in a case."""
    if cohort.file_ending == PNG:
        values = np.unique(cohort.read_picture_labels(case_id))
    else:
        values = np.unique(read_labels(cohort.label_path(case_id))[1])
    present = set(values.tolist())
    return tuple(label.name for label in cohort.label_set if label.index in present)


def split_dataset(root: Path, plan: FoldPlan, *, patients: Path | None = None, overwrite: bool = False) -> tuple[Split, ...]:
    """Write ``splits.json`` and nnU-Net's ``splits_final.json`` for a cohort of one's own.

    Parameters
    ----------
    root
        The cohort's folder.
    plan
        How to cut.
    patients
        A CSV file with the columns ``case`` and ``patient``, where some patients have several cases.
    overwrite
        Replace the splits that are there: runs that began with them can then no longer be evaluated.

    Raises
    ------
    RecipeError
        If there are splits already, the cohort is too small, or the table of patients does not fit.
    """
    cohort = open_cohort(root)
    if (root / SPLITS_FILE).exists() and not overwrite:
        raise RecipeError(
            "the cohort is cut already, and networks may have learned from one side of it",
            path=root / SPLITS_FILE,
            hint="Keep it, or replace it with --overwrite.",
        )
    group_of = None if patients is None else _patients(patients, cohort)
    splits = stratified_folds({case: labels_in(cohort, case) for case in cohort.ids}, plan, group_of=group_of)
    write_splits(root, {plan.name: splits}, tested_by_nnunet=not plan.test)
    return splits


def _patients(path: Path, cohort: Cohort) -> dict[str, str]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            found = {row["case"]: row["patient"] for row in csv.DictReader(file)}
    except OSError as error:
        raise RecipeError("the table of patients cannot be read", path=path) from error
    except KeyError as error:
        raise RecipeError(
            "the table of patients lacks a column", path=path, value=str(error), expected="case, patient"
        ) from error
    if without := [case for case in cohort.ids if not found.get(case)]:
        raise RecipeError("the table of patients does not have every case", path=path, value=without[:5])
    return found
