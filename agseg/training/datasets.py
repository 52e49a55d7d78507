"""What is known about each data set: where it comes from, its licence, its labels, how its provider lays it out.

The facts stand in ``train/datasets/<name>.yaml``; :mod:`agseg.training.providers` knows the layouts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from agseg.binding import load
from agseg.errors import RecipeError
from agseg.io.resources import resource_path
from agseg.labels import LabelSet


class Task(StrEnum):
    """What is learned from a data set."""

    VOLUME = "volume"
    """Labels per voxel of a scan."""
    PICTURE = "picture"
    """Labels per pixel of a picture."""
    FRAME = "frame"
    """One class per ultrasound frame."""


class Layout(StrEnum):
    """How a provider lays its files out."""

    NNUNET = "nnunet"
    TCIA_PANCREAS = "tcia-pancreas"
    LITS = "lits"
    CHAOS_MR = "chaos-mr"
    ISIC2017 = "isic2017"
    LUNG_2D = "lung-2d"
    FRAMES = "frames"


@dataclass(frozen=True)
class Dataset:
    """One data set.

    Parameters
    ----------
    name, title
        On the command line; for people.
    task
        See :class:`Task`.
    modality
        ``CT``, ``MR``, ``US`` or ``RGB``.
    labels
        Index to name; for frames, the classes from 0.
    layout
        See :class:`Layout`.
    source, doi, licence, citation, obtain
        Where it is, under which licence, how to cite it and how to get it.
    cases
        How many labelled cases a complete copy has; None where nobody says.
    excluded
        Case id to the reason why it is left out, whatever the download holds.
    merged
        The provider's label value to ours; values that are not named become background.
    hashes
        Case id to the content hash of its image, where a copy has been seen; ``dataset check`` compares.
    notes
        What a user must know.
    """

    name: str
    title: str
    task: Task
    modality: str
    labels: dict[int, str]
    layout: Layout
    source: str
    licence: str
    citation: str
    obtain: str
    doi: str | None = None
    cases: int | None = None
    excluded: dict[str, str] = field(default_factory=dict)
    merged: dict[int, int] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = set(self.merged.values()) - {0, *self.labels}
        if unknown:
            raise ValueError(f"merged labels {sorted(unknown)} are not among the labels")

    @property
    def label_set(self) -> LabelSet:
        """Names by index, background left out."""
        return LabelSet.from_mapping(self.labels)


def dataset_names() -> tuple[str, ...]:
    """Every data set that has a file in ``train/datasets``."""
    return tuple(sorted(path.stem for path in resource_path("train/datasets").glob("*.yaml")))


def dataset(name: str) -> Dataset:
    """One data set by name.

    Raises
    ------
    RecipeError
        If it is not known; the message lists those that are.
    """
    if name not in dataset_names():
        raise RecipeError(f"unknown data set {name!r}", expected=f"one of {', '.join(dataset_names())}")
    found = load(resource_path("train/datasets") / f"{name}.yaml", Dataset)
    if found.name != name:
        raise RecipeError("the file's name is not the data set's", value=found.name, expected=name)
    return found
