"""What the model process does with one ultrasound clip: its frames come from a decoder process of their own.

This module is imported by the parent process too, so torch is imported inside functions only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agseg.batch.arrival import check_unchanged
from agseg.batch.folder import StudyFolder
from agseg.batch.frame_reader import FrameReader
from agseg.batch.job import StudyTask
from agseg.io.outputs import OutputFiles
from agseg.io.video.clips import open_clip
from agseg.io.video.frames import Box, FrameSource
from agseg.models.precision import Precision
from agseg.report import StudyReport
from agseg.study import Study
from agseg.weights.entry import WeightsEntry

if TYPE_CHECKING:
    from agseg.workflows.clip_classifier import ClipClassifier

PLANES, ANNOTATED = "planes", "annotated"
"""Outputs of a clip, as its ``study.json`` names them: what is always written, and ``annotated.mp4``."""

ANNOTATED_MP4 = "annotated.mp4"


@dataclass(frozen=True)
class ClassifierConfig:
    """Everything the model process needs; crosses the process boundary, and makes the processor there.

    Parameters
    ----------
    entry, paths
        The weights and their verified files.
    device, precision, step, crop, annotated
        As in :class:`agseg.workflows.classify_us.ClassifyRequest`.
    open_source
        Opens a clip in the decoder process.
    """

    entry: WeightsEntry
    paths: tuple[Path, ...]
    device: str = "auto"
    precision: Precision = Precision.AUTO
    step: int = 1
    crop: Box | None = None
    annotated: bool = False
    open_source: Callable[[Study], FrameSource] = open_clip

    @property
    def outputs(self) -> tuple[str, ...]:
        """What is wanted of each clip."""
        return (PLANES, ANNOTATED) if self.annotated else (PLANES,)

    def __call__(self) -> ClipProcessor:
        """Load the network; called once in the model process."""
        import torch

        from agseg.inference.allocator import keep_freed_memory
        from agseg.inference.device import choose_precision, describe, resolve_device
        from agseg.ultrasound.planes import load_planes
        from agseg.workflows.clip_classifier import ClipClassifier

        keep_freed_memory()
        device = resolve_device(self.device)
        precision = choose_precision(self.precision, device)
        network = load_planes(self.entry, self.paths, device=device, dtype=precision.dtype)
        classifier = ClipClassifier(network, step=self.step, crop=self.crop, annotated=self.annotated)
        environment = {"device": describe(device), "precision": precision.value, "torch": torch.__version__}
        return ClipProcessor(classifier, FrameReader(self.open_source), environment)


class ClipProcessor:
    """A loaded network that turns one clip after the other into a result."""

    def __init__(self, classifier: ClipClassifier, reader: FrameReader, environment: dict[str, Any]) -> None:
        self.classifier, self._reader, self.environment = classifier, reader, environment

    def process(self, task: StudyTask, stage: Callable[[str], None]) -> StudyReport:
        """Classify one clip and write its files.

        Parameters
        ----------
        task
            The clip.
        stage
            Told how many frames are done.
        """

        def progress(done: int, total: int | None) -> None:
            stage(f"frame {done}" if total is None else f"frame {done} of {total}")

        with StudyFolder(task) as folder:
            check_unchanged(task.study, task.states)
            names = [path.name for path in task.study.files]
            result = self.classifier.classify(self._reader.open(task.study), folder.path, names=names, progress=progress)
            check_unchanged(task.study, task.states)
            return folder.publish(
                warnings=result.warnings,
                seconds={key: round(value, 3) for key, value in result.seconds.items()},
                outputs=_outputs(folder.path),
                extra=result.extra,
            )


def _outputs(folder: Path) -> dict[str, OutputFiles]:
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    planes = OutputFiles(tuple(name for name in files if name != ANNOTATED_MP4), ())
    return {PLANES: planes, ANNOTATED: OutputFiles((ANNOTATED_MP4,), ())} if ANNOTATED_MP4 in files else {PLANES: planes}
