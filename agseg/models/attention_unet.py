"""Attention U-Net: the U-Net of :mod:`agseg.models.unet` with attention gates on its skip connections.

Source: Schlemper, Oktay et al., Attention Gated Networks (2019), section 2.2 and Figure 3.
All skips but the finest are gated. The text lets the coarsest map be used directly as gating signal, and only that prints as
the published 6.40 M parameters: ``center`` is the default. ``proj`` is what the public code does at its latest revision.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import cast

from torch import Tensor, nn

from agseg.models.attention_gate import GateKind, MultiGate
from agseg.models.blocks import batch_norm, conv, initialise
from agseg.models.unet import UNet


class Gating(StrEnum):
    """Where the coarsest gate's signal comes from."""

    CENTER = "center"
    """The bottleneck map itself."""
    PROJ = "proj"
    """The bottleneck map through a 1x1(x1) convolution, batch norm and ReLU of the same width."""
    PROJ_HALF = "proj_half"
    """The same, to half the width."""


class AttentionUNet(UNet):
    """U-Net with gated skips.

    Parameters
    ----------
    dims, in_channels, classes, width, widths
        As for :class:`~agseg.models.unet.UNet`.
    gates
        Gates per skip connection: 2 is the paper's multi-dimensional attention, 1 a single gate.
    gate_kind
        See :class:`~agseg.models.attention_gate.GateKind`.
    gating
        See :class:`Gating`.
    """

    def __init__(
        self,
        *,
        dims: int = 3,
        in_channels: int = 1,
        classes: int = 4,
        width: int = 16,
        widths: Sequence[int] | None = None,
        gates: int = 2,
        gate_kind: str = GateKind.ADDITIVE,
        gating: str = Gating.CENTER,
    ) -> None:
        super().__init__(dims=dims, in_channels=in_channels, classes=classes, width=width, widths=widths)
        f, gating, kind = self.widths, Gating(gating), GateKind(gate_kind)
        coarse = f[-1] // 2 if gating is Gating.PROJ_HALF else f[-1]
        signals = (*f[1:-1], coarse)
        self.gate = nn.ModuleDict(
            {
                str(level): MultiGate(dims, in_channels=f[level], gating_channels=signals[level], gates=gates, kind=kind)
                for level in range(1, len(f) - 1)
            }
        )
        self.signal = (
            nn.Identity()
            if gating is Gating.CENTER
            else nn.Sequential(conv(dims, f[-1], coarse, kernel=1), batch_norm(dims, coarse), nn.ReLU(inplace=True))
        )
        initialise(self)
        for gate in self.gate.values():
            cast(MultiGate, gate).open_gate()

    def attention(self, x: Tensor) -> dict[str, Tensor]:
        """Each gate's coefficients for an image, ``"gate1"`` (finest) on: ``[B, gates, *gate grid]`` in [0, 1]."""
        maps = self._encode(x)
        found: dict[str, Tensor] = {}
        deep = maps[-1]
        for level in reversed(range(1, len(self.decoder))):
            found[f"gate{level}"] = cast(MultiGate, self.gate[str(level)]).coefficients(maps[level], self._signal(level, deep))
            deep = self._decode_level(level, maps[level], deep)
        return dict(reversed(found.items()))

    def skips(self, x: Tensor) -> dict[str, Tensor]:
        """What enters each gate: the mean magnitude of its features, by the gate's name, ``[B, 1, *grid of the skip]``.

        A gate multiplies it by its coefficients (Attention Gated Networks, Figure 1, shows both).
        """
        maps = self._encode(x)
        return {f"gate{level}": maps[level].abs().mean(dim=1, keepdim=True) for level in range(1, len(self.decoder))}

    def _skip(self, level: int, skip: Tensor, deep: Tensor) -> Tensor:
        if level == 0:
            return skip
        gated: Tensor = self.gate[str(level)](skip, self._signal(level, deep))
        return gated

    def _signal(self, level: int, deep: Tensor) -> Tensor:
        """The next coarser decoder map; at the coarsest gate the bottleneck, as ``gating`` says."""
        signal: Tensor = self.signal(deep) if level == len(self.decoder) - 1 else deep
        return signal
