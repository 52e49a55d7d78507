"""Side by side with the peers: ``make bench``.

    python benchmarks/run.py                                    # all that is still missing; about an hour on a quiet machine
    python benchmarks/run.py --sizes 76 --rounds 1              # one round of one size
    python benchmarks/run.py --pipelines agseg monai --only without-network
    python benchmarks/run.py --report                           # results.json and the picture from what was measured so far

Rounds are interleaved: each pipeline once, then each once more. Every run is a process of its own and becomes one line of
``build/bench/rounds.jsonl``, so the comparison can be stopped and continued; remove that file to begin anew. Times leave
imports and loading the network out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from cases import AGSEG, PEERS, SIZES, Case, cases_of
from machine import commit
from matching import measure_agreement
from picture import draw
from record import record
from summary import load_rounds, one_thread, write_results
from tables import refresh
from workshop import BUILD, HERE, OUTPUTS, ROUNDS, network, peers_environment, volume

LONGEST_RUN_S = 3600
DEFAULT_SIZES = ("76", "200", "600")
TRIAL_ROUNDS = BUILD / "trial.jsonl"
ONE_THREAD_ROUNDS = BUILD / "one-thread.jsonl"


def command(case: Case, source: Path, output: Path, threads: int | None) -> list[str | Path]:
    """The process of one case on a volume."""
    size = SIZES[case.size]
    shared: list[str | Path] = [source, output, "--net", network(), "--spacing", str(size.model_mm)]
    shared += ["--patch", *map(str, size.patch)]
    if not case.network:
        shared.append("--fake-net")
    if threads:
        shared += ["--threads", str(threads)]
    if case.pipeline == AGSEG:
        return [sys.executable, HERE / "ours.py", *shared, "--mode", case.mode]
    if case.pipeline == "monai":
        return [peers_environment(), HERE / "peer_monai.py", *shared]
    return [peers_environment(), HERE / "peer_nnunet.py", *shared, *(["--totalseg"] if case.pipeline == "totalseg" else [])]


def run_case(case: Case, source: Path, *, threads: int | None = None) -> dict[str, object]:
    """Run one case; its line, with the load average just before."""
    OUTPUTS.mkdir(parents=True, exist_ok=True)
    load = os.getloadavg()[0]
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    output = OUTPUTS / f"{case.name}.nii.gz"
    done = subprocess.run(
        command(case, source, output, threads), capture_output=True, text=True, timeout=LONGEST_RUN_S, check=False
    )
    if done.returncode:
        raise SystemExit(f"{case.name} failed with code {done.returncode}\n{done.stderr[-3000:]}")
    line = json.loads(done.stdout.strip().splitlines()[-1])
    more = {"case": case.name, "size": SIZES[case.size].shape, "mode": case.mode, "network": case.network}
    return line | more | {"load": load, "started": started, "commit": commit()}


def run_rounds(cases: list[Case], *, rounds: int | None, file: Path, threads: int | None) -> None:
    """Interleaved rounds until every case has its number; what the file already holds counts."""
    done = Counter(line["case"] for line in load_rounds(file))
    wanted = {case: case.rounds if rounds is None else done[case.name] + rounds for case in cases}
    while missing := [case for case in cases if done[case.name] < wanted[case]]:
        fewest = min(done[case.name] for case in missing)
        for case in [case for case in missing if done[case.name] == fewest]:
            line = run_case(case, volume(case.size), threads=threads)
            with file.open("a") as raw:
                raw.write(json.dumps(line) + "\n")
            done[case.name] += 1
            print(f"{case.name:34s} {line['total_s']:8.2f} s {line['peak_mb']:6d} MB  load {line['load']:.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Side by side with the peers.")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=DEFAULT_SIZES)
    parser.add_argument("--pipelines", nargs="+", choices=(AGSEG, *PEERS), default=(AGSEG, *PEERS))
    parser.add_argument("--only", choices=("with-network", "without-network"))
    parser.add_argument("--rounds", type=int, help="so many more rounds; by default up to each size's number")
    parser.add_argument("--one-thread", action="store_true", help="rounds of their own, compared by processor time (more.json)")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    chosen = parser.parse_args()
    trial = "trial" in chosen.sizes
    if trial and len(chosen.sizes) > 1:
        parser.error("a trial is run alone")
    file = TRIAL_ROUNDS if trial else ONE_THREAD_ROUNDS if chosen.one_thread else ROUNDS
    if not chosen.report:
        cases = [case for size in chosen.sizes for case in cases_of(size) if case.pipeline in chosen.pipelines]
        if chosen.only:
            cases = [case for case in cases if case.network == (chosen.only == "with-network")]
        BUILD.mkdir(parents=True, exist_ok=True)
        run_rounds(cases, rounds=chosen.rounds, file=file, threads=1 if chosen.one_thread else None)
        if not chosen.one_thread and chosen.only != "without-network":
            measure_agreement(file, chosen.sizes, run_case)
    if chosen.one_thread:
        record("one_thread", one_thread(file), load_before=os.getloadavg()[0])
        return
    results = BUILD / "trial.json" if trial else HERE / "results.json"
    write_results(file, results)
    draw(results, BUILD / "trial.png" if trial else HERE.parent / "docs" / "performance.png")
    if trial:
        print(results.read_text())
        return
    refresh(results)
    print(f"wrote {results}")


if __name__ == "__main__":
    main()
