"""What every pipeline of the comparison is told, and the intensity rule that they share."""

from __future__ import annotations

import argparse
from pathlib import Path

WINDOW_HU = (-1000.0, 1000.0)
"""HU are clipped to this window and divided by its half width: -1 to 1."""


def pipeline_options(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--net", type=Path, required=True, help="state dict of shared_network.AttUNet")
    parser.add_argument("--classes", type=int, default=6)
    parser.add_argument("--patch", type=int, nargs=3, default=(160, 160, 96), help="tile, voxels, along R, A, S")
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument("--spacing", type=float, default=2.0, help="mm")
    parser.add_argument("--threads", type=int, help="all cores by default")
    parser.add_argument("--fake-net", action="store_true", help="a cheap function per voxel instead: all but the network")
    return parser
