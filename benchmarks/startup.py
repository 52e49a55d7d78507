"""Cold start, header scan and gzip: ``python benchmarks/startup.py``.

Rates per core divide by processor time, so that other processes on the machine do not count.
"""

from __future__ import annotations

import gzip
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import nibabel as nib
import numpy as np
from record import record
from workshop import BUILD, labels_beside, network, volume

STARTS = 11
REPEATS = 5
HEADER_FILES = 200
DICOM = BUILD / "dicom"
BIN = Path(sys.executable).parent
FIRST_TILE = Path(__file__).with_name("first_tile.py")
BARE = (sys.executable, "-c", "pass")


def timed(command: Sequence[str | Path]) -> tuple[float, float]:
    """Wall and processor seconds of one process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def starts() -> dict[str, Any]:
    """``agseg --help`` and a bare Python in turn; medians."""
    commands: dict[str, Sequence[str | Path]] = {"python": BARE, "agseg_help": (BIN / "agseg", "--help")}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for command in commands.values():
        timed(command)  # the file cache is filled before anything counts
    for _ in range(STARTS):
        for name, command in commands.items():
            found[name].append(timed(command))
    wall, cpu = ({name: median(pair[part] for pair in pairs) for name, pairs in found.items()} for part in (0, 1))
    return {
        "n": STARTS,
        "python_s": round(wall["python"], 3),
        "agseg_help_s": round(wall["agseg_help"], 3),
        "help_above_python_s": round(wall["agseg_help"] - wall["python"], 3),
        "help_above_python_processor_s": round(cpu["agseg_help"] - cpu["python"], 3),
    }


def first_tile() -> dict[str, Any]:
    """Seconds from the start of a process to its first tile's scores, default mode, after the file cache is filled.

    ``processor_s`` adds up all threads.
    """
    laps: dict[str, list[float]] = {}
    for turn in range(REPEATS + 1):
        started = repr(time.time())
        command = [sys.executable, FIRST_TILE, volume("76"), network(), started]
        line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        for name, value in zip(line[::2], line[1::2], strict=True) if turn else ():
            laps.setdefault(name, []).append(float(value))
    return {"n": REPEATS, **{name: round(median(values), 3) for name, values in laps.items()}}


def headers() -> dict[str, Any]:
    """Headers of 512x512 CT slices per second of processor time."""
    import pydicom

    from agseg.io.dicom.header import read_header
    from agseg.io.discover import discover

    if not DICOM.exists():
        from synthetic_ct import make, write_dicom

        write_dicom(DICOM, make((512, 512, HEADER_FILES), (0.8, 0.8, 2.5))[0], (0.8, 0.8, 2.5))
    files = sorted(DICOM.iterdir())

    def with_pydicom() -> None:
        for file in files:
            pydicom.dcmread(file, stop_before_pixels=True)

    def with_agseg() -> None:
        for file in files:
            read_header(file)

    ways: dict[str, Callable[[], object]] = {
        "read_header": with_agseg,
        "discover": lambda: discover([DICOM]),
        "pydicom": with_pydicom,
    }
    seconds = in_turn(ways, processor=True)
    return {"files": len(files), "n": REPEATS, **{f"{way}_per_s": round(len(files) / s) for way, s in seconds.items()}}


def packing() -> dict[str, Any]:
    """Reading a gzipped CT and writing a mask, agseg (with its check by reading back) against nibabel and Python's gzip."""
    from agseg.grid import Grid
    from agseg.io.discover import discover
    from agseg.io.nifti_write import write_mask
    from agseg.io.read import read_volume

    path = volume("76")
    study = discover([path]).studies[0]
    image = nib.load(labels_beside(path))
    labels = np.asfortranarray(np.asanyarray(image.dataobj).astype(np.uint8))
    grid, target = Grid(labels.shape, image.affine), BUILD / "packed.nii.gz"
    content = nib.Nifti1Image(labels, image.affine).to_bytes()
    ways: dict[str, Callable[[], object]] = {
        "read_agseg": lambda: read_volume(study),
        "read_nibabel": lambda: np.asanyarray(nib.load(path).dataobj),
        "read_gzip": lambda: gzip.decompress(path.read_bytes()),
        "write_agseg": lambda: write_mask(target, labels, grid),
        "write_nibabel": lambda: nib.save(nib.Nifti1Image(labels, image.affine), target),
        "write_gzip": lambda: target.write_bytes(gzip.compress(content)),
    }
    seconds = in_turn(ways, processor=True)
    return {"shape": labels.shape, "n": REPEATS, **{f"{way}_s": round(s, 3) for way, s in seconds.items()}}


def in_turn(ways: dict[str, Callable[[], object]], *, processor: bool) -> dict[str, float]:
    """Median seconds of each way, run in turn; the first turn fills caches and does not count."""
    clock = time.process_time if processor else time.perf_counter
    found: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(REPEATS + 1):
        for way, run in ways.items():
            start = clock()
            run()
            if turn:
                found[way].append(clock() - start)
    return {way: median(seconds) for way, seconds in found.items()}


def main() -> None:
    load = os.getloadavg()[0]
    parts = {"start": starts, "first_tile": first_tile, "headers": headers, "nifti": packing}
    record("startup", {name: measure() for name, measure in parts.items()}, load_before=load)


if __name__ == "__main__":
    main()
