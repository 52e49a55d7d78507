"""FocusNet: two encoder-decoders, the first of which gates the second; as the text reads.

Source: Kaul et al., FocusNet (2019), section 2, equations (1) to (3): A_l = F_l(x) sigmoid(D_l), with D_l the first branch's
decoder output and F_l the second branch's encoder after its squeeze-and-excitation block. The paper's
list of widths ends at 64; a fourth decoder stage of 32 channels is needed to return to full size. The authors' later release
differs: :mod:`agseg.models.focusnet_released`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agseg.models.blocks import batch_norm, conv, initialise, level_widths

DROPOUT = 0.2
"""Fixed rate, throughout the network."""

SE_RATIO = 16
"""Channels per squeezed channel."""


class SqueezeExcitation(nn.Module):
    """Rescales channels by what their means say (Hu et al. 2018): ratio 16, no bias, sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = max(channels // SE_RATIO, 1)
        self.squeeze = nn.Linear(channels, squeezed, bias=False)
        self.excite = nn.Linear(squeezed, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` with every channel scaled by a factor in [0, 1]."""
        scale = torch.sigmoid(self.excite(F.relu(self.squeeze(x.flatten(2).mean(dim=2)))))
        return x * scale.reshape(*scale.shape, *[1] * (x.ndim - 2))


class ResidualBlock(nn.Module):
    """Residual block with pre-activation: [BN - ReLU -] conv 3x3 (stride) - BN - ReLU - dropout - conv 3x3, plus identity.

    Where channels or grid change, the identity is a 1x1(x1) convolution with the same stride.

    Parameters
    ----------
    activate_first
        Whether the leading batch norm and ReLU are there.
    dropout
        Rate between the two convolutions.
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        activate_first: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        # Not in place: the identity path still needs x.
        first: list[nn.Module] = [batch_norm(dims, in_channels), nn.ReLU()] if activate_first else []
        self.body = nn.Sequential(
            *first,
            conv(dims, in_channels, out_channels, stride=stride),
            batch_norm(dims, out_channels),
            nn.ReLU(inplace=True),
            *([nn.Dropout(dropout)] if dropout else []),
            conv(dims, out_channels, out_channels),
        )
        same = in_channels == out_channels and stride == 1
        self.identity = nn.Identity() if same else conv(dims, in_channels, out_channels, kernel=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, out_channels, *grid / stride]``."""
        summed: Tensor = self.body(x) + self.identity(x)
        return summed


class FocusNet(nn.Module):
    """FocusNet as the paper describes it.

    Parameters
    ----------
    dims
        2 or 3.
    in_channels, classes
        Image channels; logit channels (1: one foreground class against a sigmoid).
    width, widths
        Channels of the first level, doubled per level; or those of every level.
    """

    def __init__(
        self, *, dims: int = 2, in_channels: int = 3, classes: int = 1, width: int = 32, widths: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        f = level_widths(width, widths)
        self.size_multiple = 2 ** (len(f) - 1)
        self.attend = _Branch(dims, in_channels, f)
        self.segment = _Branch(dims, in_channels, f)
        levels = len(f)
        # Twice per gated level: before the gate, as equation (3) has it, and after it.
        self.before = nn.ModuleList(SqueezeExcitation(channels) for channels in f)
        self.after = nn.ModuleList(SqueezeExcitation(channels) for channels in f[:-1])
        self.decoded = nn.ModuleList(SqueezeExcitation(f[level]) for level in range(levels - 1))
        self.head = nn.Sequential(batch_norm(dims, f[0]), nn.ReLU(inplace=True), conv(dims, f[0], classes, kernel=1))
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, classes, *grid]``; sides are multiples of 16."""
        gates = self._gates(x)
        maps: list[Tensor] = []
        for level, block in enumerate(self.segment.encoder):
            deep = self.before[level](block(self.segment.stem(x) if level == 0 else maps[-1]))
            maps.append(self.after[level](deep * gates.pop(level)) if level in gates else deep)
        deep = maps.pop()
        for level in reversed(range(len(maps))):
            deep = self.decoded[level](self.segment.decode(level, maps.pop(), deep))
        logits: Tensor = self.head(deep)
        return logits

    def attention(self, x: Tensor) -> dict[str, Tensor]:
        """The first branch's gates, one channel per gated channel: ``"gate0"`` (finest) to ``"gate3"``, in [0, 1]."""
        return {f"gate{level}": gate for level, gate in sorted(self._gates(x).items())}

    def _gates(self, x: Tensor) -> dict[int, Tensor]:
        """sigmoid(D_l) of the first branch per level."""
        maps: list[Tensor] = []
        for level, block in enumerate(self.attend.encoder):
            maps.append(block(self.attend.stem(x) if level == 0 else maps[-1]))
        deep, gates = maps.pop(), {}
        for level in reversed(range(len(maps))):
            deep = self.attend.decode(level, maps.pop(), deep)
            gates[level] = torch.sigmoid(deep)
        return gates


class _Branch(nn.Module):
    """What both branches have: a stem, residual blocks of stride 2 down, nearest x2 - conv 3x3 - residual blocks up."""

    def __init__(self, dims: int, in_channels: int, f: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = conv(dims, in_channels, f[0])
        self.encoder = nn.ModuleList([ResidualBlock(dims, f[0], f[0], dropout=DROPOUT)])
        self.up = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for fine, coarse in pairwise(f):
            self.encoder.append(ResidualBlock(dims, fine, coarse, stride=2, dropout=DROPOUT))
            self.up.append(conv(dims, coarse, fine))
            self.decoder.append(ResidualBlock(dims, 2 * fine, fine, dropout=DROPOUT))

    def decode(self, level: int, skip: Tensor, deep: Tensor) -> Tensor:
        """One decoder stage."""
        up = self.up[level](F.interpolate(deep, scale_factor=2, mode="nearest"))
        decoded: Tensor = self.decoder[level](torch.cat([up, skip], dim=1))
        return decoded
