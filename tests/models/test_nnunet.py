"""nnU-Net's networks are the ones of dynamic-network-architectures: by that package's own figures, and beside it."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from agseg.models.nnunet import InstanceNorm
from agseg.models.registry import build

PLAIN, RESENC = "nnunet-plain", "nnunet-resenc"
ANISO = {"kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]], "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]]}
ISO = {"kernel_sizes": [[3, 3, 3]] * 3, "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]]}
FLAT = {"kernel_sizes": [[3, 3]] * 3, "strides": [[1, 1], [2, 2], [2, 2]]}
LIKE = {"dims": 3, "classes": 3, "features_per_stage": [4, 6, 8], "n_conv_per_stage_decoder": [2, 2]}

PLANS: list[tuple[str, dict[str, Any], tuple[int, ...]]] = [
    (PLAIN, LIKE | ISO | {"n_conv_per_stage": [2, 2, 2]}, (8, 16, 12)),
    (PLAIN, LIKE | ANISO | {"n_conv_per_stage": [2, 2, 2]}, (4, 16, 12)),
    (PLAIN, LIKE | ANISO | {"n_conv_per_stage": [1, 2, 3], "n_conv_per_stage_decoder": [1, 3]}, (4, 16, 12)),
    (PLAIN, LIKE | ISO | {"n_conv_per_stage": [2, 1, 2], "nonlin_first": True}, (8, 8, 8)),
    (PLAIN, LIKE | ISO | {"n_conv_per_stage": [2, 2, 2], "norm": "batch", "conv_bias": False}, (8, 8, 8)),
    (PLAIN, LIKE | ISO | {"n_conv_per_stage": [2, 2, 2], "norm_affine": False, "slope": 0.0}, (8, 8, 8)),
    (PLAIN, LIKE | FLAT | {"dims": 2, "n_conv_per_stage": [2, 2, 2]}, (16, 24)),
    (RESENC, LIKE | ISO | {"n_blocks_per_stage": [1, 2, 2]}, (8, 16, 12)),
    (RESENC, LIKE | ANISO | {"n_blocks_per_stage": [1, 3, 2], "n_conv_per_stage_decoder": [1, 1]}, (4, 16, 12)),
    (RESENC, LIKE | ISO | {"n_blocks_per_stage": [1, 2, 2], "features_per_stage": [4, 8, 8]}, (8, 8, 8)),
    (RESENC, LIKE | ISO | {"n_blocks_per_stage": [2, 1, 1], "norm": "none", "stem_channels": 5}, (8, 8, 8)),
    (RESENC, LIKE | FLAT | {"dims": 2, "n_blocks_per_stage": [1, 2, 2], "norm_eps": 1e-3}, (16, 24)),
]
"""Twelve plans: architecture, configuration, grid."""

FIGURES = [
    (-0.176383, 1.142382, 1.743997),
    (-0.179900, 1.235291, 0.182156),
    (-0.332918, 1.570028, 0.720711),
    (-0.161319, 1.255003, -0.835753),
    (-0.107404, 0.440817, -0.590738),
    (-0.270112, 1.544796, 1.975022),
    (-0.179806, 1.266342, 0.481474),
    (-0.179999, 1.156335, 1.795466),
    (-0.261800, 1.963096, 3.061861),
    (-0.181417, 1.167520, 0.920648),
    (-0.521308, 1.891856, 1.950463),
    (-0.177515, 1.239865, -0.030661),
]
"""Mean, standard deviation and first value of the logits that dynamic-network-architectures 0.4.4 gives for each plan."""


def weights(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights that depend on the names only: small random numbers, scales around 1."""
    made = {}
    for key, like in state.items():
        random = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(tuple(like.shape))
        if like.ndim > 1:
            random /= np.sqrt(like[0].numel())
        elif key.endswith(("norm.weight", "running_var")):
            random = 1 + 0.2 * np.abs(random)
        made[key] = torch.tensor(random, dtype=like.dtype) if like.is_floating_point() else like
    return made


def image(grid: tuple[int, ...], *, batch: int = 1) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(1).standard_normal((batch, 1, *grid)), dtype=torch.float32)


def ours(architecture: str, config: dict[str, Any]) -> nn.Module:
    network = build(architecture, config).eval()
    network.load_state_dict(weights(network.state_dict()))
    return network


@torch.inference_mode()
def logits(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return network(x)


@pytest.mark.parametrize(("number", "plan"), list(enumerate(PLANS)))
def test_twelve_plans_give_the_figures_of_the_package(number, plan):
    architecture, config, grid = plan
    scores = logits(ours(architecture, config), image(grid))
    assert scores.shape == (1, 3, *grid)
    found = (scores.mean().item(), scores.std().item(), scores.flatten()[0].item())
    assert found == pytest.approx(FIGURES[number], abs=1e-5)


@pytest.mark.parametrize("plan", PLANS)
def test_twelve_plans_give_the_logits_of_the_package(plan):
    pytest.importorskip("dynamic_network_architectures", reason="pip install --no-deps dynamic-network-architectures==0.4.4")
    architecture, config, grid = plan
    network, theirs = ours(architecture, config), published(architecture, config)
    state = theirs.state_dict()
    last = f"decoder.seg_layers.{len(config['features_per_stage']) - 2}"
    names = {key: key.replace("decoder.encoder.", "encoder.").replace(".all_modules.0.", ".conv.") for key in state}
    names = {key: name.replace(last, "decoder.seg_layer") for key, name in names.items()}
    norm = ".all_modules.2." if config.get("nonlin_first") else ".all_modules.1."
    names = {key: name.replace(norm, ".norm.") for key, name in names.items()}
    made = weights(network.state_dict())
    theirs.load_state_dict({key: made.get(name, state[key]) for key, name in names.items()})
    assert set(made) <= set(names.values())
    for batch in (1, 2):
        x = image(grid, batch=batch)
        torch.testing.assert_close(logits(network, x), logits(theirs, x), rtol=0, atol=1e-5)


def published(architecture: str, config: dict[str, Any]) -> nn.Module:
    """The package's network of one of these configurations."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet

    flat = config["dims"] == 2
    norms = {
        "instance": nn.InstanceNorm2d if flat else nn.InstanceNorm3d,
        "batch": nn.BatchNorm2d if flat else nn.BatchNorm3d,
        "none": None,
    }
    renamed = {"classes": "num_classes"}
    kept = ("n_conv_per_stage", "n_blocks_per_stage", "nonlin_first", "stem_channels", "features_per_stage")
    kept += ("kernel_sizes", "strides", "n_conv_per_stage_decoder", "classes")
    arguments = {renamed.get(key, key): config[key] for key in kept if key in config}
    network = {PLAIN: PlainConvUNet, RESENC: ResidualEncoderUNet}[architecture]
    return network(
        1,
        n_stages=len(config["features_per_stage"]),
        conv_op=nn.Conv2d if flat else nn.Conv3d,
        conv_bias=config.get("conv_bias", True),
        norm_op=norms[config.get("norm", "instance")],
        norm_op_kwargs={"eps": config.get("norm_eps", 1e-5), "affine": config.get("norm_affine", True)},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"negative_slope": config.get("slope", 0.01), "inplace": True},
        **arguments,
    ).eval()


def test_a_flat_network_takes_a_volume_of_one_plane():
    architecture, config, grid = PLANS[6]
    network, x = ours(architecture, config), image(grid)
    torch.testing.assert_close(logits(network, x[:, :, None]), logits(network, x)[:, :, None], rtol=0, atol=0)


def test_the_norm_of_one_image_is_that_of_the_image_among_others_in_any_layout():
    x = image((6, 5, 4), batch=3).repeat(1, 8, 1, 1, 1) * torch.arange(1, 9)[:, None, None, None] + 7
    norm = InstanceNorm(8)
    together = norm(x)
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        alone = torch.cat([norm(one.to(memory_format=layout)) for one in x.split(1)])
        torch.testing.assert_close(alone, together, rtol=0, atol=1e-5)


def test_channels_last_data_stays_as_it_lies():
    x = image((6, 5, 4)).repeat(1, 8, 1, 1, 1).to(memory_format=torch.channels_last_3d)
    assert InstanceNorm(8)(x).is_contiguous(memory_format=torch.channels_last_3d)
