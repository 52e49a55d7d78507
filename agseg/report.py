"""The records that agseg writes: one measurement per organ, one report per study, one per run.

``to_dict`` of each gives the content of ``study.json`` and ``run.json`` (schema ``agseg.run/2``).
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from agseg.errors import Code, ExitCode
from agseg.study import Source
from agseg.volume import Warned

__all__ = [
    "DISCLAIMER",
    "RUN_SCHEMA",
    "STUDY_JSON",
    "BatchReport",
    "HuSpread",
    "Measurement",
    "OrganStatus",
    "StudyReport",
    "StudyStatus",
    "WeightsRef",
    "clip_facts",
    "new_run_id",
    "weights_from_dict",
    "weights_to_dict",
]

RUN_SCHEMA = "agseg.run/2"
STUDY_JSON = "study.json"
"""A finished study's record, in its folder below the output."""


_CLIP_FACTS = frozenset({"size", "frames", "frames_per_second", "moving", "views", "states", "planes", "best_frames"})
"""Keys of an ultrasound clip's record beside those of any study; docs/ultrasound.md describes them."""


def clip_facts(extra: dict[str, Any]) -> dict[str, Any]:
    """What a record says about an ultrasound clip: it stays with the result where nothing was done again."""
    return {name: value for name, value in extra.items() if name in _CLIP_FACTS}


def new_run_id() -> str:
    """A fresh id for a run: 16 hex digits."""
    return secrets.token_hex(8)


DISCLAIMER = "Not for clinical decisions without review by a qualified person."


class OrganStatus(StrEnum):
    """What is known about an organ in a study."""

    PRESENT = "present"
    ABSENT = "absent"
    CUT_OFF = "cut_off"
    NOT_IN_WEIGHTS = "not_in_weights"


class StudyStatus(StrEnum):
    """How a study ended."""

    DONE = "done"
    SKIPPED = "skipped"
    REJECTED = "rejected"
    FAILED = "failed"
    DEFERRED = "deferred"


@dataclass(frozen=True)
class HuSpread:
    """How an organ's HU are distributed: standard deviation, and percentiles by their number (5, 25, 50, 75, 95)."""

    sd: float
    percentiles: Mapping[int, int]

    def to_dict(self) -> dict[str, float]:
        """As ``hu`` in run.json: ``sd``, ``p05``, ..."""
        return {"sd": self.sd, **{f"p{number:02d}": value for number, value in self.percentiles.items()}}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> HuSpread:
        """What :meth:`to_dict` wrote; raises KeyError or ValueError if it is none."""
        return cls(float(told["sd"]), {int(name[1:]): int(value) for name, value in told.items() if name != "sd"})


@dataclass(frozen=True)
class Measurement:
    """One organ in one study.

    ``volume_ml`` is voxels x voxel volume for ``present``; for ``cut_off`` it is the volume inside the field of view (the
    organ's own volume is not known, so the record carries the status beside it); ``None`` where the organ is absent or the
    weights do not know it. It is never 0.0.

    ``hu`` is the spread of its HU, ``surface_cm2`` its surface, ``extent_mm`` how far it reaches from left to right, front to
    back and feet to head; all three of the part inside the field of view, and None where there is nothing to measure.

    ``weights`` is the id of the weights that made it, ``run`` the id of the run; both are None for an organ that no weights of
    the run know.
    """

    name: str
    status: OrganStatus
    volume_ml: float | None = None
    voxels: int | None = None
    mean_hu: float | None = None
    touches_border: bool = False
    review: tuple[str, ...] = ()
    weights: str | None = None
    run: str | None = None
    hu: HuSpread | None = None
    surface_cm2: float | None = None
    extent_mm: tuple[float, float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As it stands in run.json."""
        return {
            "name": self.name,
            "status": self.status.value,
            "volume_ml": self.volume_ml,
            "voxels": self.voxels,
            "mean_hu": self.mean_hu,
            "hu": None if self.hu is None else {name: round(value, 2) for name, value in self.hu.to_dict().items()},
            "surface_cm2": None if self.surface_cm2 is None else round(self.surface_cm2, 2),
            "extent_mm": None if self.extent_mm is None else [round(side, 2) for side in self.extent_mm],
            "touches_border": self.touches_border,
            "review": list(self.review),
            "weights": self.weights,
            "run": self.run,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Measurement:
        """The measurement that :meth:`to_dict` wrote; raises KeyError or ValueError if it is none."""
        return cls(
            name=data["name"],
            status=OrganStatus(data["status"]),
            volume_ml=data["volume_ml"],
            voxels=data["voxels"],
            mean_hu=data["mean_hu"],
            touches_border=data["touches_border"],
            review=tuple(data["review"]),
            weights=data.get("weights"),
            run=data.get("run"),
            hu=HuSpread.from_dict(data["hu"]) if data.get("hu") else None,
            surface_cm2=data.get("surface_cm2"),
            extent_mm=tuple(data["extent_mm"]) if data.get("extent_mm") else None,
        )


@dataclass(frozen=True)
class WeightsRef:
    """Which weights made a result; ``sha256`` is the entry's own digest."""

    id: str
    sha256: str
    architecture: str
    licence: str

    def to_dict(self) -> dict[str, str]:
        """As it stands in run.json."""
        return {"id": self.id, "sha256": self.sha256, "architecture": self.architecture, "licence": self.licence}


def weights_to_dict(weights: Sequence[WeightsRef]) -> dict[str, Any]:
    """Several weights in a record: ``all_weights``, and the first of them as ``weights``, where there used to be one."""
    told = [one.to_dict() for one in weights]
    return {"weights": told[0] if told else None, "all_weights": told}


def weights_from_dict(record: dict[str, Any]) -> tuple[WeightsRef, ...]:
    """The weights of a record, also of one with a single ``weights``; raises KeyError or TypeError if they are none."""
    told = record.get("all_weights")
    if told is None:
        told = [record["weights"]] if record.get("weights") else []
    return tuple(WeightsRef(one["id"], one["sha256"], one["architecture"], one["licence"]) for one in told)


@dataclass(frozen=True)
class StudyReport:
    """How one study ended, and everything needed to repeat it.

    ``weights`` are those that made the result, and ``run`` is the id of the run that did, which is an earlier one where the
    study is skipped. ``source`` says whose the study is.
    """

    input: str
    status: StudyStatus
    output: str | None = None
    code: Code | None = None
    message: str | None = None
    warnings: tuple[Warned, ...] = ()
    shape: tuple[int, int, int] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    modality: str | None = None
    organs: tuple[Measurement, ...] = ()
    files: tuple[str, ...] = ()
    seconds: dict[str, float] | None = None
    new: bool = True
    weights: tuple[WeightsRef, ...] = ()
    run: str | None = None
    source: Source | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def without_identifiers(self) -> StudyReport:
        """The same with nothing that names a person, should an earlier run have been asked for it."""
        if self.source is None or not self.source.identifiers:
            return self
        return replace(self, source=replace(self.source, identifiers={}))

    def to_dict(self) -> dict[str, Any]:
        """As it stands in run.json; ``extra`` (fingerprint, device fallbacks, ...) is merged in."""
        return {
            "input": self.input,
            "output": self.output,
            "status": self.status.value,
            "code": None if self.code is None else str(self.code),
            "message": self.message,
            "warnings": [warned.to_dict() for warned in self.warnings],
            "shape": None if self.shape is None else list(self.shape),
            "spacing_mm": None if self.spacing_mm is None else [round(s, 6) for s in self.spacing_mm],
            "modality": self.modality,
            "organs": [organ.to_dict() for organ in self.organs],
            "files": list(self.files),
            "seconds": self.seconds,
            "new": self.new,
            **weights_to_dict(self.weights),
            "run": self.run,
            "source": None if self.source is None else self.source.to_dict(),
            **({"identifiers": dict(self.source.identifiers)} if self.source and self.source.identifiers else {}),
            **self.extra,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> StudyReport:
        """The report that :meth:`to_dict` wrote; raises KeyError or ValueError if it is none."""
        known = {
            "input", "output", "status", "code", "message", "warnings", "shape", "spacing_mm", "modality", "organs", "files",
            "seconds", "new", "weights", "all_weights", "run", "source", "identifiers",
        }  # fmt: skip
        return cls(
            input=data["input"],
            status=StudyStatus(data["status"]),
            output=data["output"],
            code=None if data["code"] is None else Code(data["code"]),
            message=data["message"],
            warnings=tuple(Warned(Code(w["code"]), w["message"]) for w in data["warnings"]),
            shape=None if data["shape"] is None else tuple(data["shape"]),
            spacing_mm=None if data["spacing_mm"] is None else tuple(data["spacing_mm"]),
            modality=data["modality"],
            organs=tuple(Measurement.from_dict(organ) for organ in data["organs"]),
            files=tuple(data["files"]),
            seconds=data["seconds"],
            new=data.get("new", True),
            weights=weights_from_dict(data),
            run=data.get("run"),
            source=Source.from_record(data),
            extra={key: value for key, value in data.items() if key not in known},
        )


@dataclass(frozen=True)
class BatchReport:
    """One run over one or more inputs: the content of run.json.

    ``run_id`` names the run (parts of one run share it), ``run_number`` counts the runs of the output folder.
    """

    version: str
    started: str
    finished: str
    exit_code: ExitCode
    weights: tuple[WeightsRef, ...]
    parameters: dict[str, Any]
    environment: dict[str, Any]
    studies: tuple[StudyReport, ...]
    files: dict[str, Any]
    run_id: str = field(default_factory=new_run_id)
    run_number: int = 1

    @property
    def counts(self) -> dict[str, int]:
        """Number of studies per status; every status is named."""
        counted = Counter(study.status for study in self.studies)
        return {status.value: counted.get(status, 0) for status in StudyStatus}

    def to_dict(self) -> dict[str, Any]:
        """As it stands in run.json."""
        return {
            "schema": RUN_SCHEMA,
            "version": self.version,
            "run_id": self.run_id,
            "run_number": self.run_number,
            "started": self.started,
            "finished": self.finished or None,
            "exit_code": int(self.exit_code),
            "disclaimer": DISCLAIMER,
            **weights_to_dict(self.weights),
            "parameters": self.parameters,
            "environment": self.environment,
            "counts": self.counts,
            "studies": [study.to_dict() for study in self.studies],
            "files": self.files,
        }
