"""From raw rounds to results.json: medians, and ratios of medians."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from cases import AGSEG, MODES, PEERS, SIZES, Case
from machine import machine, versions
from matching import agreement_file, key
from stages import NOT_COUNTED


def load_rounds(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def write_results(rounds: Path, results: Path) -> None:
    """Medians per case, agseg against each peer, and what it was all measured on.

    A run's ``network`` is false where a cheap function stood in the network's place; such runs give ``without_network`` and
    never ``total``. A ratio above 1 means that agseg is faster. What was not measured is null.
    """
    lines: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in load_rounds(rounds):
        lines[line["case"]].append(line)
    if not lines:
        raise SystemExit(f"nothing was measured yet: {rounds} is empty")
    file = agreement_file(rounds)
    agreements = json.loads(file.read_text()) if file.exists() else {}
    totals = {case: median(line["total_s"] for line in of_case) for case, of_case in lines.items()}
    flat = [line for of_case in lines.values() for line in of_case]
    conditions = {
        "load_average_before_runs": [round(f([line["load"] for line in flat]), 1) for f in (min, median, max)],
        "first_run": min(line["started"] for line in flat),
        "last_run": max(line["started"] for line in flat),
        "agseg_commits": sorted({line["commit"] for line in flat}),
    }
    content = {
        "machine": machine() | conditions,
        "versions": versions(),
        "runs": [_run(of_case) for of_case in lines.values()],
        "ratios": [row for size in SIZES for row in _ratios(size, totals, agreements)],
    }
    results.write_text(json.dumps(content, indent=1) + "\n")


def _run(lines: list[dict[str, Any]]) -> dict[str, Any]:
    stages = [stage for stage in lines[0]["stages_s"] if stage not in NOT_COUNTED]
    return {
        "size": lines[0]["size"],
        "mode": lines[0]["mode"],
        "pipeline": lines[0]["pipeline"],
        "network": lines[0]["network"],
        "stages_s": {stage: round(median(line["stages_s"][stage] for line in lines), 3) for stage in stages},
        "total_s": round(median(line["total_s"] for line in lines), 3),
        "processor_s": round(median(line["processor_s"] for line in lines), 3),
        "n": len(lines),
        "peak_mb": max(line["peak_mb"] for line in lines),
        "load": round(median(line["load"] for line in lines), 1),
    }


def _ratios(size: str, totals: dict[str, float], agreements: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for mode in MODES:
        for peer in PEERS:
            found = {}
            for network in (True, False):
                ours = totals.get(Case(size, AGSEG, mode, network).name)
                theirs = totals.get(Case(size, peer, "exact", network).name)
                found[network] = round(theirs / ours, 2) if ours and theirs else None
            agreement = agreements.get(key(size, mode, peer), {}).get("agreement")
            row = {"total": found[True], "without_network": found[False], "agreement": agreement}
            if any(value is not None for value in row.values()):
                rows.append({"size": SIZES[size].shape, "mode": mode, "peer": peer, **row})
    return rows


def one_thread(rounds: Path) -> dict[str, Any]:
    """Processor seconds on one thread, medians, and how many times agseg's modes they are.

    What others compute on the machine hardly counts in it: the comparison to trust where the machine is not quiet.
    """
    lines: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in load_rounds(rounds):
        lines[line["case"]].append(line)
    seconds = {case: median(line["processor_s"] for line in of_case) for case, of_case in lines.items()}
    rows = []
    for case, of_case in lines.items():
        first = of_case[0]
        size = case.split("-", 1)[0]
        ours = {mode: seconds.get(Case(size, AGSEG, mode, first["network"]).name) for mode in MODES}
        times = {mode: round(seconds[case] / own, 2) if own else None for mode, own in ours.items()}
        named = {key: first[key] for key in ("size", "pipeline", "mode", "network")}
        rows.append(named | {"processor_s": round(seconds[case], 2), "n": len(of_case), "times_agseg": times})
    return {"rows": rows}
