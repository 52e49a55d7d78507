"""R2U-Net and its relatives: the recurrent residual baselines of ANU-Net's and FocusNet's tables.

Source: Alom et al., Recurrent Residual Convolutional Neural Network based on U-Net (2018), with t = 2 recurrences; the gates of
the attention form are those of Attention U-Net on one common grid, after upsampling. ANU-Net (2020), Tables 2 to 5, prints
scores of both but no parameter counts, and neither paper fixes the 1x1 convolutions at the blocks' entry: that is our choice.
FocusNet (2019), Table 1, has two more of Alom et al.: Res-U-Net has the residual sums and no recurrence (no ``steps``), RU-Net
the recurrence and no sums (not ``residual``).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from agseg.errors import UsageError
from agseg.models.attention_gate import SameGridGate
from agseg.models.blocks import batch_norm, conv, initialise, level_widths, max_pool, resize


class RecurrentConv(nn.Module):
    """One convolution - batch norm - ReLU applied to its own output plus its input, ``steps`` times again."""

    def __init__(self, dims: int, channels: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        # Not in place: the sum of the next step needs what went in.
        self.cell = nn.Sequential(conv(dims, channels, channels), batch_norm(dims, channels), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """``[B, channels, *grid]``."""
        state: Tensor = self.cell(x)
        for _ in range(self.steps):
            state = self.cell(x + state)
        return state


class RecurrentResidual(nn.Module):
    """1x1(x1) convolution to the width, then two recurrent convolutions, with a residual sum around them or without."""

    def __init__(self, dims: int, in_channels: int, out_channels: int, steps: int, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.enter = conv(dims, in_channels, out_channels, kernel=1)
        self.body = nn.Sequential(RecurrentConv(dims, out_channels, steps), RecurrentConv(dims, out_channels, steps))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, out_channels, *grid]``."""
        entered: Tensor = self.enter(x)
        through: Tensor = self.body(entered)
        return entered + through if self.residual else through


class R2UNet(nn.Module):
    """Recurrent residual U-Net, with or without gates on its skip connections.

    Parameters
    ----------
    dims
        2 or 3.
    in_channels, classes
        Image channels; logit channels (1: one foreground class against a sigmoid).
    width, widths
        Channels of the first level, doubled per level; or those of every level.
    steps
        Recurrences after the first pass; 0 leaves plain convolutions.
    residual
        Whether a block's input is added to its output.
    gated
        Whether skips pass an attention gate (Attention R2U-Net).
    """

    def __init__(
        self,
        *,
        dims: int = 2,
        in_channels: int = 1,
        classes: int = 1,
        width: int = 64,
        widths: Sequence[int] | None = None,
        steps: int = 2,
        residual: bool = True,
        gated: bool = False,
    ) -> None:
        super().__init__()
        if steps < 0:
            raise UsageError("a negative number of recurrences", value=steps, expected="0 or more")
        f = level_widths(width, widths)
        self.size_multiple = 2 ** (len(f) - 1)
        self.pool = max_pool(dims)
        self.encoder = nn.ModuleList(
            RecurrentResidual(dims, a, b, steps, residual) for a, b in zip((in_channels, *f[:-1]), f, strict=True)
        )
        self.up = nn.ModuleList()
        self.decoder = nn.ModuleList()
        self.gate = nn.ModuleList()
        for fine, coarse in pairwise(f):
            self.up.append(nn.Sequential(conv(dims, coarse, fine), batch_norm(dims, fine), nn.ReLU(inplace=True)))
            self.decoder.append(RecurrentResidual(dims, 2 * fine, fine, steps, residual))
            if gated:
                self.gate.append(SameGridGate(dims, channels=fine))
        self.head = conv(dims, f[0], classes, kernel=1)
        initialise(self)
        for gate in self.gate:
            cast(SameGridGate, gate).open_gate()

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, classes, *grid]``; sides are multiples of 16."""
        return self._run(x, {})

    def attention(self, x: Tensor) -> dict[str, Tensor]:
        """Each gate's coefficients, ``"gate0"`` (finest) on, ``[B, 1, *grid]`` in [0, 1]; nothing where there are no gates."""
        seen: dict[str, Tensor] = {}
        self._run(x, seen)
        return dict(sorted(seen.items()))

    def _run(self, x: Tensor, seen: dict[str, Tensor]) -> Tensor:
        maps: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            maps.append(block(self.pool(maps[-1]) if level else x))
        deep = maps.pop()
        for level in reversed(range(len(self.decoder))):
            skip = maps.pop()
            up = self.up[level](resize(deep, skip.shape[2:]))
            if len(self.gate):
                alpha = cast(SameGridGate, self.gate[level]).coefficients(skip, up)
                seen[f"gate{level}"] = alpha
                skip = skip * alpha
            deep = self.decoder[level](torch.cat([skip, up], dim=1))
        logits: Tensor = self.head(deep)
        return logits
