"""One entry of the weights manifest, as frozen types: enough to run, to trust and to cite."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from agseg.labels import LabelSet

__all__ = [
    "Cleanup",
    "FileSource",
    "InputSpec",
    "Normalisation",
    "Padding",
    "SourceKind",
    "WeightsEntry",
    "WeightsFile",
    "WeightsFormat",
]


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


@dataclass(frozen=True)
class InputSpec:
    """What a network was trained to see. It belongs to the weights, never to the command line.

    Parameters
    ----------
    modality
        DICOM modality, ``"CT"`` or ``"US"``.
    axis_codes
        Where the tensor axes (first, second, third spatial) grow towards, e.g. ``"RAS"``.
    spacing_mm
        Voxel spacing of the model grid along those axes; ``None`` where ``fixed_shape`` rules.
    window_hu
        Clipping window before normalisation, or None.
    normalisation
        See :class:`Normalisation`.
    tile
        Tile shape along those axes (voxels).
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
    """

    modality: str
    axis_codes: str
    spacing_mm: tuple[float, float, float] | None
    window_hu: tuple[float, float] | None
    normalisation: Normalisation
    tile: tuple[int, int, int]
    overlap: float = 0.5
    antialias: bool = False
    padding: Padding = Padding.ZERO
    body_box: bool = False
    fixed_shape: tuple[int, int, int] | None = None
    window_height_mm: float | None = None


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


@dataclass(frozen=True)
class WeightsFile:
    """One file of an entry with its digests; ``md5`` only where the publisher gives nothing better."""

    filename: str
    source: FileSource
    sha256: str | None
    size_bytes: int | None
    md5: str | None = None


class WeightsFormat(StrEnum):
    """What an entry's files are; everything but safetensors is converted once, after its digest was checked."""

    SAFETENSORS = "safetensors"
    OBELISK_PTH = "obelisk-pth"
    SONONET_NPZ = "sononet-npz"
    MONAI_PT = "monai-pt"


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
    """

    id: str
    architecture: str
    config: dict[str, Any]
    format: WeightsFormat
    files: tuple[WeightsFile, ...]
    input: InputSpec
    labels: LabelSet
    licence: str
    citation: str
    attribution: str
    intended_use: str
    scores: dict[str, Any] = field(default_factory=dict)
    default_for: tuple[str, ...] = ()
    caution: str = ""
    cleanup: dict[str, Cleanup] = field(default_factory=dict)
    classes: tuple[str, ...] = ()

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
