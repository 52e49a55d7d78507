"""The tables of docs/performance.md, written between its ``<!-- name -->`` marks from results.json and more.json."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from record import MORE

DOCUMENT = Path(__file__).parent.parent / "docs" / "performance.md"


def refresh(results: Path) -> None:
    """Write every table of which something was measured."""
    measured = json.loads(results.read_text())
    more = json.loads(MORE.read_text()) if MORE.exists() else {}
    text = DOCUMENT.read_text()
    for name, make in COMPARISON.items():
        text = _between(text, name, make(measured))
    for name, make in OTHERS.items():
        if name in more:
            text = _between(text, name, make(more[name]) + "\n\n" + _conditions(more[name]))
    DOCUMENT.write_text(text)


def _between(text: str, name: str, content: str) -> str:
    pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
    if not re.search(pattern, text, re.DOTALL):
        raise SystemExit(f"{DOCUMENT.name} has no place for the table {name}")
    return re.sub(pattern, lambda found: f"{found[1]}{content}\n{found[2]}", text, flags=re.DOTALL)


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join("–" if cell is None else str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _size(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def _runs(measured: dict[str, Any]) -> str:
    rows = []
    for run in measured["runs"]:
        stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in run["stages_s"].items() if seconds >= 0.005)
        pipeline = run["pipeline"] + (f", {run['mode']}" if run["pipeline"] == "agseg" else "")
        with_network = "yes" if run["network"] else "no"
        rows.append(
            (
                _size(run["size"]),
                pipeline,
                with_network,
                f"{run['total_s']:.2f}",
                f"{run['processor_s']:.2f}",
                run["n"],
                run["peak_mb"],
                run["load"],
                stages,
            )
        )
    head = ("volume", "pipeline", "network", "total, s", "processor, s", "n", "peak, MB", "load", "stages, s")
    return _table(head, sorted(rows, key=lambda row: (int(row[0].rsplit("x", 1)[1]), row[2] == "no")))


def _ratios(measured: dict[str, Any]) -> str:
    rows = [
        (_size(row["size"]), row["mode"], row["peer"], row["total"], row["without_network"], row["agreement"])
        for row in measured["ratios"]
    ]
    return _table(("volume", "agseg's mode", "peer", "whole run", "all but the network", "agreement"), rows)


def _machine(measured: dict[str, Any]) -> str:
    machine, versions = measured["machine"], measured["versions"]
    low, middle, high = machine["load_average_before_runs"]
    peers = ", ".join(f"{name} {version}" for name, version in versions["peers_environment"].items())
    commits = ", ".join(machine["agseg_commits"])
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, {machine['memory_gb']} GB, "
        f"{machine['libc']}; default precision {machine['default_precision']}. Python {versions['python']}, {peers}; agseg at "
        f"{commits}. From {machine['first_run']} to {machine['last_run']}; load average before a run: least {low}, median "
        f"{middle}, most {high}. A run itself is a load of up to {machine['threads']}; more than that, and others computed too."
    )


def _conditions(part: dict[str, Any]) -> str:
    before, after = part["load_before_and_after"]
    return f"Measured {part['measured']} at {part['commit']}; load average {before} before, {after} after."


def _startup(part: dict[str, Any]) -> str:
    rows = [
        (section, name, value)
        for section in ("start", "first_tile", "headers", "nifti")
        for name, value in part[section].items()
    ]
    return _table(("what", "figure", "value"), rows)


def _floor(part: dict[str, Any]) -> str:
    rows = []
    for precision in ("fp32", "bf16", "fp16"):
        if precision in part:
            row = part[precision]
            top = ", ".join(f"{one['operator'].removeprefix('aten::')} {one['share']:.0%}" for one in row["operators"][:6])
            figures = [row[key] for key in ("convolution_peak_gflops", "tile_s", "floor_s", "tile_over_floor")]
            rows.append((precision, *figures, top))
    return _table(
        ("precision", "convolution peak, GFLOP/s", "a tile, s", "floor, s", "tile / floor", "operators by own time"), rows
    )


def _memory(part: dict[str, Any]) -> str:
    rows = [(_size(part["size"]), row["classes"], row["peak_mb"], row["total_s"]) for row in part["rows"]]
    return _table(("volume", "classes", "peak, MB", "total, s"), rows)


def _speed_table(part: dict[str, Any]) -> str:
    head = ("network", "printed", "ours fp32", "ours default", "printed, relative", "fp32, relative", "default, relative")
    return _table(head, [tuple(row.values()) for row in part["rows"]]) + f"\n\nMedians of {part['n']}."


def _one_thread(part: dict[str, Any]) -> str:
    rows = []
    for row in part["rows"]:
        pipeline = row["pipeline"] + (f", {row['mode']}" if row["pipeline"] == "agseg" else "")
        times = row["times_agseg"].values() if row["pipeline"] != "agseg" else ("", "", "")
        rows.append((_size(row["size"]), pipeline, "yes" if row["network"] else "no", row["processor_s"], row["n"], *times))
    head = ("volume", "pipeline", "network", "processor, s", "n", "times agseg exact", "times default", "times fast")
    return _table(head, sorted(rows, key=lambda row: (row[2] == "no", int(row[0].rsplit("x", 1)[1]))))


COMPARISON: dict[str, Callable[[dict[str, Any]], str]] = {"machine": _machine, "ratios": _ratios, "runs": _runs}
OTHERS: dict[str, Callable[[dict[str, Any]], str]] = {
    "one_thread": _one_thread,
    "startup": _startup,
    "floor": _floor,
    "memory": _memory,
    "anu_net_table_6": _speed_table,
    "agn_tables_1_2": _speed_table,
    "agn_table_5": _speed_table,
}
