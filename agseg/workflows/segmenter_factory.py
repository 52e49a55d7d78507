"""Make the segmenter in the model process, and the writer in the writer process; both factories cross the boundary.

This module is imported by the parent process too, so torch and the writing are imported inside functions only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agseg.workflows.segmenter_config import SegmenterConfig

if TYPE_CHECKING:
    from agseg.workflows.study_segmenter import StudySegmenter
    from agseg.workflows.study_writer import StudyWriter

MANY_CLASSES = 32
"""Above this a tile's scores are hundreds of megabytes: freed memory is then returned to the system, slower but smaller."""


@dataclass(frozen=True)
class SegmenterFactory:
    """Loads the networks of a run; called once in the model process."""

    config: SegmenterConfig

    def __call__(self) -> StudySegmenter:
        """Import torch, load the weights."""
        from agseg.inference.allocator import keep_freed_memory
        from agseg.workflows.model_imports import StudySegmenter

        second = () if self.config.second is None else (self.config.second,)
        if all(network.entry.labels.class_count <= MANY_CLASSES for network in (*self.config.networks, *second)):
            keep_freed_memory()
        return StudySegmenter(self.config)


@dataclass(frozen=True)
class StudyWriterFactory:
    """Makes the writer of a run; called once in the writer process."""

    config: SegmenterConfig

    def __call__(self) -> StudyWriter:
        """Import what writing needs."""
        from agseg.workflows.study_writer import StudyWriter

        return StudyWriter(self.config)
