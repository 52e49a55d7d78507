"""Where the comparison keeps its things (``build/bench``), and how its data and the peers' environment come about."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

from cases import SIZES

HERE = Path(__file__).parent
PEERS_VENV = HERE / ".venv"
PEERS_PYTHON = PEERS_VENV / "bin" / "python"
BUILD = HERE.parent / "build" / "bench"
NETWORK = BUILD / "attunet.pt"
ROUNDS = BUILD / "rounds.jsonl"
OUTPUTS = BUILD / "out"
TRAINED_ON = "76"
"""The size whose CT the shared network is trained on."""


def peers_environment() -> Path:
    """Python of the peers' own virtual environment; made at the first call.

    TotalSegmentator comes without its dependencies, and torch is pinned for all: the peers must run the same torch as agseg.
    """
    stamp = PEERS_VENV / "complete"
    if not stamp.exists():
        venv.create(PEERS_VENV, with_pip=True)
        pip = [PEERS_PYTHON, "-m", "pip", "install", "--quiet", "--constraint", HERE / "peers.txt"]
        subprocess.run([*pip, "torch", "monai", "nnunetv2"], check=True)
        subprocess.run([*pip, "--no-deps", "TotalSegmentator"], check=True)
        stamp.touch()
    return PEERS_PYTHON


def volume(size: str) -> Path:
    """The synthetic CT of a size, with its labels beside it."""
    path = BUILD / f"ct-{size}.nii.gz"
    if not path.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        chosen = SIZES[size]
        shape, spacing = [map(str, values) for values in (chosen.shape, chosen.spacing_mm)]
        script = [sys.executable, HERE / "synthetic_ct.py", path, "--labels", labels_beside(path)]
        subprocess.run([*script, "--shape", *shape, "--spacing", *spacing], check=True)
    return path


def labels_beside(path: Path) -> Path:
    return path.with_name(path.name.replace(".nii.gz", "-labels.nii.gz"))


def matched_volume(size: str) -> Path:
    """The CT of a size already on the model's grid, so that no pipeline resamples and all see the same voxels."""
    path = BUILD / f"matched-{size}.nii.gz"
    if not path.exists():
        import nibabel as nib
        import numpy as np

        from agseg.inference.model_grid import ModelGrid
        from agseg.inference.prepare import sample
        from agseg.io.discover import discover
        from agseg.io.read import read_volume

        source = read_volume(discover([volume(size)]).studies[0])
        model_grid = ModelGrid.at_spacing(source.grid, axis_codes="RAS", spacing_mm=(SIZES[size].model_mm,) * 3)
        voxels = np.rint(sample(source, model_grid, antialias=False).numpy()).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, model_grid.grid.affine), path)
    return path


def network() -> Path:
    """Weights of the shared network, trained at the first call."""
    if not NETWORK.exists():
        ct = volume(TRAINED_ON)
        script = [sys.executable, HERE / "shared_network.py", "--ct", ct, "--labels", labels_beside(ct), "--out", NETWORK]
        subprocess.run(script, check=True)
    return NETWORK
