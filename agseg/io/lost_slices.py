"""Files beside the slices of a series that may be slices too: without them an organ could be cut, and nobody would see."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from agseg.errors import Code
from agseg.io.dicom.series import Series
from agseg.io.names import naming
from agseg.io.sniff import name_pattern, series_suffix
from agseg.io.walk import FoundFile
from agseg.study import Rejected, Skipped
from agseg.volume import Warned

_SIGNS_OF_LOSS = (Code.MISSING_SLICES, Code.NONUNIFORM_SPACING, Code.TOO_FEW_SLICES)
"""What a lost slice looks like from the others; the lost file itself is the better reason."""

_ARRIVING = Rejected(Code.CHANGED, "a file beside the slices went while they were looked for: they may still be arriving")


def lies_beside(series: Series, file: FoundFile) -> bool:
    """Whether a file lies in a folder of the series."""
    return any(other.folder == file.folder and other.root == file.root for other, _ in series.headers)


def by_folder(unseen: Sequence[Skipped]) -> dict[Path, list[Skipped]]:
    """The skipped by the folder that they lie in."""
    folders: dict[Path, list[Skipped]] = defaultdict(list)
    for skip in unseen:
        folders[skip.path.parent].append(skip)
    return dict(folders)


def miss_unreadable(series: Series, file: FoundFile, why: Rejected) -> None:
    """Reject the series for an unreadable file beside it that has the suffix of its slices, or that has gone."""
    if why.code is Code.CHANGED:
        _lose(series, _ARRIVING)
    elif series_suffix(file.path) in _suffixes(series):
        _lose(series, Rejected(why.code, naming(f"a file beside the slices cannot be read: {why.message}", file.below)))


def miss_unseen(series: Series, unseen: Mapping[Path, Sequence[Skipped]]) -> None:
    """What links and files that cannot be examined, by their folder, mean for the series that they lie beside.

    A file that has gone was renamed, perhaps, by who receives the series, and its new name came too late to be listed; the
    old one tells nothing about it. A link is never followed and may be a shortcut to anything, so it counts as a lost slice
    only where it is named as the slices are (``IM0007.dcm`` beside ``IM0006.dcm``); with their suffix alone it is worth a
    warning.
    """
    folders = {file.path.parent for file, _ in series.headers}
    near = [skip for folder in sorted(folders & unseen.keys()) for skip in unseen[folder]]
    if not near:
        return
    if any(skip.reason == Code.CHANGED for skip in near):
        _lose(series, _ARRIVING)
    suffixes = _suffixes(series)
    beside = [skip for skip in near if skip.reason != Code.CHANGED and series_suffix(skip.path) in suffixes]
    patterns = {name_pattern(file.path) for file, _ in series.headers}
    other_links = 0
    for skip in beside:
        if skip.reason != Code.SYMLINK:
            said = f"a file beside the slices cannot be read: {skip.detail}"
            _lose(series, Rejected(Code.UNREADABLE_FILE, naming(said, _below(skip, series))))
        elif name_pattern(skip.path) in patterns:
            said = "a link is named like the slices: links are not followed"
            _lose(series, Rejected(Code.SYMLINK, naming(said, _below(skip, series))))
        else:
            other_links += 1
    if other_links:
        series.warnings.append(Warned(Code.JUNK_FILES, f"links beside the slices were not followed: {other_links}"))


def _lose(series: Series, why: Rejected) -> None:
    if series.rejected is None or series.rejected.code in _SIGNS_OF_LOSS:
        series.rejected = why


def _below(skip: Skipped, series: Series) -> str:
    """The path below INPUT of what lies beside a series."""
    return skip.path.relative_to(series.headers[0][0].root).as_posix()


def _suffixes(series: Series) -> set[str]:
    return {series_suffix(file.path) for file, _ in series.headers}
