"""A predictor without a network: scores are a function of the voxel, and what devices do can be played."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from agseg.inference.predictor import Scores
from agseg.models.precision import Precision


@dataclass(frozen=True)
class FakePredictor:
    """Scores each tile with ``rule``; ``breaks`` is called first with the predictor and the batch."""

    rule: Callable[[Tensor], Tensor]
    breaks: Callable[[FakePredictor, Tensor], None] = lambda predictor, batch: None
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - immutable
    precision: Precision = Precision.FP32
    in_channels: int = 1
    scores: Scores = Scores.LOGITS
    batches: list[int] = field(default_factory=list)

    def moved(self, device: torch.device, precision: Precision) -> FakePredictor:
        return replace(self, device=device, precision=precision)

    def __call__(self, batch: Tensor) -> Tensor:
        self.batches.append(len(batch))
        self.breaks(self, batch)
        return self.rule(batch)
