"""Where the processor time of the command goes: each case once under py-spy, all processes, a hundred samples a second.

    pip install py-spy
    python -m benchmarks.command_profile [--cases small,119] [--options "--weights ID"]

Prints the table of docs/performance.md, and per case the functions of agseg in which the most time passes themselves, with
what they call outside agseg. Nothing else should be running.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.command import WORK, data_of, settle
from benchmarks.same_masks import ROOT, SAME_NETWORK, segment_command

CASES = ("small", "119", "600", "ten")
RATE = 100

_FRAME = re.compile(r"(?P<function>.*) \((?P<file>[^()]*?)(?::\d+)?\)$")
_PROCESS = re.compile(r'process \d+:".*?";(?=process|\S)', re.DOTALL)
_IMPORT = "_find_and_load "

STAGES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("previews", ("agseg/io/mosaic", "agseg/io/preview", "agseg/io/drawing")),
    ("masks: packing, reading back", ("agseg/io/nifti_write", "agseg/io/label_files", "agseg/io/writers")),
    ("measure", ("agseg/measure/volumes", "agseg/measure/evidence", "agseg/measure/review")),
    ("restore, components", ("agseg/inference/restore", "agseg/inference/cleanup", "agseg/measure/components")),
    ("prepare", ("agseg/inference/prepare",)),
    ("network, with blending of tiles", ("agseg/inference/tiling", "agseg/inference/predict", "agseg/inference/network")),
    ("reading", ("agseg/io/read", "agseg/io/readers", "agseg/batch/handover")),
)
"""What a stack is counted as: the first stage that one of its files belongs to."""

MODEL_IMPORTS = "model process: imports, nearly all of it torch"
CHILD_IMPORTS = "other children: imports (reader, writer, the one that examines files)"
PARENT, OTHER = "the run's own process", "else"
ORDER = (MODEL_IMPORTS, CHILD_IMPORTS, PARENT, *(name for name, _ in reversed(STAGES)), OTHER)


def stage_of(stack: Sequence[str]) -> str:
    """The row of the table that a stack belongs to; frames from the outermost in, processes first."""
    processes = [frame for frame in stack if frame.startswith("process ")]
    frames = stack[len(processes) :]
    if len(processes) < 2:
        return PARENT
    if any(frame.startswith(_IMPORT) for frame in frames):
        return MODEL_IMPORTS if "model_imports" in processes[-1] else CHILD_IMPORTS
    for name, files in STAGES:
        if any(file in frame for frame in frames for file in files):
            return name
    return OTHER


def own_function(stack: Sequence[str]) -> str:
    """The innermost function of agseg, in which the time passes."""
    for frame in reversed(stack):
        found = _FRAME.match(frame)
        if found and found["file"].startswith("agseg/"):
            return f"{found['file']} {found['function']}"
    return "none"


def stacks(text: str) -> list[tuple[list[str], int]]:
    """The stacks of py-spy's raw format, with their samples; a process's words may hold semicolons."""
    found = []
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        processes = []
        while head := _PROCESS.match(stack):
            processes.append(head.group())
            stack = stack[head.end() :]
        found.append(([*processes, *stack.split(";")], int(count)))
    return found


def profile(case: str, options: str) -> list[tuple[list[str], int]]:
    """Run a case under py-spy."""
    output, raw = WORK / "out" / case / "profiled", WORK / f"profile-{case}.txt"
    shutil.rmtree(output, ignore_errors=True)
    recorder = [str(ROOT / ".venv" / "bin" / "py-spy"), "record", "--rate", str(RATE), "--subprocesses", "--format", "raw"]
    command = segment_command(ROOT, [data_of(case)], output, options)
    subprocess.run([*recorder, "--output", str(raw), "--", *command], cwd=ROOT, check=False, capture_output=True)
    return stacks(raw.read_text(encoding="utf-8"))


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--options", default=SAME_NETWORK)
    arguments = parser.parse_args()
    settle(ROOT)
    cases = arguments.cases.split(",")
    shares: dict[str, Counter[str]] = {}
    for case in cases:
        found = profile(case, arguments.options)
        total = sum(count for _, count in found)
        shares[case], functions = Counter(), Counter[str]()
        for stack, count in found:
            shares[case][stage_of(stack)] += 100 * count / total
            if not any(frame.startswith(_IMPORT) for frame in stack):
                functions[own_function(stack)] += count
        print(f"{case}: {total} samples")
        for name, count in functions.most_common(8):
            print(f"  {100 * count / total:5.1f} %  {name}")
    print("|".join(["", "", *(f" {case} " for case in cases), ""]) + "\n" + "|---" * (len(cases) + 1) + "|")
    for row in ORDER:
        print("|".join(["", f" {row} ", *(f" {shares[case][row]:.0f} % " for case in cases), ""]))


if __name__ == "__main__":
    main()
