"""Distributed training: sums over the batches of all processes, and batch norms that see all of them.

Source: Zhang et al. (2018), synchronised batch norm. torch's own ``SyncBatchNorm`` runs on CUDA only; this one runs wherever
processes can add up a tensor, so that the law can be tested on two CPU processes: P processes with batch b take the step of one
with batch P b.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, distributed, nn


def process_count() -> int:
    """Processes that train together; 1 where there is no group."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def summed(value: Tensor) -> Tensor:
    """A tensor added up over all processes, with its gradient; itself where there is one process.

    A loss that is made of such sums is the same number on every process; averaged over the processes, its gradients are those
    of one process with all samples.
    """
    if process_count() == 1:
        return value
    added: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
    return added


class _Sum(torch.autograd.Function):
    """A sum over all processes, whose gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        added = value.clone()
        distributed.all_reduce(added)
        return added

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        added = gradients[0].contiguous().clone()
        distributed.all_reduce(added)
        return added


class _Synchronised:
    """Batch norm over the samples of all processes while it trains; plain batch norm when it does not."""

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, *grid]`` -> the same shape, by the mean and variance of each channel over every process's ``x``."""
        norm = cast(Any, self)
        if not norm.training or process_count() == 1:
            return cast(Tensor, super().forward(x))  # type: ignore[misc]
        axes = [0, *range(2, x.ndim)]
        values = x.float()
        count = x.numel() // x.shape[1] * process_count()
        mean = summed(values.sum(dim=axes)) / count
        shape = [1, -1, *[1] * (x.ndim - 2)]
        centred = values - mean.reshape(shape)
        variance = summed(centred.square().sum(dim=axes)) / count
        if norm.track_running_stats:
            _follow(norm, mean.detach(), variance.detach() * (count / max(count - 1, 1)))
        normed = centred * torch.rsqrt(variance + norm.eps).reshape(shape)
        if norm.affine:
            normed = normed * norm.weight.reshape(shape) + norm.bias.reshape(shape)
        return normed.to(x.dtype)


@torch.no_grad()
def _follow(norm: Any, mean: Tensor, variance: Tensor) -> None:
    """Move the running statistics as torch does."""
    norm.num_batches_tracked += 1
    share = 1.0 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(variance, share)


class _Norm1d(_Synchronised, nn.BatchNorm1d):
    pass


class _Norm2d(_Synchronised, nn.BatchNorm2d):
    pass


class _Norm3d(_Synchronised, nn.BatchNorm3d):
    pass


_KINDS = {nn.BatchNorm1d: _Norm1d, nn.BatchNorm2d: _Norm2d, nn.BatchNorm3d: _Norm3d}


def synchronise(network: nn.Module) -> None:
    """Let every batch norm of a network see all processes; parameters, statistics and names stay as they are."""
    for module in network.modules():
        if type(module) in _KINDS:
            module.__class__ = _KINDS[type(module)]  # type: ignore[index]
