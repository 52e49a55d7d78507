"""Types that describe a run: the job, its limits, and one study of it. Everything here crosses a process boundary."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from agseg.batch.arrival import FileState
from agseg.batch.draft import Draft
from agseg.batch.earlier import Plan
from agseg.batch.provenance import NetworkUse, Provenance
from agseg.errors import UsageError
from agseg.io.tables import TableStyle
from agseg.report import StudyReport, WeightsRef
from agseg.study import Discovery, Study
from agseg.volume import Volume

VOLUMES_CSV, REPORT_HTML = "volumes.csv", "report.html"

TABLES = (VOLUMES_CSV, REPORT_HTML)
"""What is written of a whole output folder of segmented volumes."""

DEFAULT_STUDY_TIMEOUT_S = 3600.0
"""A study that takes longer than this is hung: the slowest known one (512x512x1200 on two cores) stays below half of it."""


@dataclass(frozen=True)
class Limits:
    """How much a run, and each study of it, may cost.

    Parameters
    ----------
    study_timeout_s
        Reading and processing of one study together.
    reader_memory_bytes, model_memory_bytes
        Largest resident memory of a reader and of the model process; ``None`` takes a share of this machine's memory.
    deadline_s
        No study is begun later than this after the start; the rest is deferred.
    min_age_s
        A study with a younger file is still arriving: deferred. A time further in the future than this defers nothing.
    readers
        Reader processes.
    ahead
        Studies that may be read, or waiting in memory, while another one is in the model.
    """

    study_timeout_s: float = DEFAULT_STUDY_TIMEOUT_S
    reader_memory_bytes: int | None = None
    model_memory_bytes: int | None = None
    deadline_s: float | None = None
    min_age_s: float = 0.0
    readers: int = 1
    ahead: int = 2

    def __post_init__(self) -> None:
        if self.study_timeout_s <= 0 or self.min_age_s < 0 or (self.deadline_s is not None and self.deadline_s < 0):
            raise UsageError("time limits must be positive numbers")
        if self.readers < 1 or self.ahead < 1:
            raise UsageError("a run needs at least one reader and one study ahead")


@dataclass(frozen=True)
class Part:
    """Which share of the studies this process takes: number ``index`` (from 0) of ``count`` that are about as large."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.index < self.count:
            raise UsageError("--part-id must be at least 0 and less than --num-parts", value=f"{self.index} of {self.count}")

    @property
    def is_whole(self) -> bool:
        """True if one process does everything."""
        return self.count == 1

    def has(self, study_id: str) -> bool:
        """Whether a study belongs to this part. Its name alone says so, whatever else was found or has arrived since."""
        digest = hashlib.sha256(study_id.encode(errors="surrogateescape")).digest()
        return int.from_bytes(digest) % self.count == self.index


@dataclass(frozen=True)
class StudyTask:
    """One study on its way through the processes.

    Parameters
    ----------
    study
        What discovery found.
    root
        The run's output folder.
    output
        The study's folder below ``root``, ``/``-separated.
    provenance
        What the result is made from; it goes into study.json beside the record.
    states
        Size and time of each input file when the run saw it first.
    read_seconds
        What the reader took; 0 before it is read.
    failures
        How many runs in a row it has failed in until now.
    plan
        Which networks must run, which outputs are to be written, and what of an earlier result stays.
    """

    study: Study
    root: Path
    output: str
    provenance: Provenance
    states: tuple[FileState, ...] = ()
    read_seconds: float = 0.0
    failures: int = 0
    plan: Plan = field(default_factory=lambda: Plan((), ()))

    @property
    def folder(self) -> Path:
        """Where the finished study stands. Write through :class:`agseg.batch.folder.StudyFolder`, never here."""
        return self.root / self.output


class Processor(Protocol):
    """What lives in the model process: a network with its weights, ready for one study after the other."""

    environment: dict[str, Any]

    def process(self, task: StudyTask, volume: Volume, stage: Callable[[str], None]) -> StudyReport | Draft:
        """Segment one study and write its files, or leave them to the job's writer."""
        ...


class Writer(Protocol):
    """What lives in the writer process."""

    def write(self, task: StudyTask, volume: Volume, draft: Draft, stage: Callable[[str], None]) -> StudyReport:
        """Measure one study and write its files."""
        ...


class WriterFactory(Protocol):
    """Makes the writer inside the writer process; picklable."""

    def __call__(self) -> Writer:
        """Import what writing needs."""
        ...


class ModelFactory(Protocol):
    """Makes the processor inside the model process; picklable."""

    def __call__(self) -> Processor | FileProcessor:
        """Import torch, load the weights."""
        ...


class FileProcessor(Protocol):
    """What lives in the model process of a job without readers: it reads the study's files itself, in a child of its own."""

    environment: dict[str, Any]

    def process(self, task: StudyTask, stage: Callable[[str], None]) -> StudyReport:
        """Do one study and write its files."""
        ...


class Finder(Protocol):
    """Who looks for studies: :class:`agseg.batch.intake.Intake`."""

    def discover(
        self, inputs: Sequence[Path], *, include: Iterable[str], exclude: Iterable[str], modalities: Sequence[str]
    ) -> Discovery:
        """The studies below the inputs, as volumes."""
        ...

    def find_clips(self, inputs: Sequence[Path]) -> Discovery:
        """The ultrasound clips below the inputs."""
        ...


def _find_volumes(intake: Finder, job: BatchJob) -> Discovery:
    from agseg.io.channels import join_channels  # the children know this module too, and need no reader of headers

    found = intake.discover(job.inputs, include=job.include, exclude=job.exclude, modalities=(job.modality,))
    return join_channels(found, job.channels)


def _read_volume(study: Study) -> Volume:
    from agseg.io.read import read_volume

    return read_volume(study)


@dataclass(frozen=True)
class BatchJob:
    """A run: what goes in, what is done with it, and within which limits.

    Parameters
    ----------
    inputs
        Files and folders.
    model
        Makes the processor in the model process.
    networks
        Which weights those are and which organs each of them makes; part of the resume keys.
    parameters
        The run's settings for its records, JSON-able.
    shaping
        Those of them that decide about a mask's voxels; part of the resume keys.
    outputs
        Names of what is to be written of each study's masks. What is missing of a finished study is written from them.
    environment
        Facts about this process for run.json; the processor's own are added.
    include, exclude
        Globs on paths below INPUT.
    modality
        Of the scans that are looked for, ``"CT"`` or ``"MR"``.
    channels
        Registered images that make one study (:mod:`agseg.io.channels`).
    find
        Asks the intake for the studies below the inputs; volumes by default.
    read
        Makes a Volume from a Study in a reader process. None: there are no readers, and the model process has a
        :class:`FileProcessor` (clips are read frame by frame, and never held).
    writer
        Makes the writer in the writer process, for a processor that leaves drafts.
    tables
        What is written of the whole folder beside run.json.
    overwrite
        Do finished studies again.
    dry_run
        Decide, but read no pixel and write nothing.
    debug
        Let the children's tracebacks through to stderr. They may quote headers.
    include_identifiers
        Put what names the patient and the study into the run's records.
    table_style
        How volumes.csv is written.
    pseudonym_key
        The site's, from :func:`agseg.batch.sources.site_key`; None makes no pseudonyms.
    """

    inputs: tuple[Path, ...]
    model: ModelFactory
    networks: tuple[NetworkUse, ...]
    parameters: dict[str, Any]
    shaping: dict[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    environment: dict[str, Any] = field(default_factory=dict)
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    modality: str = "CT"
    channels: int = 1
    limits: Limits = field(default_factory=Limits)
    find: Callable[[Finder, BatchJob], Discovery] = _find_volumes
    read: Callable[[Study], Volume] | None = _read_volume
    writer: WriterFactory | None = None
    tables: tuple[str, ...] = TABLES
    overwrite: bool = False
    dry_run: bool = False
    debug: bool = False
    include_identifiers: bool = False
    table_style: TableStyle = TableStyle.PLAIN
    pseudonym_key: bytes | None = field(default=None, repr=False)

    @property
    def weights(self) -> tuple[WeightsRef, ...]:
        """The weights of all networks."""
        return tuple(network.weights for network in self.networks)
