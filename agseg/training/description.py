"""``dataset.json``: what a cohort says of itself, as nnU-Net v2 writes it, or the Medical Segmentation Decathlon.

::

    {"name": "liver-tumours", "licence": "CC BY 4.0", "channel_names": {"0": "CT", "1": "PET"},
     "labels": {"background": 0, "liver": 1, "tumour": 2, "ignore": 3}, "numTraining": 12, "file_ending": ".nii.gz"}

The Decathlon numbers its labels the other way round (``{"1": "liver"}``) and calls the channels ``modality``. Labels that are
lists are regions: one voxel may belong to several of them, and ``regions_class_order`` says which value each one paints.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agseg.errors import RecipeError
from agseg.io.os_errors import no_folder
from agseg.labels import Label, LabelSet
from agseg.weights.nnunet.naming import organ_name

DESCRIPTION = "dataset.json"
NIFTI = ".nii.gz"
PNG = ".png"

ENDINGS = (NIFTI, ".nii", PNG)

IGNORED = "ignore"
"""nnU-Net's name for voxels that nobody labelled."""

_COLOURS = (("r", "g", "b"), ("red", "green", "blue"))
NUMBERED = re.compile(r"Dataset\d+_|Task\d+_")
"""What nnU-Net and the Decathlon write before a data set's name."""


@dataclass(frozen=True)
class Meaning:
    """What the values of label images mean.

    Parameters
    ----------
    label_set
        Value to name, in agseg's style; for regions, the value that each region paints.
    regions
        Region to the values that it is made of; empty where each voxel has one label.
    ignored
        The value of voxels that nobody labelled, or None.
    """

    label_set: LabelSet
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    ignored: int | None = None

    @property
    def in_files(self) -> LabelSet:
        """Every value that a label image may hold, the ignored one included."""
        ignored = () if self.ignored is None else (Label(self.ignored, IGNORED),)
        return LabelSet((*self.label_set, *ignored))


@dataclass(frozen=True)
class Description:
    """What ``dataset.json`` says.

    Parameters
    ----------
    name
        Of the data set; where the file has none, the folder's, without nnU-Net's number.
    channels
        Names of the channels in order, e.g. ``("CT", "PET")``.
    meaning
        Of the label images' values.
    file_ending
        One of :data:`ENDINGS`.
    cases
        How many training cases there should be, or None.
    licence, reference
        Of the images; empty where nobody said.
    synthetic
        Whether they show no patient.
    """

    name: str
    channels: tuple[str, ...]
    meaning: Meaning
    file_ending: str = NIFTI
    cases: int | None = None
    licence: str = ""
    reference: str = ""
    synthetic: bool = False

    @property
    def modalities(self) -> tuple[str, ...]:
        """DICOM modality per channel; one ``RGB`` for a colour picture."""
        if self.file_ending == PNG and tuple(name.casefold() for name in self.channels) in _COLOURS:
            return ("RGB",)
        return tuple(modality_of(name, picture=self.file_ending == PNG) for name in self.channels)


def modality_of(channel: str, *, picture: bool = False) -> str:
    """A channel's modality by its name: ``CT`` holds HU, ``RGB`` and ``US`` are pictures, any other a signal (``MR``)."""
    name = channel.strip().upper()
    if name in ("RGB", "US") or picture:
        return name
    return "CT" if name.startswith("CT") else "MR"


def read_description(root: Path) -> Description:
    """What the ``dataset.json`` of a folder says.

    Raises
    ------
    RecipeError
        If there is none, or it does not hold together; the message names the key.
    """
    found = _open(root)
    if found is None:
        raise RecipeError(
            no_folder(root) or "no data set here",
            path=root,
            expected=DESCRIPTION,
            hint="Describe a raw folder of nnU-Net's: agseg dataset new DIR. Bring a paper's data into this layout: "
            "agseg dataset prepare NAME --from DIR -o DIR",
        )
    return found.description(root)


def described_meaning(folder: Path) -> Meaning | None:
    """What a folder's ``dataset.json`` says of its labels, or None where there is no such file; nothing else of it is read."""
    found = _open(folder)
    return None if found is None else found.meaning()


def _open(root: Path) -> _Reader | None:
    path = root / DESCRIPTION
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return None
    except ValueError as error:
        raise RecipeError("dataset.json is not as nnU-Net writes it: no JSON", path=path) from error
    if not isinstance(content, dict):
        raise RecipeError("dataset.json is not as nnU-Net writes it: no mapping", path=path)
    return _Reader(path, content)


@dataclass(frozen=True)
class _Reader:
    """One file's content, and the refusals that name it."""

    path: Path
    content: Mapping[str, Any]

    def refuse(self, key: str, what: str, **data: Any) -> RecipeError:
        return RecipeError(f"dataset.json is not as nnU-Net writes it: {key!r} {what}", path=self.path, **data)

    def description(self, root: Path) -> Description:
        ending = str(self.content.get("file_ending", NIFTI))
        if ending not in ENDINGS:
            raise RecipeError("this kind of file is not read", path=self.path, value=ending, expected=" or ".join(ENDINGS))
        cases = self.content.get("numTraining")
        return Description(
            name=str(self.content.get("name") or NUMBERED.sub("", root.resolve().name)),
            channels=self.channels(),
            meaning=self.meaning(),
            file_ending=ending,
            cases=cases if isinstance(cases, int) else None,
            licence=str(self.content.get("licence") or self.content.get("license") or ""),
            reference=str(self.content.get("reference") or ""),
            synthetic=self.content.get("synthetic") is True,
        )

    def channels(self) -> tuple[str, ...]:
        key = "channel_names" if "channel_names" in self.content else "modality"
        found = self.content.get(key)
        if not isinstance(found, dict) or not found:
            raise self.refuse("channel_names", "is missing", expected='{"0": "CT"}')
        if [str(index) for index in found] != [str(number) for number in range(len(found))]:
            raise self.refuse(key, "must number the channels from 0", value=list(found))
        return tuple(str(name) for name in found.values())

    def meaning(self) -> Meaning:
        found = self.content.get("labels")
        if not isinstance(found, dict) or not found:
            raise self.refuse("labels", "is missing", expected='{"background": 0, "liver": 1}')
        if all(str(key).isdigit() for key in found):  # the Decathlon's way
            found = {str(name): int(index) for index, name in found.items()}
        values = {str(name): self.values(str(name), value) for name, value in found.items()}
        ignored = values.pop(IGNORED, (None,))[0]
        foreground = {organ_name(name): value for name, value in values.items() if value != (0,)}
        if len(foreground) != len([value for value in values.values() if value != (0,)]):
            raise self.refuse("labels", "gives two labels one name", value=list(values))
        painted, regions = {name: value[0] for name, value in foreground.items()}, {}
        if any(len(value) > 1 for value in foreground.values()):
            order = self.content.get("regions_class_order")
            if not isinstance(order, list) or len(order) != len(foreground) or not all(isinstance(n, int) for n in order):
                raise self.refuse("regions_class_order", "must name a label per region", value=order, expected=list(foreground))
            painted, regions = dict(zip(foreground, order, strict=True)), foreground
        try:
            meaning = Meaning(LabelSet(tuple(Label(index, name) for name, index in painted.items())), regions, ignored)
            _ = meaning.in_files
        except ValueError as error:
            raise self.refuse("labels", f"do not hold together: {error}") from error
        return meaning

    def values(self, name: str, value: object) -> tuple[int, ...]:
        listed = value if isinstance(value, list) else [value]
        if not listed or not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n <= 255 for n in listed):
            raise self.refuse("labels", f"must give {name!r} a number from 0 to 255", value=value)
        return tuple(listed)
