"""Sononet and AG-Sononet: fetal scan-plane classification, without and with attention gates.

Source: Schlemper, Oktay et al., Attention Gated Networks (2019), section 2.4, Figure 4 and Table 5, and its preprint, section
3.2.1 (layer numbers). Layer numbers count convolutions and poolings; only then are 11, 14
and 17 the last convolutions of scales 3, 4 and 5, and only the layout (3, 3, 3, 2, 2) has the published 0.16 M parameters.

All classifiers here share one interface, for frames ``[B, 1, height, width]`` with sides that are multiples of 16:

* ``forward(x)`` - probabilities ``[B, classes]`` in float32, whatever the network's own format, that sum to 1.
* ``scores(x)`` - the logits of every head ``[B, classes]``; training sums their cross-entropies with ``loss_weights``.
* ``class_activation(x)`` - layer 17's evidence for every class, ``[B, classes, height / 16, width / 16]``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agseg.models.blocks import batch_norm, conv, initialise, max_pool, resize

LAYOUT = (3, 3, 3, 2, 2)
"""Convolutions per scale."""

SIZE_MULTIPLE = 16
"""Four poolings."""

FLOW_EPSILON = 1e-8
"""Keeps a constant score map from becoming 0 / 0; the map is then uniform (the reference returns NaN)."""


class SononetTrunk(nn.Module):
    """Layers 1 to 17: convolution 3x3 with bias, batch norm, ReLU; max pooling after scales 1 to 4."""

    def __init__(self, base: int, in_channels: int) -> None:
        super().__init__()
        self.pool = max_pool(2)
        self.scale = nn.ModuleList()
        channels = in_channels
        for repeats, factor in zip(LAYOUT, (1, 2, 4, 8, 8), strict=True):
            layers: list[nn.Module] = []
            for _ in range(repeats):
                layers += [conv(2, channels, base * factor), batch_norm(2, base * factor), nn.ReLU(inplace=True)]
                channels = base * factor
            self.scale.append(nn.Sequential(*layers))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Layers 11, 14 and 17 at 1/4, 1/8 and 1/16 of the grid, the first two before their pooling."""
        maps: list[Tensor] = []
        for number, scale in enumerate(self.scale):
            x = scale(self.pool(x) if number else x)
            maps.append(x)
        return maps[2], maps[3], maps[4]


class MapClassifier(nn.Module):
    """A classifier with one head: its logits are the means of one logit map per class."""

    loss_weights: tuple[float, ...] = (1.0,)

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities ``[B, classes]``."""
        return torch.softmax(self.scores(x)[0], dim=1, dtype=torch.float32)

    def scores(self, x: Tensor) -> list[Tensor]:
        """The one head's logits."""
        return [self.class_activation(x).mean(dim=(2, 3), dtype=torch.float32)]

    def class_activation(self, x: Tensor) -> Tensor:
        """The logit maps ``[B, classes, height / 16, width / 16]`` whose means are the logits."""
        raise NotImplementedError


class Sononet(MapClassifier):
    """Sononet-8, -16 or -32: the trunk, then 1x1 convolutions to one logit map per class and their mean.

    Parameters
    ----------
    base
        Channels of the first scale.
    classes, in_channels
        Scan planes with the background; channels of a frame.
    """

    def __init__(self, *, base: int = 8, classes: int = 14, in_channels: int = 1) -> None:
        super().__init__()
        self.size_multiple = SIZE_MULTIPLE
        self.trunk = SononetTrunk(base, in_channels)
        self.adaption = nn.Sequential(
            conv(2, 8 * base, 4 * base, kernel=1),
            batch_norm(2, 4 * base),
            nn.ReLU(inplace=True),
            conv(2, 4 * base, classes, kernel=1),
            batch_norm(2, classes),
        )
        initialise(self)

    def class_activation(self, x: Tensor) -> Tensor:
        """The logit maps whose means are the logits."""
        maps: Tensor = self.adaption(self.trunk(x)[2])
        return maps


class FlowGate(nn.Module):
    """The classification gate: scores at x's full grid, normalised to sum to 1 over positions.

    Source: Attention Gated Networks (2019), equation (1), with alpha = (q - min q) / sum(q - min q) (the public code's
    ``concatenation_mean_flow``). The text's bias b_xg is absent, as the published counts require.
    """

    def __init__(self, *, in_channels: int, gating_channels: int, inter_channels: int) -> None:
        super().__init__()
        self.theta = conv(2, in_channels, inter_channels, kernel=1, bias=False)
        self.phi = conv(2, gating_channels, inter_channels, kernel=1, bias=False)
        self.psi = conv(2, inter_channels, 1, kernel=1)

    def coefficients(self, x: Tensor, g: Tensor) -> Tensor:
        """Alpha ``[B, 1, *grid of x]``: in [0, 1], summing to 1 per sample."""
        q = self.psi(F.relu(self.theta(x) + resize(self.phi(g), x.shape[2:])))
        raised = q - q.amin(dim=(2, 3), keepdim=True) + FLOW_EPSILON
        normalised: Tensor = raised / raised.sum(dim=(2, 3), keepdim=True)
        return normalised

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        """The attended vector sum_i alpha_i x_i, ``[B, channels of x]``."""
        return (self.coefficients(x, g) * x).sum(dim=(2, 3))


class AGSononetMode(StrEnum):
    """How the three vectors (two attended, one pooled) become a prediction."""

    MEAN = "mean"
    """AG-Sononet: three heads, three losses; the mean of their softmaxes."""
    CONCAT = "concat"
    """One head on the concatenated vectors."""
    DEEP_SUP = "deep_sup"
    """AG-Sononet-DS: the concatenated head predicts, three heads help with weight 0.1."""
    FT = "ft"
    """AG-Sononet-FT as in the public code: a layer on the stacked logits of three heads."""
    FT_CONCAT = "ft_concat"
    """AG-Sononet-FT as in the text: a new layer on the concatenated vectors, the trunk from a trained AG-Sononet."""


_LOSS_WEIGHTS: dict[AGSononetMode, tuple[float, ...]] = {
    AGSononetMode.MEAN: (1.0, 1.0, 1.0),
    AGSononetMode.CONCAT: (1.0,),
    AGSononetMode.DEEP_SUP: (1.0, 0.1, 0.1, 0.1),
    AGSononetMode.FT: (1.0,),
    AGSononetMode.FT_CONCAT: (1.0,),
}
_WITH_HEADS = (AGSononetMode.MEAN, AGSononetMode.DEEP_SUP, AGSononetMode.FT)


class AGSononet(nn.Module):
    """Attention-gated Sononet: gates on layers 11 and 14, steered by layer 17.

    Parameters
    ----------
    base, classes, in_channels
        As for :class:`Sononet`.
    mode
        See :class:`AGSononetMode`.
    """

    def __init__(self, *, base: int = 8, classes: int = 14, in_channels: int = 1, mode: str = AGSononetMode.MEAN) -> None:
        super().__init__()
        self.mode = AGSononetMode(mode)
        self.loss_weights = _LOSS_WEIGHTS[self.mode]
        self.size_multiple = SIZE_MULTIPLE
        self.vectors = (4 * base, 8 * base, 8 * base)
        self.trunk = SononetTrunk(base, in_channels)
        self.gate11 = FlowGate(in_channels=4 * base, gating_channels=8 * base, inter_channels=8 * base)
        self.gate14 = FlowGate(in_channels=8 * base, gating_channels=8 * base, inter_channels=8 * base)
        heads = self.vectors if self.mode in _WITH_HEADS else ()
        self.head = nn.ModuleList(nn.Linear(channels, classes) for channels in heads)
        inputs = {AGSononetMode.MEAN: 0, AGSononetMode.FT: 3 * classes}.get(self.mode, sum(self.vectors))
        self.final = nn.Linear(inputs, classes) if inputs else nn.Identity()
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities ``[B, classes]``: the final head's softmax, in ``mean`` mode the mean of the three softmaxes."""
        scores = self.scores(x)
        if self.mode is AGSononetMode.MEAN:
            return torch.stack([torch.softmax(score, dim=1, dtype=torch.float32) for score in scores]).mean(dim=0)
        return torch.softmax(scores[0], dim=1, dtype=torch.float32)

    def scores(self, x: Tensor) -> list[Tensor]:
        """The logits of the heads that ``loss_weights`` weights; where there is a final head it comes first."""
        layer11, layer14, layer17 = self.trunk(x)
        vectors = [self.gate11(layer11, layer17), self.gate14(layer14, layer17), layer17.mean(dim=(2, 3))]
        heads = [head(vector) for head, vector in zip(self.head, vectors, strict=False)]
        if self.mode is AGSononetMode.MEAN:
            return heads
        if self.mode is AGSononetMode.FT:
            return [self.final(torch.cat(heads, dim=1))]
        return [self.final(torch.cat(vectors, dim=1)), *heads]

    def attention(self, x: Tensor) -> dict[str, Tensor]:
        """``gate11`` and ``gate14``: ``[B, 1, *grid]`` at 1/4 and 1/8 of the frame, in [0, 1], summing to 1."""
        layer11, layer14, layer17 = self.trunk(x)
        return {
            "gate11": self.gate11.coefficients(layer11, layer17),
            "gate14": self.gate14.coefficients(layer14, layer17),
        }

    def class_activation(self, x: Tensor) -> Tensor:
        """Layer 17's maps weighted by each class's row of the head that sees their mean (preprint, appendix)."""
        layer17 = self.trunk(x)[2]
        last = self.head[2] if len(self.head) else self.final
        rows = cast(nn.Linear, last).weight[:, -layer17.shape[1] :]
        return torch.einsum("bfhw,cf->bchw", layer17, rows)
