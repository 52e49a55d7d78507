"""What the model process does with one study: predict, measure, write. No batch, no ledger, no printing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agseg.batch.review import review
from agseg.io import nifti
from agseg.io.atomic import make_folder, replacing, write_text
from agseg.io.preview import write_preview
from agseg.measure.volumes import measure
from agseg.report import DISCLAIMER, Measurement, OrganStatus, StudyReport, StudyStatus, WeightsRef
from agseg.study import Study
from agseg.volume import LabelMask, Volume
from agseg.weights.entry import WeightsEntry

if TYPE_CHECKING:
    from agseg.inference.network import ReadyNetwork
    from agseg.inference.segment import Segmentation

__all__ = ["OutputType", "SegmenterConfig", "StudySegmenter"]

STUDY_RECORD = "study.json"
"""Written last: a folder that holds it is complete."""


class OutputType(StrEnum):
    """What is written per study, beside the records."""

    NIFTI = "nifti"
    DICOM_SEG = "dicom-seg"
    DICOM_SR = "dicom-sr"
    RTSTRUCT = "rtstruct"


@dataclass(frozen=True)
class SegmenterConfig:
    """Everything the model process needs; crosses the process boundary.

    Parameters
    ----------
    entry, paths
        The weights and their verified files.
    output
        The run's output folder.
    organs
        What to report, in the order asked for; those the weights do not know are reported as such.
    device, precision, overlap, fast, mirror, prune_depth
        How to compute.
    outputs, multilabel, preview, attention
        What to write.
    """

    entry: WeightsEntry
    paths: tuple[Path, ...]
    output: Path
    organs: tuple[str, ...]
    device: str = "auto"
    precision: str = "auto"
    overlap: float | None = None
    fast: bool = False
    mirror: bool = False
    prune_depth: int | None = None
    outputs: tuple[OutputType, ...] = (OutputType.NIFTI,)
    multilabel: bool = False
    preview: bool = True
    attention: bool = False
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def weights(self) -> WeightsRef:
        """The weights as they stand in a record."""
        return WeightsRef(self.entry.id, self.entry.sha256 or "", self.entry.architecture, self.entry.licence)

    def build(self) -> StudySegmenter:
        """Load the network; called once in the model process."""
        return StudySegmenter(self)


class StudySegmenter:
    """A loaded network that turns a study and its volume into files and a report."""

    def __init__(self, config: SegmenterConfig) -> None:
        from agseg.inference.device import Precision, choose_precision, describe, resolve_device
        from agseg.inference.network import load_network
        from agseg.inference.segment import Settings

        self._config = config
        device = resolve_device(config.device)
        precision = choose_precision(Precision(config.precision), device)
        self._network: ReadyNetwork = load_network(
            config.entry, config.paths, device=device, precision=precision, prune_depth=config.prune_depth
        )
        self._settings = Settings(overlap=config.overlap, fast=config.fast, mirror=config.mirror)
        self.environment = {"device": describe(device), "precision": precision.value}

    def process(
        self,
        study: Study,
        volume: Volume,
        *,
        read_seconds: float = 0.0,
        record: dict[str, Any] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> StudyReport:
        """Segment one study, write its files, and return the report that also stands in its ``study.json``.

        Parameters
        ----------
        study, volume
            What was found and what was read.
        read_seconds
            How long reading took, for the record.
        record
            What the batch wants to find again in ``study.json`` (fingerprint, ...).
        progress
            Told the tiles done and their number.
        """
        from agseg.inference.segment import segment_with_entry

        begun = time.perf_counter()
        known = [organ for organ in self._config.organs if organ in self._config.entry.labels]
        result = segment_with_entry(
            volume, self._network, self._config.entry, organs=known, settings=self._settings, progress=progress
        )
        measured = self._measure(result, volume)
        folder = make_folder(self._config.output / study.id)
        (folder / STUDY_RECORD).unlink(missing_ok=True)
        writing = time.perf_counter()
        files = self._write(folder, study, volume, result, measured)
        seconds = {"read": read_seconds, **result.seconds, "write": time.perf_counter() - writing}
        seconds["total"] = read_seconds + time.perf_counter() - begun
        report = StudyReport(
            input=study.id,
            output=study.id,
            status=StudyStatus.DONE,
            warnings=(*study.warnings, *volume.warnings, *result.warnings),
            shape=volume.grid.shape,
            spacing_mm=volume.grid.spacing_mm,
            modality=volume.modality,
            organs=measured,
            files=(*files, STUDY_RECORD),
            seconds={stage: round(value, 3) for stage, value in seconds.items()},
            extra=record or {},
        )
        write_study_record(folder / STUDY_RECORD, report, self._config)
        return report

    def _measure(self, result: Segmentation, volume: Volume) -> tuple[Measurement, ...]:
        """Measurements in the order of the organs asked for, with the reasons to look twice."""
        by_name = {measurement.name: measurement for measurement in measure(result.mask, volume)}
        out = []
        for organ in self._config.organs:
            measurement = by_name.get(organ)
            if measurement is None:
                out.append(Measurement(organ, OrganStatus.NOT_IN_WEIGHTS))
                continue
            reasons = review(
                measurement, probability=result.probability.get(organ), components=result.components.get(organ, 0)
            )
            out.append(replace(measurement, review=reasons))
        return tuple(out)

    def _write(
        self, folder: Path, study: Study, volume: Volume, result: Segmentation, measured: tuple[Measurement, ...]
    ) -> list[str]:
        mask = result.mask
        files: list[str] = []
        if OutputType.NIFTI in self._config.outputs:
            files += _write_masks(folder, mask, multilabel=self._config.multilabel)
        write_text(folder / "statistics.json", json.dumps(_statistics(measured, mask), indent=2) + "\n")
        files.append("statistics.json")
        if self._config.preview:
            with replacing(folder / "preview.png") as temporary:
                write_preview(temporary, volume, mask, measured)
            files.append("preview.png")
        objects = [kind for kind in self._config.outputs if kind is not OutputType.NIFTI]
        if objects:
            files += self._write_objects(folder, study, mask, measured, objects)
        if self._config.attention:
            files += self._write_attention(folder, volume)
        return files

    def _write_objects(
        self, folder: Path, study: Study, mask: LabelMask, measured: tuple[Measurement, ...], kinds: list[OutputType]
    ) -> list[str]:
        raise NotImplementedError

    def _write_attention(self, folder: Path, volume: Volume) -> list[str]:
        raise NotImplementedError


def write_study_record(path: Path, report: StudyReport, config: SegmenterConfig) -> None:
    """``study.json``: the study's record with what made it."""
    record = {
        "schema": "agseg.study/1",
        "disclaimer": DISCLAIMER,
        "weights": config.weights.to_dict(),
        "parameters": config.parameters,
        **report.to_dict(),
    }
    write_text(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def _write_masks(folder: Path, mask: LabelMask, *, multilabel: bool) -> list[str]:
    if multilabel:
        nifti.write_mask(folder / "labels.nii.gz", mask.labels, mask.grid)
        return ["labels.nii.gz"]
    names = []
    for label in mask.label_set:
        name = f"{label.name}.nii.gz"
        nifti.write_mask(folder / name, (mask.labels == label.index).view(np.uint8), mask.grid)
        names.append(name)
    return names


def _statistics(measured: tuple[Measurement, ...], mask: LabelMask) -> dict[str, dict[str, float | None]]:
    """TotalSegmentator's ``statistics.json``: volume in mm³ and mean HU; organs that are not present are left out."""
    return {
        m.name: {"volume": round(m.voxels * mask.grid.voxel_volume_mm3, 3), "intensity": m.mean_hu}
        for m in measured
        if m.voxels
    }


