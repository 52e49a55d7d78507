"""nnU-Net's two U-Nets, plain and with a residual encoder, 2D and 3D, built from plain numbers.

Source: ``PlainConvUNet`` and ``ResidualEncoderUNet`` of dynamic-network-architectures 0.4.4 (Apache-2.0), the networks of
nnU-Net v2. Parameters have that package's names, without the copies that its checkpoints hold of the same tensors, and without
the heads of deep supervision: only ``decoder.seg_layer``, the one at full resolution, is left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Sides = int | Sequence[int]
"""One number for every axis, or one per axis."""

Stage = tuple[int, Sides, Sides, int]
"""Features, kernel, stride, and number of convolutions or blocks of one stage of the encoder."""


class Norm(StrEnum):
    """What normalises after each convolution."""

    INSTANCE = "instance"
    BATCH = "batch"
    NONE = "none"


class InstanceNorm(nn.Module):
    """Instance norm with learnt scale and shift, any number of spatial axes, that leaves channels-last data as it lies.

    For one image it is the same sum as batch norm with the batch's own statistics, and only that kernel of PyTorch reads
    channels-last data without copying it back and forth: a whole network takes 1 / 1.5 of the time in fp32, 1 / 1.9 in bf16.
    """

    def __init__(self, channels: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        """``[B, channels, *grid]``, each channel of each image with mean 0 and variance 1, scaled and shifted."""
        if x.shape[0] == 1:
            return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)
        return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)


class _Kit:
    """What every block of one network is made of."""

    def __init__(self, dims: int, *, bias: bool, norm: str, eps: float, affine: bool, slope: float, nonlin_first: bool) -> None:
        if dims not in (2, 3):
            raise ValueError(f"a network has 2 or 3 dimensions, not {dims}")
        self.dims = dims
        self.conv: type[nn.Conv2d | nn.Conv3d] = nn.Conv2d if dims == 2 else nn.Conv3d
        self.transposed: type[nn.ConvTranspose2d | nn.ConvTranspose3d] = nn.ConvTranspose2d if dims == 2 else nn.ConvTranspose3d
        self.pool: type[nn.AvgPool2d | nn.AvgPool3d] = nn.AvgPool2d if dims == 2 else nn.AvgPool3d
        self._batch_norm: type[nn.BatchNorm2d | nn.BatchNorm3d] = nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d
        self.bias, self._norm, self._eps, self._affine = bias, Norm(norm), eps, affine
        self.slope, self.nonlin_first = slope, nonlin_first

    def sides(self, value: Sides) -> tuple[int, ...]:
        sides = (value,) * self.dims if isinstance(value, int) else tuple(int(side) for side in value)
        if len(sides) != self.dims or min(sides) < 1:
            raise ValueError(f"{value} is not one positive number per axis of {self.dims}")
        return sides

    def norm(self, channels: int) -> nn.Module:
        match self._norm:
            case Norm.INSTANCE:
                return InstanceNorm(channels, eps=self._eps, affine=self._affine)
            case Norm.BATCH:
                return self._batch_norm(channels, eps=self._eps, affine=self._affine)
            case Norm.NONE:
                return nn.Identity()


class _ConvBlock(nn.Module):
    """Convolution, norm, leaky ReLU; or the last two in the other order, or without the last."""

    def __init__(
        self,
        kit: _Kit,
        inside: int,
        out: int,
        *,
        kernel: Sides,
        stride: Sides = 1,
        active: bool = True,
        bias: bool | None = None,
    ) -> None:
        super().__init__()
        size = kit.sides(kernel)
        padding = tuple((side - 1) // 2 for side in size)
        use_bias = kit.bias if bias is None else bias
        self.conv = kit.conv(inside, out, size, kit.sides(stride), padding, bias=use_bias)  # type: ignore[arg-type]
        self.norm = kit.norm(out)
        self._slope = kit.slope if active else None
        self._nonlin_first = kit.nonlin_first

    def fold_pairs(self) -> list[tuple[str, str]]:
        """The convolution and its batch norm, where one follows the other."""
        is_batch = isinstance(self.norm, nn.BatchNorm2d | nn.BatchNorm3d)
        follows = self._slope is None or not self._nonlin_first
        return [("conv", "norm")] if is_batch and follows else []

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self._slope is None:
            return self._normed(x)
        if self._nonlin_first:
            return self._normed(F.leaky_relu(x, self._slope, inplace=True))
        return F.leaky_relu(self._normed(x), self._slope, inplace=True)

    def _normed(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(x)
        return normed


class _ConvStack(nn.Module):
    """Several blocks in a row; only the first has a stride."""

    def __init__(self, kit: _Kit, inside: int, out: int, *, kernel: Sides, stride: Sides = 1, count: int) -> None:
        super().__init__()
        first = _ConvBlock(kit, inside, out, kernel=kernel, stride=stride)
        self.convs = nn.Sequential(first, *(_ConvBlock(kit, out, out, kernel=kernel) for _ in range(count - 1)))

    def forward(self, x: Tensor) -> Tensor:
        stacked: Tensor = self.convs(x)
        return stacked


class _ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, which is pooled and projected where it has to be (ResNet-D)."""

    def __init__(self, kit: _Kit, inside: int, out: int, *, kernel: Sides, stride: Sides) -> None:
        super().__init__()
        self.conv1 = _ConvBlock(kit, inside, out, kernel=kernel, stride=stride)
        self.conv2 = _ConvBlock(kit, out, out, kernel=kernel, active=False)
        steps = kit.sides(stride)
        shortcut: list[nn.Module] = [kit.pool(steps, steps)] if max(steps) > 1 else []  # type: ignore[arg-type]
        if inside != out:
            shortcut.append(_ConvBlock(kit, inside, out, kernel=1, active=False, bias=False))
        self.skip = nn.Sequential(*shortcut)
        self._slope = kit.slope

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(self.conv1(x))
        return F.leaky_relu(out + self.skip(x), self._slope, inplace=True)


class _ResidualStack(nn.Module):
    """Several residual blocks in a row; only the first has a stride."""

    def __init__(self, kit: _Kit, inside: int, out: int, *, kernel: Sides, stride: Sides, count: int) -> None:
        super().__init__()
        first = _ResidualBlock(kit, inside, out, kernel=kernel, stride=stride)
        more = (_ResidualBlock(kit, out, out, kernel=kernel, stride=1) for _ in range(count - 1))
        self.blocks = nn.Sequential(first, *more)

    def forward(self, x: Tensor) -> Tensor:
        stacked: Tensor = self.blocks(x)
        return stacked


class _Encoder(nn.Module):
    """The stages on the way down, with a stem where they are residual."""

    def __init__(self, stages: Sequence[nn.Module], stem: nn.Module | None = None) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        if self.stem is not None:
            x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class _Decoder(nn.Module):
    """Transposed convolutions, the skip of the same size beside them, blocks; one head at full resolution."""

    def __init__(self, kit: _Kit, stages: Sequence[Stage], *, counts: Sequence[int], classes: int) -> None:
        super().__init__()
        self.transpconvs, self.stages = nn.ModuleList(), nn.ModuleList()
        for (fine, kernel, _, _), (coarse, _, stride, _), count in zip(stages[-2::-1], stages[:0:-1], counts, strict=True):
            step = kit.sides(stride)
            self.transpconvs.append(kit.transposed(coarse, fine, step, step, bias=kit.bias))  # type: ignore[arg-type]
            self.stages.append(_ConvStack(kit, 2 * fine, fine, kernel=kernel, count=count))
        self.seg_layer = kit.conv(stages[0][0], classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        x = maps.pop()
        for up, stage in zip(self.transpconvs, self.stages, strict=True):
            x = stage(torch.cat((up(x), maps.pop()), dim=1))
        scores: Tensor = self.seg_layer(x)
        return scores


class NnUNet(nn.Module):
    """The network of an nnU-Net plan.

    Parameters
    ----------
    dims
        2 or 3. A 2D network also takes volumes of one plane.
    classes, in_channels
        Channels of the scores and of the image.
    features_per_stage, kernel_sizes, strides
        One item per stage, finest first; kernels and strides are one number or one per axis.
    n_conv_per_stage_decoder
        Convolutions per stage of the decoder, coarsest first.
    n_conv_per_stage, n_blocks_per_stage
        One of them: convolutions per stage of a plain encoder, or blocks per stage of a residual one.
    stem_channels
        Width of a residual encoder's stem; that of the first stage by default.
    conv_bias, norm, norm_eps, norm_affine, slope, nonlin_first
        As in the plan; ``slope`` is the leaky ReLU's on the negative side, 0 makes it a ReLU.
    """

    def __init__(
        self,
        *,
        dims: int,
        classes: int,
        features_per_stage: Sequence[int],
        kernel_sizes: Sequence[Sides],
        strides: Sequence[Sides],
        n_conv_per_stage_decoder: Sequence[int],
        n_conv_per_stage: Sequence[int] | None = None,
        n_blocks_per_stage: Sequence[int] | None = None,
        stem_channels: int | None = None,
        in_channels: int = 1,
        conv_bias: bool = True,
        norm: str = Norm.INSTANCE,
        norm_eps: float = 1e-5,
        norm_affine: bool = True,
        slope: float = 0.01,
        nonlin_first: bool = False,
    ) -> None:
        super().__init__()
        self.dims = dims
        kit = _Kit(dims, bias=conv_bias, norm=norm, eps=norm_eps, affine=norm_affine, slope=slope, nonlin_first=nonlin_first)
        counts = n_conv_per_stage or n_blocks_per_stage or ()
        stages = list(zip(features_per_stage, kernel_sizes, strides, counts, strict=True))
        if n_conv_per_stage and n_blocks_per_stage:
            raise ValueError("an encoder is plain or residual, not both")
        self.size_multiple = math.lcm(*(math.prod(side) for side in zip(*map(kit.sides, strides), strict=True)))
        self.encoder = _encoder(kit, stages, in_channels, is_residual=n_conv_per_stage is None, stem_channels=stem_channels)
        self.decoder = _Decoder(kit, stages, counts=n_conv_per_stage_decoder, classes=classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, classes, *grid]`` of an image ``[B, in_channels, *grid]``."""
        if self.dims == 2 and x.ndim == 5:
            return self(x.squeeze(2)).unsqueeze(2)  # type: ignore[no-any-return]
        logits: Tensor = self.decoder(self.encoder(x))
        return logits


def nnunet_plain(*, n_conv_per_stage: Sequence[int], **config: Any) -> NnUNet:
    """nnU-Net's ``PlainConvUNet``."""
    return NnUNet(n_conv_per_stage=n_conv_per_stage, **config)


def nnunet_resenc(*, n_blocks_per_stage: Sequence[int], **config: Any) -> NnUNet:
    """nnU-Net's ``ResidualEncoderUNet``."""
    return NnUNet(n_blocks_per_stage=n_blocks_per_stage, **config)


def _encoder(kit: _Kit, stages: Sequence[Stage], inside: int, *, is_residual: bool, stem_channels: int | None) -> _Encoder:
    stem = None
    if is_residual:
        features, kernel, _, _ = stages[0]
        stem = _ConvStack(kit, inside, stem_channels or features, kernel=kernel, count=1)
        inside = stem_channels or features
    made: list[nn.Module] = []
    for features, kernel, stride, count in stages:
        if is_residual:
            made.append(_ResidualStack(kit, inside, features, kernel=kernel, stride=stride, count=count))
        else:
            # One more level of names, as in the package.
            made.append(nn.Sequential(_ConvStack(kit, inside, features, kernel=kernel, stride=stride, count=count)))
        inside = features
    return _Encoder(made, stem)
