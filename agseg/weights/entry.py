"""One entry of the weights manifest, as frozen types that are valid once built: enough to run, to trust and to cite.

Its files are :mod:`agseg.weights.files`, what its network sees is :mod:`agseg.weights.input_spec`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from enum import StrEnum
from typing import Any

from agseg.errors import FieldError
from agseg.labels import LabelSet
from agseg.measure.calibration import Calibration
from agseg.weights.checks import check_enum
from agseg.weights.files import WeightsFile
from agseg.weights.input_spec import InputSpec

__all__ = ["IMAGE_DIGITS", "WEIGHTS_ID", "Cleanup", "Learned", "WeightsEntry", "WeightsFormat", "WeightsPart"]

WEIGHTS_ID = re.compile(r"[a-z0-9][a-z0-9.\-]{0,63}")
"""An entry's name on the command line."""


IMAGE_DIGITS = 16
"""Hexadecimal digits that an entry keeps of the SHA-256 of an image: enough that two images are never taken for each other."""

_IMAGES = re.compile(rf"([0-9a-f]{{{IMAGE_DIGITS}}}( [0-9a-f]{{{IMAGE_DIGITS}}})*)?")


class Cleanup(StrEnum):
    """What is done to an organ's mask after the network."""

    LARGEST_COMPONENT = "largest_component"
    """Only the largest 26-connected component stays: right for a solid organ."""
    LARGE_COMPONENTS = "large_components"
    """The 26-connected components stay that have at least a tenth of the largest one's voxels: a thin organ may break."""


class WeightsFormat(StrEnum):
    """What an entry's files are; everything but safetensors is converted once, after its digest was checked."""

    SAFETENSORS = "safetensors"
    OBELISK_PTH = "obelisk-pth"
    SONONET_NPZ = "sononet-npz"
    MONAI_PT = "monai-pt"


@dataclass(frozen=True)
class WeightsPart:
    """One network of several that make up an entry.

    Parameters
    ----------
    files
        Names of the entry's files that are its own; several are folds.
    labels
        Its own label indices to the entry's organ names.
    architecture, config, input
        As in an entry.
    """

    files: tuple[str, ...]
    _: KW_ONLY
    labels: LabelSet
    architecture: str
    config: dict[str, Any] = field(default_factory=dict)
    input: InputSpec


@dataclass(frozen=True)
class Learned:
    """Which cases of a data set a network learned from, so that it is not tested on them.

    An entry travels, and a case's name may be a patient's, whose digest would be found by trying names. The digest of an image
    tells nothing to those who do not have that image, and knows a case under any name.

    Parameters
    ----------
    dataset
        The data set's name.
    images
        The first digits of the SHA-256 of each case's image, between blanks; empty where nobody recorded them.
    """

    dataset: str
    images: str = ""

    def __post_init__(self) -> None:
        if not _IMAGES.fullmatch(self.images):
            raise FieldError(
                "images", "not digests of images", expected=f"{IMAGE_DIGITS} hexadecimal digits each, between blanks"
            )


@dataclass(frozen=True)
class WeightsEntry:
    """A trained network: what it is, where its files are, what it sees, what it may be used for.

    Parameters
    ----------
    id
        Name on the command line.
    architecture, config
        Key of ``agseg.models.registry`` and its keyword arguments.
    format
        See :class:`WeightsFormat`.
    files
        One, or several for an ensemble (their softmaxes are averaged).
    labels
        Index to organ name; empty for a frame classifier.
    default_for
        Organs (or planes) for which this entry is the manifest's default.
    classes
        Names of a frame classifier's outputs, in order; empty for a segmentation network.
    largest_of
        Sets of organs of which, all taken together, only the largest component stays (nnU-Net's post-processing), in order.
    parts
        Several networks as one entry, in the order of merging: where a later one says organ it overwrites an earlier one. Then
        ``architecture``, ``config`` and ``input`` are those of the first.
    crop_to
        Organs of other weights around which the publisher's program computes and nowhere else; a scout looks for them.
    learned
        What it was trained and validated on, its starts included; None where nobody recorded it.
    calibration
        Per organ what its winning probability is worth, where that was measured on patients left out; changes no mask.

    Raises
    ------
    FieldError
        If a field does not hold what it must.
    """

    id: str
    _: KW_ONLY
    architecture: str
    config: dict[str, Any] = field(default_factory=dict)
    format: WeightsFormat
    files: tuple[WeightsFile, ...]
    input: InputSpec
    labels: LabelSet = field(default_factory=lambda: LabelSet(()))
    licence: str
    citation: str
    attribution: str
    intended_use: str
    scores: dict[str, Any] = field(default_factory=dict)
    default_for: tuple[str, ...] = ()
    caution: str = ""
    cleanup: dict[str, Cleanup] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    largest_of: tuple[tuple[str, ...], ...] = ()
    parts: tuple[WeightsPart, ...] = ()
    crop_to: tuple[str, ...] = ()
    learned: tuple[Learned, ...] | None = None
    calibration: dict[str, Calibration] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not WEIGHTS_ID.fullmatch(self.id):
            raise FieldError("id", "not an id", value=self.id, expected="a-z, 0-9, . and -")
        if not self.files:
            raise FieldError("files", "an entry has at least one file")
        if len({file.filename for file in self.files}) != len(self.files):
            raise FieldError("files", "two files of one name")
        if len(set(self.classes)) != len(self.classes):
            raise FieldError("classes", "two classes of one name")
        if bool(self.labels) == bool(self.classes):
            raise FieldError("labels", "an entry has either labels (organs) or classes (of frames)")
        regions = () if self.parts else self.input.regions
        if regions and sorted(regions) != [label.index for label in self.labels]:
            raise FieldError("input", "regions must list every label once, in the order of painting", value=list(regions))
        known = self.labels.names or self.classes
        together = tuple(organ for organs in self.largest_of for organ in organs)
        for name, named in (
            ("default_for", self.default_for),
            ("cleanup", tuple(self.cleanup)),
            ("calibration", tuple(self.calibration)),
            ("largest_of", together),
            ("parts", tuple(organ for part in self.parts for organ in part.labels.names)),
        ):
            if strangers := [organ for organ in named if organ not in known]:
                raise FieldError(name, "names an organ that the entry does not know", value=strangers[0])
        for rule in self.cleanup.values():
            check_enum("cleanup", rule, Cleanup)
        if len({part.input.modality for part in self.parts}) > 1:
            raise FieldError("parts", "all parts see one scan, so they have one modality")
        if self.parts and sorted(name for part in self.parts for name in part.files) != sorted(f.filename for f in self.files):
            raise FieldError("parts", "every file must belong to exactly one part")

    def narrowed(self, organs: Sequence[str]) -> WeightsEntry:
        """The entry without the parts (and their files) that hold none of these organs; itself where it has no parts."""
        kept = tuple(part for part in self.parts if any(organ in part.labels for organ in organs))
        if len(kept) == len(self.parts) or not kept:
            return self
        names = {name for part in kept for name in part.files}
        return replace(self, parts=kept, files=tuple(file for file in self.files if file.filename in names))

    def part_entries(self) -> tuple[WeightsEntry, ...]:
        """Each part as an entry of its own, with its own label indices; clean-up is done once they are merged."""
        return tuple(
            replace(
                self,
                architecture=part.architecture,
                config=part.config,
                input=part.input,
                labels=part.labels,
                files=tuple(file for file in self.files if file.filename in part.files),
                parts=(),
                default_for=(),
                cleanup={},
                largest_of=(),
                calibration={},
            )
            for part in self.parts
        )

    @property
    def size_bytes(self) -> int | None:
        """Total size, or None where a file's size is not known before it is fetched."""
        sizes = [file.size_bytes for file in self.files]
        return None if any(size is None for size in sizes) else sum(size for size in sizes if size is not None)

    @property
    def sha256(self) -> str | None:
        """The entry's own digest: SHA-256 of its files' sorted hex digests joined by newlines; None until all are known."""
        digests = [file.sha256 for file in self.files]
        if any(digest is None for digest in digests):
            return None
        return hashlib.sha256("\n".join(sorted(d for d in digests if d is not None)).encode()).hexdigest()
