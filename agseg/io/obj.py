"""Organs as surfaces: one Wavefront OBJ per organ, vertices in mm of DICOM's patient space (LPS), shared between triangles."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from agseg.io.atomic import write_text
from agseg.io.stl import surface
from agseg.volume import LabelMask


def write_objs(folder: Path, mask: LabelMask) -> tuple[str, ...]:
    """A file per organ that is present, the surface of :func:`agseg.io.stl.surface`; returns their names."""
    names = []
    for label in mask.label_set:
        inside = mask.labels == label.index
        if inside.any():
            vertices, corners = np.unique(surface(inside, mask.grid).reshape(-1, 3), axis=0, return_inverse=True)
            text = io.StringIO()
            text.write(f"# agseg, LPS, mm\no {label.name}\n")
            np.savetxt(text, vertices, fmt="v %.4f %.4f %.4f")
            np.savetxt(text, corners.reshape(-1, 3) + 1, fmt="f %d %d %d")
            names.append(f"{label.name}.obj")
            write_text(folder / names[-1], text.getvalue())
    return tuple(names)
