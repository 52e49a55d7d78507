"""What pruning costs and saves: Dice, time, parameters and memory of a nested network at each of its depths.

Source: Li et al., ANU-Net (2020), Table 6 and Figure 13: inference time, Dice and number of parameters of L1 to L4.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agseg.errors import RecipeError, UsageError
from agseg.inference.device import choose_precision, describe, resolve_device
from agseg.inference.network import ReadyNetwork
from agseg.inference.peak_memory import forward_peak_bytes
from agseg.io.atomic import make_folder, write_text
from agseg.measure.overlap import Overlap, overlap, pooled
from agseg.models.catalogue import prunable
from agseg.models.precision import Precision
from agseg.training.beside import row_beside
from agseg.training.cohort import Cohort, open_cohort, provenance
from agseg.training.description import PNG
from agseg.training.evaluation import without_nan
from agseg.training.leakage import refuse_known, refuse_learned
from agseg.training.published import PublishedRow, published_row
from agseg.training.splits import read_split
from agseg.training.trained_model import open_run
from agseg.weights.cache import WeightsCache
from agseg.weights.entry import WeightsEntry
from agseg.weights.manifest import Manifest
from agseg.workflows.capabilities import facts_of
from agseg.workflows.prune_figure import draw_curve, require_matplotlib
from agseg.workflows.prune_source import PrunableEntry, PrunableNetwork, PrunableRun
from agseg.workflows.prune_steps import DepthStep, steps_between

_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CurveRequest:
    """What is measured on what.

    Parameters
    ----------
    data
        A labelled set in nnU-Net's layout.
    output
        Where ``curve.csv``, ``curve.json`` and ``curve.png`` go.
    home
        Where weights are kept.
    weights
        Id of a manifest entry, or the folder of a training run; None takes the manifest's only prunable entry.
    manifest
        A site's own manifest.
    split, fold
        Only the test side of this split; without one a run's own, and all cases for an entry.
    cases
        At most so many cases; None means all.
    repeats
        How often each case is predicted at each depth, for steadier times.
    device
        As for ``agseg segment``.
    offline
        Never use the network.
    """

    data: Path
    output: Path
    home: Path
    weights: str | None = None
    manifest: Path | None = None
    split: str | None = None
    fold: int = 0
    cases: int | None = None
    repeats: int = 1
    device: str = "auto"
    offline: bool = False


@dataclass(frozen=True)
class DepthPoint:
    """One depth.

    Parameters
    ----------
    depth
        1 is the shallowest.
    dice
        Per organ the mean over the cases where prediction or truth has a voxel; NaN where none has.
    counted
        Per organ how many cases that mean rests on.
    pooled_dice, pooled_iou
        Per organ, of the counts of all cases together, as ANU-Net's tables have it.
    seconds
        Time in the network, median over cases and repeats.
    parameters
        Of the network at this depth, batch norms included.
    read_bytes
        Size in the weights file of the tensors that are read.
    peak_bytes
        See :func:`agseg.inference.peak_memory.forward_peak_bytes`, for one tile.
    """

    depth: int
    dice: dict[str, float]
    counted: dict[str, int]
    pooled_dice: dict[str, float]
    pooled_iou: dict[str, float]
    seconds: float
    parameters: int
    read_bytes: int
    peak_bytes: int | None

    @property
    def mean_dice(self) -> float:
        """Mean over organs; NaN where no organ has a value."""
        known = [value for value in self.dice.values() if not math.isnan(value)]
        return statistics.fmean(known) if known else math.nan


@dataclass(frozen=True)
class PruneCurve:
    """All depths of one network on one labelled set, and the conditions they were measured in.

    ``published``: ANU-Net's Table 6, where the run repeats it; ``steps``: what each further depth gains.
    """

    weights: str
    data: str
    synthetic: bool
    cases: tuple[str, ...]
    repeats: int
    device: str
    precision: str
    points: tuple[DepthPoint, ...]
    published: tuple[PublishedRow, ...] = ()
    steps: tuple[DepthStep, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For ``--json`` and ``curve.json``; NaN becomes null."""
        points = [{**asdict(point), "mean_dice": point.mean_dice} for point in self.points]
        return dict(without_nan({**asdict(self), "points": points}))


def prune_curve(request: CurveRequest, *, progress: Progress | None = None) -> PruneCurve:
    """Measure every depth and write ``curve.csv``, ``curve.json`` and ``curve.png``.

    The depths take turns on each case, in another order for every case, so that a busy or warming machine slows all alike.

    Raises
    ------
    UsageError
        If the weights cannot be pruned (the message lists those that can), they have learned from a case, or matplotlib is
        missing.
    RecipeError
        If the set has no volumes, or none of the organs that the weights know.
    """
    require_matplotlib()
    network = _chosen(request)
    cohort = open_cohort(request.data)
    organs = tuple(name for name in cohort.label_set.names if name in network.labels)
    if not organs or cohort.file_ending == PNG or cohort.modality != network.modality:
        raise RecipeError(
            "this set cannot score these weights",
            path=request.data,
            expected=f"{network.modality} with {', '.join(network.labels.names)}",
        )
    ids, published = _cases(request, network, cohort)
    device = resolve_device(request.device)
    precision = choose_precision(Precision.AUTO, device)
    depths = range(1, network.deepest + 1)
    cut = {depth: network.cut(depth, device=device, precision=precision) for depth in depths}
    peaks = {depth: forward_peak_bytes(one, network.tile) for depth, one in cut.items()}
    counts, seconds = _measured(cohort, ids, organs, cut, network, request.repeats, progress)
    points = tuple(_point(depth, network, counts[depth], seconds[depth], peaks[depth]) for depth in depths)
    curve = PruneCurve(
        network.name,
        cohort.name,
        provenance(request.data).synthetic,
        ids,
        request.repeats,
        describe(device),
        cut[1].precision.value,
        points,
        published,
        steps_between(counts),
    )
    make_folder(request.output)
    write_text(request.output / "curve.json", json.dumps(curve.to_dict(), indent=2, allow_nan=False) + "\n")
    write_text(request.output / "curve.csv", _csv(curve, organs))
    draw_curve(request.output / "curve.png", curve.to_dict())
    return curve


def prunable_entries(manifest: Manifest) -> tuple[str, ...]:
    """Ids of the entries that have more than one depth."""
    return tuple(entry.id for entry in manifest.entries if _is_prunable(entry))


def _is_prunable(entry: WeightsEntry) -> bool:
    return facts_of(entry).deepest > 1


def _chosen(request: CurveRequest) -> PrunableNetwork:
    """The run, or the manifest's entry with its files."""
    if request.weights is not None and Path(request.weights).is_dir():
        return PrunableRun(open_run(Path(request.weights)))
    manifest = Manifest.load(request.manifest, home=request.home)
    entry = _entry(manifest, request.weights)
    cache = WeightsCache(request.home, offline=request.offline, allowed_hosts=manifest.allowed_hosts)
    return PrunableEntry(entry, cache.ensure(entry))


def _entry(manifest: Manifest, weights: str | None) -> WeightsEntry:
    known = prunable_entries(manifest)
    listed = f"one of {', '.join(known)}" if known else f"an entry of {', '.join(prunable())} in a manifest (--manifest)"
    if weights is None:
        if len(known) != 1:
            raise UsageError("which weights are to be pruned?", expected=listed, hint="Choose with --weights ID.")
        return manifest.entry(known[0])
    entry = manifest.entry(weights)
    if not _is_prunable(entry):
        raise UsageError(f"weights {entry.id!r} ({entry.architecture}) cannot be pruned", value=weights, expected=listed)
    return entry


def _cases(request: CurveRequest, network: PrunableNetwork, cohort: Cohort) -> tuple[tuple[str, ...], tuple[PublishedRow, ...]]:
    """The cases that are measured on, and ANU-Net's Table 6 where a run repeats that experiment on its own test side.

    Raises
    ------
    RecipeError
        If there is no case.
    UsageError
        If the network has learned from one.
    """
    trained = network.trained if isinstance(network, PrunableRun) else None
    name = request.split or (trained.recipe.split if trained is not None else None)
    fold = request.fold if trained is None or request.split else int((trained.about or {}).get("fold", 0))
    sides = None if name is None else read_split(request.data, name, fold=fold)
    ids = (cohort.ids if sides is None else sides.test)[: request.cases]
    if not ids:
        raise RecipeError("no case to measure on", path=request.data, value=name)
    if isinstance(network, PrunableEntry):
        if network.entry.learned is None:
            _log.warning(
                "which cases the weights of %s learned from is not recorded; their card says what is known", network.name
            )
        refuse_learned(network.entry.learned or (), request.data, ids)
    if trained is None or sides is None or name is None:
        return ids, ()
    refuse_known(trained, request.data, ids, split=sides)
    synthetic, recipe = provenance(request.data).synthetic, trained.recipe
    row = row_beside(trained, cohort=cohort.name, protocol_name=recipe.protocol, split=name, synthetic=synthetic)
    printed = [published_row(f"{cohort.name}.pruned.l{depth}") for depth in range(1, network.deepest + 1)]
    return ids, tuple(p for p in printed if p is not None) if row is not None and request.cases is None else ()


def _measured(
    cohort: Cohort,
    ids: Sequence[str],
    organs: Sequence[str],
    cut: Mapping[int, ReadyNetwork],
    network: PrunableNetwork,
    repeats: int,
    progress: Progress | None,
) -> tuple[dict[int, dict[str, list[Overlap]]], dict[int, list[float]]]:
    """Counts per depth, organ and case, and seconds per depth, case and repeat."""
    counts: dict[int, dict[str, list[Overlap]]] = {depth: {organ: [] for organ in organs} for depth in cut}
    seconds: dict[int, list[float]] = {depth: [] for depth in cut}
    depths = list(cut)
    done, total = 0, len(ids) * len(depths) * repeats
    for number, case_id in enumerate(ids):
        volume = cohort.read_volume(case_id)
        truth = cohort.read_mask(case_id, grid=volume.grid)
        for repeat in range(repeats):
            turn = (number + repeat) % len(depths)
            for depth in depths[turn:] + depths[:turn]:
                found = network.segment(volume, cut[depth], organs=organs)
                seconds[depth].append(found.seconds["predict"])
                if repeat == 0:
                    for organ in organs:
                        counts[depth][organ].append(overlap(found.mask.of(organ), truth=truth.of(organ)))
                done += 1
                if progress:
                    progress(done, total)
    return counts, seconds


def _point(
    depth: int, network: PrunableNetwork, counts: dict[str, list[Overlap]], seconds: list[float], peak_bytes: int | None
) -> DepthPoint:
    known = {organ: [c.dice for c in of_cases if not math.isnan(c.dice)] for organ, of_cases in counts.items()}
    together = {organ: pooled(of_cases) for organ, of_cases in counts.items()}
    return DepthPoint(
        depth,
        {organ: statistics.fmean(values) if values else math.nan for organ, values in known.items()},
        {organ: len(values) for organ, values in known.items()},
        {organ: found.dice for organ, found in together.items()},
        {organ: found.iou for organ, found in together.items()},
        statistics.median(seconds),
        network.parameters(depth),
        network.read_bytes(depth),
        peak_bytes,
    )


def _csv(curve: PruneCurve, organs: Sequence[str]) -> str:
    """One line per depth; unknown values are empty."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    names = [f"{name}_{organ}" for name in ("dice", "pooled_dice", "pooled_iou") for organ in organs]
    table.writerow(["depth", "seconds", "parameters", "read_bytes", "peak_bytes", "mean_dice", *names])
    for p in curve.points:
        scores = [p.mean_dice, *(found[organ] for found in (p.dice, p.pooled_dice, p.pooled_iou) for organ in organs)]
        shown = ["" if math.isnan(v) else f"{v:.6g}" for v in scores]
        peak = "" if p.peak_bytes is None else p.peak_bytes
        table.writerow([p.depth, f"{p.seconds:.6g}", p.parameters, p.read_bytes, peak, *shown])
    return text.getvalue()
