"""Predictor protocol: tiles in, scores out, and what the pipeline must know beside them.

:class:`~agseg.inference.network.ReadyNetwork` is the first of its kind. Another inference engine is one file with a class of
this shape, see docs/extending.md.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from agseg.models.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor


class Scores(Enum):
    """What a predictor's scores are, which decides how they become labels."""

    LOGITS = auto()
    """A softmax over the classes (a sigmoid where there is one) makes probabilities of them."""
    PROBABILITIES = auto()
    """Already probabilities: an ensemble's mean."""
    RAW_LOGITS = auto()
    """Averaged and carried back as they are (nnU-Net)."""


class Predictor(Protocol):
    """A batch of tiles in, scores out."""

    @property
    def device(self) -> torch.device:
        """Where the arithmetic runs, and where the model grid is prepared."""
        ...

    @property
    def precision(self) -> Precision:
        """In which number format."""
        ...

    @property
    def in_channels(self) -> int:
        """Channels of an image."""
        ...

    @property
    def scores(self) -> Scores:
        """What comes out."""
        ...

    def moved(self, device: torch.device, precision: Precision) -> Predictor:
        """The same elsewhere, or in another number format: what the ladder of fallbacks asks for."""
        ...

    def __call__(self, batch: Tensor) -> Tensor:
        """Scores (batch, classes, *tile) of a batch (batch, channels, *tile); float32 or the precision's type."""
        ...


@runtime_checkable
class FoldedPredictor(Protocol):
    """A predictor whose raw logits are the mean of several folds', which can be had one by one."""

    @property
    def folds(self) -> Sequence[Predictor]:
        """The folds; a single one is the predictor itself."""
        ...


@runtime_checkable
class GatedPredictor(Protocol):
    """A predictor that can also show its attention gates."""

    @property
    def device(self) -> torch.device:
        """See :class:`Predictor`."""
        ...

    def gates(self, batch: Tensor) -> dict[str, Tensor]:
        """Each gate's coefficients (batch, gates, *gate grid) in [0, 1], by name."""
        ...
