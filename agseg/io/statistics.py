"""``statistics.json`` as TotalSegmentator writes it: volume in mm³ and mean HU per organ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from agseg.grid import Grid
from agseg.io.atomic import write_text
from agseg.report import Measurement

STATISTICS = "statistics.json"


def write_statistics(folder: Path, measurements: Sequence[Measurement], grid: Grid) -> None:
    """Write the file; organs that are not present are left out.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    content = {
        found.name: {"volume": round(found.voxels * grid.voxel_volume_mm3, 3), "intensity": found.mean_hu}
        for found in measurements
        if found.voxels
    }
    write_text(folder / STATISTICS, json.dumps(content, indent=2) + "\n")
