"""Time and peak resident memory of each named stage of a pipeline. Needs nothing but Python: every environment has it."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

NOT_COUNTED = ("import", "load_net")
"""Stages that happen once per process: left out of ``total_s``."""


class Stages:
    """A clock with laps, which prints one JSON line in the end."""

    def __init__(self, pipeline: str, *, started: float | None = None) -> None:
        self.pipeline = pipeline
        self.seconds: dict[str, float] = {}
        self.peak_mb: dict[str, float] = {}
        self.processor_s = 0.0
        self._processor = time.process_time()
        self._last = time.perf_counter() if started is None else started
        _restart_high_water()

    def lap(self, stage: str) -> None:
        """What was done since the last lap was this stage; a name may come again."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self.peak_mb[stage] = max(self.peak_mb.get(stage, 0.0), _high_water_mb())
        _restart_high_water()
        if stage not in NOT_COUNTED:
            self.processor_s += time.process_time() - self._processor
        self._processor = time.process_time()
        self._last = time.perf_counter()

    def split(self, stage: str, parts: dict[str, float]) -> None:
        """Replace a stage by parts that the pipeline timed itself; what they leave over keeps the stage's name."""
        whole = self.seconds.pop(stage)
        for name, seconds in parts.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self.seconds[stage] = max(0.0, whole - sum(parts.values()))

    def done(self, **more: object) -> None:
        """Print the line."""
        total = sum(seconds for stage, seconds in self.seconds.items() if stage not in NOT_COUNTED)
        counted = [peak for stage, peak in self.peak_mb.items() if stage not in NOT_COUNTED]
        line = {
            "pipeline": self.pipeline,
            "stages_s": {stage: round(seconds, 4) for stage, seconds in self.seconds.items()},
            "stages_peak_mb": {stage: round(peak) for stage, peak in self.peak_mb.items()},
            "total_s": round(total, 4),
            "processor_s": round(self.processor_s, 4),
            "peak_mb": round(max(counted)),
            **more,
        }
        print(json.dumps(line), flush=True)


def _restart_high_water() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _high_water_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmHWM in /proc/self/status: peak memory is measured on Linux only")
