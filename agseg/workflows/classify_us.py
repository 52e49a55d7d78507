"""``agseg classify-us``: fetal standard planes from ultrasound clips. A run like that of ``segment``, with clips for studies.

inputs -> weights entry -> lock -> find clips -> [decode -> classify -> decide -> draw -> write]* -> run.json
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agseg.batch import BatchEvent, BatchJob, Limits, Part, claim_output, run_batch
from agseg.batch.intake import Intake
from agseg.batch.job import REPORT_HTML, Finder
from agseg.batch.provenance import NetworkUse
from agseg.errors import UsageError
from agseg.io.video.frames import Box
from agseg.models.precision import Precision
from agseg.report import BatchReport, WeightsRef
from agseg.study import Discovery
from agseg.weights.cache import WeightsCache
from agseg.weights.entry import WeightsEntry
from agseg.weights.manifest import Manifest
from agseg.workflows.clip_processor import ClassifierConfig
from agseg.workflows.segmenter_config import usage_digest

DEFAULT_WEIGHTS = "sononet16"
"""The entry that classifies where the user names none."""

DEFAULT_CLIP_TIMEOUT_S = 4 * 3600.0
"""A clip that takes longer than this is hung: an hour of video, annotated frame by frame, stays below half of it."""


@dataclass(frozen=True)
class ClassifyRequest:
    """What was asked for.

    Parameters
    ----------
    inputs
        Videos, DICOM files, image files, or folders of them.
    output, home
        Where results go, and where weights are kept.
    weights, manifest, offline
        An entry (default :data:`DEFAULT_WEIGHTS`) or the folder of a training run, a site's own manifest, and whether the
        network may be used.
    device
        ``auto``, ``cpu``, ``gpu[:N]``, ``cuda[:N]`` or ``mps``.
    precision
        ``auto``, ``fp32``, ``bf16`` or ``fp16``: the network's number format.
    step
        Analyse every ``step``-th frame.
    crop
        x0, y0, x1, y1 in source pixels, or None to find the fan.
    annotated
        Whether to write ``annotated.mp4``.
    limits, part
        Deadline, ages, time-outs; and which share of the clips is ours.
    overwrite, dry_run, debug
        As on the command line.
    """

    inputs: tuple[Path, ...]
    output: Path
    home: Path
    weights: str | None = None
    manifest: Path | None = None
    offline: bool = False
    device: str = "auto"
    precision: str = "auto"
    step: int = 1
    crop: Box | None = None
    annotated: bool = False
    limits: Limits = field(default_factory=lambda: Limits(study_timeout_s=DEFAULT_CLIP_TIMEOUT_S))
    part: Part = field(default_factory=Part)
    overwrite: bool = False
    dry_run: bool = False
    debug: bool = False

    def __post_init__(self) -> None:
        if self.step < 1:
            raise UsageError("--every must be at least 1", value=self.step)
        if self.precision not in tuple(Precision):
            raise UsageError("invalid value for --precision", value=self.precision, expected=f"one of {', '.join(Precision)}")
        if self.crop is not None and (self.crop[0] >= self.crop[2] or self.crop[1] >= self.crop[3]):
            raise UsageError(
                "--crop is empty", value=",".join(map(str, self.crop)), expected="x0,y0,x1,y1 with x0 < x1, y0 < y1"
            )

    @property
    def shaping(self) -> dict[str, Any]:
        """What decides about a frame's label: part of the resume key."""
        return {"every": self.step, "crop": None if self.crop is None else list(self.crop), "precision": self.precision}

    @property
    def parameters(self) -> dict[str, Any]:
        """Everything that can change a result, as it stands in run.json."""
        return {**self.shaping, "annotate": self.annotated, "device": self.device}


def classify_us(request: ClassifyRequest, *, on_event: Callable[[BatchEvent], None] | None = None) -> BatchReport:
    """Classify every clip below the inputs that has no result yet; one folder per clip, ``run.json`` and ``report.html``.

    Raises
    ------
    UsageError
        If an input, the weights entry or the device does not exist.
    WeightsError
        If the weights are missing or unverified.
    OutputError, LockedError
        If the output folder cannot be written to, or another run holds it.
    """
    with (
        Intake(debug=request.debug) as intake,
        claim_output(request.output, inputs=request.inputs, dry_run=request.dry_run, part=request.part) as output,
        _named_weights(request) as (weights_id, manifest),
    ):
        intake.start()
        cache = WeightsCache(request.home, offline=request.offline, allowed_hosts=manifest.allowed_hosts)
        entry = manifest.entry(weights_id)
        paths = () if request.dry_run else cache.ensure(entry)
        job = clip_job(request, cache.with_recorded_digests(entry), paths)
        return run_batch(job, output, on_event=on_event, intake=intake)


def clip_job(request: ClassifyRequest, entry: WeightsEntry, paths: tuple[Path, ...]) -> BatchJob:
    """The run of a request, with its weights and their verified files."""
    config = ClassifierConfig(
        entry,
        paths,
        device=request.device,
        precision=Precision(request.precision),
        step=request.step,
        crop=request.crop,
        annotated=request.annotated,
    )
    weights = WeightsRef(entry.id, entry.sha256 or "", entry.architecture, entry.licence)
    return BatchJob(
        inputs=request.inputs,
        model=config,
        networks=(NetworkUse(weights, usage_sha256=usage_digest(entry)),),
        parameters=request.parameters,
        shaping=request.shaping,
        outputs=config.outputs,
        limits=request.limits,
        find=_find_clips,
        read=None,
        tables=(REPORT_HTML,),
        overwrite=request.overwrite,
        dry_run=request.dry_run,
        debug=request.debug,
    )


def _find_clips(intake: Finder, job: BatchJob) -> Discovery:
    return intake.find_clips(job.inputs)


@contextmanager
def _named_weights(request: ClassifyRequest) -> Iterator[tuple[str, Manifest]]:
    """The entry's name and the manifest that has it; a training run is exported to a folder that is there meanwhile."""
    named = request.weights or DEFAULT_WEIGHTS
    run = Path(named)
    if not run.is_dir():
        yield named, Manifest.load(request.manifest)
        return
    from agseg.training.trained_model import open_run
    from agseg.workflows.export import export_run

    with tempfile.TemporaryDirectory(prefix="agseg-") as folder:
        # The name goes into the record: what the run is called, as far as an entry may be called that.
        weights_id = re.sub(r"[^a-z0-9.-]", "-", run.resolve().name.lower()).strip("-.")[:64] or "run"
        if weights_id in Manifest.load().by_id:
            weights_id = f"run-{weights_id}"[:64]
        exported = export_run(open_run(run), weights_id=weights_id, output=Path(folder))
        yield weights_id, Manifest.load(exported.manifest)
