"""OBELISK hybrid: a light 3D U-Net with two sparse, learned sampling layers.

Source: Heinrich, Oktay, Bouteldja, OBELISK-Net: Fewer layers to solve 3D multi-organ segmentation with sparse deformable
convolutions, Medical Image Analysis 54 (2019). Parameter names are those of the published
weights, so that they load strictly.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agseg.models.blocks import resize

OBELISK_SIDE = 144
"""Voxels per side of the box the published weights were trained on."""

LEAK = 0.025
"""Negative slope of every leaky ReLU."""

OFFSET_SPREAD = 0.05
"""Standard deviation of freshly initialised offsets, in units of half the box."""

_FOLD_PAIRS = ("0", "1", "11", "2", "22", "3", "6bU", "6U", "7U")


class Obelisk(nn.Module):
    """OBELISK hybrid network.

    The input ``[B, 1, x, y, z]`` is the body's box resampled to 144 x 144 x 144, ``max(HU, -1024) / 1024 + 1``, with indices
    growing towards the patient's left, anterior and inferior. Any box with sides that are multiples of 8 runs.

    Parameters
    ----------
    classes
        With the background; the published weights have 9.
    """

    def __init__(self, *, classes: int = 9) -> None:
        super().__init__()
        self.size_multiple = 8
        # Sampling positions need more than the 8 bits of bf16, and average pooling has no half-precision kernel on the CPU.
        self.full_precision_only = True
        self.offset1 = nn.Parameter(torch.randn(1, 128, 1, 1, 3) * OFFSET_SPREAD)
        self.offset2 = nn.Parameter(torch.randn(1, 512, 1, 1, 3) * OFFSET_SPREAD)
        self._add_conv("0", 1, 4)
        self._add_conv("1", 4, 16, stride=2)
        self._add_conv("11", 16, 16)
        self._add_conv("2", 16, 32, stride=2)
        self._add_conv("22", 32, 32)
        self._add_conv("3", 32, 32)
        self._add_dense("1", samples=128, groups=2, out_channels=16)
        self._add_dense("2", samples=512, groups=4, out_channels=32)
        self._add_conv("6bU", 64, 32)
        self._add_conv("6U", 64, 12)
        self._add_conv("7U", 16, classes)
        self.conv77U = nn.Conv3d(classes, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, classes, *grid]``."""
        once = F.avg_pool3d(x, 3, stride=1, padding=1)
        twice = F.avg_pool3d(once, 3, stride=1, padding=1)
        half, quarter, eighth = ([side // step for side in x.shape[2:]] for step in (2, 4, 8))
        e0 = self._cbl("0", x)
        e1 = self._cbl("11", self._cbl("1", e0))
        e2 = self._cbl("3", self._cbl("22", self._cbl("2", e1)))
        o1 = resize(self._sample("1", once, self.offset1, quarter), half)
        o2 = resize(self._sample("2", twice, self.offset2, eighth), quarter)
        d2 = resize(self._cbl("6bU", torch.cat([e2, o2], dim=1)), half)
        del e2, o2
        d1 = resize(self._cbl("6U", torch.cat([d2, o1, e1], dim=1)), x.shape[2:])
        del d2, o1, e1
        d0 = self._cbl("7U", torch.cat([d1, e0], dim=1))
        logits: Tensor = self.conv77U(d0)
        return logits

    def fold_pairs(self) -> list[tuple[str, str]]:
        """Convolutions with the batch norm right after them; those of the dense stacks stand before theirs."""
        return [(f"conv{name}", f"batch{name}") for name in _FOLD_PAIRS]

    def _add_conv(self, name: str, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        self.add_module(f"conv{name}", nn.Conv3d(in_channels, out_channels, 3, stride=stride, padding=1))
        self.add_module(f"batch{name}", nn.BatchNorm3d(out_channels))

    def _add_dense(self, n: str, *, samples: int, groups: int, out_channels: int) -> None:
        self.add_module(f"linear{n}a", nn.Conv3d(samples, 128, 1, groups=groups, bias=False))
        for norm, linear, channels, out in (
            ("a", "b", 128, 32),
            ("b", "c", 160, 32),
            ("c", "d", 192, 32),
            ("d", "e", 224, out_channels),
        ):
            self.add_module(f"batch{n}{norm}", nn.BatchNorm3d(channels))
            self.add_module(f"linear{n}{linear}", nn.Conv3d(channels, out, 1, bias=False))

    def _cbl(self, name: str, x: Tensor) -> Tensor:
        """Convolution, batch norm, leaky ReLU."""
        return F.leaky_relu(self.get_submodule(f"batch{name}")(self.get_submodule(f"conv{name}")(x)), LEAK)

    def _sample(self, n: str, smoothed: Tensor, offset: Tensor, size: list[int]) -> Tensor:
        """The sparse layer: the smoothed image at learned offsets around a regular grid, then the dense stack.

        The K samples of a grid point are its channels, ``[B, K, *size]``.
        """
        z = F.leaky_relu(self.get_submodule(f"linear{n}a")(_sampled(smoothed, offset, size)), LEAK)
        for norm, linear in (("a", "b"), ("b", "c"), ("c", "d")):
            normed = self.get_submodule(f"batch{n}{norm}")(z)
            z = torch.cat([z, F.leaky_relu(self.get_submodule(f"linear{n}{linear}")(normed), LEAK)], dim=1)
        normed = self.get_submodule(f"batch{n}d")(z)
        return F.leaky_relu(self.get_submodule(f"linear{n}e")(normed), LEAK)


def _sampled(image: Tensor, offset: Tensor, size: list[int]) -> Tensor:
    """``[B, K, *size]``: the image ``[B, 1, x, y, z]`` at K offsets ``[1, K, 1, 1, 3]`` around the points of a regular grid.

    Offsets are in normalised units; their last axis is grid_sample's order: component 0 runs along the tensor's last axis. The
    corners are aligned, the rule of the torch version that trained the published weights.
    """
    # In float32 even where the network runs in half precision: a coordinate rounded to bfloat16 is off by a quarter voxel.
    axes = [torch.linspace(-1, 1, side, device=image.device) for side in size]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flip(-1).reshape(1, 1, -1, 1, 3)
    where = (points + offset.float()).expand(image.shape[0], -1, -1, -1, -1)
    sampled = F.grid_sample(image.float(), where, mode="bilinear", padding_mode="zeros", align_corners=True)
    return sampled.reshape(image.shape[0], offset.shape[1], *size).to(image.dtype)
