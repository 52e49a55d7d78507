"""One entry of the weights manifest, as frozen types that are valid once built: enough to run, to trust and to cite."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field, fields, replace
from enum import StrEnum
from itertools import permutations, product
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from agseg.errors import FieldError
from agseg.labels import LabelSet

__all__ = [
    "AXIS_CODES",
    "VOLUMETRIC",
    "WEIGHTS_ID",
    "Carry",
    "Cleanup",
    "FileSource",
    "GridRule",
    "InputSpec",
    "Interpolation",
    "Normalisation",
    "Padding",
    "Placement",
    "SourceKind",
    "WeightsEntry",
    "WeightsFile",
    "WeightsFormat",
    "WeightsPart",
]


VOLUMETRIC = ("CT", "MR")
"""DICOM modalities of scans: their networks see a grid in millimetres."""

MODALITIES = (*VOLUMETRIC, "US", "RGB")
"""What a network may have been trained on; RGB is a picture."""

WEIGHTS_ID = re.compile(r"[a-z0-9][a-z0-9.\-]{0,63}")
"""An entry's name on the command line."""

_STORED_AXES = frozenset("".join(order) for order in permutations("IJK"))
"""The axes of the stored voxels, in any order."""

AXIS_CODES = _STORED_AXES | frozenset("".join(codes) for order in permutations(("LR", "PA", "IS")) for codes in product(*order))
"""RAS, LPI, SAR, ...: each axis of the patient once; or the stored ones."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MD5 = re.compile(r"[0-9a-f]{32}")
_REPOSITORY = re.compile(r"[A-Za-z0-9_.\-]+/[A-Za-z0-9_.\-]+")


class Padding(StrEnum):
    """What surrounds a model grid that is smaller than a tile."""

    ZERO = "zero"
    """Zeros after normalisation (MONAI's ``constant``)."""
    EDGE = "edge"
    """The outermost voxels, repeated (MONAI's ``replicate``)."""


class Cleanup(StrEnum):
    """What is done to an organ's mask after the network."""

    LARGEST_COMPONENT = "largest_component"
    """Only the largest 26-connected component stays: right for a solid organ."""
    LARGE_COMPONENTS = "large_components"
    """The 26-connected components stay that have at least a tenth of the largest one's voxels: a thin organ may break."""


class Normalisation(StrEnum):
    """How HU or signal become network input, after clipping to the window (if there is one)."""

    WINDOW_TO_UNIT = "window_to_unit"
    """Window low -> 0, high -> 1."""
    WINDOW_TO_SYMMETRIC = "window_to_symmetric"
    """Window low -> -1, high -> 1."""
    HU_OVER_1024 = "hu_over_1024"
    """HU / 1024 + 1; the window only clips (OBELISK)."""
    ZSCORE = "zscore"
    """(x - mean) / standard deviation over the whole model grid."""
    ZSCORE_NONZERO_MINMAX = "zscore_nonzero_minmax"
    """z-score over the non-zero voxels, then min-max to [-1, 1] (MONAI's whole-body bundle)."""
    CT = "ct"
    """(x - mean) / standard deviation with the training data's two numbers, ``mean_std`` (nnU-Net's ``CTNormalization``)."""
    ZSCORE_MASKED = "zscore_masked"
    """z-score over the non-zero voxels and the holes between them; what is outside stays (nnU-Net's ``use_mask_for_norm``)."""
    RESCALE_TO_UNIT = "rescale_to_unit"
    """Smallest value -> 0, largest -> 1."""
    NONE = "none"
    """As it is."""


class GridRule(StrEnum):
    """How the model grid is laid over a scan."""

    FIRST_VOXEL = "first_voxel"
    """The first voxel centre and the exact spacing are kept (MONAI)."""
    EDGES = "edges"
    """The outer edges of the scan are kept: the spacing gives way to a whole number of voxels (nnU-Net)."""
    CORNERS = "corners"
    """The first and last voxel centres are kept (TotalSegmentator)."""


class Interpolation(StrEnum):
    """How a scan is resampled to the model grid."""

    LINEAR = "linear"
    CUBIC = "cubic"
    """Cubic B-spline, clipped to the range of the values that it came from (nnU-Net)."""


class Carry(StrEnum):
    """What is carried back from the model grid to the scan's own, where labels are decided."""

    PROBABILITIES = "probabilities"
    LOGITS = "logits"
    """Scores as the network gives them, averaged over folds and mirror images (nnU-Net)."""
    LABELS = "labels"
    """Labels are decided on the model grid and go back to the nearest voxel (TotalSegmentator)."""


class Placement(StrEnum):
    """Where tiles lie and how they are blended."""

    STEPS = "steps"
    """Fixed steps, the last tile moved back to fit; a Gaussian around the tile's centre with a floor (MONAI)."""
    SPREAD = "spread"
    """Evenly spread; a Gaussian around voxel ``size // 2`` (nnU-Net)."""


@dataclass(frozen=True)
class InputSpec:
    """What a network was trained to see. It belongs to the weights, never to the command line.

    Parameters
    ----------
    modality
        DICOM modality, ``"CT"``, ``"MR"`` or ``"US"``; ``"RGB"`` for pictures.
    normalisation
        See :class:`Normalisation`.
    tile
        Tile shape along the tensor axes (voxels).
    axis_codes
        Where the tensor axes (first, second, third spatial) grow towards, e.g. ``"RAS"``; an order of ``"IJK"`` names the axes
        of the stored voxels instead, whatever their direction (nnU-Net on files); empty for frames.
    spacing_mm
        Voxel spacing of the model grid along those axes; ``None`` where ``fixed_shape`` rules. 0 on the first axis keeps the
        scan's own, for 2D networks.
    window_hu
        Clipping window before normalisation, or None.
    overlap
        Fraction of a tile shared with its neighbour.
    antialias
        Whether down-sampling averages over the new voxel's extent (a triangle filter) instead of picking by linear
        interpolation.
    padding
        See :class:`Padding`.
    body_box
        Whether only the box around the body is resampled to ``fixed_shape`` (OBELISK).
    fixed_shape
        Model grid size for networks that see a box at a fixed size.
    window_height_mm
        Height (along z) of the windows in which long scans are covered, for ``body_box`` networks.
    mean_std
        Mean and standard deviation of the training data's foreground, for normalisation ``ct``.
    normalise_first
        Whether values are normalised before they are resampled, instead of after.
    truncate
        Whether resampled values are cut to whole numbers (TotalSegmentator).
    grid, interpolation, carry, tiles
        See :class:`GridRule`, :class:`Interpolation`, :class:`Carry`, :class:`Placement`.
    separate_z
        Whether thick slices are never blended: where the coarsest spacing is more than three times the finest, that axis takes
        the nearest slice, on the way in and on the way back (nnU-Net).
    crop_nonzero
        Whether only the box of voxels that are not 0 is seen.
    regions
        For networks with one head per region instead of one per organ: the label that each head paints, in the order of
        painting; a later one overwrites. Empty otherwise.
    mirror_axes
        With carried logits: tensor axes along which training mirrored scans under the same labels, so that ``--mirror`` may
        average over all combinations of them. (Other networks: ``--mirror`` means left and right, whose names change places.)
    as_stored
        Whether oblique scans are taken voxel by voxel as they were stored, instead of turned to the patient's axes first.

    Raises
    ------
    FieldError
        If a field does not hold what it must.
    """

    modality: str
    _: KW_ONLY
    normalisation: Normalisation
    tile: tuple[int, int, int]
    axis_codes: str = ""
    spacing_mm: tuple[float, float, float] | None = None
    window_hu: tuple[float, float] | None = None
    overlap: float = 0.5
    antialias: bool = False
    padding: Padding = Padding.ZERO
    body_box: bool = False
    fixed_shape: tuple[int, int, int] | None = None
    window_height_mm: float | None = None
    mean_std: tuple[float, float] | None = None
    normalise_first: bool = False
    truncate: bool = False
    grid: GridRule = GridRule.FIRST_VOXEL
    interpolation: Interpolation = Interpolation.LINEAR
    separate_z: bool = False
    crop_nonzero: bool = False
    carry: Carry = Carry.PROBABILITIES
    tiles: Placement = Placement.STEPS
    regions: tuple[int, ...] = ()
    mirror_axes: tuple[int, ...] = ()
    as_stored: bool = False

    def __post_init__(self) -> None:
        if self.modality not in MODALITIES:
            raise FieldError("modality", "unknown modality", value=self.modality, expected=" or ".join(MODALITIES))
        if self.axis_codes not in AXIS_CODES and (self.axis_codes or self.modality in VOLUMETRIC):
            raise FieldError("axis_codes", "not axis codes", value=self.axis_codes, expected="three letters such as RAS")
        _check_enum("normalisation", self.normalisation, Normalisation)
        _check_enum("padding", self.padding, Padding)
        _check_sizes("tile", self.tile)
        if self.fixed_shape is not None:
            _check_sizes("fixed_shape", self.fixed_shape)
        if self.spacing_mm is not None:
            # A 2D network sees slices at the distance that they have.
            own = self.grid is GridRule.EDGES and self.tile[0] == 1 and self.spacing_mm[0] == 0
            _check_numbers("spacing_mm", self.spacing_mm[1:] if own else self.spacing_mm, 2 if own else 3, above=0.0)
        elif self.fixed_shape is None and self.modality in VOLUMETRIC and self.tile[2] > 1:  # depth 1: pictures without a scale
            raise FieldError("spacing_mm", "either spacing_mm or fixed_shape is needed")
        self._check_window()
        _check_numbers("overlap", (self.overlap,), 1)
        if not 0 <= self.overlap < 1:
            raise FieldError("overlap", "overlap is a fraction", value=self.overlap, expected="0 to below 1")
        if self.body_box and (self.fixed_shape is None or self.window_height_mm is None):
            raise FieldError("body_box", "a body box needs fixed_shape and window_height_mm")
        if self.window_height_mm is not None:
            _check_numbers("window_height_mm", (self.window_height_mm,), 1, above=0.0)
        self._check_second_way()

    def _check_second_way(self) -> None:
        """What nnU-Net's and TotalSegmentator's networks ask for."""
        for name, kind in (("grid", GridRule), ("interpolation", Interpolation), ("carry", Carry), ("tiles", Placement)):
            _check_enum(name, getattr(self, name), kind)
        if self.normalisation is Normalisation.CT and self.mean_std is None:
            raise FieldError("mean_std", "normalisation ct needs mean_std", expected="mean and standard deviation")
        if self.mean_std is not None:
            _check_numbers("mean_std", self.mean_std, 2)
            _check_numbers("mean_std", self.mean_std[1:], 1, above=0.0)
        if len(set(self.mirror_axes)) != len(self.mirror_axes) or not set(self.mirror_axes) <= {0, 1, 2}:
            raise FieldError("mirror_axes", "not axes", value=list(self.mirror_axes), expected="some of 0, 1 and 2")
        if self.regions and self.carry is not Carry.LOGITS:
            raise FieldError("regions", "regions need carry: logits", value=self.carry)
        if self.normalise_first and self.truncate:
            raise FieldError("truncate", "normalised values cannot be whole numbers")
        if self.grid is not GridRule.FIRST_VOXEL and (self.antialias or self.body_box):
            raise FieldError("grid", f"{self.grid} goes with neither antialias nor body_box")
        fresh = self.interpolation is Interpolation.CUBIC or self.separate_z or self.normalise_first
        if self.grid is GridRule.FIRST_VOXEL and (fresh or self.crop_nonzero):
            raise FieldError("grid", "cubic, separate_z, normalise_first and crop_nonzero need another grid", value=self.grid)

    def _check_window(self) -> None:
        if self.window_hu is not None:
            _check_numbers("window_hu", self.window_hu, 2)
            if self.window_hu[0] >= self.window_hu[1]:
                raise FieldError("window_hu", "not a window", value=list(self.window_hu), expected="low below high")
        elif self.normalisation in (Normalisation.WINDOW_TO_UNIT, Normalisation.WINDOW_TO_SYMMETRIC):
            raise FieldError("normalisation", f"{self.normalisation} needs window_hu")

    def axis_codes_on(self, stored: str) -> str:
        """Where the tensor axes grow to on a scan whose stored axes grow to ``stored``, e.g. ``"LPS"``."""
        if self.axis_codes not in _STORED_AXES:
            return self.axis_codes
        return "".join(stored["IJK".index(axis)] for axis in self.axis_codes)

    def identity(self) -> dict[str, Any]:
        """Plain values for a digest.

        Fields that came after the first release of the format are left out at their default, so that digests made before
        (of finished studies, of interrupted trainings) stay valid.
        """
        later = {f.name: f.default for f in fields(self) if f.name not in _FIRST_INPUT_FIELDS}
        return {key: value for key, value in asdict(self).items() if key not in later or value != later[key]}


_FIRST_INPUT_FIELDS = frozenset(
    ("modality", "axis_codes", "spacing_mm", "window_hu", "normalisation", "tile", "overlap", "antialias", "padding",
     "body_box", "fixed_shape", "window_height_mm")
)  # fmt: skip


class SourceKind(StrEnum):
    """Where a weights file comes from."""

    PACKAGED = "packaged"
    HUB = "hub"
    URL = "url"
    LOCAL = "local"


@dataclass(frozen=True)
class FileSource:
    """Packaged: ``path`` below the package's weights folder. Hub: repository, pinned revision, file name. URL: https."""

    kind: SourceKind
    path: str | None = None
    repository: str | None = None
    revision: str | None = None
    url: str | None = None

    def __post_init__(self) -> None:
        _check_enum("kind", self.kind, SourceKind)
        match self.kind:
            case SourceKind.HUB:
                if not _REPOSITORY.fullmatch(self.repository or ""):
                    raise FieldError("hub", "not a hub repository", value=self.repository, expected="owner/name")
                if not self.revision or not self.path:
                    raise FieldError("hub", "a hub file needs a revision and a path")
            case SourceKind.URL:
                parts = urlsplit(self.url or "")
                if parts.scheme not in ("https", "http") or not parts.hostname:
                    raise FieldError("url", "not a URL", value=self.url, expected="https://...")
            case SourceKind.PACKAGED:
                inside = PurePosixPath(self.path or "")
                if not self.path or inside.is_absolute() or ".." in inside.parts:
                    raise FieldError("packaged", "not a path below the package's weights folder", value=self.path)
            case SourceKind.LOCAL:
                if not self.path:
                    raise FieldError("local", "a local file needs a path")


@dataclass(frozen=True)
class WeightsFile:
    """One file of an entry with its digests; ``md5`` only where the publisher gives nothing better.

    With ``on_first_fetch`` there may be neither: what the first fetch finds binds every later one.

    Raises
    ------
    FieldError
        If a field does not hold what it must.
    """

    filename: str
    source: FileSource
    sha256: str | None
    size_bytes: int | None
    md5: str | None = None
    on_first_fetch: bool = False

    def __post_init__(self) -> None:
        if not self.filename or PurePosixPath(self.filename).name != self.filename or self.filename.startswith("."):
            raise FieldError("filename", "not a file name", value=self.filename)
        if self.sha256 is not None and not _SHA256.fullmatch(self.sha256):
            raise FieldError("sha256", "not a SHA-256", value=self.sha256, expected="64 lower-case hexadecimal digits")
        if self.md5 is not None and not _MD5.fullmatch(self.md5):
            raise FieldError("md5", "not an MD5", value=self.md5, expected="32 lower-case hexadecimal digits")
        if self.sha256 is None and not self.on_first_fetch and (self.md5 is None or self.source.kind is not SourceKind.HUB):
            # Only a hub names a commit that can be recorded and held to.
            raise FieldError("sha256", "sha256 is missing; only a hub file may do with its md5")
        if self.size_bytes is not None and self.size_bytes < 1:
            raise FieldError("size_bytes", "not a size", value=self.size_bytes, expected="at least 1")


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
            ("largest_of", together),
            ("parts", tuple(organ for part in self.parts for organ in part.labels.names)),
        ):
            if strangers := [organ for organ in named if organ not in known]:
                raise FieldError(name, "names an organ that the entry does not know", value=strangers[0])
        for rule in self.cleanup.values():
            _check_enum("cleanup", rule, Cleanup)
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


def _check_enum(name: str, value: object, kind: type[StrEnum]) -> None:
    if not isinstance(value, kind):
        raise FieldError(name, "not known", value=value, expected=" or ".join(kind))


def _check_sizes(name: str, sizes: Sequence[int]) -> None:
    if len(sizes) != 3 or not all(type(n) is int and n >= 1 for n in sizes):
        raise FieldError(name, "not a shape", value=list(sizes), expected="3 whole numbers above 0")


def _check_numbers(name: str, numbers: Sequence[float], count: int, *, above: float = -math.inf) -> None:
    plain = all(isinstance(n, (int, float)) and not isinstance(n, bool) and math.isfinite(n) and n > above for n in numbers)
    if len(numbers) != count or not plain:
        limit = "" if above == -math.inf else f" above {above:g}"
        raise FieldError(name, "not valid", value=list(numbers), expected=f"{count} number{'s' * (count > 1)}{limit}")
