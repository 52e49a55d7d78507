"""What the writer process does with one study: measure, write, publish. No network, no ledger, no printing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from agseg.batch import StudyFolder, StudyTask
from agseg.batch.draft import Draft
from agseg.batch.review import review
from agseg.errors import Code
from agseg.io.preview import write_preview
from agseg.io.statistics import write_statistics
from agseg.io.writers import Result, write_all
from agseg.labels import Label, LabelSet
from agseg.measure.volumes import measure
from agseg.report import Measurement, OrganStatus, StudyReport
from agseg.volume import LabelMask, Volume, Warned
from agseg.workflows.segmenter_config import SegmenterConfig

if TYPE_CHECKING:
    from agseg.inference.segment import Segmentation

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
        if config.options.outputs.preview:
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
            options = self._config.options
            result = Result(
                task.study, volume, mask, measured, self._config.weights, options.shaping.to_dict(), options.outputs
            )
            warnings = (*found, *self._write(folder.path, result))
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

    def _write(self, folder: Path, result: Result) -> tuple[Warned, ...]:
        """All files of the study but its record; returns what could not be written and why."""
        written = write_all(folder, result)
        write_statistics(folder, result.measurements, result.mask.grid)
        if result.outputs.preview:
            write_preview(folder / "preview.png", result.volume, result.mask, result.measurements)
        return tuple(warned for one in written.values() for warned in one.warnings)
