"""Whether all images are there that a header counts: a lost slice at the end leaves no gap, and cuts an organ in silence."""

from __future__ import annotations

from collections.abc import Sequence

from agseg.io.dicom.slice_header import SliceHeader


def count_missing(headers: Sequence[SliceHeader], in_series: int) -> int:
    """How many images the header counts beyond those of this pass; 0 where it counts none, or counts the whole series.

    Source: ImagesInAcquisition (0020,1002), and In-concatenation Total Number (0020,9163) of a multi-frame object in files.
    """
    counts = {header.images_in_acquisition for header in headers if header.images_in_acquisition is not None}
    frames = sum(max(header.frames, 1) for header in headers)
    present = {len(headers), frames, in_series}
    stated = max((count for count in counts if count > 0), default=0)
    missing = stated - frames if stated > frames and stated not in present else 0
    parts = {header.concatenation: header.concatenation_parts or 0 for header in headers if header.concatenation}
    there = {key: sum(header.concatenation == key for header in headers) for key in parts}
    return max([missing, *(parts[key] - there[key] for key in parts)])
