"""Coarse-to-fine inference: a coarse network finds the organs, the fine one computes only there.

What a first look misses is lost to the fine network. So anything but organs that are all there, and all inside the scan, means
the whole scan: a doubt costs time, not a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agseg.errors import Code
from agseg.inference.by_entry import segment_with_entry
from agseg.inference.crop import Box
from agseg.inference.network import Parts, ReadyNetwork
from agseg.inference.segment import Settings
from agseg.inference.straighten import needs_straightening
from agseg.volume import Volume, Warned
from agseg.weights.entry import WeightsEntry

MARGIN_MM = 20.0
"""Kept around the organs on every side (mm): TotalSegmentator's own margin."""


@dataclass(frozen=True)
class Look:
    """What a first look found.

    Parameters
    ----------
    box
        First and one-past-last voxel per source axis, margin included; None means the whole scan.
    said
        Which way was taken, for the study's record.
    """

    box: Box | None
    said: Warned


def look(
    volume: Volume,
    network: ReadyNetwork | Parts,
    entry: WeightsEntry,
    *,
    organs: Sequence[str],
    settings: Settings | None = None,
) -> Look:
    """Where the organs are, by a coarse network."""
    if needs_straightening(volume.grid):
        return _whole(entry, "the scan is oblique")
    labels = segment_with_entry(volume, network, entry, organs=organs, settings=settings).mask.labels
    found = set(np.unique(labels).tolist())
    if missing := [organ for organ in organs if entry.labels[organ].index not in found]:
        return _whole(entry, f"{', '.join(missing)} not found")
    start, stop = [0, 0, 0], [0, 0, 0]
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        hit = np.flatnonzero(labels.any(axis=others))
        low, high, size = int(hit[0]), int(hit[-1]) + 1, labels.shape[axis]
        if low == 0 or high == size:
            return _whole(entry, "an organ at the edge of the scan")
        margin = int(np.ceil(MARGIN_MM / volume.grid.spacing_mm[axis]))
        start[axis], stop[axis] = max(0, low - margin), min(size, high + margin)
    extent = " x ".join(f"{(b - a) * s:.0f}" for a, b, s in zip(start, stop, volume.grid.spacing_mm, strict=True))
    said = f"computed in a box of {extent} mm around {', '.join(organs)}, found by {entry.id}"
    return Look(((start[0], start[1], start[2]), (stop[0], stop[1], stop[2])), Warned(Code.SCOUT, said))


def _whole(entry: WeightsEntry, why: str) -> Look:
    return Look(None, Warned(Code.SCOUT, f"computed over the whole scan: {why} by {entry.id}"))
