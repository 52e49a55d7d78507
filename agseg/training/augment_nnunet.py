"""Augmentation of nnU-Net's kind, for scans of any modality and for pictures, in two or three dimensions.

Rotation, zoom and bending move the lattice that a sample is read from (:mod:`agseg.training.draws`): image and labels follow
the same points and are interpolated once, straight from the scan, so that no corner is lost. They are done in millimetres: a
library that turns voxels shears scans whose slices are thicker than their pixels, and 30 degrees at 1 x 1 x 3 mm make an organ
1.9 times as long one way and half as long across. What changes grey values is done by batchgeneratorsv2, which nnU-Net itself
runs; docs/own-data.md has how it compares with MONAI and TorchIO.

Mirroring stands in a recipe's ``affine.flip``, which is refused where it would swap left and right.

Source: Isensee et al. (2021), nnU-Net, supplementary note 2, and ``nnUNetTrainer.get_training_transforms``, whose ranges and
chances are the defaults here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agseg.errors import FieldError, RecipeError
from agseg.extras import require
from agseg.training.patches import smooth_displacement, uniform

THICK = 3.0
"""An axis whose voxels are more than this many times as long as the shortest is left alone (nnU-Net's "dummy 2D")."""

PER_CHANNEL = 0.5
"""Where blur and low resolution happen, the chance of each channel (nnU-Net's)."""

_TRANSFORMS = "batchgeneratorsv2.transforms."

Range = tuple[float, float]
Change = Callable[..., dict[str, Tensor]]


class AugmentKind(StrEnum):
    """Closed choice of augmentations."""

    NONE = "none"
    NNUNET = "nnunet"


@dataclass(frozen=True)
class Augmentation:
    """What happens to a sample and how often; every range is drawn from uniformly, every chance is per sample.

    Parameters
    ----------
    kind
        ``none`` changes nothing, whatever the rest says.
    rotation_deg, rotation_chance
        Largest turn about each axis, either way; in the plane alone for slices, pictures and scans with thick slices.
    zoom, zoom_chance
        Magnification of all axes together; thick slices keep their thickness.
    elastic_mm, elastic_chance
        Distance of the control points and largest standard deviation of their displacement (mm; pixels for pictures). nnU-Net
        does not bend; the chance is 0.
    noise_sd, noise_chance
        Standard deviation of white noise, in units of the network's input.
    blur_voxels, blur_chance
        Standard deviation of a Gaussian, per axis.
    brightness, brightness_chance
        Factor of all values.
    contrast, contrast_chance
        Factor of the distance to the sample's mean; its range is kept.
    low_resolution, low_resolution_chance
        What remains of the number of voxels per axis, interpolated back; thick slices stay.
    gamma, gamma_chance, inverted_gamma_chance
        Exponent of the values between the sample's smallest and largest, mean and standard deviation kept; of the negative.
    """

    kind: AugmentKind = AugmentKind.NONE
    rotation_deg: float = 30.0
    rotation_chance: float = 0.2
    zoom: Range = (0.7, 1.4)
    zoom_chance: float = 0.2
    elastic_mm: Range = (40.0, 5.0)
    elastic_chance: float = 0.0
    noise_sd: Range = (0.0, 0.1)
    noise_chance: float = 0.1
    blur_voxels: Range = (0.5, 1.0)
    blur_chance: float = 0.2
    brightness: Range = (0.75, 1.25)
    brightness_chance: float = 0.15
    contrast: Range = (0.75, 1.25)
    contrast_chance: float = 0.15
    low_resolution: Range = (0.5, 1.0)
    low_resolution_chance: float = 0.25
    gamma: Range = (0.7, 1.5)
    gamma_chance: float = 0.3
    inverted_gamma_chance: float = 0.1

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name.endswith("_chance") and not 0 <= value <= 1:
                raise FieldError(item.name, "a chance lies between 0 and 1", value=value)
            if item.name in _RANGES and not 0 <= value[0] <= value[1]:
                raise FieldError(item.name, "a range goes from its smaller to its larger end, above 0", value=list(value))
            if item.name in _FACTORS and not value[0] > 0:
                raise FieldError(item.name, "a factor is above 0", value=list(value))
        if not 0 <= self.rotation_deg <= 180:
            raise FieldError("rotation_deg", "lies between 0 and 180", value=self.rotation_deg)
        if self.low_resolution[1] > 1:
            raise FieldError("low_resolution", "is a share, at most 1", value=list(self.low_resolution))
        if not self.elastic_mm[0] > 0 or self.elastic_mm[1] < 0:
            raise FieldError("elastic_mm", "is a distance above 0 and a displacement", value=list(self.elastic_mm))


_FACTORS = ("zoom", "brightness", "contrast", "low_resolution", "gamma")
_RANGES = (*_FACTORS, "noise_sd", "blur_voxels")


class Augmenter:
    """Applies an :class:`Augmentation` to samples of one shape.

    Parameters
    ----------
    settings
        What happens.
    spacing
        Side of a voxel along each axis that is not single (mm): three for patches, two for slices; ones for pictures.
    tile
        Shape of a sample along these axes (voxels).

    Raises
    ------
    MissingPackageError
        If something is to happen and batchgeneratorsv2 is not installed.
    RecipeError
        If the tile is too small to be blurred or coarsened so far.
    """

    def __init__(self, settings: Augmentation, *, spacing: Sequence[float], tile: Sequence[int]) -> None:
        self.settings, self.dims = settings, len(spacing)
        self.spacing = torch.tensor(spacing, dtype=torch.float32)
        self.thick = tuple(axis for axis, side in enumerate(spacing) if len(spacing) == 3 and side > THICK * min(spacing))
        self.changes: tuple[tuple[float, Change], ...] = ()
        if settings.kind is AugmentKind.NNUNET:
            _check_size(settings, tile)
            self.changes = _changes(settings, self.thick)

    def bend(self, offsets: list[Tensor], matrix: Tensor, generator: torch.Generator) -> tuple[list[Tensor], Tensor]:
        """Bend, turn and zoom what a sample is read from; draws nothing where nothing can happen.

        Parameters
        ----------
        offsets
            Of the sample's voxels from its middle (voxels), one coordinate per axis, of shapes that broadcast to the tile; the
            third one of a slice stays.
        matrix
            What they are multiplied with (from the right) to become offsets in the scan, ``[n, n]``.

        Returns
        -------
        The two in their place.
        """
        s = self.settings
        if s.kind is AugmentKind.NONE:
            return offsets, matrix
        if uniform(0, 1, generator) < s.elastic_chance:
            offsets = self._displaced(offsets, generator)
        turn = torch.eye(len(matrix))
        if uniform(0, 1, generator) < s.rotation_chance:
            turn[: self.dims, : self.dims] = self._rotation(generator)
        if uniform(0, 1, generator) < s.zoom_chance:
            zoomed = [axis for axis in range(self.dims) if axis not in self.thick]
            turn[zoomed] /= uniform(*s.zoom, generator)
        return offsets, turn @ matrix

    def look(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Other grey values for a sample ``[C, *tile]``, network input; the sample itself may be written to."""
        if not self.changes:
            return image
        with _global_generators(generator), torch.no_grad():
            for chance, change in self.changes:
                if float(torch.rand(())) < chance:
                    image = change(image=image)["image"]
        return image

    def _rotation(self, generator: torch.Generator) -> Tensor:
        """A turn in mm, as a matrix that offsets in voxels are multiplied with from the right, ``[dims, dims]``."""
        planes = [(0, 1), (1, 2), (2, 0)] if self.dims == 3 else [(0, 1)]
        turn = torch.eye(self.dims)
        for a, b in planes:
            if {a, b} & set(self.thick):
                continue
            angle = math.radians(uniform(-self.settings.rotation_deg, self.settings.rotation_deg, generator))
            one = torch.eye(self.dims)
            one[a, a] = one[b, b] = math.cos(angle)
            one[a, b], one[b, a] = -math.sin(angle), math.sin(angle)
            turn = turn @ one
        return turn * self.spacing[:, None] / self.spacing[None, :]

    def _displaced(self, offsets: list[Tensor], generator: torch.Generator) -> list[Tensor]:
        """The offsets with a smooth displacement, but for thick slices and the third coordinate of a slice."""
        distance, largest = self.settings.elastic_mm
        shape = torch.broadcast_shapes(*(offset.shape for offset in offsets))  # type: ignore[no-untyped-call]
        apart = (distance / self.spacing).tolist()
        field = smooth_displacement(shape[: self.dims], apart, uniform(0, largest, generator), generator) / self.spacing
        moved = [axis for axis in range(self.dims) if axis not in self.thick]
        return [o + field[..., axis].reshape(shape) if axis in moved else o for axis, o in enumerate(offsets)]


def _check_size(s: Augmentation, tile: Sequence[int]) -> None:
    """The library's kernel reaches three standard deviations, within the sample; something remains of every side."""
    least = max(math.ceil(3 * s.blur_voxels[1]) + 1 if s.blur_chance else 1, math.ceil(1 / s.low_resolution[0]))
    if min(tile) < least:
        raise RecipeError(
            "the tile is too small for this augmentation", value=f"tile: {list(tile)}", expected=f"{least} or more"
        )


def _changes(s: Augmentation, thick: Sequence[int]) -> tuple[tuple[float, Change], ...]:
    """Chance and transform of everything that changes grey values, in nnU-Net's order."""

    def made(module: str, name: str) -> Any:
        return getattr(require(_TRANSFORMS + module, purpose="augmentation of nnU-Net's kind"), name)

    def factor(between: Range) -> Any:
        """Below and above 1 equally often, where the range has both."""
        return made("intensity.contrast", "BGContrast")(between) if between[0] < 1 < between[1] else between

    noise = made("intensity.gaussian_noise", "GaussianNoiseTransform")(s.noise_sd, p_per_channel=1, synchronize_channels=True)
    # Its benchmark would choose between two ways of computing by a clock, and no two processes would give the same voxels.
    blur = made("noise.gaussian_blur", "GaussianBlurTransform")(s.blur_voxels, p_per_channel=PER_CHANNEL, benchmark=False)
    brightness = made("intensity.brightness", "MultiplicativeBrightnessTransform")(factor(s.brightness), False, 1)
    contrast = made("intensity.contrast", "ContrastTransform")(factor(s.contrast), True, False, 1)
    coarse = made("spatial.low_resolution", "SimulateLowResolutionTransform")(
        s.low_resolution, False, True, tuple(thick) or None, None, PER_CHANNEL
    )
    gamma = made("intensity.gamma", "GammaTransform")
    every = (
        (s.noise_chance, noise),
        (s.blur_chance, blur),
        (s.brightness_chance, brightness),
        (s.contrast_chance, contrast),
        (s.low_resolution_chance, coarse),
        (s.inverted_gamma_chance, gamma(factor(s.gamma), 1, False, 1, 1)),
        (s.gamma_chance, gamma(factor(s.gamma), 0, False, 1, 1)),
    )
    return tuple((chance, change) for chance, change in every if chance > 0)


@contextmanager
def _global_generators(generator: torch.Generator) -> Iterator[None]:
    """NumPy's and torch's global generators as a sample's own wants them; afterwards they are as before.

    batchgeneratorsv2 draws from both. A run's checkpoints hold their state, which no sample may move.
    """
    seed = int(torch.randint(2**31, (), generator=generator))
    before = np.random.get_state()  # noqa: NPY002 - the library draws from it
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(before)  # noqa: NPY002
