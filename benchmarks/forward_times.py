"""The papers' own speed tables again: ``python benchmarks/forward_times.py [--repeats 5]``.

ANU-Net, Table 6 (2000 slices at depths 1 to 4); Attention Gated Networks, Tables 1, 2 (a 160x160x96 tile) and 5 (scan planes).
Ours: batch norm folded, batch 1, one thread, processor time (so that other processes on the machine do not count), the
networks of a table in turn; medians. The papers used a GPU, so what can be compared is how the networks of one table stand to
each other.
"""

from __future__ import annotations

import argparse
import os
import time
from statistics import median
from typing import Any

import torch
from record import record

from agseg.inference.allocator import keep_freed_memory
from agseg.inference.device import Precision, choose_precision
from agseg.inference.network import ReadyNetwork
from agseg.models.fold import fold_batch_norm
from agseg.models.published import PUBLISHED
from agseg.models.registry import build

SLICES = 2000
ANU_NET_S = {"anu-net-l1": 5.3795, "anu-net-l2": 5.7283, "anu-net-l3": 5.9893, "anu-net-l4": 6.4914}
"""ANU-Net (2020), Table 6: seconds for 2000 slices."""

U_NET_S = {"unet3d": 0.167, "attention-unet3d": 0.179, "unet3d-6.44m": 0.191, "unet3d-10.40m": 0.222}
"""Attention Gated Networks (2019), Tables 1 and 2: seconds per tile."""

SONONET_MS = {
    "sononet-8": 1.36,
    "ag-sononet-8": 1.86,
    "ag-sononet-ds-8": 1.92,
    "ag-sononet-ft-8": 1.92,
    "sononet-16": 1.45,
    "ag-sononet-16": 1.88,
    "ag-sononet-ds-16": 1.90,
    "ag-sononet-ft-16": 1.94,
    "sononet-32": 2.40,
    "ag-sononet-32": 3.01,
    "ag-sononet-ds-32": 2.98,
    "ag-sononet-ft-32": 2.92,
}
"""Attention Gated Networks (preprint), Table 5: milliseconds of a forward pass."""

TABLES = {"anu_net_table_6": (ANU_NET_S, SLICES), "agn_tables_1_2": (U_NET_S, 1), "agn_table_5": (SONONET_MS, 1000)}
"""Printed times, and what one forward pass in seconds is multiplied by to stand beside them."""


def measure(names: list[str], precision: Precision, *, repeats: int) -> dict[str, float]:
    """Median seconds of one forward pass per network."""
    torch.manual_seed(0)
    networks = {
        name: ReadyNetwork([fold_batch_norm(build(name).eval())], device=torch.device("cpu"), precision=precision)
        for name in names
    }
    images = {name: torch.randn(PUBLISHED[name].input_shape) for name in names}
    found: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(repeats + 1):
        for name, network in networks.items():
            start = time.process_time()
            network(images[name])
            if turn:
                found[name].append(time.process_time() - start)
    return {name: median(seconds) for name, seconds in found.items()}


def table(printed: dict[str, float], factor: float, *, repeats: int) -> list[dict[str, Any]]:
    """A row per network: printed, ours in fp32 and in the default precision, and each relative to the table's first row."""
    names, default = list(printed), choose_precision(Precision.AUTO, torch.device("cpu"))
    exact = measure(names, Precision.FP32, repeats=repeats)
    quick = measure(names, default, repeats=repeats)
    first = names[0]
    return [
        {
            "network": name,
            "printed": printed[name],
            "fp32": round(exact[name] * factor, 3),
            "default": round(quick[name] * factor, 3),
            "printed_relative": round(printed[name] / printed[first], 2),
            "fp32_relative": round(exact[name] / exact[first], 2),
            "default_relative": round(quick[name] / quick[first], 2),
        }
        for name in names
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="The papers' speed tables again.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    chosen = parser.parse_args()
    load = os.getloadavg()[0]
    keep_freed_memory()
    torch.set_num_threads(1)
    for name in chosen.tables:
        printed, factor = TABLES[name]
        rows = table(printed, factor, repeats=chosen.repeats)
        record(name, {"n": chosen.repeats, "rows": rows}, load_before=load)


if __name__ == "__main__":
    main()
