"""What segment would do with these inputs, and why: every study is read to the last voxel, nothing is written.

A child process reads; this one opens no input file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from agseg.batch.intake import Intake
from agseg.batch.job import DEFAULT_STUDY_TIMEOUT_S
from agseg.batch.memory import reader_memory_bytes
from agseg.errors import Code, ExitCode, InputError
from agseg.grid import LPS_TO_RAS, Grid
from agseg.io.names import below_inputs
from agseg.io.read import read_volume
from agseg.study import Discovery, Rejected, Skipped, Study, StudyKind
from agseg.volume import Volume, Warned
from agseg.weights.cache import WeightsCache
from agseg.weights.input_spec import VOLUMETRIC
from agseg.weights.manifest import Manifest

INSPECT_SCHEMA = "agseg.inspect/1"

OUTSIDE_TOLERANCE = 1e-3
"""A point may lie this far (voxels) outside the outermost voxel centres and still be sampled there."""


@dataclass(frozen=True)
class Sample:
    """The value at a point given in DICOM's LPS (mm); None outside the volume."""

    lps_mm: tuple[float, float, float]
    value: float | None


@dataclass(frozen=True)
class InspectedStudy:
    """One study: accepted, with what was read, or rejected, with the reason."""

    study: Study
    rejected: Rejected | None
    warnings: tuple[Warned, ...]
    grid: Grid | None = None
    low: float | None = None
    high: float | None = None
    samples: tuple[Sample, ...] = ()
    weights: tuple[str, ...] = ()

    @property
    def is_ok(self) -> bool:
        """True if segment would segment it."""
        return self.rejected is None

    def to_dict(self) -> dict[str, Any]:
        """As ``agseg inspect --json`` prints it."""
        grid = self.grid
        return {
            "input": self.study.id,
            "status": "ok" if self.is_ok else "rejected",
            "code": None if self.rejected is None else str(self.rejected.code),
            "message": self.study.reason if self.rejected is None else self.rejected.message,
            "warnings": [warned.to_dict() for warned in self.warnings],
            "kind": str(self.study.kind),
            "modality": self.study.modality or None,
            "files": len(self.study.files),
            "shape": None if grid is None else list(grid.shape),
            "spacing_mm": None if grid is None else [round(s, 6) for s in grid.spacing_mm],
            "voxel_volume_mm3": None if grid is None else grid.voxel_volume_mm3,
            "axis_codes": None if grid is None else grid.axis_codes,
            "affine_ras": None if grid is None else grid.affine.tolist(),
            "min": self.low,
            "max": self.high,
            "weights": list(self.weights),
            "samples": [{"lps_mm": list(sample.lps_mm), "value": sample.value} for sample in self.samples],
        }


@dataclass(frozen=True)
class Inspection:
    """All studies, and all files that belong to none; ``skipped`` pairs a path below INPUT with its Skipped."""

    studies: tuple[InspectedStudy, ...]
    skipped: tuple[tuple[str, Skipped], ...]
    discovery: Discovery

    @property
    def exit_code(self) -> ExitCode:
        """0 if all studies are accepted, 3 if some are, 4 if none is, 5 if there is none."""
        if not self.studies:
            return ExitCode.NO_STUDY
        accepted = sum(study.is_ok for study in self.studies)
        if accepted == len(self.studies):
            return ExitCode.OK
        return ExitCode.SOME_NOT_DONE if accepted else ExitCode.NONE_DONE

    def to_dict(self) -> dict[str, Any]:
        """The document that ``agseg inspect --json`` prints."""
        return {
            "schema": INSPECT_SCHEMA,
            "studies": [study.to_dict() for study in self.studies],
            "skipped_files": [
                {"path": below, "reason": str(skip.reason), "detail": skip.detail} for below, skip in self.skipped
            ],
            "exit_code": int(self.exit_code),
        }


def inspect(
    inputs: Sequence[Path],
    *,
    at_lps_mm: Sequence[tuple[float, float, float]] = (),
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    able: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    on_progress: Callable[..., None] | None = None,
) -> Inspection:
    """Find and read every study below the inputs.

    Parameters
    ----------
    at_lps_mm
        Points (x, y, z) in DICOM's LPS, mm, at which every accepted study is sampled.
    able
        From each modality to the ids of the weights that are here and segment it, see :func:`installed_weights`. Scans of
        these modalities are looked for, and CT.
    on_progress
        Called as ``on_progress(done, total, text)``.
    """
    modalities = tuple(dict.fromkeys(("CT", *able)))
    with Intake(memory_bytes=reader_memory_bytes()) as intake:
        discovery = intake.discover(inputs, include=include, exclude=exclude, modalities=modalities)
        studies = []
        for number, study in enumerate(discovery.studies):
            if on_progress is not None:
                on_progress(number, len(discovery.studies), study.id)
            found = _as_any(study, modalities, at_lps_mm, intake)
            studies.append(replace(found, weights=able.get(found.study.modality, ())) if found.is_ok else found)
    skipped = [(below_inputs(skip.path, inputs), skip) for skip in discovery.skipped]
    for folder in inputs:
        if folder.is_dir() and not any(study.root == folder.resolve() for study in discovery.studies):
            nothing = Skipped(folder.resolve(), Code.NO_IMAGE_SERIES, f"no {' or '.join(modalities)} series below this folder")
            skipped.append((".", nothing))
    return Inspection(tuple(studies), tuple(skipped), discovery)


def _as_any(
    study: Study, modalities: tuple[str, ...], points: Sequence[tuple[float, float, float]], intake: Intake
) -> InspectedStudy:
    """The study as the modality that its values can be, where its format carries none; else as what it is."""
    first = inspected(study, points, intake)
    if study.kind == StudyKind.DICOM or first.rejected is None or first.rejected.code is not Code.MODALITY:
        return first
    others = (inspected(replace(study, modality=name), points, intake) for name in modalities if name != study.modality)
    return next((found for found in others if found.is_ok), first)


def installed_weights(manifest: Manifest, cache: WeightsCache) -> dict[str, tuple[str, ...]]:
    """From the modality of scans to the ids of the entries that are here and segment them."""
    here: dict[str, tuple[str, ...]] = {}
    for entry in manifest.entries:
        if entry.labels.names and entry.input.modality in VOLUMETRIC and cache.available(entry):
            here[entry.input.modality] = (*here.get(entry.input.modality, ()), entry.id)
    return here


def inspected(study: Study, points: Sequence[tuple[float, float, float]], intake: Intake) -> InspectedStudy:
    """Have a child read a study, and say what it says of it."""
    try:
        told = intake.ask(_looked_at, study, tuple(points), limit_s=DEFAULT_STUDY_TIMEOUT_S)
        return _told(study, told, points)
    except InputError as error:
        return InspectedStudy(study, Rejected(error.code, error.sentence()), study.warnings)
    except (KeyError, IndexError, TypeError, ValueError):
        return InspectedStudy(
            study, Rejected(Code.CRASHED, "reading the study gave no answer that makes sense"), study.warnings
        )


def _told(study: Study, told: dict[str, Any], points: Sequence[tuple[float, float, float]]) -> InspectedStudy:
    """What the child says of a study."""
    if told["rejected"] is not None:
        code, message = told["rejected"]
        return InspectedStudy(study, Rejected(Code(code), str(message)), study.warnings)
    shape = tuple(int(size) for size in told["shape"])
    grid = Grid((shape[0], shape[1], shape[2]), np.array(told["affine"], dtype=np.float64))
    warnings = tuple(Warned(Code(code), str(message)) for code, message in told["warnings"])
    values = (None if value is None else float(value) for value in told["values"])
    samples = tuple(Sample(point, value) for point, value in zip(points, values, strict=True))
    return InspectedStudy(study, None, warnings, grid, float(told["low"]), float(told["high"]), samples)


def _looked_at(study: Study, points: Sequence[tuple[float, float, float]], *, note: Callable[[int], None]) -> dict[str, Any]:
    """Read a study to its last voxel; in the child."""
    try:
        volume = read_volume(study)
    except InputError as error:
        return {"rejected": [str(error.code), error.sentence()]}
    except MemoryError:
        return {"rejected": [str(Code.OUT_OF_MEMORY), "not enough memory to read the study"]}
    except Exception as error:
        # One study's surprise must not hide the others; its text may quote a header, so only its kind is said.
        return {"rejected": [str(Code.INTERNAL), f"unexpected {type(error).__name__}; this is a bug"]}
    return {
        "rejected": None,
        "shape": list(volume.grid.shape),
        "affine": volume.grid.affine.tolist(),
        "warnings": [[str(warned.code), warned.message] for warned in volume.warnings],
        "low": float(volume.voxels.min()),
        "high": float(volume.voxels.max()),
        "values": [sample_trilinear(volume, point) for point in points],
    }


def sample_trilinear(volume: Volume, lps_mm: Sequence[float]) -> float | None:
    """The value at a point in LPS mm, trilinear between the eight voxels around it; None outside."""
    ras_mm = LPS_TO_RAS[:3, :3] @ np.asarray(lps_mm, dtype=np.float64)
    index = volume.grid.to_index(ras_mm[None])[0]
    last = np.asarray(volume.grid.shape) - 1
    if (index < -OUTSIDE_TOLERANCE).any() or (index > last + OUTSIDE_TOLERANCE).any():
        return None
    index = np.clip(index, 0, last)
    low = np.minimum(np.floor(index).astype(int), np.maximum(last - 1, 0))
    share = index - low
    block = volume.voxels[tuple(slice(start, start + 2) for start in low)].astype(np.float64)
    for fraction in share:
        # Each pass folds the first axis that is left.
        block = block[0] * (1 - fraction) + block[-1] * fraction
    return float(block)
