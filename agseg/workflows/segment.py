"""``agseg segment``: a folder of studies in, masks, volumes and one honest record per study out.

inputs -> weights entry -> lock -> discover -> [read -> prepare -> predict -> restore -> measure -> write]* -> run.json
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agseg.batch import BatchEvent, BatchJob, Limits, Part, claim_output, run_batch
from agseg.batch.audit import append, begun, ended
from agseg.batch.executors import ExecutorFactory
from agseg.batch.intake import Intake
from agseg.batch.output import Output
from agseg.batch.run_end import check_command, run_command, tell_webhook, write_metrics
from agseg.batch.run_id import RUN_JSON
from agseg.batch.sources import site_key
from agseg.batch.supervise import Supervisor
from agseg.errors import UsageError
from agseg.io.tables import TableStyle
from agseg.io.writers import check_outputs
from agseg.report import BatchReport
from agseg.weights.cache import WeightsCache
from agseg.weights.entry import WeightsEntry
from agseg.weights.manifest import Manifest
from agseg.workflows.better_weights import BETTER_WEIGHTS, better_weights
from agseg.workflows.capabilities import check_capabilities, check_mirror
from agseg.workflows.choose_networks import choose_networks, choose_second
from agseg.workflows.options import SegmenterOptions
from agseg.workflows.scout import choose_scout
from agseg.workflows.segmenter_config import NetworkConfig, SegmenterConfig
from agseg.workflows.segmenter_factory import SegmenterFactory, StudyWriterFactory

if TYPE_CHECKING:
    from agseg.batch.cluster import Cluster
    from agseg.workflows.placed_segmenter import PlacedSegmenter

__all__ = ["SegmentRequest", "segment"]

MOST_ORGANS = 255
"""Labels that a uint8 mask has room for, beside the background."""


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
    weights
        Ids of the weights, in order of precedence; empty means each organ's default.
    manifest, offline
        A site's own manifest, and whether weights may be fetched.
    second_look
        Id of weights whose network looks at the organs too, for the review list alone; None for none.
    options
        How to compute and what to write.
    include, exclude
        Globs on paths below the inputs.
    limits, part
        Deadline, ages, time-outs, readers; and which share of the studies is ours.
    threads
        Threads of the network on a CPU; None is one per core. It changes no result, so it is in no record's parameters.
    cluster
        Where the studies are done; None is this machine.
    overwrite, dry_run, debug, include_identifiers
        As on the command line.
    table_style
        How volumes.csv is written.
    metrics, on_end, audit, webhook
        What is left for other programs: a file for Prometheus, a command that is started at the end, a log of who ran what, an
        address that is sent the run in numbers.
    """

    inputs: tuple[Path, ...]
    output: Path
    home: Path
    organs: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    manifest: Path | None = None
    offline: bool = False
    second_look: str | None = None
    options: SegmenterOptions = field(default_factory=SegmenterOptions)
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    threads: int | None = None
    part: Part = field(default_factory=Part)
    cluster: Cluster | None = None
    overwrite: bool = False
    dry_run: bool = False
    debug: bool = False
    include_identifiers: bool = False
    table_style: TableStyle = TableStyle.PLAIN
    metrics: Path | None = None
    on_end: str | None = None
    audit: Path | None = None
    webhook: str | None = None

    def parameters(
        self, networks: tuple[NetworkConfig, ...], organs: tuple[str, ...], second: NetworkConfig | None = None
    ) -> dict[str, Any]:
        """Everything that can change a result: part of the resume key and of every record."""
        scouts = [f"{network.scout.entry.id} {network.scout.weights.sha256[:12]}" for network in networks if network.scout]
        return {
            "organs": list(organs),
            "weights": [network.entry.id for network in networks],
            **self.options.to_dict(),
            **({"scout": scouts} if scouts else {}),
            **({} if second is None else {"second_look": f"{second.entry.id} {second.weights.sha256[:12]}"}),
        }


def segment(
    request: SegmentRequest, *, on_event: Callable[[BatchEvent], None] | None = None, output: Output | None = None
) -> BatchReport:
    """Run a batch.

    Parameters
    ----------
    output
        The request's output folder where the caller has claimed it already.

    Raises
    ------
    UsageError
        For an unknown organ, weights that cannot do what was asked, or a device that is not there.
    OutputError, LockedError
        Before anything else, if the output cannot be written to or another run holds it.
    WeightsError
        If weights are missing, unverified or corrupt.
    """
    with Intake(debug=request.debug) as intake:
        # It starts while the weights are chosen and checked.
        intake.start()
        return _segment(request, intake, output, on_event)


def _segment(
    request: SegmentRequest, intake: Intake, output: Output | None, on_event: Callable[[BatchEvent], None] | None
) -> BatchReport:
    manifest, chosen, organs, scouts, looking = _checked(request)
    with _claimed(request, output) as output:
        cache = _cache(request, manifest)
        # What is fetched now is known by its digests only then.
        networks = tuple(
            _network(cache, entry, makes, scout=scout, dry_run=request.dry_run)
            for (entry, makes), scout in zip(chosen, scouts, strict=True)
        )
        second = None if looking is None else _network(cache, *looking, scout=None, dry_run=request.dry_run)
        better = None if request.weights else better_weights(manifest, [entry for entry, _ in chosen], organs)
        parameters = request.parameters(networks, organs, second)
        config = SegmenterConfig(networks, organs, request.options, parameters, request.threads, second)
        job = BatchJob(
            inputs=request.inputs,
            model=SegmenterFactory(config) if request.cluster is None else _placed(config, request, manifest),
            networks=tuple(network.use for network in networks),
            parameters=parameters,
            environment={} if better is None else {BETTER_WEIGHTS: {**better.to_dict(), "text": better.sentence()}},
            shaping=request.options.shaping.to_dict(),
            outputs=(*request.options.outputs.wanted, *([] if config.second_look is None else [config.second_look])),
            include=request.include,
            exclude=request.exclude,
            modality=networks[0].entry.input.modality,
            channels=1 + len(networks[0].entry.input.channels),
            limits=request.limits,
            writer=StudyWriterFactory(config),
            overwrite=request.overwrite,
            dry_run=request.dry_run,
            debug=request.debug,
            include_identifiers=request.include_identifiers,
            table_style=request.table_style,
            pseudonym_key=site_key(request.home, make=not request.dry_run),
        )
        if request.audit is not None and not request.dry_run:
            append(request.audit, begun(job, output.root))
        report = run_batch(job, output, on_event=on_event, executor=_executor(request.cluster), intake=intake)
        if not request.dry_run:
            _leave(report, request, output)
        return report


def _leave(report: BatchReport, request: SegmentRequest, output: Output) -> None:
    """What the run leaves for other programs."""
    if request.audit is not None:
        append(request.audit, *ended(report))
    if request.metrics is not None:
        write_metrics(report, request.metrics)
    if request.webhook is not None:
        tell_webhook(request.webhook, report)
    if request.on_end is not None:
        run_command(request.on_end, report, output.root / RUN_JSON)


def _network(
    cache: WeightsCache, entry: WeightsEntry, organs: tuple[str, ...], *, scout: WeightsEntry | None, dry_run: bool
) -> NetworkConfig:
    paths = () if dry_run else cache.ensure(entry)
    first = None if scout is None else _network(cache, scout, entry.crop_to or organs, scout=None, dry_run=dry_run)
    return NetworkConfig(cache.with_recorded_digests(entry), paths, organs, first)


def check_request(request: SegmentRequest) -> None:
    """Refuse what no run could do, before anything is locked or fetched.

    Raises
    ------
    UsageError
        For an unknown organ, or weights or packages that cannot do what was asked.
    """
    _checked(request)


_Chosen = tuple[WeightsEntry, tuple[str, ...]]
"""An entry, and the organs that it makes or looks at."""


def _checked(
    request: SegmentRequest,
) -> tuple[Manifest, tuple[_Chosen, ...], tuple[str, ...], list[WeightsEntry | None], _Chosen | None]:
    """Manifest, networks with their organs, all organs, the networks' scouts, and the network that takes a second look."""
    manifest = Manifest.load(request.manifest, home=request.home)
    options = request.options
    wanted = tuple(dict.fromkeys(manifest.organ(name) for name in request.organs))
    chosen = choose_networks(manifest, wanted, request.weights)
    organs = wanted or tuple(organ for _, makes in chosen for organ in makes)
    if len(organs) > MOST_ORGANS:
        raise UsageError("a mask holds at most 255 organs", value=len(organs), hint="Name those that are wanted with --organ.")
    depth, attention = options.shaping.prune_depth, options.outputs.attention
    for entry, _ in chosen:
        check_capabilities(entry, manifest=manifest, prune_depth=depth, attention=attention)
    if options.shaping.mirror:
        check_mirror([entry for entry, _ in chosen])
    scouts = [choose_scout(manifest, entry, organs=makes, wanted=options.scout, named=bool(wanted)) for entry, makes in chosen]
    if request.cluster is not None and not request.part.is_whole:
        raise UsageError("a cluster shares the studies itself", value="--cluster with --num-parts", expected="one of them")
    check_outputs(options.outputs.kinds)
    if request.on_end is not None:
        check_command(request.on_end)
    if request.webhook is not None:
        from agseg.io.webhook import check_address

        check_address(request.webhook)
    second = None if request.second_look is None else choose_second(manifest, request.second_look, chosen)
    return manifest, chosen, organs, scouts, second


def _claimed(request: SegmentRequest, output: Output | None) -> AbstractContextManager[Output]:
    if output is not None:
        return nullcontext(output)
    return claim_output(request.output, inputs=request.inputs, dry_run=request.dry_run, part=request.part)


def _placed(config: SegmenterConfig, request: SegmentRequest, manifest: Manifest) -> PlacedSegmenter:
    from agseg.workflows.placed_segmenter import PlacedSegmenter

    return PlacedSegmenter(config, request.home, offline=request.offline, allowed_hosts=manifest.allowed_hosts)


def _executor(cluster: Cluster | None) -> ExecutorFactory:
    """What does the studies: processes of this machine, or of the cluster."""
    if cluster is None:
        return Supervisor
    from agseg.batch.dask_executor import DaskExecutor

    return partial(DaskExecutor, cluster=cluster)


def _cache(request: SegmentRequest, manifest: Manifest) -> WeightsCache:
    return WeightsCache(request.home, offline=request.offline, allowed_hosts=manifest.allowed_hosts)
