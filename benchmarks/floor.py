"""How near a tile comes to what the processor can do: ``python benchmarks/floor.py [--repeats 5]``.

The peak is the best rate of some 3x3x3 convolutions alone, in the memory layout and precision of the network. A tile's floor is
its floating-point operations at that rate. The profile says which operators take the time. All on one thread and in processor
time, so that other processes on the machine do not count.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from record import record
from shared_network import load, tile_flop
from torch.profiler import ProfilerActivity, profile
from workshop import network as weights

from agseg.inference.allocator import keep_freed_memory
from agseg.inference.device import Precision, choose_precision
from agseg.inference.network import ReadyNetwork
from agseg.models.fold import fold_batch_norm

TILE = (160, 160, 96)
PEAK_SHAPES = ((32, (80, 80, 48)), (64, (40, 40, 48)), (64, (80, 80, 48)), (128, (40, 40, 24)), (256, (20, 20, 12)))
"""Channels (in and out) and grid of the convolutions that look for the peak."""

TOP_OPERATORS = 8


def timed(run: Callable[[], object], *, repeats: int) -> float:
    run()
    found = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return median(found)


@torch.inference_mode()
def peak_gflops(precision: Precision, *, repeats: int) -> float:
    """Best GFLOP/s of a convolution alone."""
    best = 0.0
    for channels, grid in PEAK_SHAPES:
        layout = {"dtype": precision.dtype}
        image = torch.randn(1, channels, *grid, **layout).to(memory_format=torch.channels_last_3d)
        kernel = torch.randn(channels, channels, 3, 3, 3, **layout).to(memory_format=torch.channels_last_3d)
        seconds = timed(lambda x=image, w=kernel: F.conv3d(x, w, padding=1), repeats=repeats)
        best = max(best, 2 * 27 * channels**2 * grid[0] * grid[1] * grid[2] / seconds / 1e9)
    return best


def operators(network: ReadyNetwork, image: torch.Tensor) -> list[dict[str, Any]]:
    """The operators that take most of a tile, by their own time."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        network(image)
    events = sorted(found.key_averages(), key=lambda event: -event.self_cpu_time_total)
    whole = sum(event.self_cpu_time_total for event in events)
    return [
        {"operator": event.key, "calls": event.count, "share": round(event.self_cpu_time_total / whole, 3)}
        for event in events[:TOP_OPERATORS]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="A tile against the processor's convolution peak.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tile", type=int, nargs=3, default=TILE)
    chosen = parser.parse_args()
    load_before = os.getloadavg()[0]
    keep_freed_memory()
    torch.set_num_threads(1)
    tile = tuple(chosen.tile)
    module = fold_batch_norm(load(weights(), classes=6, fake=False))
    image, flop, rows = torch.randn(1, 1, *tile), tile_flop(tile), {}
    for precision in dict.fromkeys((Precision.FP32, choose_precision(Precision.AUTO, torch.device("cpu")))):
        network = ReadyNetwork([module], device=torch.device("cpu"), precision=precision)
        peak = peak_gflops(precision, repeats=chosen.repeats)
        seconds = timed(lambda network=network: network(image), repeats=chosen.repeats)
        floor = flop / peak / 1e9
        rows[precision.value] = {
            "convolution_peak_gflops": round(peak),
            "tile_s": round(seconds, 3),
            "tile_gflops": round(flop / seconds / 1e9),
            "floor_s": round(floor, 3),
            "tile_over_floor": round(seconds / floor, 2),
            "operators": operators(network, image),
        }
    record("floor", {"n": chosen.repeats, "tile": tile, "tile_gflop": round(flop / 1e9, 1), **rows}, load_before=load_before)


if __name__ == "__main__":
    main()
