"""The formats that are read, as a table: how each is recognised, what its header says, and how it becomes a Volume.

A format is one module and one row here (docs/extending.md). DICOM alone has no ``header``: its files are slices, and
:mod:`agseg.io.discover` puts them together. Nothing is imported until a row is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from agseg.errors import Code, InputError
from agseg.grid import Grid
from agseg.io.dicom.header import DICOM_MAGIC
from agseg.io.metaimage import is_metaimage
from agseg.io.nifti_header import is_nifti
from agseg.io.nrrd import is_nrrd
from agseg.study import Study, StudyKind
from agseg.volume import Volume


class FoundVolume(Protocol):
    """A file whose header is valid, before its voxels are read."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The file itself first, then the file of its voxels, if that is another one."""
        ...

    @property
    def grid(self) -> Grid:
        """Where the voxels are; its axes may be sheared, as those of a mask may be."""
        ...

    def values(self) -> Iterator[NDArray[Any]]:
        """The voxels' values in their order, flat and in pieces: a label map is told from an image by them."""
        ...


def _itself(path: Path) -> tuple[Path, ...]:
    return (path,)


@dataclass(frozen=True)
class Reader:
    """One format.

    Parameters
    ----------
    kind
        Its name in records (``Study.kind``).
    suffixes
        Names that promise it, in lower case. Content decides; a file that breaks the promise is rejected.
    recognises
        Whether the first 16 KiB of a file are of this format.
    read
        Makes a Volume of a Study; raises InputError.
    header
        The checked header of a file; raises InputError. None for slices that make up series.
    files
        The files of a study whose header is refused.
    broken
        The reason code of a file that has the suffix and other content.
    """

    kind: str
    suffixes: tuple[str, ...]
    recognises: Callable[[bytes], bool]
    read: Callable[[Study], Volume]
    header: Callable[[Path], FoundVolume] | None = None
    files: Callable[[Path], tuple[Path, ...]] = _itself
    broken: Code = Code.HEADER_INVALID


def _read_dicom(study: Study) -> Volume:
    from agseg.io.dicom.read import read_dicom

    return read_dicom(study)


def _nifti_header(path: Path) -> FoundVolume:
    from agseg.io.nifti import find_nifti

    return find_nifti(path)


def _nifti_files(path: Path) -> tuple[Path, ...]:
    from agseg.io.nifti import files_of_nifti

    return files_of_nifti(path)


def _read_nifti(study: Study) -> Volume:
    from agseg.io.nifti import read_nifti

    return read_nifti(study)


def _nrrd_header(path: Path) -> FoundVolume:
    from agseg.io.nrrd import read_nrrd_header

    return read_nrrd_header(path)


def _read_nrrd(study: Study) -> Volume:
    from agseg.io.nrrd import read_nrrd_header
    from agseg.io.plain_volume import read_plain_volume

    return read_plain_volume(study, read_nrrd_header(study.files[0]))


def _metaimage_header(path: Path) -> FoundVolume:
    from agseg.io.metaimage import read_metaimage_header

    return read_metaimage_header(path)


def _read_metaimage(study: Study) -> Volume:
    from agseg.io.metaimage import read_metaimage_header
    from agseg.io.plain_volume import read_plain_volume

    return read_plain_volume(study, read_metaimage_header(study.files[0]))


READERS: tuple[Reader, ...] = (
    Reader(
        StudyKind.DICOM,
        (".dcm", ".dicom", ".ima"),
        recognises=lambda head: head[128:132] == DICOM_MAGIC,
        read=_read_dicom,
        broken=Code.NOT_DICOM,
    ),
    Reader(
        StudyKind.NIFTI,
        (".nii", ".nii.gz"),
        recognises=is_nifti,
        read=_read_nifti,
        header=_nifti_header,
        files=_nifti_files,
        broken=Code.NOT_NIFTI,
    ),
    Reader(StudyKind.NRRD, (".nrrd", ".nhdr"), recognises=is_nrrd, read=_read_nrrd, header=_nrrd_header),
    Reader(StudyKind.METAIMAGE, (".mha", ".mhd"), recognises=is_metaimage, read=_read_metaimage, header=_metaimage_header),
)
"""In the order in which they are asked."""


def recognised(head: bytes) -> Reader | None:
    """The format that the first bytes show; None for all others."""
    return next((reader for reader in READERS if reader.recognises(head)), None)


def claimed_by_suffix(name: str) -> Reader | None:
    """The format that a name promises, or None."""
    lower = name.lower()
    return next((reader for reader in READERS if lower.endswith(reader.suffixes)), None)


def reader_of(kind: str) -> Reader:
    """The format of a study.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    for reader in READERS:
        if reader.kind == kind:
            return reader
    raise InputError("no reader of that format", code=Code.UNSUPPORTED_INPUT, value=kind)
