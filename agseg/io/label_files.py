"""A mask as NIfTI: a file per organ, or one file with all organs and its key; and back."""

from __future__ import annotations

import json
from pathlib import Path

from agseg.io.atomic import write_text
from agseg.io.nifti_write import write_mask
from agseg.volume import LabelMask

__all__ = ["LABELS_JSON", "LABELS_NII", "organ_file", "write_labels", "write_organs"]

LABELS_NII = "labels.nii.gz"
LABELS_JSON = "labels.json"
"""The key of :data:`LABELS_NII`: organ names by label value, as text, ``{"1": "spleen", ...}``."""


def organ_file(name: str) -> str:
    """Name of one organ's mask."""
    return f"{name}.nii.gz"


def write_organs(folder: Path, mask: LabelMask) -> tuple[str, ...]:
    """A file per organ, uint8 0 and 1; returns their names."""
    for label in mask.label_set:
        write_mask(folder / organ_file(label.name), mask.labels, mask.grid, value=label.index)
    return tuple(organ_file(name) for name in mask.label_set.names)


def write_labels(folder: Path, mask: LabelMask) -> tuple[str, ...]:
    """One file with the label values of all organs, and what they mean; returns their names."""
    write_mask(folder / LABELS_NII, mask.labels, mask.grid)
    key = {str(label.index): label.name for label in mask.label_set}
    write_text(folder / LABELS_JSON, json.dumps(key, indent=2) + "\n")
    return LABELS_NII, LABELS_JSON
