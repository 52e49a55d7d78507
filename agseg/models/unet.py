"""U-Net with fused side logits: the baseline of the Attention Gated Networks paper.

Source: Schlemper, Oktay et al. (2019), section 3.2 and Table 3. The text starts at 8 channels, but
the published 5.88 M parameters require 16 (the tables and the public code agree), so 16 is the default. "Deep supervision" is
the fusion of one logit map per decoder level with one loss on the fused map; :meth:`UNet.sides` offers the maps for optional
auxiliary losses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agseg.errors import UsageError
from agseg.models.blocks import DoubleConv, conv, initialise, level_widths, max_pool, resize


class UNet(nn.Module):
    """U-Net whose decoder levels each give logits, fused at full resolution.

    Parameters
    ----------
    dims
        2 or 3.
    in_channels, classes
        Image channels; classes with the background (index 0).
    width
        Channels of the first level, doubled at each of four poolings.
    widths
        Channels of every level, in place of ``width``.
    """

    def __init__(
        self, *, dims: int = 3, in_channels: int = 1, classes: int = 4, width: int = 16, widths: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        f = level_widths(width, widths)
        if len(f) < 2:
            raise UsageError("a U-Net needs at least two levels", value=list(f), expected="two widths or more")
        self.widths = f
        self.size_multiple = 2 ** (len(f) - 1)
        self.pool = max_pool(dims)
        self.encoder = nn.ModuleList(DoubleConv(dims, a, b) for a, b in zip((in_channels, *f[:-1]), f, strict=True))
        self.decoder = nn.ModuleList(DoubleConv(dims, a + b, a) for a, b in pairwise(f))
        self.side = nn.ModuleList(conv(dims, a, classes, kernel=1) for a in f[:-1])
        self.head = conv(dims, classes * len(self.side), classes, kernel=1)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, classes, *grid]`` of an image ``[B, in_channels, *grid]`` with sides that are multiples of 16."""
        return self._fuse((level, self._part(level, feature)) for level, feature in self._decode(x))

    def sides(self, x: Tensor) -> list[Tensor]:
        """The logits of every decoder level, finest first, resampled to the full grid."""
        return self.heads(x)[1:]

    def heads(self, x: Tensor) -> list[Tensor]:
        """The fused logits, then the side logits finest first, from one pass: what a loss with auxiliary terms needs."""
        features = list(self._decode(x))
        fused = self._fuse((level, self._part(level, feature)) for level, feature in features)
        sides = [resize(self.side[level](feature), x.shape[2:]) for level, feature in reversed(features)]
        return [fused, *sides]

    def _encode(self, x: Tensor) -> list[Tensor]:
        """Encoder maps, finest first; the last is the bottleneck."""
        maps: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            maps.append(block(x if level == 0 else self.pool(maps[-1])))
        return maps

    def _decode(self, x: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Decoder maps with their level, coarsest first; each encoder map is let go of as soon as it is used."""
        maps = self._encode(x)
        deep = maps.pop()
        for level in reversed(range(len(self.decoder))):
            deep = self._decode_level(level, maps.pop(), deep)
            yield level, deep

    def _decode_level(self, level: int, skip: Tensor, deep: Tensor) -> Tensor:
        """One decoder block on the (gated) skip and the coarser decoder map."""
        decoded: Tensor = self.decoder[level](torch.cat([self._skip(level, skip, deep), resize(deep, skip.shape[2:])], dim=1))
        return decoded

    def _skip(self, level: int, skip: Tensor, deep: Tensor) -> Tensor:
        """What the decoder sees of the encoder at this level."""
        return skip

    def _part(self, level: int, feature: Tensor) -> Tensor:
        """One level's share of the fused logits, on its own grid.

        The 1x1(x1) head over the concatenated side maps is a sum over levels, and a 1x1(x1) convolution commutes with
        interpolation; so both convolutions run as one, before the resampling, and 4 x classes channels at full resolution
        never exist.
        """
        side, head = cast(nn.Conv3d, self.side[level]), cast(nn.Conv3d, self.head)
        classes = side.out_channels
        share = head.weight[:, level * classes : (level + 1) * classes].flatten(1)
        weight = (share @ side.weight.flatten(1)).reshape(classes, side.in_channels, *side.weight.shape[2:])
        bias = None if side.bias is None else share @ side.bias
        convolve = F.conv2d if feature.ndim == 4 else F.conv3d
        return convolve(feature, weight, bias)

    def _fuse(self, parts: Iterator[tuple[int, Tensor]]) -> Tensor:
        """The sum of all levels' shares at the finest grid, plus the head's bias."""
        *coarse, (_, fused) = parts
        for _, part in coarse:
            fused = fused + resize(part, fused.shape[2:])
        bias = cast(nn.Conv3d, self.head).bias
        return fused if bias is None else fused + bias.reshape(1, -1, *[1] * (fused.ndim - 2))
