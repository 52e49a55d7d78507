"""How far agseg's masks are nnU-Net's own: python benchmarks/nnunet_agreement.py FOLDER [options of agseg segment]

FOLDER holds models with ``reference.json``: cases, nnU-Net's labels of them, and what its own command took. Each model is
imported into a fresh cache, each case segmented by the command. Printed per case: the share of equal voxels among those where
either says organ, the lowest Dice of any class, seconds, processor seconds and the largest process, beside nnU-Net's own.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

AGSEG = Path(sys.executable).parent / "agseg"


def compared(found: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Share of equal labels where either says organ, and the lowest Dice of the classes that nnU-Net found."""
    organ = (found > 0) | (theirs > 0)
    dice = [
        2 * ((found == label) & (theirs == label)).sum() / ((found == label).sum() + (theirs == label).sum())
        for label in np.unique(theirs[theirs > 0])
    ]
    return float((found == theirs)[organ].mean()), float(min(dice))


def run(*arguments: object, home: Path) -> None:
    subprocess.run([str(AGSEG), *map(str, arguments)], check=True, env=os.environ | {"AGSEG_HOME": str(home)})


def main() -> None:
    folder, options = Path(sys.argv[1]), sys.argv[2:]
    print("| model | case | mirrored | orientation | equal | lowest Dice | s | CPU s | MB | nnU-Net s | CPU s | MB |")
    print("|---|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as temporary:
        home, out = Path(temporary) / "home", Path(temporary) / "out"
        for description in sorted(folder.glob("*/reference.json")):
            root, reference = description.parent, json.loads(description.read_text())
            for case in reference["references"]:
                said = case["orientation"]
                model = f"{root.name}-{said or 'plan'}".lower()
                orientation = ("--orientation", said) if said else ()
                run("weights", "import", root / reference["model"], "--as", model, "-q", *orientation, home=home)
                image = (root / case["case"]).resolve()
                mirror = ("--mirror",) if case["mirror"] else ()
                begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
                run(
                    "segment", image, "--weights", model, "-o", out / model / str(case["mirror"]), "-d", "cpu", "--ml",
                    "--no-preview", "-q", *mirror, *options, home=home,
                )  # fmt: skip
                used = resource.getrusage(resource.RUSAGE_CHILDREN)
                cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
                (mask,) = (out / model / str(case["mirror"])).rglob(f"{image.name.split('.')[0]}/labels.nii.gz")
                equal, dice = compared(*(np.asarray(nib.load(path).dataobj) for path in (mask, root / case["labels"])))
                theirs = case.get("nnunet", {})
                print(
                    f"| {root.name} | {image.name} | {'yes' if case['mirror'] else ''} | {said or 'plan'} | {equal:.6f} |"
                    f" {dice:.5f} | {time.perf_counter() - begun:.1f} | {cpu:.1f} | {used.ru_maxrss / 1024:.0f} |"
                    f" {theirs.get('seconds', '')} | {theirs.get('cpu_seconds', '')} | {theirs.get('peak_rss_mb', '')} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
