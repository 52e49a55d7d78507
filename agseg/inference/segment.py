"""From a Volume to a LabelMask on the same grid: the product's one prediction path, used by validation too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from agseg.errors import Code, InferenceError
from agseg.inference.certainty import Calibrations
from agseg.inference.cleanup import clean_up, keep_largest, keep_only
from agseg.inference.clock import Clock
from agseg.inference.crop import Box, body_grid, box_grid
from agseg.inference.decide import ByLogit, ByProbability, ByRegion, Rule
from agseg.inference.fixed_box import segment_in_boxes
from agseg.inference.half_sums import sweep_in_half
from agseg.inference.predict import as_probabilities, fold_scores
from agseg.inference.predictor import FoldedPredictor, Predictor
from agseg.inference.prepare import ModelInput, PreparedOnce, model_grid_of
from agseg.inference.restore import Restored, Restorer
from agseg.inference.score_checks import NonFiniteScoresError, check_classes, check_heads
from agseg.inference.straighten import labels_on, needs_straightening, straighten
from agseg.inference.tiling import TilePlan, plan, sweep
from agseg.labels import LabelSet
from agseg.laterality import left_right_pairs
from agseg.measure.calibration import Calibration
from agseg.models.precision import Precision
from agseg.slabs import memory_order
from agseg.volume import LabelMask, Quantity, Volume, Warned
from agseg.weights.entry import Cleanup
from agseg.weights.input_spec import Carry, InputSpec, Placement

__all__ = ["Segmentation", "Settings", "TileProgress", "segment_volume"]

TileProgress = Callable[[int, int], None]
"""``progress(done, total)`` in tiles."""

FAST_OVERLAP = 0.2
"""In ``fast`` mode the tiles of nnU-Net's networks share no more than this (TotalSegmentator's own choice)."""

LARGEST_TILE_VOXELS = 160 * 160 * 128
"""In ``fast`` mode a tile grows up to this many voxels."""


@dataclass(frozen=True)
class Settings:
    """How a run predicts; part of every record.

    Parameters
    ----------
    overlap
        Fraction shared by neighbouring tiles; None means the weights' own.
    fast
        Body crop and largest tiles: labels may differ slightly from the default's (docs/performance.md says how much).
    mirror
        Test-time mirroring along the left-right axis.
    tile_batch
        Tiles per forward pass on a GPU.
    """

    overlap: float | None = None
    fast: bool = False
    mirror: bool = False
    tile_batch: int = 4


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A mask on the source grid, and what is known about how it came to be.

    Parameters
    ----------
    mask
        Labels on the volume's own grid.
    probability
        Mean winning probability per organ name, over the organ's voxels; a calibrated one where the weights have a calibration.
    components
        Number of connected components per organ name, before any clean-up.
    seconds
        Per stage: prepare, predict, restore.
    warnings
        Fallbacks that were taken.
    certainty
        Each voxel's winning probability as the network gave it, where it was asked for (:func:`segment_volume`).
    """

    mask: LabelMask
    probability: dict[str, float]
    components: dict[str, int]
    seconds: dict[str, float]
    warnings: tuple[Warned, ...] = field(default=())
    certainty: NDArray[np.float32] | None = None


def segment_volume(
    volume: Volume,
    network: Predictor,
    *,
    spec: InputSpec,
    labels: LabelSet,
    organs: Iterable[str] | None = None,
    settings: Settings | None = None,
    cleanup: Mapping[str, Cleanup] | None = None,
    largest_of: Sequence[Sequence[str]] = (),
    calibration: Mapping[str, Calibration] | None = None,
    keep_certainty: bool = False,
    progress: TileProgress | None = None,
    prepared: PreparedOnce | None = None,
    box: Box | None = None,
) -> Segmentation:
    """Segment one volume.

    Parameters
    ----------
    volume
        The source.
    network
        From :func:`agseg.inference.network.load_network`.
    spec, labels
        What the network sees and what its classes mean (from its manifest entry).
    organs
        The organs to keep; all by default.
    cleanup
        The rule of each organ that has one.
    largest_of
        Sets of organs of which, taken together, only the largest component stays; done first, whatever organs are wanted.
    calibration
        What the winning probability of an organ is worth, where that was measured.
    keep_certainty
        Keep each voxel's winning probability; not for networks that see a box of their own, nor for oblique scans.
    prepared
        Shares the prepared image between networks that see the same.
    box
        Compute only there; outside is background. Not for networks that see a box of their own, nor for oblique scans.
    settings, progress
        See there.

    Raises
    ------
    InferenceError
        If the model grid would be too large, memory runs out on every rung of the ladder, or scores are not finite in fp32.
    WeightsError
        If the labels name a class that the network does not have.
    """
    settings = settings or Settings()
    wanted = labels if organs is None else labels.only(organs)
    clock = Clock()
    subject = volume
    if needs_straightening(volume.grid, as_stored=spec.as_stored):
        finest = min(side for side in spec.spacing_mm if side) if spec.spacing_mm else None
        subject = straighten(volume, finest_mm=finest)
        clock.lap("prepare")
    box = box if subject is volume else None
    calibrations = {labels[name].index: one for name, one in (calibration or {}).items() if name in labels}
    keeps = keep_certainty and subject is volume
    job = _Job(subject, spec, labels, settings, clock, progress, prepared or PreparedOnce(), box, calibrations, keeps)
    restored, warnings = _with_fallbacks(job, network)
    for together in largest_of:
        keep_largest(restored.labels, [labels[name].index for name in together])
    strangers = set(restored.probability) - {label.index for label in wanted}
    found = restored.labels
    if strangers:
        keep_only(found, wanted)
    if subject is not volume:
        found = labels_on(volume.grid, found, subject.grid)
    names = {label.index: label.name for label in wanted}
    rules = cleanup or {}
    components = clean_up(found, {index: rules[name] for index, name in names.items() if name in rules})
    clock.lap("restore")
    return Segmentation(
        LabelMask(found, volume.grid, wanted),
        {names[c]: p for c, p in restored.probability.items() if c in names},
        {names[c]: n for c, n in components.items() if c in names},
        clock.seconds,
        warnings,
        restored.certainty,
    )


@dataclass(frozen=True, eq=False)
class _Job:
    """One volume on its way through one network."""

    volume: Volume
    spec: InputSpec
    labels: LabelSet
    settings: Settings
    clock: Clock
    progress: TileProgress | None
    prepared: PreparedOnce
    box: Box | None
    calibrations: Calibrations
    keep_certainty: bool


def _with_fallbacks(job: _Job, network: Predictor) -> tuple[Restored, tuple[Warned, ...]]:
    """Go down a declared ladder when a GPU's memory runs out, and start it anew in fp32 where half precision overflows.

    Only torch's own out-of-memory error, and scores that are not finite, count as that.
    """
    rungs: list[tuple[str, Predictor, Settings]] = [("", network, job.settings)]
    if network.device.type != "cpu":
        rungs.append(("one tile at a time", network, replace(job.settings, tile_batch=1)))
        rungs.append(("on the CPU", network, replace(job.settings, tile_batch=1)))
    for number, (said, chosen, how) in enumerate(rungs):
        runner = chosen.moved(torch.device("cpu"), Precision.FP32) if said == "on the CPU" else chosen
        try:
            restored = _run(replace(job, settings=how), runner)
        except torch.OutOfMemoryError:
            if number + 1 == len(rungs):
                raise InferenceError("out of memory on every device", code=Code.OUT_OF_MEMORY) from None
            torch.cuda.empty_cache()
            continue
        except NonFiniteScoresError:
            if runner.precision is Precision.FP32:
                raise
            whole = runner.moved(runner.device, Precision.FP32)
            restored, warnings = _with_fallbacks(job, whole)
            overflowed = f"scores overflowed in {runner.precision}; this study was computed in {whole.precision}"
            return restored, (Warned(Code.FALLBACK, overflowed), *warnings)
        notes = (Warned(Code.FALLBACK, f"GPU memory ran out; this study was computed {said}"),) if said else ()
        return restored, notes
    raise InferenceError("no device left to try", code=Code.OUT_OF_MEMORY)


def _run(job: _Job, network: Predictor) -> Restored:
    volume, spec = job.volume, job.spec
    if spec.body_box:
        restored = segment_in_boxes(volume, network, spec, job.labels, progress=job.progress, calibrations=job.calibrations)
        job.clock.lap("predict")
        return restored
    model_grid = None
    if job.box is not None:
        model_grid = box_grid(model_grid_of(volume, spec), job.box, tile=spec.tile)
    elif job.settings.fast and volume.quantity is Quantity.HU:
        model_grid = body_grid(volume, spec)
    prepared = job.prepared.of(volume, spec, device=network.device, model_grid=model_grid)
    job.clock.lap("prepare")
    return _tiled(job, prepared, network)


def _tiled(job: _Job, prepared: ModelInput, network: Predictor) -> Restored:
    spec, settings, labels = job.spec, job.settings, job.labels
    tiles = _tile_plan(prepared.model_grid.shape, spec, settings)
    carries_logits = spec.carry is not Carry.PROBABILITIES
    rule: Rule = ByProbability()
    if carries_logits:
        compared_in = torch.float16 if spec.carry is Carry.HALF_LOGITS else torch.float32
        rule = ByRegion(spec.regions) if spec.regions else ByLogit(compared_in)
    restorer = Restorer(
        prepared.model_grid,
        tiles=tiles,
        order=memory_order(job.volume.voxels.strides),
        rule=rule,
        calibrations=job.calibrations,
        keep_certainty=job.keep_certainty,
    )
    left_right = tuple(axis for axis, code in enumerate(spec.axis_codes) if code in "LR")
    mirror = spec.mirror_axes if carries_logits else left_right
    # Training mirrored nnU-Net's scans under the same labels; of all others a mirrored left kidney is a right one.
    swaps = settings.mirror and bool(mirror) and not carries_logits
    pairs = left_right_pairs({label.name: label.index for label in labels}) if swaps else ()
    in_half = spec.tiles is Placement.SPREAD
    folds = network.folds if in_half and carries_logits and isinstance(network, FoldedPredictor) else (network,)
    outputs = fold_scores(
        folds,
        prepared.tensor,
        tiles,
        padding=spec.padding,
        batch=settings.tile_batch if network.device.type != "cpu" else 1,
        mirror=mirror if settings.mirror else (),
        swap=pairs,
    )
    blend = partial(sweep_in_half, folds=len(folds)) if in_half else sweep
    progress = job.progress
    for block in blend(tiles, outputs, on_tile=(lambda done: progress(done, tiles.count)) if progress else None):
        job.clock.lap("predict")
        if carries_logits:
            check_heads(block.scores.shape[0], labels, regions=spec.regions)
        else:
            block = as_probabilities(block, network)
            check_classes(block.scores.shape[0], labels)
        restorer.add(block)
        job.clock.lap("restore")
    return restorer.finish()


def _tile_plan(shape: tuple[int, int, int], spec: InputSpec, settings: Settings) -> TilePlan:
    overlap = spec.overlap if settings.overlap is None else settings.overlap
    if spec.tiles is Placement.SPREAD:
        # Instance norms see one tile: a larger one is another image to them. Only the overlap may give way.
        overlap = min(overlap, FAST_OVERLAP) if settings.fast else overlap
        return plan(shape, tile=spec.tile, overlap=overlap, placement=spec.tiles)
    tile = _largest_tile(shape, spec.tile) if settings.fast else spec.tile
    return plan(shape, tile=tile, overlap=overlap)


def _largest_tile(shape: tuple[int, int, int], tile: tuple[int, int, int], multiple: int = 16) -> tuple[int, int, int]:
    """The tile grown towards the whole grid, axis by axis, while it stays below :data:`LARGEST_TILE_VOXELS`."""
    grown = list(tile)
    for axis in sorted(range(3), key=lambda a: shape[a]):
        full = -(-shape[axis] // multiple) * multiple
        room = LARGEST_TILE_VOXELS // int(np.prod([grown[a] for a in range(3) if a != axis]))
        grown[axis] = max(tile[axis], min(full, room // multiple * multiple))
    return grown[0], grown[1], grown[2]
