"""``agseg classify-us``: fetal standard planes from ultrasound clips, one record per clip."""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agseg import __version__
from agseg.batch.exit_code import exit_code_of
from agseg.batch.frame_reader import ClipError, FrameReader
from agseg.batch.intake import Intake
from agseg.batch.json_text import json_text
from agseg.batch.outcome import Failure, Fault, failure_of
from agseg.batch.output import Output, claim_output
from agseg.batch.signals import noting_signals
from agseg.errors import Code, ExitCode, OutputError, UsageError
from agseg.io.atomic import write_text
from agseg.io.video.clips import Clip, ClipDiscovery
from agseg.io.video.frames import Box
from agseg.models.precision import Precision
from agseg.report import BatchReport, StudyReport, StudyStatus, WeightsRef
from agseg.weights.cache import WeightsCache
from agseg.weights.entry import WeightsEntry
from agseg.weights.manifest import Manifest
from agseg.workflows.clip_folder import ClipFolder, mark_outdated

if TYPE_CHECKING:
    from agseg.workflows.clip_classifier import ClipClassifier, ClipResult

__all__ = ["DEFAULT_WEIGHTS", "ClassifyRequest", "OnClip", "classify_us"]

DEFAULT_WEIGHTS = "sononet16"
"""The entry that classifies where the user names none."""

MODALITY = "US"

OnClip = Callable[[str, int, int | None], None]
"""``on_clip(name, frames done, frames in all if known)``: how a run tells its progress."""


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
    def parameters(self) -> dict[str, Any]:
        """Everything that can change a result, as it stands in run.json."""
        return {
            "every": self.step,
            "crop": None if self.crop is None else list(self.crop),
            "annotate": self.annotated,
            "device": self.device,
            "precision": self.precision,
        }


class _Interrupted(BaseException):
    """A signal asked the run to end."""


@dataclass
class _Run:
    """What a run knows as it goes."""

    request: ClassifyRequest
    output: Output
    on_clip: OnClip
    started: str = field(default_factory=lambda: _now())
    records: list[StudyReport] = field(default_factory=list)
    asked: set[ExitCode] = field(default_factory=set)
    caught: ExitCode | None = None
    environment: dict[str, Any] = field(default_factory=dict)

    def go(self) -> BatchReport:
        """Find, load, classify, write down."""
        with noting_signals(self._note), warnings.catch_warnings(), FrameReader() as reader, Intake() as intake:
            # Libraries quote headers in their warnings.
            warnings.simplefilter("ignore")
            found = intake.find_clips(self.request.inputs)
            entry, classifier = self._load() if found.clips else (self._entry(), None)
            for clip in found.clips:
                if self.caught is not None or ExitCode.OUTPUT in self.asked or classifier is None:
                    self.records.append(self._left_over(clip))
                else:
                    self.records.append(self._classify(clip, classifier, reader))
            report = self._report(found, entry)
            self.output.release_reserve()
            write_text(self.output.root / "run.json", json_text(report.to_dict()))
        return report

    def _entry(self) -> WeightsEntry:
        with _named_weights(self.request) as (weights_id, manifest):
            return manifest.entry(weights_id)

    def _load(self) -> tuple[WeightsEntry, ClipClassifier]:
        """The weights checked before torch is imported, then the network."""
        with _named_weights(self.request) as (weights_id, manifest):
            entry = manifest.entry(weights_id)
            cache = WeightsCache(self.request.home, offline=self.request.offline, allowed_hosts=manifest.allowed_hosts)
            return entry, self._classifier(entry, cache.ensure(entry))

    def _classifier(self, entry: WeightsEntry, files: tuple[Path, ...]) -> ClipClassifier:
        import torch

        from agseg.inference.device import choose_precision, describe, resolve_device
        from agseg.ultrasound.planes import load_planes
        from agseg.workflows.clip_classifier import ClipClassifier

        device = resolve_device(self.request.device)
        precision = choose_precision(Precision(self.request.precision), device)
        network = load_planes(entry, files, device=device, dtype=precision.dtype)
        self.environment = {"device": describe(device), "precision": precision.value, "torch": torch.__version__}
        request = self.request
        return ClipClassifier(network, step=request.step, crop=request.crop, annotated=request.annotated)

    def _classify(self, clip: Clip, classifier: ClipClassifier, reader: FrameReader) -> StudyReport:
        def progress(done: int, total: int | None) -> None:
            if self.caught is not None:
                raise _Interrupted
            self.on_clip(clip.name, done, total)

        try:
            with ClipFolder(self.output.root, clip.name) as folder:
                result = classifier.classify(reader.open(clip), folder.path, progress=progress)
                files = folder.publish()
        except _Interrupted:
            return self._left_over(clip)
        except ClipError as error:
            try:
                mark_outdated(self.output.root, clip.name)
            except OutputError:
                self.asked.add(ExitCode.OUTPUT)
            return self._failed(clip, error.failure)
        except Exception as error:  # one clip is never worth the run
            if isinstance(error, OutputError):
                self.asked.add(ExitCode.OUTPUT)
            return self._failed(clip, failure_of(error, None))
        return _done(clip, result, files)

    def _failed(self, clip: Clip, failure: Failure) -> StudyReport:
        if failure.blame is Fault.BUG:
            self.asked.add(ExitCode.BUG)
        return StudyReport(
            input=clip.name,
            status=StudyStatus(failure.status),
            code=Code(failure.code),
            message=failure.message,
            modality=MODALITY,
        )

    def _left_over(self, clip: Clip) -> StudyReport:
        code = Code.INTERRUPTED if self.caught is not None else Code.OUTPUT
        message = (
            "the run was interrupted"
            if self.caught is not None
            else "the run ended before this clip: results cannot be written"
        )
        return StudyReport(input=clip.name, status=StudyStatus.DEFERRED, code=code, message=message, modality=MODALITY)

    def _report(self, found: ClipDiscovery, entry: WeightsEntry) -> BatchReport:
        studies = tuple(self.records)
        reasons: dict[str, int] = {}
        for skipped in found.skipped:
            reasons[skipped.reason] = reasons.get(skipped.reason, 0) + 1
        used = sum(len(clip.files) for clip in found.clips)
        return BatchReport(
            version=__version__,
            started=self.started,
            finished=_now(),
            exit_code=exit_code_of(studies, asked=self.asked, caught=self.caught),
            weights=(WeightsRef(entry.id, entry.sha256 or "", entry.architecture, entry.licence),),
            parameters=self.request.parameters,
            environment=self.environment,
            studies=studies,
            files={"found": used + len(found.skipped), "used": used, "skipped": dict(sorted(reasons.items()))},
        )

    def _note(self, code: ExitCode) -> None:
        """The first signal ends the run after the frames in hand, with its record written."""
        self.caught = self.caught or code


def classify_us(request: ClassifyRequest, *, on_clip: OnClip | None = None) -> BatchReport:
    """Classify every clip below the inputs; ``run.json`` and one folder per clip are written.

    Raises
    ------
    UsageError
        If an input, the weights entry or the device does not exist.
    WeightsError
        If the weights are missing or unverified.
    OutputError, LockedError
        If the output folder cannot be written to, or another run holds it.
    """
    with claim_output(request.output, inputs=request.inputs) as output:
        return _Run(request, output, on_clip or (lambda _name, _done, _total: None)).go()


@contextmanager
def _named_weights(request: ClassifyRequest) -> Iterator[tuple[str, Manifest]]:
    """The entry's name and the manifest that has it; a training run is exported to a folder that is there meanwhile."""
    named = request.weights or DEFAULT_WEIGHTS
    run = Path(named)
    if not run.is_dir():
        yield named, Manifest.load(request.manifest)
        return
    from agseg.training.trained import open_run
    from agseg.workflows.export import export_run

    with tempfile.TemporaryDirectory(prefix="agseg-") as folder:
        # The name goes into the record: what the run is called, as far as an entry may be called that.
        weights_id = re.sub(r"[^a-z0-9.-]", "-", run.resolve().name.lower()).strip("-.")[:64] or "run"
        if weights_id in Manifest.load().by_id:
            weights_id = f"run-{weights_id}"[:64]
        exported = export_run(open_run(run), weights_id=weights_id, output=Path(folder))
        yield weights_id, Manifest.load(exported.manifest)


def _done(clip: Clip, result: ClipResult, files: tuple[str, ...]) -> StudyReport:
    return StudyReport(
        input=clip.name,
        status=StudyStatus.DONE,
        output=clip.name,
        warnings=result.warnings,
        modality=MODALITY,
        files=files,
        seconds={key: round(value, 3) for key, value in result.seconds.items()},
        extra=result.extra,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
