"""What a network was trained to see: modality, grid, intensities, tiles. Frozen types that are valid once built."""

from __future__ import annotations

from dataclasses import KW_ONLY, asdict, dataclass, fields, replace
from enum import StrEnum
from itertools import permutations, product
from typing import Any

from agseg.errors import FieldError
from agseg.weights.checks import check_enum, check_numbers, check_sizes

__all__ = [
    "AXIS_CODES",
    "MODALITIES",
    "VOLUMETRIC",
    "Carry",
    "ChannelSpec",
    "GridRule",
    "InputSpec",
    "Interpolation",
    "Normalisation",
    "Padding",
    "Placement",
]

VOLUMETRIC = ("CT", "MR")
"""DICOM modalities of scans: their networks see a grid in millimetres."""

MODALITIES = (*VOLUMETRIC, "US", "RGB")
"""What a network may have been trained on; RGB is a picture."""

_STORED_AXES = frozenset("".join(order) for order in permutations("IJK"))
"""The axes of the stored voxels, in any order."""

AXIS_CODES = _STORED_AXES | frozenset("".join(codes) for order in permutations(("LR", "PA", "IS")) for codes in product(*order))
"""RAS, LPI, SAR, ...: each axis of the patient once; or the stored ones."""


class Padding(StrEnum):
    """What surrounds a model grid that is smaller than a tile."""

    ZERO = "zero"
    """Zeros after normalisation (MONAI's ``constant``)."""
    EDGE = "edge"
    """The outermost voxels, repeated (MONAI's ``replicate``)."""


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
    """Scores as the network gives them, averaged over folds and mirror images (nnU-Net's ``resample_torch_fornnunet``)."""
    HALF_LOGITS = "half_logits"
    """The same, rounded to 16 bits once they lie on the scan's grid, before they are compared; on a tie the lower label wins
    (nnU-Net's usual ``resample_data_or_seg_to_shape``)."""
    LABELS = "labels"
    """Labels are decided on the model grid and go back to the nearest voxel (TotalSegmentator)."""


class Placement(StrEnum):
    """Where tiles lie and how they are blended."""

    STEPS = "steps"
    """Fixed steps, the last tile moved back to fit; a Gaussian around the tile's centre with a floor (MONAI)."""
    SPREAD = "spread"
    """Evenly spread; a Gaussian around voxel ``size // 2``; sums of tiles and of folds in 16 bits, in nnU-Net's order."""


@dataclass(frozen=True)
class ChannelSpec:
    """A further channel of a network's input: an image on the first one's grid, normalised by itself.

    Parameters
    ----------
    name
        For people, e.g. ``"PET"``.
    modality, normalisation, window_hu, mean_std
        As in :class:`InputSpec`.
    """

    name: str
    modality: str
    normalisation: Normalisation
    window_hu: tuple[float, float] | None = None
    mean_std: tuple[float, float] | None = None


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
    channels
        Further channels, for networks that see several registered series; the first is what the other fields say.

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
    channels: tuple[ChannelSpec, ...] = ()

    def __post_init__(self) -> None:
        if self.modality not in MODALITIES:
            raise FieldError("modality", "unknown modality", value=self.modality, expected=" or ".join(MODALITIES))
        if self.axis_codes not in AXIS_CODES and (self.axis_codes or self.modality in VOLUMETRIC):
            raise FieldError("axis_codes", "not axis codes", value=self.axis_codes, expected="three letters such as RAS")
        check_enum("normalisation", self.normalisation, Normalisation)
        check_enum("padding", self.padding, Padding)
        check_sizes("tile", self.tile)
        if self.fixed_shape is not None:
            check_sizes("fixed_shape", self.fixed_shape)
        if self.spacing_mm is not None:
            # A 2D network sees slices at the distance that they have.
            own = self.grid is GridRule.EDGES and self.tile[0] == 1 and self.spacing_mm[0] == 0
            check_numbers("spacing_mm", self.spacing_mm[1:] if own else self.spacing_mm, 2 if own else 3, above=0.0)
        elif self.fixed_shape is None and self.modality in VOLUMETRIC and self.tile[2] > 1:  # depth 1: pictures without a scale
            raise FieldError("spacing_mm", "either spacing_mm or fixed_shape is needed")
        self._check_window()
        check_numbers("overlap", (self.overlap,), 1)
        if not 0 <= self.overlap < 1:
            raise FieldError("overlap", "overlap is a fraction", value=self.overlap, expected="0 to below 1")
        if self.body_box and (self.fixed_shape is None or self.window_height_mm is None):
            raise FieldError("body_box", "a body box needs fixed_shape and window_height_mm")
        if self.window_height_mm is not None:
            check_numbers("window_height_mm", (self.window_height_mm,), 1, above=0.0)
        self._check_second_way()
        for number in range(len(self.channels)):
            self.of_channel(number + 1)  # checks its normalisation

    def of_channel(self, number: int) -> InputSpec:
        """What one channel is normalised by: this, with the channel's own window and rule; 0 is the first."""
        if number == 0:
            return replace(self, channels=()) if self.channels else self
        own = self.channels[number - 1]
        return replace(
            self,
            modality=own.modality,
            normalisation=own.normalisation,
            window_hu=own.window_hu,
            mean_std=own.mean_std,
            channels=(),
        )

    @property
    def is_flat(self) -> bool:
        """Whether the network sees single slices of a scan: a tile of depth 1 along the last axis (nnU-Net's: the first)."""
        return self.modality in VOLUMETRIC and self.tile[2] == 1

    def _check_second_way(self) -> None:
        """What nnU-Net's and TotalSegmentator's networks ask for."""
        for name, kind in (("grid", GridRule), ("interpolation", Interpolation), ("carry", Carry), ("tiles", Placement)):
            check_enum(name, getattr(self, name), kind)
        if self.normalisation is Normalisation.CT and self.mean_std is None:
            raise FieldError("mean_std", "normalisation ct needs mean_std", expected="mean and standard deviation")
        if self.mean_std is not None:
            check_numbers("mean_std", self.mean_std, 2)
            check_numbers("mean_std", self.mean_std[1:], 1, above=0.0)
        if len(set(self.mirror_axes)) != len(self.mirror_axes) or not set(self.mirror_axes) <= {0, 1, 2}:
            raise FieldError("mirror_axes", "not axes", value=list(self.mirror_axes), expected="some of 0, 1 and 2")
        if self.regions and self.carry not in (Carry.LOGITS, Carry.HALF_LOGITS):
            raise FieldError("regions", "regions need carry: logits or half_logits", value=self.carry)
        if self.normalise_first and self.truncate:
            raise FieldError("truncate", "normalised values cannot be whole numbers")
        if self.grid is not GridRule.FIRST_VOXEL and (self.antialias or self.body_box):
            raise FieldError("grid", f"{self.grid} goes with neither antialias nor body_box")
        fresh = self.interpolation is Interpolation.CUBIC or self.separate_z or self.normalise_first
        if self.grid is GridRule.FIRST_VOXEL and (fresh or self.crop_nonzero):
            raise FieldError("grid", "cubic, separate_z, normalise_first and crop_nonzero need another grid", value=self.grid)

    def _check_window(self) -> None:
        if self.window_hu is not None:
            check_numbers("window_hu", self.window_hu, 2)
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
