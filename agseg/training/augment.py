"""What a scanner and a protocol do to an image: noise, blur, thick slices, streaks, shading, a cut field of view, a table.

All in HU, before normalisation, on the device the patch lives on, and all drawn from the generator that is handed in.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from agseg.training.cases import AIR_HU
from agseg.training.patches import uniform


@dataclass(frozen=True)
class IntensityAugmentation:
    """How often and how strongly an image is degraded. Chances are per patch; amounts are upper ends of uniform ranges.

    Parameters
    ----------
    noise_hu
        Standard deviation of the noise; half of the noisy patches get smooth (soft-kernel) noise.
    gain, offset_hu
        HU are multiplied by 1 ± gain and shifted by ± offset: scanners and kVp differ.
    shading_hu
        Amplitude of a smooth additive field (scatter, beam hardening).
    blur_voxels
        Standard deviation of an isotropic blur.
    thick_slices_voxels
        Thickness of slices in voxels, averaged and interpolated back along z.
    cut_chance
        Chance that a side of the field of view is cut off (air beyond).
    """

    noise_hu: float = 28.0
    noise_chance: float = 0.6
    gain: float = 0.08
    offset_hu: float = 12.0
    shading_hu: float = 20.0
    shading_chance: float = 0.25
    blur_voxels: float = 0.9
    blur_chance: float = 0.3
    thick_slices_voxels: float = 3.0
    thick_slices_chance: float = 0.2
    streak_hu: float = 60.0
    streak_chance: float = 0.08
    cut_chance: float = 0.15


def degrade(image: Tensor, augmentation: IntensityAugmentation, generator: torch.Generator) -> Tensor:
    """A degraded copy of a patch (x, y, z; HU)."""

    def happens(chance: float) -> bool:
        return uniform(0, 1, generator) < chance

    a = augmentation
    if happens(a.blur_chance):
        image = soften(image, uniform(0.3, a.blur_voxels, generator))
    if happens(a.thick_slices_chance):
        image = _thicken(image, uniform(1.3, a.thick_slices_voxels, generator))
    if happens(a.noise_chance):
        image = image + _noise(image.shape, uniform(0, a.noise_hu, generator), generator, smooth=happens(0.5)).to(image.device)
    if happens(a.shading_chance):
        image = image + _smooth_field(image.shape, uniform(0, a.shading_hu, generator), generator).to(image.device)
    if happens(a.streak_chance):
        image = image + _streaks(image.shape, uniform(0, a.streak_hu, generator), generator).to(image.device)
    return image * (1 + uniform(-a.gain, a.gain, generator)) + uniform(-a.offset_hu, a.offset_hu, generator)


def cut_field(image: Tensor, labels: Tensor, *, chance: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Now and then, air beyond a random plane near one of the six faces, and no labels there."""
    if uniform(0, 1, generator) >= chance:
        return image, labels
    axis = int(torch.randint(3, (), generator=generator))
    width = max(1, int(image.shape[axis] * uniform(0.05, 0.4, generator)))
    start = 0 if uniform(0, 1, generator) < 0.5 else image.shape[axis] - width
    image, labels = image.clone(), labels.clone()
    image.narrow(axis, start, width).fill_(AIR_HU)
    labels.narrow(axis, start, width).fill_(0)
    return image, labels


def soften(image: Tensor, spread: float) -> Tensor:
    """``image`` (x, y, z) blurred by a Gaussian of this spread (voxels)."""
    reach = max(1, round(2.5 * spread))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=image.device) / spread) ** 2)
    kernel = kernel / kernel.sum()
    out = image[None, None]
    for axis in range(3):
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = len(kernel)
        padding = [0] * 6
        padding[2 * (2 - axis)] = padding[2 * (2 - axis) + 1] = reach
        out = F.conv3d(F.pad(out, padding, mode="replicate"), kernel.reshape(shape))
    return out[0, 0]


def _thicken(image: Tensor, thickness: float) -> Tensor:
    """Slices ``thickness`` voxels thick: averaged along z, interpolated back."""
    nz = image.shape[2]
    count = max(2, round(nz / thickness))
    flat = image.reshape(1, -1, nz)
    thick = F.adaptive_avg_pool1d(flat, count)
    return F.interpolate(thick, size=nz, mode="linear", align_corners=False).reshape(image.shape)


def _noise(shape: torch.Size, spread: float, generator: torch.Generator, *, smooth: bool) -> Tensor:
    noise = torch.randn(shape, generator=generator)
    if smooth:
        # The mean over 3x3x3 leaves about 1/sqrt(27) of the spread; scaled back by half of that, as soft kernels do.
        noise = F.avg_pool3d(noise[None, None], 3, stride=1, padding=1)[0, 0] * 2.6
    return noise * spread


def _smooth_field(shape: torch.Size, amplitude: float, generator: torch.Generator) -> Tensor:
    control = torch.randn((1, 1, 3, 3, 3), generator=generator) * amplitude
    return F.interpolate(control, size=tuple(shape), mode="trilinear", align_corners=True)[0, 0]


def _streaks(shape: torch.Size, amplitude: float, generator: torch.Generator) -> Tensor:
    """Plane waves in the axial plane that fade along z: what metal and arms beside the body leave."""
    angle = uniform(0, 3.1416, generator)
    wave = uniform(3, 9, generator)
    x = torch.arange(shape[0]).float()[:, None] * torch.cos(torch.tensor(angle))
    y = torch.arange(shape[1]).float()[None, :] * torch.sin(torch.tensor(angle))
    pattern = torch.sin((x + y) * (6.2832 / wave) + uniform(0, 6.28, generator))
    middle, width = uniform(0, shape[2], generator), uniform(3, 15, generator)
    fade = torch.exp(-0.5 * ((torch.arange(shape[2]) - middle) / width) ** 2)
    return pattern[:, :, None] * fade * amplitude
