"""Weights of a small plane classifier: random, sure of its answer, and different from picture to picture."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from agseg.ultrasound.timeline import PLANES

NAME = "random-planes"


def write_plane_weights(folder: Path) -> Path:
    """A site's manifest with an AG-Sononet-8 called :data:`NAME`."""
    import torch
    import yaml
    from safetensors.torch import save_file

    from agseg.models.registry import build

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(3)
    module: Any = build("ag-sononet-8", {})
    with torch.no_grad():
        for number, head in enumerate(module.head):
            head.bias.zero_()
            head.bias[PLANES.index("Femur")] = 8.0 + number
    save_file(module.state_dict(), folder / "random.safetensors")
    content = (folder / "random.safetensors").read_bytes()
    entry = {
        "architecture": "ag-sononet-8",
        "format": "safetensors",
        "files": [
            {
                "filename": "random.safetensors",
                "local": "random.safetensors",
                "sha256": hashlib.sha256(content).hexdigest(),
                "size_bytes": len(content),
            }
        ],
        "input": {"modality": "US", "normalisation": "zscore", "tile": [208, 272, 1]},
        "classes": list(PLANES),
        "licence": "none",
        "citation": "none",
        "attribution": "none",
        "intended_use": "tests",
    }
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump({"schema": "agseg.weights/1", "entries": {NAME: entry}}))
    return path
