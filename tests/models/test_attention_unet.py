"""Attention U-Net: what its gates see."""

import torch

from agseg.models.registry import build


def test_skips_are_what_enters_the_gates():
    network = build("attention-unet3d", {"classes": 3, "widths": [4, 8, 8, 16, 16]}).eval()
    seen = {}
    for level, gate in network.gate.items():
        gate.register_forward_pre_hook(lambda _, inputs, level=level: seen.__setitem__(f"gate{level}", inputs[0]))
    image = torch.randn(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        network(image)
        found = network.skips(image)
    assert found.keys() == seen.keys() == network.attention(image).keys()
    for name, entered in seen.items():
        torch.testing.assert_close(found[name], entered.abs().mean(dim=1, keepdim=True))
