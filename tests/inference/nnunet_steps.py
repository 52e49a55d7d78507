"""nnU-Net's own steps on whole arrays, with scikit-image and SciPy: the law that agseg's second way is held to.

Written from nnU-Net 2.8.1's behaviour: transpose, crop to non-zero, normalise, resample (cubic, slices apart where they are
thick), evenly spread tiles under a Gaussian, summed in float16 one after the other, mean logits over folds (float16 too) and
mirror images, logits back by linear interpolation and rounded to float16, then labels. Nothing here is shared with agseg.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, map_coordinates
from skimage.transform import resize

Network = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class Steps:
    """What a plan says, and the networks."""

    spacing: tuple[float, ...]
    patch: tuple[int, ...]
    window: tuple[float, float]
    mean_std: tuple[float, float]
    networks: tuple[Network, ...]
    transpose: tuple[int, int, int] = (0, 1, 2)
    mirror: tuple[int, ...] = ()
    regions: tuple[int, ...] = ()
    step: float = 0.5
    carried: Any = np.float16

    def labels(self, stored: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
        """Labels of an image (z, y, x) of some spacing, on its own grid."""
        image = stored.astype(np.float32).transpose(self.transpose)
        old = [spacing[axis] for axis in self.transpose]
        new = [old[0], *self.spacing] if len(self.spacing) == 2 else list(self.spacing)
        occupied = np.nonzero(image)
        box = tuple(slice(axis.min(), axis.max() + 1) for axis in occupied)
        crop = np.clip(image[box], *self.window)
        crop = ((crop - np.float32(self.mean_std[0])) / np.float32(self.mean_std[1])).astype(np.float32)
        shape = [round(o / n * size) for o, n, size in zip(old, new, crop.shape, strict=True)]
        scores = self.logits(torch.from_numpy(resampled(crop, shape, old, new, order=3))).numpy()
        logits = np.stack([resampled(channel, crop.shape, new, old, order=1).astype(self.carried) for channel in scores])
        if self.regions:
            found = np.zeros(crop.shape, dtype=np.uint8)
            for channel, label in zip(logits, self.regions, strict=True):
                found[channel > 0] = label
        else:
            found = logits.argmax(axis=0).astype(np.uint8)
        whole = np.zeros(image.shape, dtype=np.uint8)
        whole[box] = found
        return whole.transpose(np.argsort(self.transpose))

    @torch.inference_mode()
    def logits(self, image: torch.Tensor) -> torch.Tensor:
        """Blended logits (heads, z, y, x) of the prepared image: the mean of the folds' own."""
        mean = self.logits_of(self.networks[0], image)
        for network in self.networks[1:]:
            mean += self.logits_of(network, image)
        return (mean / len(self.networks)).float()

    def logits_of(self, network: Network, image: torch.Tensor) -> torch.Tensor:
        flat = len(self.patch) == 2
        patch = (1, *self.patch) if flat else self.patch
        total = [max(size, side) for size, side in zip(image.shape, patch, strict=True)]
        before = [(t - size) // 2 for t, size in zip(total, image.shape, strict=True)]
        padded = torch.zeros(total)
        inside = tuple(slice(b, b + size) for b, size in zip(before, image.shape, strict=True))
        padded[inside] = image
        weights = gaussian(self.patch)
        weights = weights[None] if flat else weights
        summed = divisor = torch.zeros(())
        for corner in itertools.product(*(starts(t, side, self.step) for t, side in zip(total, patch, strict=True))):
            where = tuple(slice(c, c + side) for c, side in zip(corner, patch, strict=True))
            tile = padded[where][None, None]
            scores = self.mirrored(network, tile[:, :, 0] if flat else tile)
            scores = scores[:, None] if flat else scores
            if not divisor.ndim:
                summed, divisor = torch.zeros(len(scores), *total).half(), torch.zeros(total).half()
            summed[(slice(None), *where)] += scores * weights
            divisor[where] += weights
        return (summed / divisor)[(slice(None), *inside)]

    def mirrored(self, network: Network, tile: torch.Tensor) -> torch.Tensor:
        subsets = [s for size in range(len(self.mirror) + 1) for s in itertools.combinations(self.mirror, size)]
        flips = [[axis + 2 for axis in subset] for subset in subsets]
        return torch.stack([network(tile.flip(flip)).flip(flip)[0] for flip in flips]).mean(0)


def starts(size: int, side: int, step: float) -> list[int]:
    count = int(np.ceil((size - side) / (side * step))) + 1
    return [int(np.round((size - side) / max(count - 1, 1) * n)) for n in range(count)]


def gaussian(patch: tuple[int, ...]) -> torch.Tensor:
    impulse = np.zeros(patch)
    impulse[tuple(side // 2 for side in patch)] = 1
    weights = gaussian_filter(impulse, [side / 8 for side in patch], 0, mode="constant")
    half = torch.from_numpy(weights / weights.max() * 10).half()
    half[half == 0] = half[half != 0].min()
    return half


def resampled(image: np.ndarray, shape, old, new, *, order: int) -> np.ndarray:
    """nnU-Net's ``resample_data_or_seg_to_shape`` for one channel."""
    if tuple(image.shape) == tuple(shape):
        return image
    image = image.astype(np.float64)
    axis = None
    for spacing in (old, new):
        if max(spacing) / min(spacing) > 3:
            coarse = np.flatnonzero(np.isclose(spacing, max(spacing)))
            axis = int(coarse[0]) if len(coarse) == 1 else None
            break
    if axis is None:
        return resize(image, shape, order=order, mode="edge", anti_aliasing=False).astype(np.float32)
    flat = [size for a, size in enumerate(shape) if a != axis]
    slices = [resize(s, flat, order=order, mode="edge", anti_aliasing=False) for s in np.moveaxis(image, axis, 0)]
    between = np.stack(slices, axis=axis)
    grid = np.mgrid[tuple(slice(0, size) for size in shape)]
    at = [b / s * (g + 0.5) - 0.5 for b, s, g in zip(between.shape, shape, grid, strict=True)]
    return map_coordinates(between, np.array(at), order=0, mode="nearest").astype(np.float32)
