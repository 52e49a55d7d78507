"""FocusNet as its authors released it, some months after the paper.

Source: docs/networks.md, "FocusNet as released" (the topology of the authors' later code, in our words). Against the paper:
the gating branch has three levels and feeds 64, 128 and 256 channels; the segmenting branch keeps its strided blocks' outputs
as skips; four outputs are fused.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agseg.models.blocks import batch_norm, conv, initialise
from agseg.models.focusnet import DROPOUT, ResidualBlock, SqueezeExcitation

STEM_SLOPE = 0.3
"""Negative slope of the gating branch's first leaky ReLU."""


class FocusNetReleased(nn.Module):
    """FocusNet in its released form.

    Parameters
    ----------
    dims
        2 or 3.
    in_channels, classes
        Image channels; logit channels.
    width
        Channels w of the gating branch's stem; the segmenting branch has 2w, 4w, 8w, 16w.
    """

    def __init__(self, *, dims: int = 2, in_channels: int = 3, classes: int = 1, width: int = 32) -> None:
        super().__init__()
        w = width
        self.size_multiple = 16
        self.attend = _Attend(dims, in_channels, w)
        self.stem = nn.Sequential(conv(dims, in_channels, 2 * w, kernel=7), batch_norm(dims, 2 * w), nn.ReLU(inplace=True))
        levels = (2 * w, 4 * w, 8 * w, 16 * w)
        before = (2 * w, *levels[:-1])
        self.block = nn.ModuleList(_r(dims, a, b) for a, b in zip(before, levels, strict=True))
        self.down = nn.ModuleList(_r(dims, channels, channels, stride=2) for channels in levels)
        self.before = nn.ModuleList(SqueezeExcitation(channels) for channels in levels)
        self.after = nn.ModuleList(SqueezeExcitation(channels) for channels in levels[:-1])
        self.up = nn.ModuleList(_UpConv(dims, a, b) for a, b in ((16 * w, 8 * w), (8 * w, 4 * w), (4 * w, 2 * w), (2 * w, w)))
        self.decoder = nn.ModuleList([_r(dims, 2 * channels, channels) for channels in (8 * w, 4 * w, 2 * w)])
        last = (w, max(w // 2, 1), max(w // 8, 1))
        self.decoder.append(nn.Sequential(*(_r(dims, a, b) for a, b in zip((3 * w, *last[:-1]), last, strict=True))))
        self.side = nn.ModuleList(_output(dims, channels, w, classes) for channels in (8 * w, 4 * w, 2 * w))
        self.side.append(conv(dims, last[-1], classes, kernel=1))
        self.head = _output(dims, 4 * classes, w, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, classes, *grid]`` of the fused output; sides are multiples of 16."""
        sides = [torch.sigmoid(side) for side in self.sides(x)]
        logits: Tensor = self.head(torch.cat(sides, dim=1))
        return logits

    def sides(self, x: Tensor) -> list[Tensor]:
        """The logits of the four outputs that are fused, coarsest first, at full size."""
        gates = self.attend(x)
        skips = [self.stem(x)]
        for level, block in enumerate(self.block):
            feature = self.before[level](block(skips[-1]))
            if level < len(gates):
                feature = self.after[level](feature * gates[level])
            skips.append(self.down[level](feature))
        deep, outputs = skips.pop(), []
        for stage, decoder in enumerate(self.decoder):
            deep = decoder(torch.cat([self.up[stage](deep), skips.pop()], dim=1))
            full = F.interpolate(deep, size=x.shape[2:], mode="nearest") if skips else deep
            outputs.append(self.side[stage](full))
        return outputs

    def attention(self, x: Tensor) -> dict[str, Tensor]:
        """The gates, one channel per gated channel: ``"gate0"`` (finest) to ``"gate2"``, in [0, 1]."""
        return {f"gate{level}": gate for level, gate in enumerate(self.attend(x))}


class _Attend(nn.Module):
    """The gating branch: gates at 1, 1/2 and 1/4 of the grid."""

    def __init__(self, dims: int, in_channels: int, w: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            conv(dims, in_channels, w, bias=False), batch_norm(dims, w), nn.LeakyReLU(STEM_SLOPE, inplace=True)
        )
        self.encoder = nn.ModuleList(nn.Sequential(_r(dims, c, c, stride=2), _r(dims, c, 2 * c)) for c in (w, 2 * w, 4 * w))
        self.dropout = nn.Dropout(DROPOUT)
        self.up = nn.ModuleList(_UpConv(dims, a, b) for a, b in ((8 * w, 8 * w), (8 * w, 4 * w), (4 * w, 2 * w)))
        self.decoder = nn.ModuleList(_r(dims, c + c // 2, c) for c in (8 * w, 4 * w, 2 * w))

    def forward(self, x: Tensor) -> list[Tensor]:
        """sigmoid(D) at the three gated levels, finest first."""
        maps = [self.stem(x)]
        for block in self.encoder:
            maps.append(block(maps[-1]))
        deep, gates = self.dropout(maps.pop()), []
        for up, decoder in zip(self.up, self.decoder, strict=True):
            deep = decoder(torch.cat([up(deep), maps.pop()], dim=1))
            gates.append(torch.sigmoid(deep))
        return gates[::-1]


class _UpConv(nn.Module):
    """Nearest x2, convolution 2x2(x2) padded at the far sides, ReLU."""

    def __init__(self, dims: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.padding = (0, 1) * dims
        self.conv = conv(dims, in_channels, out_channels, kernel=2)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(F.pad(F.interpolate(x, scale_factor=2, mode="nearest"), self.padding)))


def _r(dims: int, in_channels: int, out_channels: int, *, stride: int = 1) -> ResidualBlock:
    """The released code's block: only the strided ones keep the leading batch norm and ReLU."""
    return ResidualBlock(dims, in_channels, out_channels, stride=stride, activate_first=stride > 1)


def _output(dims: int, in_channels: int, between: int, classes: int) -> nn.Sequential:
    return nn.Sequential(conv(dims, in_channels, between), nn.ReLU(inplace=True), conv(dims, between, classes, kernel=1))
