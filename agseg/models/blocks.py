"""Building blocks that every network shares, in two or three spatial dimensions.

``dims`` is 2 or 3 throughout. Tensors are ``[batch, channels, *grid]``, floating point. Grids grow by linear interpolation
with voxel-centre alignment (``align_corners=False``), which matches the cell centres of a stride-2 convolution
(docs/networks.md, "Where text, code and tables disagree").
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from agseg.errors import UsageError

_CONV: dict[int, type[nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_CONV_TRANSPOSE: dict[int, type[nn.ConvTranspose2d | nn.ConvTranspose3d]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_BATCH_NORM: dict[int, type[nn.BatchNorm2d | nn.BatchNorm3d]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_MAX_POOL: dict[int, type[nn.MaxPool2d | nn.MaxPool3d]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}

BATCH_NORM_SPREAD = 0.02
"""Standard deviation of the batch-norm scale around 1 at initialisation, as in the public code of Attention Gated Networks."""


def _checked(dims: int) -> int:
    if dims not in _CONV:
        raise UsageError("the number of spatial dimensions does not exist", value=dims, expected="2 or 3")
    return dims


def conv(
    dims: int,
    in_channels: int,
    out_channels: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    padding: int | None = None,
    bias: bool = True,
) -> nn.Module:
    """A convolution; odd kernels keep the grid unless ``padding`` says otherwise."""
    padding = kernel // 2 if padding is None and kernel % 2 else padding or 0
    return _CONV[_checked(dims)](in_channels, out_channels, kernel, stride=stride, padding=padding, bias=bias)


def conv_transpose(dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """A transposed convolution 2x2(x2) of stride 2 with bias: doubles the grid."""
    return _CONV_TRANSPOSE[_checked(dims)](in_channels, out_channels, 2, stride=2)


def batch_norm(dims: int, channels: int, *, eps: float = 1e-5) -> nn.Module:
    """Batch normalisation."""
    return _BATCH_NORM[_checked(dims)](channels, eps=eps)


def max_pool(dims: int) -> nn.Module:
    """Max pooling by 2 in every direction."""
    return _MAX_POOL[_checked(dims)](2)


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear or trilinear resampling of ``[B, C, *grid]`` to another grid; the tensor itself where the grid is the same."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear" if x.ndim == 4 else "trilinear", align_corners=False)


def level_widths(width: int, widths: Sequence[int] | None = None) -> tuple[int, ...]:
    """Channels per level: ``widths`` where they are given, else ``width`` doubled at each of four poolings."""
    if widths is not None:
        return tuple(widths)
    if width < 1:
        raise UsageError("a network needs at least one channel", value=width, expected="a width of 1 or more")
    return tuple(width * 2**level for level in range(5))


class DoubleConv(nn.Sequential):
    """Two times (convolution 3x3(x3) with bias, batch norm unless ``norm`` is off, ReLU)."""

    def __init__(self, dims: int, in_channels: int, out_channels: int, *, norm: bool = True) -> None:
        layers: list[nn.Module] = []
        for channels in (in_channels, out_channels):
            layers.append(conv(dims, channels, out_channels))
            if norm:
                layers.append(batch_norm(dims, out_channels))
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


def initialise(network: nn.Module) -> None:
    """Kaiming-normal (fan-in) convolutions and linear layers, batch-norm scales N(1, 0.02) with zero shift.

    Biases of convolutions keep the framework's default, as in the public code. Gates open
    themselves afterwards (``open_gates``).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, a=0.0, mode="fan_in")
        elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.normal_(module.weight, 1.0, BATCH_NORM_SPREAD)
            nn.init.zeros_(module.bias)
