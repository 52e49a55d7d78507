"""Whether two checkouts of agseg make the same masks, byte for byte.

    python -m benchmarks.same_masks --against CHECKOUT INPUT... [--options "--precision fp32"]

CHECKOUT is another working copy with a virtual environment of its own in ``.venv``. Each is run as a command on the inputs.
Every file of every study is compared, apart from the records, which hold times. Exit code 1 if a mask differs or is missing on
one side.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SAME_NETWORK", "Difference", "compare", "segment_command"]

ROOT = Path(__file__).resolve().parents[1]
SAME_NETWORK = "--weights attention-unet-abdomen"
"""Options by which both checkouts run one network: the default ones of older checkouts are others."""

RECORDS = frozenset({"study.json", "run.json", "report.html", "volumes.csv", ".agseg.lock"})
"""They name times, versions and runs."""


@dataclass(frozen=True)
class Difference:
    """What two output folders do not share."""

    same: int
    other: tuple[str, ...]

    @property
    def masks(self) -> tuple[str, ...]:
        """Of those the masks."""
        return tuple(name for name in self.other if name.endswith((".nii.gz", ".dcm")))


def segment_command(checkout: Path, inputs: list[Path], output: Path, options: str = "") -> list[str]:
    """``agseg segment`` of a checkout, as a list of words."""
    python = checkout / ".venv" / "bin" / "python"
    quiet = ["--overwrite", "--quiet", "--offline"]
    return [str(python), "-m", "agseg", "segment", *map(str, inputs), "-o", str(output), *quiet, *shlex.split(options)]


def compare(one: Path, other: Path) -> Difference:
    """Hold the files of two output folders against each other."""
    ours, theirs = _files(one), _files(other)
    same = {name for name in ours.keys() & theirs.keys() if ours[name].read_bytes() == theirs[name].read_bytes()}
    return Difference(len(same), tuple(sorted((ours.keys() | theirs.keys()) - same)))


def _files(root: Path) -> dict[str, Path]:
    found = (path for path in root.rglob("*") if path.is_file() and path.name not in RECORDS and "runs" not in path.parts)
    return {path.relative_to(root).as_posix(): path for path in found}


def main() -> int:
    """Run both, compare, say what differs."""
    parser = argparse.ArgumentParser(description="Whether two checkouts make the same masks.")
    parser.add_argument("inputs", type=Path, nargs="+")
    parser.add_argument("--against", type=Path, required=True, metavar="CHECKOUT")
    parser.add_argument("--options", default=SAME_NETWORK, help="more options of agseg segment, for both")
    chosen = parser.parse_args()
    inputs = [path.resolve() for path in chosen.inputs]
    with tempfile.TemporaryDirectory() as folder:
        outputs = {ROOT: Path(folder) / "ours", chosen.against.resolve(): Path(folder) / "theirs"}
        for checkout, output in outputs.items():
            environment = {**os.environ, "PYTHONPATH": str(checkout)}
            command = segment_command(checkout, inputs, output, chosen.options)
            code = subprocess.run(command, cwd=checkout, env=environment, check=False).returncode
            print(f"{checkout}: exit code {code}", flush=True)
        found = compare(*outputs.values())
    print(f"{found.same} files are the same, {len(found.other)} differ or are on one side only")
    for name in found.other:
        print(f"  {name}")
    return 1 if found.masks or not found.same else 0


if __name__ == "__main__":
    sys.exit(main())
