"""Batch norm folded into the convolution before it: the same function of evaluation mode, with fewer passes over memory.

Source: with running mean m and variance v, scale gamma and shift beta, batch norm after a convolution with weight W and bias b
is a convolution with weight W gamma / sqrt(v + eps) and bias (b - m) gamma / sqrt(v + eps) + beta. A transposed convolution
keeps its output channels on the weight's second axis instead of the first.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import Protocol, cast, runtime_checkable

import torch
from torch import nn

Convolution = nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d
Transposed = nn.ConvTranspose2d | nn.ConvTranspose3d
BatchNorm = nn.BatchNorm2d | nn.BatchNorm3d


@runtime_checkable
class NamesFoldPairs(Protocol):
    """A module that says which of its children are a convolution and the batch norm right after it."""

    def fold_pairs(self) -> list[tuple[str, str]]:
        """Names of (convolution, batch norm)."""
        ...


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """A copy of ``network`` in evaluation mode whose batch norms after convolutions are folded into them.

    Pairs are found inside ``nn.Sequential`` and where a module names them (:class:`NamesFoldPairs`). A batch norm that stands
    before its convolution, or after a concatenation, stays.
    """
    folded = copy.deepcopy(network).eval()
    # The list first: folding changes the tree.
    for parent, conv_name, norm_name in list(_pairs(folded)):
        conv, norm = parent.get_submodule(conv_name), parent.get_submodule(norm_name)
        _fold(cast(Convolution, conv), cast(BatchNorm, norm))
        setattr(parent, norm_name, nn.Identity())
    return folded


def _pairs(network: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            for (conv_name, conv), (norm_name, norm) in pairwise(module.named_children()):
                if isinstance(conv, Convolution) and isinstance(norm, BatchNorm) and _is_foldable(conv):
                    yield module, conv_name, norm_name
        elif isinstance(module, NamesFoldPairs):
            for conv_name, norm_name in module.fold_pairs():
                yield module, conv_name, norm_name


def _is_foldable(conv: Convolution) -> bool:
    """Whether every output channel has weights of its own; a grouped transposed convolution shares the axis."""
    return not isinstance(conv, Transposed) or conv.groups == 1


@torch.no_grad()
def _fold(conv: Convolution, norm: BatchNorm) -> None:
    """Let the convolution do what both did, computed in float64 so that folding itself does not round."""
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ValueError("a batch norm without running statistics cannot be folded")
    factor = (variance.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        factor = factor * norm.weight.double()
    bias = torch.zeros_like(factor) if conv.bias is None else conv.bias.double()
    bias = (bias - mean.double()) * factor
    if norm.bias is not None:
        bias = bias + norm.bias.double()
    along = [1] * conv.weight.ndim
    along[1 if isinstance(conv, Transposed) else 0] = -1
    weight = conv.weight.double() * factor.reshape(along)
    conv.weight, conv.bias = (
        nn.Parameter(value.to(conv.weight.dtype), requires_grad=conv.weight.requires_grad) for value in (weight, bias)
    )
