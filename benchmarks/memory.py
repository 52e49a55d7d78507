"""Peak memory of long scans with many classes: ``python benchmarks/memory.py [--size 600] [--classes 6 25 104]``.

agseg's default mode with the real network (with another number of classes its last layer is random: memory is the same).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

from cases import SIZES
from record import record
from workshop import BUILD, HERE, network, volume


def main() -> None:
    parser = argparse.ArgumentParser(description="Peak memory of long scans with many classes.")
    parser.add_argument("--size", choices=SIZES, default="600")
    parser.add_argument("--classes", type=int, nargs="+", default=[6, 25, 104])
    parser.add_argument("--fake-net", action="store_true", help="all but the network")
    chosen = parser.parse_args()
    size, load, rows = SIZES[chosen.size], os.getloadavg()[0], []
    for classes in chosen.classes:
        command = [sys.executable, HERE / "ours.py", volume(chosen.size), BUILD / "memory.nii.gz", "--net", network()]
        command += ["--classes", str(classes), "--patch", *map(str, size.patch), "--spacing", str(size.model_mm)]
        command += ["--fake-net"] if chosen.fake_net else []
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        line = json.loads(done.stdout.splitlines()[-1])
        rows.append({"classes": classes, **{name: line[name] for name in ("peak_mb", "total_s", "stages_peak_mb")}})
        print(rows[-1], flush=True)
    record("memory", {"size": size.shape, "network": not chosen.fake_net, "n": 1, "rows": rows}, load_before=load)


if __name__ == "__main__":
    main()
