"""Ten thousand headers of each format, changed from a seed: each ends in a record, no process dies, the parent stays small.

    python benchmarks/mutations.py [--count 10000] [--seed 0] [--kind nifti ...]

Discovery and the reading of what it accepts run as they do in a run, in children with limits. Prints a line per format; exits
with 1 if a case has no record, a record that is a bug's, or if this process grew beyond 300 MB.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agseg.batch.frame_reader import ClipError, FrameReader
from agseg.batch.intake import Intake
from agseg.batch.memory import reader_memory_bytes
from agseg.errors import AgsegError
from agseg.io.video.frames import every
from agseg.workflows.inspect import inspected
from tests.mutations import KINDS, write_cases

AT_ONCE = 500
LARGEST_PARENT_MB = 300


def records(folder: Path, kind: str, intake: Intake) -> dict[str, list[str]]:
    """What became of each case: reasons and words, by the case's folder."""
    told: dict[str, list[str]] = {}

    def add(path: Path, outcome: str) -> None:
        told.setdefault(path.relative_to(folder.resolve()).parts[0], []).append(outcome)

    if kind in ("avi", "mp4"):
        found = intake.find_clips([folder.resolve()])
        for skip in found.skipped:
            add(skip.path, str(skip.reason))
        with FrameReader() as reader:
            for clip in found.studies:
                try:
                    for _ in itertools.islice(reader.open(clip).frames(every(1)), 2):
                        pass
                    add(clip.files[0], "ok")
                except ClipError as error:
                    add(clip.files[0], error.failure.code)
        return told
    found = intake.discover([folder])
    for skip in found.skipped:
        add(skip.path, str(skip.reason))
    for study in found.studies:
        if study.rejected is not None:
            add(study.files[0], str(study.rejected.code))
            continue
        try:
            result = inspected(study, (), intake)
            add(study.files[0], "ok" if result.rejected is None else str(result.rejected.code))
        except AgsegError as error:
            add(study.files[0], str(error.code))
    return told


def run(kind: str, count: int, seed: int) -> tuple[Counter[str], int]:
    """How the cases of a format ended, and how many of them have no record."""
    outcomes: Counter[str] = Counter()
    missing = 0
    with Intake(memory_bytes=reader_memory_bytes()) as intake:
        for batch, first in enumerate(range(0, count, AT_ONCE)):
            folder = Path(tempfile.mkdtemp(prefix="agseg-mutations-"))
            try:
                write_cases(folder, kind, min(AT_ONCE, count - first), seed=seed * 100_000 + batch)
                cases = {path.name for path in folder.iterdir()}
                told = records(folder, kind, intake)
                missing += len(cases - told.keys())
                outcomes.update(outcome for case in told.values() for outcome in case)
            finally:
                shutil.rmtree(folder)
    return outcomes, missing


def own_peak_mb() -> float:
    """Largest resident memory of this process; getrusage would count what started it."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def main() -> int:
    """Run the formats that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS, nargs="*", default=KINDS)
    asked = parser.parse_args()
    bad = False
    for kind in asked.kind:
        began, processor = time.monotonic(), time.process_time()
        outcomes, missing = run(kind, asked.count, asked.seed)
        megabytes = own_peak_mb()
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        lost = {code: outcomes[code] for code in ("E_CRASHED", "E_TIMEOUT", "E_OUT_OF_MEMORY", "E_INTERNAL") if outcomes[code]}
        bad = bad or bool(missing or outcomes["E_INTERNAL"] or megabytes > LARGEST_PARENT_MB)
        print(
            f"{kind}: {asked.count} cases, {missing} without a record, {outcomes['ok']} read, {lost or 'no child lost'}; "
            f"this process {megabytes:.0f} MB and {time.process_time() - processor:.0f} s, "
            f"children {children.ru_maxrss / 1024:.0f} MB at most; {time.monotonic() - began:.0f} s"
        )
        print(f"    {dict(outcomes.most_common(14))}", flush=True)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
