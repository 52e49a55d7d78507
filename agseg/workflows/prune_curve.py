"""What pruning costs and saves: Dice, time, parameters and memory of a nested network at each of its depths.

Source: Li et al., ANU-Net (2020), Table 6 and Figure 13: inference time, Dice and number of parameters of L1 to L4.
"""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from agseg.errors import RecipeError, UsageError
from agseg.inference.device import Precision, choose_precision, describe, resolve_device
from agseg.inference.network import ReadyNetwork, load_network
from agseg.inference.peak import forward_peak_bytes
from agseg.inference.segment import segment_with_entry
from agseg.io.atomic import make_folder, write_text
from agseg.measure.overlap import overlap
from agseg.models.catalogue import prunable
from agseg.models.registry import build
from agseg.training.cohort import PNG, Cohort, open_cohort, provenance
from agseg.training.splits import read_split
from agseg.weights.cache import WeightsCache
from agseg.weights.entry import WeightsEntry
from agseg.weights.manifest import Manifest
from agseg.workflows.capabilities import facts_of
from agseg.workflows.prune_figure import draw_curve, require_matplotlib

__all__ = ["CurveRequest", "DepthPoint", "PruneCurve", "prunable_entries", "prune_curve"]

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
        Id of a manifest entry; None takes the only prunable one.
    manifest
        A site's own manifest.
    split, fold
        Only the test side of this split; all cases without one.
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
    seconds
        Time in the network, median over cases and repeats.
    parameters
        Of the network at this depth, batch norms included.
    read_bytes
        Size in the weights file of the tensors that are read.
    peak_bytes
        See :func:`agseg.inference.peak.forward_peak_bytes`, for one tile.
    """

    depth: int
    dice: dict[str, float]
    counted: dict[str, int]
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
    """All depths of one entry on one labelled set, and the conditions they were measured in."""

    weights: str
    data: str
    synthetic: bool
    cases: tuple[str, ...]
    repeats: int
    device: str
    precision: str
    points: tuple[DepthPoint, ...]

    def to_dict(self) -> dict[str, Any]:
        """For ``--json`` and ``curve.json``; NaN becomes null."""
        points = [{**asdict(p), "dice": {n: _number(v) for n, v in p.dice.items()}} for p in self.points]
        means = [_number(p.mean_dice) for p in self.points]
        return {**asdict(self), "points": [{**p, "mean_dice": m} for p, m in zip(points, means, strict=True)]}


def prune_curve(request: CurveRequest, *, progress: Progress | None = None) -> PruneCurve:
    """Measure every depth and write ``curve.csv``, ``curve.json`` and ``curve.png``.

    The depths take turns on each case, in another order for every case, so that a busy or warming machine slows all alike.

    Raises
    ------
    UsageError
        If the weights cannot be pruned (the message lists those that can), or matplotlib is missing.
    RecipeError
        If the set has no volumes, or none of the organs that the weights know.
    """
    require_matplotlib()
    manifest = Manifest.load(request.manifest)
    entry = _chosen(manifest, request.weights)
    cohort = open_cohort(request.data)
    organs = tuple(name for name in cohort.label_set.names if name in entry.labels)
    if not organs or cohort.file_ending == PNG or cohort.modality != entry.input.modality:
        raise RecipeError(
            "this set cannot score these weights",
            path=request.data,
            expected=f"{entry.input.modality} with {', '.join(entry.labels.names)}",
        )
    ids = cohort.ids if request.split is None else read_split(request.data, request.split, fold=request.fold).test
    ids = ids[: request.cases]
    if not ids:
        raise RecipeError("no case to measure on", path=request.data, value=request.split)
    cache = WeightsCache(request.home, offline=request.offline, allowed_hosts=manifest.allowed_hosts)
    paths = cache.ensure(entry)
    device = resolve_device(request.device)
    precision = choose_precision(Precision.AUTO, device)
    depths = range(1, facts_of(entry).deepest + 1)
    networks = {d: load_network(entry, paths, device=device, precision=precision, prune_depth=d) for d in depths}
    tile = torch.zeros(1, 1, *entry.input.tile)
    peaks = {depth: forward_peak_bytes(network, tile) for depth, network in networks.items()}
    dice, seconds = _measured(cohort, ids, organs, networks, entry, request.repeats, progress)
    points = tuple(_point(d, entry, paths, dice[d], seconds[d], peaks[d]) for d in depths)
    about = provenance(request.data)
    curve = PruneCurve(
        entry.id, cohort.name, about.synthetic, ids, request.repeats, describe(device), networks[1].precision.value, points
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


def _chosen(manifest: Manifest, weights: str | None) -> WeightsEntry:
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


def _measured(
    cohort: Cohort,
    ids: Sequence[str],
    organs: Sequence[str],
    networks: dict[int, ReadyNetwork],
    entry: WeightsEntry,
    repeats: int,
    progress: Progress | None,
) -> tuple[dict[int, dict[str, list[float]]], dict[int, list[float]]]:
    """Dice per depth, organ and case, and seconds per depth, case and repeat."""
    dice: dict[int, dict[str, list[float]]] = {depth: {organ: [] for organ in organs} for depth in networks}
    seconds: dict[int, list[float]] = {depth: [] for depth in networks}
    depths = list(networks)
    done, total = 0, len(ids) * len(depths) * repeats
    for number, case_id in enumerate(ids):
        volume = cohort.read_volume(case_id)
        truth = cohort.read_mask(case_id, grid=volume.grid)
        for repeat in range(repeats):
            turn = (number + repeat) % len(depths)
            for depth in depths[turn:] + depths[:turn]:
                found = segment_with_entry(volume, networks[depth], entry, organs=organs)
                seconds[depth].append(found.seconds["predict"])
                if repeat == 0:
                    for organ in organs:
                        dice[depth][organ].append(overlap(found.mask.of(organ), truth=truth.of(organ)).dice)
                done += 1
                if progress:
                    progress(done, total)
    return dice, seconds


def _point(
    depth: int,
    entry: WeightsEntry,
    paths: Sequence[Path],
    dice: dict[str, list[float]],
    seconds: list[float],
    peak_bytes: int | None,
) -> DepthPoint:
    with torch.device("meta"):
        module: Any = build(entry.architecture, {**entry.config, "depth": depth})
    known = {organ: [value for value in values if not math.isnan(value)] for organ, values in dice.items()}
    return DepthPoint(
        depth,
        {organ: statistics.fmean(values) if values else math.nan for organ, values in known.items()},
        {organ: len(values) for organ, values in known.items()},
        statistics.median(seconds),
        len(paths) * sum(p.numel() for p in module.parameters()),
        sum(size for path in paths for key, size in _tensor_bytes(path).items() if not module.is_beyond(key)),
        peak_bytes,
    )


def _tensor_bytes(path: Path) -> dict[str, int]:
    """Size of each tensor of a safetensors file, from its header: a length in 8 bytes, then JSON."""
    with path.open("rb") as file:
        header: dict[str, Any] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {key: t["data_offsets"][1] - t["data_offsets"][0] for key, t in header.items() if key != "__metadata__"}


def _csv(curve: PruneCurve, organs: Sequence[str]) -> str:
    """One line per depth; unknown values are empty."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(
        ["depth", "seconds", "parameters", "read_bytes", "peak_bytes", "mean_dice", *(f"dice_{organ}" for organ in organs)]
    )
    for p in curve.points:
        dice = ["" if math.isnan(v) else f"{v:.6g}" for v in (p.mean_dice, *(p.dice[organ] for organ in organs))]
        peak = "" if p.peak_bytes is None else p.peak_bytes
        table.writerow([p.depth, f"{p.seconds:.6g}", p.parameters, p.read_bytes, peak, *dice])
    return text.getvalue()


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
