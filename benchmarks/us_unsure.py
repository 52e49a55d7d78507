"""How often a plane is called rightly or wrongly at each threshold of the unsure rule.

    python benchmarks/us_unsure.py SHARED_DATA AGSEG_HOME

Planes: the real frames of ``us/sononet_frames`` under random shifts, zooms, turns, gains and JPEG. No plane: the eye, phantom
and heart clips of ``us/video`` and ``dicom_variety``, under the same changes. This is a stress test on seven frames of one
scanner and seven clips of others, not a clinical validation: it says where the rule bends, not how often it will be right in
a department.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from agseg.io.video.clips import find_clips, open_clip
from agseg.io.video.frames import every
from agseg.ultrasound.fan import find_view, view_pixels
from agseg.ultrasound.planes import load_planes
from agseg.weights.cache import WeightsCache
from agseg.weights.manifest import Manifest

TRUTH = ("Abdominal", "Brain (Cb.)", "Femur", "Kidneys", "LVOT", "Profile", "Spine (cor.)")
NO_PLANE = (
    "us/video", "dicom_variety/pydicom/examples_ybr_color.dcm", "dicom_variety/pydicom/examples_rgb_color.dcm",
    "dicom_variety/pydicom_data/US1_J2KR.dcm", "dicom_variety/pydicom_data/gdcm-US-ALOKA-16.dcm",
)  # fmt: skip
CHANGES = 60
THRESHOLDS = (0.3, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9)


def changed(view: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A view shifted, zoomed, turned, brightened and compressed at random, uint8 (row, column, 3)."""
    image = Image.fromarray(view)
    width, height = image.size
    shift = generator.uniform(-0.08, 0.08, 2) * (width, height)
    zoom = generator.uniform(0.85, 1.2)
    image = image.rotate(generator.uniform(-12, 12), Image.Resampling.BILINEAR, translate=(int(shift[0]), int(shift[1])))
    inner = (np.array([-width, -height, width, height]) / zoom + np.array([width, height, width, height])) / 2
    image = image.crop(tuple(int(edge) for edge in inner))
    gained = np.asarray(image, dtype=np.float32) / 255
    gained = np.clip(gained ** generator.uniform(0.7, 1.4) * generator.uniform(0.7, 1.3), 0, 1)
    stream = io.BytesIO()
    Image.fromarray(np.round(gained * 255).astype(np.uint8)).save(
        stream, format="JPEG", quality=int(generator.integers(40, 95))
    )
    return np.asarray(Image.open(stream).convert("RGB"))


def views_of(path: Path, step: int) -> list[np.ndarray]:
    views = []
    for clip in find_clips([path]).clips:
        for frame in open_clip(clip).frames(every(step)):
            views.append(view_pixels(frame.pixels, find_view(np.asarray(Image.fromarray(frame.pixels).convert("L")))))
    return views


def main() -> None:
    data, home = Path(sys.argv[1]), Path(sys.argv[2])
    entry = Manifest.load().entry("sononet16")
    network = load_planes(entry, WeightsCache(home, offline=True).ensure(entry), device=torch.device("cpu"))
    generator = np.random.default_rng(0)

    def run(views: list[np.ndarray], copies: int) -> np.ndarray:
        inputs = [
            network.input.prepare(changed(view, generator) if copies > 1 else view) for view in views for _ in range(copies)
        ]
        return np.concatenate([network.probabilities(inputs[i : i + 8]) for i in range(0, len(inputs), 8)])

    planes = run(views_of(data / "us/sononet_frames", 1), CHANGES)
    truth = np.repeat([network.classes.index(name) for name in TRUTH], CHANGES)
    others = np.concatenate([run(views_of(data / path, 10), 20) for path in NO_PLANE])
    background = network.classes.index("Background")
    print(f"{len(planes)} changed views of {len(TRUTH)} planes, {len(others)} of clips without a plane")
    print("top class right, any probability:", f"{(planes.argmax(1) == truth).mean():.3f}")
    print(
        "threshold  right plane called  wrong plane called  unsure or background | no-plane frames called a plane  background"
    )
    for threshold in THRESHOLDS:
        top, sure = planes.argmax(1), planes.max(1) >= threshold
        right = (sure & (top == truth)).mean()
        wrong = (sure & (top != truth) & (top != background)).mean()
        other_top, other_sure = others.argmax(1), others.max(1) >= threshold
        called = (other_sure & (other_top != background)).mean()
        calm = (other_sure & (other_top == background)).mean()
        print(f"{threshold:9.2f}  {right:18.3f}  {wrong:18.3f}  {1 - right - wrong:20.3f} | {called:30.3f}  {calm:10.3f}")


if __name__ == "__main__":
    main()
