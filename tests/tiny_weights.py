"""Weights set by hand, so that a run's result is known: a two-level U-Net whose logits are a function of HU alone.

``pancreas`` wins between about 70 and 155 HU, ``kidney_left`` above, background below.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from agseg.models.registry import build

CONFIG = {"dims": 3, "classes": 3, "widths": [2, 2]}
WINDOW_HU = (-200.0, 300.0)


def build_tiny() -> nn.Module:
    """logit 1 = 40 relu(x - 0.44) - 4 and logit 2 = 120 relu(x - 0.62) - 4 of the windowed value x in [0, 1]."""
    network = build("unet", CONFIG)
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.ones_(module.weight)
    first, second = (m for m in network.encoder[0].modules() if isinstance(m, nn.Conv3d))
    third, fourth = (m for m in network.decoder[0].modules() if isinstance(m, nn.Conv3d))
    with torch.no_grad():
        for channel, (threshold, slope) in enumerate(((0.44, 40.0), (0.62, 120.0))):
            first.weight[channel, 0, 1, 1, 1] = 1.0
            first.bias[channel] = -threshold
            for layer in (second, third, fourth):  # the decoder's first inputs are the skip
                layer.weight[channel, channel, 1, 1, 1] = 1.0
            network.side[0].weight[channel + 1, channel] = slope
            network.side[0].bias[channel + 1] = -4.0
        for label in range(3):
            network.head.weight[label, label] = 1.0
    return network.eval()


def write_site_manifest(folder: Path) -> Path:
    """A safetensors file and a manifest with one entry, ``tiny``, that is the default for its two organs."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "tiny.safetensors"
    save_file({key: value.contiguous() for key, value in build_tiny().state_dict().items()}, weights)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    manifest = folder / "site.yaml"
    manifest.write_text(
        f"""schema: agseg.weights/1
entries:
  tiny:
    architecture: unet
    config: {{dims: 3, classes: 3, widths: [2, 2]}}
    format: safetensors
    files:
      - {{filename: tiny.safetensors, local: tiny.safetensors, sha256: {digest}, size_bytes: {weights.stat().st_size}}}
    input:
      modality: CT
      axis_codes: RAS
      spacing_mm: [3.0, 3.0, 3.0]
      window_hu: [{WINDOW_HU[0]}, {WINDOW_HU[1]}]
      normalisation: window_to_unit
      tile: [32, 32, 32]
      overlap: 0.25
    labels: {{1: pancreas, 2: kidney_left}}
    default_for: [pancreas, kidney_left]
    licence: CC0-1.0
    citation: none
    attribution: set by hand
    intended_use: tests
""",
        encoding="utf-8",
    )
    return manifest
