"""One process up to its first tile, for startup.py: ``python benchmarks/first_tile.py CT NETWORK STARTED``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from options import WINDOW_HU
from shared_network import load

from agseg.inference.allocator import keep_freed_memory
from agseg.inference.device import Precision, choose_precision
from agseg.inference.network import ReadyNetwork
from agseg.inference.predict import tile_scores
from agseg.inference.prepare import prepare
from agseg.inference.tiling import plan
from agseg.io.discover import discover
from agseg.io.read import read_volume
from agseg.models.fold import fold_batch_norm
from agseg.weights.input_spec import InputSpec, Normalisation


def main() -> None:
    started = float(sys.argv[3])

    def say(stage: str) -> None:
        print(stage, time.time() - started)

    keep_freed_memory()
    say("imported_s")
    device = torch.device("cpu")
    module = fold_batch_norm(load(Path(sys.argv[2]), classes=6, fake=False))
    network = ReadyNetwork([module], device=device, precision=choose_precision(Precision.AUTO, device))
    say("network_ready_s")
    volume = read_volume(discover([Path(sys.argv[1])]).studies[0])
    spec = InputSpec(
        "CT",
        axis_codes="RAS",
        spacing_mm=(2.0, 2.0, 2.0),
        window_hu=WINDOW_HU,
        normalisation=Normalisation.WINDOW_TO_SYMMETRIC,
        tile=(160, 160, 96),
    )
    prepared = prepare(volume, spec)
    say("prepared_s")
    next(tile_scores(network, prepared.tensor, plan(prepared.model_grid.shape, tile=spec.tile, overlap=spec.overlap)))
    say("first_tile_s")
    print("processor_s", time.process_time())


if __name__ == "__main__":
    main()
