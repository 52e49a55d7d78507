"""Segmentation by a manifest entry: its input, labels and clean-up, and its parts merged where it has several networks."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from agseg.errors import InferenceError
from agseg.inference.cleanup import clean_up, keep_largest, keep_only
from agseg.inference.clock import Clock
from agseg.inference.crop import Box
from agseg.inference.network import Parts
from agseg.inference.predictor import Predictor
from agseg.inference.prepare import PreparedOnce
from agseg.inference.segment import Segmentation, Settings, TileProgress, segment_volume
from agseg.volume import LabelMask, Volume
from agseg.weights.entry import WeightsEntry


def segment_with_entry(
    volume: Volume,
    network: Predictor | Parts,
    entry: WeightsEntry,
    *,
    organs: Iterable[str] | None = None,
    settings: Settings | None = None,
    progress: TileProgress | None = None,
    box: Box | None = None,
    keep_certainty: bool = False,
) -> Segmentation:
    """Segment one volume with the input, labels and clean-up of an entry; its parts are merged, where it has some.

    ``keep_certainty`` keeps each voxel's winning probability of a network without parts.
    """
    if isinstance(network, Parts):
        return _segment_parts(volume, network, entry, organs=organs, settings=settings, progress=progress, box=box)
    return segment_volume(
        volume,
        network,
        spec=entry.input,
        labels=entry.labels,
        organs=organs,
        settings=settings,
        cleanup=entry.cleanup,
        largest_of=entry.largest_of,
        calibration=entry.calibration,
        keep_certainty=keep_certainty,
        progress=progress,
        box=box,
    )


def _segment_parts(
    volume: Volume,
    parts: Parts,
    entry: WeightsEntry,
    *,
    organs: Iterable[str] | None,
    settings: Settings | None,
    progress: TileProgress | None,
    box: Box | None,
) -> Segmentation:
    """The networks of an entry one after the other; a later one's organs overwrite an earlier one's."""
    wanted = entry.labels if organs is None else entry.labels.only(organs)
    merged: NDArray[np.uint8] | None = None
    found: list[Segmentation] = []
    prepared = PreparedOnce()
    for part, network in parts.in_turn():
        result = segment_volume(
            volume,
            network,
            spec=part.input,
            labels=part.labels,
            settings=settings,
            calibration=entry.calibration,
            progress=progress,
            prepared=prepared,
            box=box,
        )
        found.append(result)
        table = np.zeros(256, dtype=np.uint8)
        for label in part.labels:
            table[label.index] = entry.labels[label.name].index
        labels = table[result.mask.labels]
        merged = labels if merged is None else np.where(labels > 0, labels, merged)
    clock = Clock()
    if merged is None:
        raise InferenceError("the entry has no part to run", value=entry.id)
    for together in entry.largest_of:
        keep_largest(merged, [entry.labels[name].index for name in together])
    keep_only(merged, wanted)
    names = {label.index: label.name for label in wanted}
    components = clean_up(merged, {index: entry.cleanup[name] for index, name in names.items() if name in entry.cleanup})
    clock.lap("restore")
    laps = [*(result.seconds for result in found), clock.seconds]
    stages = dict.fromkeys(stage for seconds in laps for stage in seconds)
    return Segmentation(
        LabelMask(merged, volume.grid, wanted),
        {organ: value for result in found for organ, value in result.probability.items() if organ in wanted},
        {names[c]: n for c, n in components.items() if c in names},
        {stage: sum(seconds.get(stage, 0.0) for seconds in laps) for stage in stages},
        tuple(warned for result in found for warned in result.warnings),
    )
