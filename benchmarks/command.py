"""The command, from process start to exit: ``agseg segment`` on four cases, beside another checkout and beside peers' commands.

    python -m benchmarks.command --against CHECKOUT [--cases small,119] [--rounds 5] [--peer "NAME=COMMAND {input} {output}"]
    python -m benchmarks.command --report

Runs take turns, so that what else the machine does hits all alike. A run's processor time is that of all its processes, as the
kernel counts them; its peak is the largest single process. Masks are compared byte for byte. Each run is a line of
``build/bench/command/runs.jsonl``; ``--report`` makes benchmarks/command.json and the table of docs/performance.md from them.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.same_masks import ROOT, SAME_NETWORK, compare, segment_command

WORK = ROOT / "build" / "bench" / "command"
RUNS = WORK / "runs.jsonl"
RESULTS = ROOT / "benchmarks" / "command.json"
PAGE = ROOT / "docs" / "performance.md"
MARKS = ("<!-- command -->", "<!-- end -->")
OURS = "agseg"


@dataclass(frozen=True)
class Run:
    """One run of one command."""

    case: str
    name: str
    wall_s: float
    processor_s: float
    peak_mb: float
    load: float
    commit: str
    exit_code: int
    masks_differ: int | None = None


def _synthetic(path: Path, slices: int, *, spacing_mm: float = 2.5, seed: int = 0, dicom: Path | None = None) -> None:
    options = ["--shape", "512", "512", str(slices), "--spacing", "0.8", "0.8", str(spacing_mm), "--seed", str(seed)]
    more = [] if dicom is None else ["--dicom", str(dicom)]
    subprocess.run([sys.executable, str(ROOT / "benchmarks" / "synthetic_ct.py"), str(path), *options, *more], check=True)


def _small(folder: Path) -> None:
    shutil.copy(ROOT / "examples" / "studies" / "abdomen_nifti.nii.gz", folder)


def _slices_119(folder: Path) -> None:
    _synthetic(folder.parent / "119.nii.gz", 119, dicom=folder / "ct")


def _slices_300(folder: Path) -> None:
    """For a network of nnU-Net's (benchmarks.nnunet_full_size), which wants the channel's number in the name."""
    _synthetic(folder / "ct_0000.nii.gz", 300, spacing_mm=1.5)


def _slices_600(folder: Path) -> None:
    _synthetic(folder / "ct.nii.gz", 600, spacing_mm=1.25)


def _ten(folder: Path) -> None:
    """Five different ones, each twice: as DICOM and as NIfTI."""
    for seed in range(5):
        _synthetic(folder / f"ct{seed}.nii.gz", 90 + 12 * seed, seed=seed, dicom=folder / f"dicom{seed}")


def _demo(folder: Path) -> None:
    for name in ("studies", "rejected"):
        shutil.copytree(ROOT / "examples" / name, folder / name)


CASES: dict[str, Callable[[Path], None]] = {
    "small": _small, "119": _slices_119, "600": _slices_600, "ten": _ten, "demo": _demo, "300": _slices_300,
}  # fmt: skip
USUAL = ("small", "119", "600", "ten", "demo")


def data_of(case: str) -> Path:
    """The case's input folder, made the first time."""
    folder = WORK / "data" / case
    if not folder.exists():
        partial = folder.with_name(f".{case}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        CASES[case](partial)
        partial.rename(folder)
    return folder


def settle(checkout: Path) -> None:
    """Compile the checkout's modules, as Python does for a user at the first run; none of the timed runs is to pay for it."""
    subprocess.run([str(checkout / ".venv" / "bin" / "python"), "-m", "compileall", "-q", str(checkout / "agseg")], check=True)


def timed(case: str, name: str, command: list[str], *, folder: Path, commit: str) -> Run:
    """Run a command and take its times; ``PYTHONPATH`` is the checkout's own."""
    load, began = os.getloadavg()[0], time.monotonic()
    process = subprocess.Popen(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.monotonic() - began
    return Run(case, name, wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, load, commit, process.returncode)


def _commit(checkout: Path) -> str:
    asked = ["git", "-C", str(checkout), "rev-parse", "--short=7", "HEAD"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


def one_round(case: str, against: Path | None, peers: dict[str, str], options: str) -> list[Run]:
    """Every command once, ours first."""
    source, runs = data_of(case), []
    checkouts = {OURS: ROOT, **({_commit(against): against} if against else {})}
    for checkout in checkouts.values():
        settle(checkout)
    outputs = {name: WORK / "out" / case / name for name in checkouts}
    for name, checkout in checkouts.items():
        shutil.rmtree(outputs[name], ignore_errors=True)
        command = segment_command(checkout, [source], outputs[name], options)
        runs.append(timed(case, name, command, folder=checkout, commit=_commit(checkout)))
    for name, command in peers.items():
        target = WORK / "out" / case / name
        shutil.rmtree(target, ignore_errors=True)
        words = [word.format(input=source, output=target) for word in shlex.split(command)]
        runs.append(timed(case, name, words, folder=WORK, commit=""))
    if against:
        found = compare(*outputs.values())
        runs[0] = Run(**{**asdict(runs[0]), "masks_differ": len(found.masks) if found.same else -1})
    return runs


def report(runs: list[Run]) -> list[dict[str, object]]:
    """Medians per case and command; how often another command's time is ours, pair by pair."""
    rows: list[dict[str, object]] = []
    for case in dict.fromkeys(run.case for run in runs):
        of_case = [run for run in runs if run.case == case]
        ours = [run for run in of_case if run.name == OURS]
        for name in dict.fromkeys(run.name for run in of_case):
            group = [run for run in of_case if run.name == name]
            row: dict[str, object] = {"case": case, "command": name, "n": len(group)}
            for figure in ("wall_s", "processor_s", "peak_mb", "load"):
                row[figure] = round(statistics.median(getattr(run, figure) for run in group), 2)
            if name != OURS:
                pairs = list(zip(group, ours, strict=False))
                row["wall_ratio"] = round(statistics.median(a.wall_s / b.wall_s for a, b in pairs), 2)
                row["processor_ratio"] = round(statistics.median(a.processor_s / b.processor_s for a, b in pairs), 2)
            differ = [run.masks_differ for run in group if run.masks_differ is not None]
            if differ:
                row["masks_differ"] = max(differ)
            rows.append(row)
    return rows


def table(rows: list[dict[str, object]]) -> str:
    """The rows as Markdown."""
    heads = {
        "case": "case", "command": "command", "n": "n", "wall_s": "wall, s", "processor_s": "processor, s",
        "wall_ratio": "wall, times ours", "processor_ratio": "processor, times ours", "peak_mb": "largest process, MB",
        "masks_differ": "masks that differ", "load": "load before",
    }  # fmt: skip
    lines = [" | ".join(["", *heads.values(), ""]).strip(), "|" + "---|" * len(heads)]
    lines += [" | ".join(["", *(str(row.get(name, "")) for name in heads), ""]).strip() for row in rows]
    return "\n".join(lines)


def write_report() -> None:
    """command.json and the table of the page."""
    rows = report([Run(**json.loads(line)) for line in RUNS.read_text(encoding="utf-8").splitlines()])
    RESULTS.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(MARKS[0], 1)
    after = rest.split(MARKS[1], 1)[1]
    PAGE.write_text(f"{before}{MARKS[0]}\n{table(rows)}\n{MARKS[1]}{after}", encoding="utf-8")
    print(table(rows))


def main() -> None:
    """Measure, or report what was measured."""
    parser = argparse.ArgumentParser(description="agseg segment from process start to exit.")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="another working copy with its .venv")
    parser.add_argument("--cases", default=",".join(USUAL))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--options", default=SAME_NETWORK, help="more options of agseg segment, for both checkouts")
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME=COMMAND", help="{input} and {output} are filled in"
    )
    parser.add_argument("--report", action="store_true")
    chosen = parser.parse_args()
    if not chosen.report:
        peers = dict(peer.split("=", 1) for peer in chosen.peer)
        against = None if chosen.against is None else chosen.against.resolve()
        for case in chosen.cases.split(","):
            for _ in range(chosen.rounds):
                for run in one_round(case, against, peers, chosen.options):
                    with RUNS.open("a", encoding="utf-8") as lines:
                        lines.write(json.dumps(asdict(run)) + "\n")
                    print(json.dumps(asdict(run)), flush=True)
    write_report()


if __name__ == "__main__":
    main()
