"""A network of planes run over volumes, so that one prediction path serves both."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn


class SliceWise(nn.Module):
    """A 2D network as a 3D one: every slice along the last axis by itself."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, x, y, z]`` -> ``[B, classes, x, y, z]``."""
        slices = x.movedim(-1, 1).flatten(0, 1)
        scores: Tensor = self.network(slices)
        return scores.reshape(x.shape[0], x.shape[-1], *scores.shape[1:]).movedim(1, -1)

    def attention(self, x: Tensor) -> dict[str, Tensor]:
        """Each gate's coefficients ``[B, m, *gate grid, z]``, where the network has gates."""
        found: dict[str, Tensor] = cast(Any, self.network).attention(x.movedim(-1, 1).flatten(0, 1))
        depth = x.shape[-1]
        return {n: a.reshape(x.shape[0], depth, *a.shape[1:]).movedim(1, -1) for n, a in found.items()}
