"""Training samples as the papers draw them: affine, flips, crops. Each is a pure function of (seed, number).

:class:`VolumeDraws` gives 3D patches, or single slices where the tile is one voxel deep; :class:`PictureDraws` gives pictures;
:class:`FrameDraws` gives ultrasound frames with their class. All give :class:`~agseg.training.sample.Sample`, normalised.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
import torch.nn.functional as F
from torch import Tensor

from agseg.errors import FieldError
from agseg.laterality import sided
from agseg.training.augment_nnunet import Augmentation, Augmenter
from agseg.training.cases import Case
from agseg.training.lattice import nearest, sampled, turned
from agseg.training.patches import uniform
from agseg.training.sample import Sample, step_generator
from agseg.weights.input_spec import InputSpec, Padding


@dataclass(frozen=True)
class Affine:
    """How far a sample is moved; every range is drawn from uniformly.

    Parameters
    ----------
    flip
        Axes that are mirrored with probability one half.
    rotation_deg
        Largest rotation in the first two axes, either way.
    shift
        Largest shift as a fraction of the tile, per axis of the first two.
    zoom
        Smallest and largest magnification of all axes together.
    """

    flip: tuple[int, ...] = ()
    rotation_deg: float = 0.0
    shift: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)

    def check_sides(self, labels: Iterable[str], axis_codes: str) -> None:
        """A mirrored left kidney looks like a right one, and would go on being called left.

        Raises
        ------
        FieldError
            If scans are mirrored across and a label has a side.
        """
        sides = sided(labels)
        across = [axis for axis in self.flip if axis_codes[axis : axis + 1] in ("L", "R")]
        if sides and across:
            raise FieldError(
                "affine",
                f"mirroring left and right would swap {sides[0]} for its fellow",
                value=f"flip: {list(self.flip)}",
                expected=f"flip: {[axis for axis in self.flip if axis not in across]}",
            )


@dataclass(frozen=True)
class ChannelShift:
    """Now and then a number of its own is added to each channel of a picture, which keeps its range: FocusNet's colour change.

    Source: FocusNet (2019), section 3.2, trained in Keras, whose ``random_channel_shift`` this is. How far and how often is not
    told.

    Parameters
    ----------
    most
        Largest shift either way, in grey values of 0 to 255.
    chance
        Share of the pictures that are shifted.
    """

    most: float = 0.0
    chance: float = 0.0

    def __post_init__(self) -> None:
        if self.most < 0 or not 0 <= self.chance <= 1:
            raise FieldError("channel_shift", "needs most >= 0 and a chance from 0 to 1", value=f"{self.most}, {self.chance}")

    def __call__(self, picture: Tensor, generator: torch.Generator) -> Tensor:
        """A picture ``[C, row, column]``, shifted or as it is; draws nothing where nothing can happen."""
        if self.chance == 0 or self.most == 0 or uniform(0, 1, generator) >= self.chance:
            return picture
        shifts = torch.tensor([uniform(-self.most, self.most, generator) for _ in picture])
        return (picture + shifts[:, None, None]).clamp(picture.min(), picture.max())


class Balance(StrEnum):
    """Which frames are drawn how often."""

    UNIFORM = "uniform"
    HALF_BACKGROUND = "half_background"
    """A foreground frame has weight 1 / n of its class, a background frame (classes - 1) / n: half the draws are background."""


def _epoch_index(count: int, number: int, seed: int) -> int:
    """Without replacement: every case once per epoch, in an order of its own."""
    epoch, place = divmod(number, count)
    return int(torch.randperm(count, generator=step_generator(seed + 7919, epoch))[place])


def _matrix(dims: int, affine: Affine, generator: torch.Generator) -> Tensor:
    """Tile offsets to source offsets, ``[dims, dims]``."""
    angle = math.radians(uniform(-affine.rotation_deg, affine.rotation_deg, generator))
    matrix = torch.eye(dims) / uniform(*affine.zoom, generator)
    turn = torch.eye(dims)
    turn[0, 0] = turn[1, 1] = math.cos(angle)
    turn[0, 1], turn[1, 0] = -math.sin(angle), math.sin(angle)
    for axis in affine.flip:
        if uniform(0, 1, generator) < 0.5:
            matrix[axis] *= -1
    return matrix @ turn


def _points(
    size: Sequence[int],
    tile: Sequence[int],
    affine: Affine,
    generator: torch.Generator,
    *,
    centre: Sequence[float | None],
    augmenter: Augmenter | None = None,
) -> list[Tensor]:
    """Where a tile's voxels come from, a coordinate per axis: around ``centre``, or anywhere that there is room."""
    middle = []
    for axis, (n, t, fixed) in enumerate(zip(size, tile, centre, strict=True)):
        spare = max(0, n - t) / 2
        place = (n - 1) / 2 + uniform(-spare, spare, generator) if fixed is None else fixed
        if axis < 2:
            place += uniform(-affine.shift, affine.shift, generator) * t
        middle.append(place)
    dims = len(tile)
    sides = [torch.arange(t, dtype=torch.float32) - (t - 1) / 2 for t in tile]
    offsets = [side.reshape([-1 if axis == k else 1 for k in range(dims)]) for axis, side in enumerate(sides)]
    matrix = _matrix(dims, affine, generator)
    if augmenter is not None:
        offsets, matrix = augmenter.bend(offsets, matrix, generator)
    return [turned(offsets, matrix[:, axis]) + place for axis, place in enumerate(middle)]


NO_SHIFT = ChannelShift()
"""Pictures keep their colours."""

PLAIN = Augmentation()
"""Samples stay as they are."""


class VolumeDraws(torch.utils.data.Dataset[Sample]):
    """Patches of scans, each scan once per epoch.

    The tile may lie anywhere the scan is larger, and is padded where it is smaller, as inference pads. Normalisation is by the
    *whole* scan, as in inference; the public code normalises the padded crop, which a sliding window could not repeat.

    Parameters
    ----------
    cases
        Scans in HU or signal on the model grid.
    spec
        Tile and normalisation. A tile of depth 1 gives slices ``[1, x, y]``.
    organ_share
        Share of the draws that are centred on a labelled voxel; the rest lie anywhere.
    augment
        See :class:`~agseg.training.augment_nnunet.Augmentation`.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        spec: InputSpec,
        affine: Affine,
        *,
        seed: int,
        organ_share: float = 0.0,
        augment: Augmentation = PLAIN,
    ) -> None:
        if not cases:
            raise ValueError("nothing to draw from")
        dims = 3 if spec.tile[2] > 1 else 2
        self.augmenter = Augmenter(augment, spacing=(spec.spacing_mm or (1.0,) * 3)[:dims], tile=spec.tile[:dims])
        self.spec, self.affine, self.seed, self.organ_share = spec, affine, seed, organ_share
        self._images = [case.as_input(spec).stacked() for case in cases]
        self.cases = tuple(cases)

    def __getitem__(self, number: int) -> Sample:
        generator = step_generator(self.seed, number)
        chosen = _epoch_index(len(self.cases), number, self.seed)
        case, tile = self.cases[chosen], self.spec.tile
        centre: list[float | None] = [None, None, None]
        found = case.present_classes()
        if found and uniform(0, 1, generator) < self.organ_share:
            voxels = case.voxels_of(found[int(torch.randint(len(found), (), generator=generator))])
            centre = [float(v) for v in voxels[int(torch.randint(len(voxels), (), generator=generator))]]
        elif tile[2] == 1:
            centre[2] = float(torch.randint(case.image.shape[2], (), generator=generator))
        points = _points(case.image.shape, tile, self.affine, generator, centre=centre, augmenter=self.augmenter)
        if tile[2] == 1:
            points[2] = points[2].round()
        image = sampled(self._images[chosen], points, edge=self.spec.padding is Padding.EDGE)
        labels = nearest(case.labels, points)
        if tile[2] == 1:
            image, labels = image[..., 0], labels[..., 0]
        return Sample(self.augmenter.look(image, generator), labels, case.known, case.id)


def standardised(image: Tensor) -> Tensor:
    """Per-image z-score."""
    return (image - image.mean()) / image.std(correction=0).clamp_min(1e-6)


def centre_crop(image: Tensor, shape: Sequence[int]) -> Tensor:
    """The middle of the last two axes; smaller images are padded with zeros."""
    rows, columns = image.shape[-2:]
    top, left = (rows - shape[0]) // 2, (columns - shape[1]) // 2
    padding = [max(0, -left), max(0, shape[1] - columns + left), max(0, -top), max(0, shape[0] - rows + top)]
    top, left = max(0, top), max(0, left)
    return F.pad(image, padding)[..., top : top + shape[0], left : left + shape[1]]


class PictureDraws(torch.utils.data.Dataset[Sample]):
    """Pictures resized to the tile, each once per epoch.

    Parameters
    ----------
    pictures, labels
        ``[C, row, column]`` in grey values, and uint8 ``[row, column]``, by number, read when they are needed.
    mean, sd
        Of the training pictures, in their grey values.
    shift
        See :class:`ChannelShift`.
    augment
        See :class:`~agseg.training.augment_nnunet.Augmentation`.
    """

    def __init__(
        self,
        read: Callable[[int], tuple[Tensor, Tensor, str]],
        *,
        count: int,
        tile: tuple[int, int],
        affine: Affine,
        mean: float,
        sd: float,
        seed: int,
        shift: ChannelShift = NO_SHIFT,
        augment: Augmentation = PLAIN,
    ) -> None:
        self.read, self.count, self.tile, self.affine, self.seed, self.shift = read, count, tile, affine, seed, shift
        self.mean, self.sd = mean, sd
        self.augmenter = Augmenter(augment, spacing=(1.0, 1.0), tile=tile)

    def __getitem__(self, number: int) -> Sample:
        generator = step_generator(self.seed, number)
        picture, labels, case_id = self.read(_epoch_index(self.count, number, self.seed))
        resized = F.interpolate(picture[None].float(), self.tile, mode="bilinear", antialias=True)[0]
        target = F.interpolate(labels[None, None], self.tile, mode="nearest-exact")[0, 0]
        points = _points(self.tile, self.tile, self.affine, generator, centre=(None, None), augmenter=self.augmenter)
        shifted = self.shift(sampled(resized, points), generator)
        image = self.augmenter.look((shifted - self.mean) / self.sd, generator)
        return Sample(image, nearest(target, points), None, case_id)


class FrameDraws(torch.utils.data.Dataset[Sample]):
    """Ultrasound frames with their class, z-scored one by one; ``labels`` is a scalar.

    Parameters
    ----------
    read
        Frame by number: uint8 ``[row, column]``.
    classes
        Class index of each frame.
    background
        Which class counts as background.
    """

    def __init__(
        self,
        read: Callable[[int], Tensor],
        *,
        classes: Sequence[int],
        background: int,
        balance: Balance,
        tile: tuple[int, int],
        affine: Affine,
        seed: int,
    ) -> None:
        self.read, self.classes, self.tile, self.affine, self.seed = read, tuple(classes), tile, affine, seed
        counts = Counter(classes)
        weights = [
            (len(counts) - 1 if c == background else 1) / counts[c] if balance is Balance.HALF_BACKGROUND else 1.0
            for c in classes
        ]
        self._weights = torch.tensor(weights, dtype=torch.float64)

    def __getitem__(self, number: int) -> Sample:
        generator = step_generator(self.seed, number)
        chosen = int(torch.multinomial(self._weights, 1, generator=generator))
        frame = centre_crop(self.read(chosen)[None].float(), self.tile)
        points = _points(self.tile, self.tile, self.affine, generator, centre=(None, None))
        image = standardised(sampled(frame, points))
        return Sample(image, torch.tensor(self.classes[chosen]), None, str(chosen))
