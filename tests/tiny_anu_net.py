"""A narrow ANU-Net of depth 4 with fixed random weights, whose four heads give different masks."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from agseg.models.registry import build
from tests.tiny_weights import build_tiny

CONFIG = {"dims": 3, "classes": 3, "widths": [2, 2, 3, 3, 4], "depth": 4}
ID = "tiny-anu-net"

_ENTRY = """  {id}:
    architecture: {architecture}
    config: {config}
    format: safetensors
    files:
      - {{filename: {id}.safetensors, local: {id}.safetensors, sha256: {digest}, size_bytes: {size}}}
    input:
      modality: CT
      axis_codes: RAS
      spacing_mm: [14.0, 14.0, 14.0]
      window_hu: [-200.0, 300.0]
      normalisation: window_to_unit
      tile: [16, 16, 16]
      overlap: 0.25
    labels: {{1: pancreas, 2: spleen}}
    licence: CC0-1.0
    citation: none
    attribution: random numbers
    intended_use: tests
"""


def build_anu_net() -> nn.Module:
    """Every head with its own random weights; no class wins everywhere."""
    torch.manual_seed(5)
    network = build("anu-net", CONFIG)
    for head in network.head.values():
        nn.init.normal_(head.weight, std=2.0)
        nn.init.normal_(head.bias, std=0.1)
    return network.eval()


def write_manifest(folder: Path) -> Path:
    """A manifest with the ANU-Net and, beside it, a U-Net, which cannot be pruned."""
    folder.mkdir(parents=True, exist_ok=True)
    unet = "{dims: 3, classes: 3, widths: [2, 2]}"
    anu_net = "{dims: 3, classes: 3, widths: [2, 2, 3, 3, 4], depth: 4}"
    text = "schema: agseg.weights/1\nentries:\n"
    for name, architecture, config, network in (
        (ID, "anu-net", anu_net, build_anu_net()),
        ("tiny-unet", "unet", unet, build_tiny()),
    ):
        path = folder / f"{name}.safetensors"
        save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        size = path.stat().st_size
        text += _ENTRY.format(id=name, architecture=architecture, config=config, digest=digest, size=size)
    (folder / "site.yaml").write_text(text, encoding="utf-8")
    return folder / "site.yaml"
