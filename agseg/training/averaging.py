"""Exponential moving average of a network's weights, which is what is validated and exported."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import nn

WARMUP_STEPS = 20
"""The average starts quick: its decay is at most (step) / (step + this)."""


class AveragedNetwork:
    """A copy of a network whose parameters and batch-norm statistics follow it slowly."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.decay = decay

    def to(self, device: torch.device) -> None:
        """Move the copy."""
        self.network.to(device)

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the network after optimiser step number ``step`` (from 1)."""
        keep = min(self.decay, step / (step + WARMUP_STEPS))
        state = cast("dict[str, torch.Tensor]", network.state_dict())
        for name, mine in self.network.state_dict().items():
            if mine.dtype.is_floating_point:
                mine.lerp_(state[name].to(mine.dtype), 1 - keep)
            else:
                mine.copy_(state[name])
