"""A classifier without a network, for tests of what a run does: every frame of a clip shows a femur."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from agseg.batch.frame_reader import FrameReader
from agseg.io.atomic import write_text
from agseg.io.video.frames import FrameSource, every
from agseg.workflows.clip_files import ClipResult
from agseg.workflows.clip_processor import ANNOTATED_MP4, ClassifierConfig, ClipProcessor


class QuickConfig(ClassifierConfig):
    """Makes the processor without torch."""

    def __call__(self) -> ClipProcessor:
        return ClipProcessor(QuickClassifier(self), FrameReader(self.open_source), {"device": "none"})  # type: ignore[arg-type]


class QuickClassifier:
    """Writes the indices of the frames, and a picture of the last one."""

    def __init__(self, config: ClassifierConfig) -> None:
        self.config = config

    def classify(
        self, source: FrameSource, folder: Path, *, names: Sequence[str], progress: Callable[[int, int | None], None]
    ) -> ClipResult:
        frames = list(source.frames(every(self.config.step)))
        progress(len(frames), source.frame_count)
        write_text(folder / "frames.csv", "frame\n" + "".join(f"{frame.index}\n" for frame in frames))
        write_text(folder / "planes.json", str(frames[-1].pixels.mean()))
        (folder / "best").mkdir()
        plane = "Femur" if self.config.crop is None else "Kidneys"
        Image.fromarray(frames[-1].pixels).save(folder / "best" / f"{plane}.png")
        if self.config.annotated:
            (folder / ANNOTATED_MP4).write_bytes(b"a video")
        facts = {"frames": len(frames), "planes": [plane], "states": {"plane": len(frames), "background": 0, "unsure": 0}}
        return ClipResult((), {"total": 0.1}, facts)
