"""What the writer process does with one study: measure, write, publish. No network, no ledger, no printing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from agseg.batch import StudyFolder, StudyTask
from agseg.batch.draft import Draft
from agseg.batch.review import review
from agseg.errors import Code
from agseg.io.nifti_write import write_mask
from agseg.io.preview import write_preview
from agseg.labels import Label, LabelSet
from agseg.measure.volumes import measure
from agseg.report import Measurement, OrganStatus, StudyReport
from agseg.volume import LabelMask, Volume, Warned
from agseg.workflows.segmenter_config import OutputType, SegmenterConfig

if TYPE_CHECKING:
    from agseg.inference.segment import Segmentation
    from agseg.io.dicom_out.write import Written

__all__ = ["StudyWriter", "draft_of"]


def draft_of(result: Segmentation, *, elapsed_s: float) -> Draft:
    """A segmentation as it crosses to :meth:`StudyWriter.write`.

    Parameters
    ----------
    elapsed_s
        Seconds that the model process took, all stages and what is between them.
    """
    facts = {
        "labels": [[label.index, label.name] for label in result.mask.label_set],
        "probability": result.probability,
        "components": result.components,
        "warnings": [warned.to_dict() for warned in result.warnings],
        "seconds": result.seconds,
        "elapsed_s": elapsed_s,
    }
    return Draft(result.mask.labels, facts)


class StudyWriter:
    """Turns one draft after the other into files and reports.

    Parameters
    ----------
    config
        What the run makes; what writing it needs is imported here, while the first study is in the model.
    """

    def __init__(self, config: SegmenterConfig) -> None:
        self._config = config
        if config.options.preview:
            import PIL.Image
            import PIL.ImageDraw
            import PIL.ImageFont
            import skimage.measure

            _ = (PIL.Image, PIL.ImageDraw.Draw, PIL.ImageFont.load_default, skimage.measure.find_contours)

    def write(
        self,
        task: StudyTask,
        volume: Volume,
        draft: Draft,
        stage: Callable[[str], None],
        *,
        more: Callable[[Path], None] | None = None,
    ) -> StudyReport:
        """Measure one study and write its files.

        Parameters
        ----------
        task, volume, draft
            What is to be done, what was read, and what the model found.
        stage
            Told what is being done.
        more
            Writes more files into the study's folder, for a caller that has the network.
        """
        begun = time.perf_counter()
        stage("measure")
        facts = draft.facts
        mask = LabelMask(draft.labels, volume.grid, LabelSet(tuple(Label(index, name) for index, name in facts["labels"])))
        measured = self._measured(mask, volume, draft)
        writing = time.perf_counter()
        stage("write")
        with StudyFolder(task) as folder:
            found = tuple(Warned(Code(warned["code"]), warned["message"]) for warned in facts["warnings"])
            warnings = (*found, *self._write(folder.path, task, volume, mask, measured))
            if more is not None:
                more(folder.path)
            ended = time.perf_counter()
            seconds = {"read": task.read_seconds, **facts["seconds"], "measure": writing - begun, "write": ended - writing}
            seconds["total"] = task.read_seconds + facts["elapsed_s"] + ended - begun
            return folder.publish(
                volume,
                organs=measured,
                warnings=warnings,
                seconds={name: round(value, 3) for name, value in seconds.items()},
            )

    def _measured(self, mask: LabelMask, volume: Volume, draft: Draft) -> tuple[Measurement, ...]:
        """Measurements in the order of the organs asked for, with the reasons to look twice."""
        by_name = {measurement.name: measurement for measurement in measure(mask, volume)}
        made_by = {organ: network.entry.id for network in self._config.networks for organ in network.organs}
        probability, components = draft.facts["probability"], draft.facts["components"]
        measured = []
        for organ in self._config.organs:
            found = by_name.get(organ)
            if found is None:
                measured.append(Measurement(organ, OrganStatus.NOT_IN_WEIGHTS))
                continue
            reasons = review(found, probability=probability.get(organ), components=components.get(organ, 0))
            measured.append(replace(found, review=reasons, weights=made_by[organ]))
        return tuple(measured)

    def _write(
        self, folder: Path, task: StudyTask, volume: Volume, mask: LabelMask, measured: tuple[Measurement, ...]
    ) -> tuple[Warned, ...]:
        """All files of the study but its record; returns what could not be written and why."""
        options = self._config.options
        warnings: list[Warned] = []
        objects = tuple(kind for kind in options.outputs if kind is not OutputType.NIFTI)
        as_nifti = OutputType.NIFTI in options.outputs
        if objects:
            written = self._write_objects(folder, task, mask, measured, objects)
            warnings += written.warnings
            # A mask that no DICOM object can hold must not be lost.
            as_nifti = as_nifti or not written.is_complete
        if as_nifti:
            _write_masks(folder, mask, multilabel=options.multilabel)
        statistics = json.dumps(_statistics(measured, mask), indent=2)
        (folder / "statistics.json").write_text(statistics + "\n", encoding="utf-8")
        if options.preview:
            write_preview(folder / "preview.png", volume, mask, measured)
        return tuple(warnings)

    def _write_objects(
        self,
        folder: Path,
        task: StudyTask,
        mask: LabelMask,
        measured: tuple[Measurement, ...],
        kinds: tuple[OutputType, ...],
    ) -> Written:
        from agseg.io.dicom_out.write import write_objects

        return write_objects(
            folder,
            kinds=tuple(kind.value for kind in kinds),
            study=task.study,
            mask=mask,
            measurements=measured,
            weights=self._config.weights,
            parameters=self._config.parameters,
        )


def _write_masks(folder: Path, mask: LabelMask, *, multilabel: bool) -> None:
    if multilabel:
        write_mask(folder / "labels.nii.gz", mask.labels, mask.grid)
        return
    for label in mask.label_set:
        write_mask(folder / f"{label.name}.nii.gz", mask.labels, mask.grid, value=label.index)


def _statistics(measured: tuple[Measurement, ...], mask: LabelMask) -> dict[str, dict[str, float | None]]:
    """TotalSegmentator's ``statistics.json``: volume in mm³ and mean HU; organs that are not present are left out."""
    return {
        found.name: {"volume": round(found.voxels * mask.grid.voxel_volume_mm3, 3), "intensity": found.mean_hu}
        for found in measured
        if found.voxels
    }
