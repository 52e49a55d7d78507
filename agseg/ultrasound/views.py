"""Tracking of the ultrasound image through a recording, whose depth or layout may change on the way."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from agseg.io.video.frames import Box, Frame
from agseg.ultrasound.fan import View, ViewKind, box_iou, cropped_view, find_view

LOOK_AGAIN = 50
"""Analysed frames of a recording after which the fan is looked for again."""

SEARCH_AGAIN = 10
"""The same while no fan has been found: recordings often begin black."""

SAME_VIEW_IOU = 0.9
"""A new fan whose box overlaps the old one more than this is the old one; the crop must not jitter."""


class ViewTracker:
    """The view of one frame after the other.

    Parameters
    ----------
    moving
        A recording: the view is kept from frame to frame. Stills each have their own.
    crop
        The user's box, which overrides everything.
    region
        Where the file itself says that the ultrasound image lies.
    """

    def __init__(self, *, moving: bool, crop: Box | None = None, region: Box | None = None) -> None:
        self._moving, self._crop, self._region = moving, crop, region
        self._view: View | None = None
        self._brightest: NDArray[np.uint8] | None = None
        self._age = 0

    def view_of(self, frame: Frame) -> View:
        """The view of the next frame."""
        height, width = frame.pixels.shape[:2]
        if self._crop is not None:
            return cropped_view(self._crop, (width, height))
        if not self._moving:
            return find_view(_grey(frame), region=self._region)
        if self._view is None or self._brightest is None or self._brightest.shape != (height, width):
            self._view = None
            self._look(_grey(frame))
        else:
            self._age += 1
            patience = SEARCH_AGAIN if self._view.kind is ViewKind.WHOLE else LOOK_AGAIN
            # A dark moment hides the fan's edge: the brightest of the frames since the last look shows it.
            if self._age > patience - SEARCH_AGAIN:
                self._brightest = np.maximum(self._brightest, _grey(frame))
            if self._age >= patience:
                self._look(self._brightest)
        if self._view is None:
            raise RuntimeError("a view is always found")
        return self._view

    def _look(self, grey: NDArray[np.uint8]) -> None:
        found = find_view(grey, region=self._region)
        old = self._view
        # A recording that fades to black keeps the fan it had.
        moved = old is not None and found.kind is not ViewKind.WHOLE and box_iou(found.box, old.box) < SAME_VIEW_IOU
        if old is None or old.kind is ViewKind.WHOLE or moved:
            self._view = found
        self._brightest = np.zeros_like(grey)
        self._age = 0


def _grey(frame: Frame) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(frame.pixels).convert("L"))
