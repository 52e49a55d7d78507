"""``agseg segment``: a folder of studies in, masks, volumes and one honest record per study out.

inputs -> weights entry -> lock -> discover -> [read -> prepare -> predict -> restore -> measure -> write]* -> run.json
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from agseg.batch import BatchEvent, BatchJob, Limits, Part, claim_output, run_batch
from agseg.batch.cluster import Cluster
from agseg.batch.dask_engine import DaskEngine
from agseg.batch.engines import EngineFactory
from agseg.batch.supervise import Supervisor
from agseg.errors import UsageError
from agseg.report import BatchReport
from agseg.weights.cache import WeightsCache
from agseg.weights.entry import WeightsEntry
from agseg.weights.manifest import Manifest
from agseg.workflows.capabilities import check_capabilities
from agseg.workflows.placed_segmenter import PlacedSegmenter
from agseg.workflows.study_segmenter import SegmenterConfig, SegmenterOptions, check_outputs

__all__ = ["SegmentRequest", "choose_entry", "segment", "usage_digest"]

MODALITY = "CT"
"""What ``agseg segment`` segments; ultrasound has its own command."""


@dataclass(frozen=True)
class SegmentRequest:
    """One run, as it was asked for.

    Parameters
    ----------
    inputs, output
        What to segment and where the results go.
    home
        Folder of the weights cache.
    organs
        Names to report; empty means all that the weights know.
    weights, manifest, offline
        Which weights, and whether they may be fetched.
    options
        How to compute and what to write.
    include, exclude
        Globs on paths below the inputs.
    limits, part
        Deadline, ages, time-outs; and which share of the studies is ours.
    cluster
        Where the studies are done; None is this machine.
    overwrite, dry_run, debug, include_identifiers
        As on the command line.
    """

    inputs: tuple[Path, ...]
    output: Path
    home: Path
    organs: tuple[str, ...] = ()
    weights: str | None = None
    manifest: Path | None = None
    offline: bool = False
    options: SegmenterOptions = field(default_factory=SegmenterOptions)
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    part: Part = field(default_factory=Part)
    cluster: Cluster | None = None
    overwrite: bool = False
    dry_run: bool = False
    debug: bool = False
    include_identifiers: bool = False

    def parameters(self, entry: WeightsEntry, organs: tuple[str, ...]) -> dict[str, Any]:
        """Everything that can change a result: part of the resume key and of every record."""
        return {"organs": list(organs), "weights": entry.id, **self.options.to_dict()}


def segment(request: SegmentRequest, *, on_event: Callable[[BatchEvent], None] | None = None) -> BatchReport:
    """Run a batch.

    Raises
    ------
    UsageError
        For an unknown organ, weights that cannot do what was asked, or a device that is not there.
    OutputError, LockedError
        Before anything else, if the output cannot be written to or another run holds it.
    WeightsError
        If weights are missing, unverified or corrupt.
    """
    manifest = Manifest.load(request.manifest)
    entry = choose_entry(manifest, request.organs, request.weights)
    organs = request.organs or entry.labels.names
    options = request.options
    check_capabilities(entry, manifest=manifest, prune_depth=options.prune_depth, attention=options.attention)
    if request.cluster is not None and not request.part.is_whole:
        raise UsageError("a cluster shares the studies itself", value="--cluster with --num-parts", expected="one of them")
    check_outputs(request.options.outputs)
    with claim_output(request.output, inputs=request.inputs, dry_run=request.dry_run, part=request.part) as output:
        cache = _cache(request, manifest)
        paths = () if request.dry_run else cache.ensure(entry)
        entry = cache.known(entry)
        parameters = request.parameters(entry, organs)
        config = SegmenterConfig(entry, paths, organs, request.options, parameters)
        job = BatchJob(
            inputs=request.inputs,
            model=config if request.cluster is None else _placed(config, request, manifest),
            weights=config.weights,
            parameters=parameters,
            usage_sha256=usage_digest(entry),
            include=request.include,
            exclude=request.exclude,
            limits=request.limits,
            overwrite=request.overwrite,
            dry_run=request.dry_run,
            debug=request.debug,
            include_identifiers=request.include_identifiers,
        )
        return run_batch(job, output, on_event=on_event, engine=_engine(request.cluster))


def _placed(config: SegmenterConfig, request: SegmentRequest, manifest: Manifest) -> PlacedSegmenter:
    return PlacedSegmenter(config, request.home, offline=request.offline, allowed_hosts=manifest.allowed_hosts)


def _engine(cluster: Cluster | None) -> EngineFactory:
    """What does the studies: processes of this machine, or of the cluster."""
    return Supervisor if cluster is None else partial(DaskEngine, cluster=cluster)


def _cache(request: SegmentRequest, manifest: Manifest) -> WeightsCache:
    return WeightsCache(request.home, offline=request.offline, allowed_hosts=manifest.allowed_hosts)


def choose_entry(manifest: Manifest, organs: tuple[str, ...], weights: str | None) -> WeightsEntry:
    """The one manifest entry of a run.

    Raises
    ------
    UsageError
        If an organ is known to no entry, or the organs' defaults differ; the message names ``--weights``.
    """
    if weights is not None:
        entry = manifest.entry(weights)
        for organ in organs:
            if organ not in manifest.organs:
                raise manifest.unknown_organ(organ)
        if not entry.labels.names:
            raise UsageError(
                f"weights {weights!r} segment no organ: they classify frames",
                hint=f"agseg classify-us CLIP --weights {weights}",
            )
        if organs and not any(organ in entry.labels for organ in organs):
            raise UsageError(
                f"weights {weights!r} know none of these organs",
                value=", ".join(organs),
                expected=f"one of {', '.join(entry.labels.names)}",
            )
        return entry
    if organs:
        defaults = {organ: manifest.default_for(organ, MODALITY) for organ in organs}
        if len({entry.id for entry in defaults.values()}) > 1:
            told = ", ".join(f"{organ}: {entry.id}" for organ, entry in defaults.items())
            raise UsageError("these organs have different default weights", value=told, hint="Choose one with --weights ID.")
        return next(iter(defaults.values()))
    counted = Counter({entry.id: len(entry.default_for) for entry in manifest.entries if entry.input.modality == MODALITY})
    best = [name for name, count in counted.most_common(1) if count]
    if not best:
        raise UsageError("the manifest names no default weights", hint="Choose one with --weights ID.")
    return manifest.entry(best[0])


def usage_digest(entry: WeightsEntry) -> str:
    """SHA-256 (hex) of what an entry says about making a mask with its files: a site may correct it under the same files.

    Scores, licence and the like are left out: they change no voxel.
    """
    usage = {
        "architecture": entry.architecture,
        "config": entry.config,
        "format": entry.format,
        "input": entry.input.identity(),
        "labels": [[label.index, label.name] for label in entry.labels],
        "cleanup": entry.cleanup,
    }
    return hashlib.sha256(json.dumps(usage, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
