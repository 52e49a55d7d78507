"""A list of frames names each of them once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agseg.errors import RecipeError
from agseg.training.frames import FRAMES_FILE, FrameRow, open_frames, write_frames


def rows(*names: str) -> list[tuple[FrameRow, np.ndarray]]:
    pixels = np.zeros((4, 5), dtype=np.uint8)
    return [(FrameRow(f"s1/{name}", f"frames/{name}.png", "s1", "Femur"), pixels) for name in names]


def test_a_frame_that_stands_twice_is_refused(tmp_path: Path) -> None:
    write_frames(tmp_path, rows("a", "b"))
    assert open_frames(tmp_path).ids == ("s1/a", "s1/b")
    write_frames(tmp_path, rows("a", "b", "a"))
    with pytest.raises(RecipeError, match="twice: found s1/a") as caught:
        open_frames(tmp_path)
    assert caught.value.path == tmp_path / FRAMES_FILE
