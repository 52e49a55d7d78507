"""Measure every published network at its paper's input size: the table of docs/networks.md.

    python benchmarks/networks.py            # all, one process each
    python benchmarks/networks.py unet3d     # one

Saved for backward: bytes of the distinct non-parameter storages that autograd keeps in a training-mode forward pass, fp32,
batch 1, on meta tensors. Forward peak: how far resident memory rises above the loaded network and its input during one
evaluation-mode forward pass on the CPU, fp32, batch 1, one thread.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import torch

from agseg.models.published import PUBLISHED
from agseg.models.registry import build

MIB = 2**20


def saved_for_backward_mib(name: str) -> float:
    with torch.device("meta"):
        network, image = build(name).train(), torch.empty(PUBLISHED[name].input_shape)
    parameters = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = network.scores(image) if hasattr(network, "scores") else network(image)
    size = sum(storage.nbytes() for storage in kept.values()) / MIB
    del result
    return size


def resident_mib(field: str) -> float:
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def forward_peak_mib(name: str) -> float:
    torch.set_num_threads(1)
    network, image = build(name).eval(), torch.randn(PUBLISHED[name].input_shape)
    with torch.inference_mode():
        network(torch.randn(1, image.shape[1], *[network.size_multiple] * (image.ndim - 2)))  # libraries load their kernels
        before = resident_mib("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
        network(image)
    return resident_mib("VmHWM") - before


def main() -> None:
    if len(sys.argv) > 1:
        name = sys.argv[1]
        print(json.dumps({"name": name, "saved_mib": saved_for_backward_mib(name), "peak_mib": forward_peak_mib(name)}))
        return
    for name in PUBLISHED:
        done = subprocess.run([sys.executable, __file__, name], check=True, capture_output=True, text=True)
        print(done.stdout.strip(), flush=True)


if __name__ == "__main__":
    main()
