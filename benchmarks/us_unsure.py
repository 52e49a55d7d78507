"""How often a plane is called rightly or wrongly at each threshold of the unsure rule.

    python benchmarks/us_unsure.py SHARED_DATA AGSEG_HOME

Planes: the real frames of ``us/sononet_frames`` under random shifts, zooms, turns, gains and JPEG. No plane: eye and heart
clips of ``us/video`` and ``dicom_variety``, under the same changes. The thresholds are chosen on these alone. Shown beside
them, and not used for the choice: the phantom of ``us/video`` and the fetal heads of ``us/hc18``. This is a stress test on
seven frames of one scanner and six clips of others, not a clinical validation: it says where the rule bends, not how often it
will be right in a department.
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
from agseg.ultrasound.timeline import SURE_PLANE
from agseg.weights.cache import WeightsCache
from agseg.weights.manifest import Manifest

TRUTH = ("Abdominal", "Brain (Cb.)", "Femur", "Kidneys", "LVOT", "Profile", "Spine (cor.)")
NO_PLANE = (
    "us/video/clarius-ocular-short.mp4", "us/video/sonosite-anon-eye1-video.mp4",
    "dicom_variety/pydicom/examples_ybr_color.dcm", "dicom_variety/pydicom/examples_rgb_color.dcm",
    "dicom_variety/pydicom_data/US1_J2KR.dcm", "dicom_variety/pydicom_data/gdcm-US-ALOKA-16.dcm",
)  # fmt: skip
ASIDE = ("us/video/sonoque_anechoic-3mm-3mm.dcm", "us/hc18/image")
CHANGES = 60
THRESHOLDS = (0.3, 0.4, 0.45, 0.5, 0.6, 0.7, 0.9)
EVIDENCE = (-np.inf, 5.5, 6.0, 6.5, 7.0, 7.5, 8.0)


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
    for clip in find_clips([path]).studies:
        for frame in open_clip(clip).frames(every(step)):
            views.append(view_pixels(frame.pixels, find_view(np.asarray(Image.fromarray(frame.pixels).convert("L")))))
    return views


def main() -> None:
    data, home = Path(sys.argv[1]), Path(sys.argv[2])
    entry = Manifest.load().entry("sononet16")
    network = load_planes(entry, WeightsCache(home, offline=True).ensure(entry), device=torch.device("cpu"))
    generator = np.random.default_rng(0)

    def run(views: list[np.ndarray], copies: int) -> tuple[np.ndarray, np.ndarray]:
        inputs = [network.input.prepare(changed(view, generator)) for view in views for _ in range(copies)]
        parts = [network.classify(inputs[i : i + 8]) for i in range(0, len(inputs), 8)]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    background = network.classes.index("Background")
    truth = np.repeat([network.classes.index(name) for name in TRUTH], CHANGES)
    planes, plane_evidence = run(views_of(data / "us/sononet_frames", 1), CHANGES)
    others, other_evidence = (np.concatenate(x) for x in zip(*(run(views_of(data / p, 10), 20) for p in NO_PLANE), strict=True))
    aside = [run(views_of(data / path, 1), 20) for path in ASIDE]
    print(f"{len(planes)} changed views of {len(TRUTH)} planes, {len(others)} of clips without a plane")

    def called(rows: np.ndarray, evidence: np.ndarray, threshold: float, least: float) -> np.ndarray:
        return (rows.argmax(1) != background) & (rows.max(1) >= threshold) & (evidence >= least)

    def line(threshold: float, least: float) -> str:
        sure = called(planes, plane_evidence, threshold, least)
        right = planes.argmax(1) == truth
        figures = [(sure & right).mean(), (sure & ~right).mean(), called(others, other_evidence, threshold, least).mean()]
        figures.append(((others.argmax(1) == background) & (others.max(1) >= threshold)).mean())
        figures += [called(*one, threshold, least).mean() for one in aside]
        return f"| {threshold:.2f} | {least:.1f} | " + " | ".join(f"{figure:.3f}" for figure in figures) + " |"

    print("| probability | evidence | right plane | wrong plane | no plane: called one | Background | phantom | HC18 |")
    print("|---|---|---|---|---|---|---|---|")
    for threshold in THRESHOLDS:
        print(line(threshold, -np.inf))
    for least in EVIDENCE:
        print(line(SURE_PLANE, least))


if __name__ == "__main__":
    main()
