"""Folding by hand; that it changes no architecture's output is in test_every_architecture."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from agseg.models.fold import fold_batch_norm
from agseg.models.registry import build


def test_folded_convolution_by_hand():
    conv, norm = nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, eps=0.0)
    with torch.no_grad():
        conv.weight.fill_(2.0)
        norm.weight.fill_(3.0)
        norm.bias.fill_(5.0)
        norm.running_mean.fill_(7.0)
        norm.running_var.fill_(4.0)
    folded = fold_batch_norm(nn.Sequential(conv, norm))
    # (2 x - 7) / 2 * 3 + 5 = 3 x - 5.5
    assert folded[0].weight.item() == pytest.approx(3.0)
    assert folded[0].bias.item() == pytest.approx(-5.5)
    assert isinstance(folded[1], nn.Identity)


@pytest.mark.parametrize("dims", [2, 3])
def test_norm_after_a_transposed_convolution_is_folded(dims):
    torch.manual_seed(0)
    convolution = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[dims]
    norm = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dims](5)
    with torch.no_grad():
        for values in (norm.weight, norm.bias, norm.running_mean):
            values.normal_()
        norm.running_var.uniform_(0.5, 2.0)
    stack = nn.Sequential(convolution(3, 5, 2, stride=2, bias=False), norm).eval()
    folded, image = fold_batch_norm(stack), torch.randn(1, 3, *[4] * dims)
    assert isinstance(folded[1], nn.Identity)
    torch.testing.assert_close(folded(image), stack(image))


def test_norm_after_a_grouped_transposed_convolution_stays():
    stack = nn.Sequential(nn.ConvTranspose2d(4, 4, 2, groups=2), nn.BatchNorm2d(4)).eval()
    folded, image = fold_batch_norm(stack), torch.randn(1, 4, 3, 3)
    assert isinstance(folded[1], nn.BatchNorm2d)
    torch.testing.assert_close(folded(image), stack(image))


def test_norms_before_a_convolution_stay():
    stack = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1), nn.ReLU(), nn.BatchNorm2d(2))
    folded = fold_batch_norm(stack)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in folded.modules()) == 2


@pytest.mark.parametrize("name", ["unet3d", "attention-unet3d", "attention-unet3d-proj"])
def test_nothing_is_left_to_normalise_in_the_networks_that_segment_ct(name):
    folded = fold_batch_norm(build(name, {"width": 2}))
    assert not [module for module in folded.modules() if isinstance(module, nn.BatchNorm3d)]


def test_obelisk_keeps_only_the_norms_of_its_dense_stacks():
    folded = fold_batch_norm(build("obelisk-hybrid"))
    left = {name for name, module in folded.named_modules() if isinstance(module, nn.BatchNorm3d)}
    assert left == {f"batch{n}{letter}" for n in "12" for letter in "abcd"}


def test_folding_needs_running_statistics():
    with pytest.raises(ValueError, match="running statistics"):
        fold_batch_norm(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, track_running_stats=False)))
