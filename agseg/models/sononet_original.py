"""The original SonoNet, in the layout of its published weights.

Source: Baumgartner et al., SonoNet: Real-time detection and localisation of fetal standard scan planes in freehand ultrasound
(2017), and the shapes and order of the arrays in its public weights.
"""

from __future__ import annotations

from torch import Tensor, nn

from agseg.models.blocks import batch_norm, conv, initialise, max_pool
from agseg.models.sononet import SIZE_MULTIPLE, MapClassifier

LAYOUT = (2, 2, 3, 3, 3)
"""Convolutions per scale; with the later Sononet's (3, 3, 3, 2, 2) the published weights would not fit."""

TRUNK_EPSILON = 1e-4
"""Batch-norm epsilon of the 13 trunk layers; the two adaption layers have 1e-5."""


class SonoNetOriginal(MapClassifier):
    """SonoNet-16, -32 or -64: 15 convolutions without bias, each with a batch norm.

    The state dict is ``layers.{k}.0.weight`` (convolution) and ``layers.{k}.1.`` ``weight`` (gamma), ``bias`` (beta),
    ``running_mean``, ``running_var``, ``num_batches_tracked`` for k = 0 to 14 in the order of the published file: 13 trunk
    layers, then the two of the adaption.

    Frames ``[B, 1, height, width]`` (224 x 288 for the published weights) have sides that are multiples of 16. ``forward``,
    ``scores`` and ``class_activation`` are those of :mod:`agseg.models.sononet`.

    Parameters
    ----------
    base
        Channels of the first scale.
    classes, in_channels
        Scan planes with the background; channels of a frame.
    """

    def __init__(self, *, base: int = 16, classes: int = 14, in_channels: int = 1) -> None:
        super().__init__()
        self.size_multiple = SIZE_MULTIPLE
        self.pool = max_pool(2)
        self.layers = nn.ModuleList()
        channels = in_channels
        for repeats, factor in zip(LAYOUT, (1, 2, 4, 8, 8), strict=True):
            for _ in range(repeats):
                self.layers.append(_layer(channels, factor * base, kernel=3, eps=TRUNK_EPSILON, relu=True))
                channels = factor * base
        self.layers.append(_layer(8 * base, 4 * base, kernel=1, eps=1e-5, relu=True))
        self.layers.append(_layer(4 * base, classes, kernel=1, eps=1e-5, relu=False))
        initialise(self)

    def class_activation(self, x: Tensor) -> Tensor:
        """The logit maps ``[B, classes, height / 16, width / 16]`` whose means are the logits."""
        first_of_scale = {sum(LAYOUT[:scale]) for scale in range(1, len(LAYOUT))}
        for number, layer in enumerate(self.layers):
            x = layer(self.pool(x) if number in first_of_scale else x)
        return x


def _layer(in_channels: int, out_channels: int, *, kernel: int, eps: float, relu: bool) -> nn.Sequential:
    layer = nn.Sequential(conv(2, in_channels, out_channels, kernel=kernel, bias=False), batch_norm(2, out_channels, eps=eps))
    if relu:
        layer.append(nn.ReLU(inplace=True))
    return layer
