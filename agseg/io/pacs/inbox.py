"""Where images that are sent to us arrive: hidden until their study has been quiet for a while, then a folder for each series.

``<root>/.arriving/<study>/<series>/`` fills; ``<root>/<study>/<series>/`` is what ``segment`` sees. Names are hashes of UIDs,
as in :mod:`agseg.io.pacs.folder`. What is hidden outlives a crash: the next start goes on waiting for its quiet.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from agseg.errors import OutputError, PacsError
from agseg.io.atomic import make_folder, output_error, write_bytes
from agseg.io.pacs.contexts import IMAGE_CLASSES
from agseg.io.pacs.folder import hashed_name, header_of
from agseg.io.pacs.query import checked_uid

ARRIVING = ".arriving"

SUCCESS = 0x0000
DUPLICATE_INSTANCE = 0x0111
OUT_OF_RESOURCES = 0xA700
CANNOT_UNDERSTAND = 0xC000

LEAST_FREE_BYTES = 1 << 30
"""Below this much room on the disk nothing more is taken in."""


class Inbox:
    """Takes objects in, and shows studies that are complete. For several threads at once.

    Parameters
    ----------
    root
        Where series appear.
    quiet_s
        A study is complete once nothing of it has come for so long.
    most_bytes
        What all images together may take.
    clock
        Seconds since the epoch; files' times are compared with it.
    """

    def __init__(self, root: Path, *, quiet_s: float, most_bytes: int, clock: Callable[[], float] = time.time) -> None:
        self._root, self._hidden = root, make_folder(root / ARRIVING)
        self._quiet_s, self._most_bytes, self._clock = quiet_s, most_bytes, clock
        self._turn = threading.Lock()
        self._bytes = sum(path.stat().st_size for path in _files(root))
        # After a crash a file's own time says when it came.
        self._last_s = {
            folder.name: max((path.stat().st_mtime for path in _files(folder)), default=0.0)
            for folder in self._hidden.iterdir()
            if folder.is_dir()
        }

    @property
    def n_bytes(self) -> int:
        """What the images here take."""
        return self._bytes

    def take(self, content: bytes) -> int:
        """Take in one object (the bytes of a DICOM file); returns the status for its C-STORE.

        Nothing that is still arriving is overwritten by other bytes. Whatever is no image that we work with (results, ours
        included, presentation states, dose reports) is taken and forgotten: archives send whole studies, and give up if a part
        of one is refused.
        """
        header = header_of(content, "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
        try:
            uids = [checked_uid(header.get(k)) for k in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")]
        except (AttributeError, PacsError):
            return CANNOT_UNDERSTAND
        if str(header.get("SOPClassUID", "")) not in IMAGE_CLASSES:
            return SUCCESS
        study, series, name = (hashed_name(uid) for uid in uids)
        with self._turn:
            path = self._hidden / study / series / f"{name}.dcm"
            if path.exists():
                self._last_s[study] = self._clock()
                return SUCCESS if path.read_bytes() == content else DUPLICATE_INSTANCE
            if self._bytes + len(content) > self._most_bytes or shutil.disk_usage(self._root).free < LEAST_FREE_BYTES:
                return OUT_OF_RESOURCES
            try:
                make_folder(path.parent)
                write_bytes(path, content)
            except OutputError:
                return OUT_OF_RESOURCES
            self._bytes += len(content)
            self._last_s[study] = self._clock()
        return SUCCESS

    def show_complete(self) -> list[str]:
        """Give every study that has been quiet its place; returns their names.

        A series that comes again with other bytes for one of its images (its patient was corrected) replaces the one that is
        there; one that only has more images is added to it.

        Raises
        ------
        OutputError
            If it cannot be moved.
        """
        shown = []
        with self._turn:
            now_s = self._clock()
            for study, last_s in list(self._last_s.items()):
                if now_s - last_s < self._quiet_s:
                    continue
                try:
                    for arrived in sorted((self._hidden / study).iterdir()):
                        self._show(arrived, make_folder(self._root / study) / arrived.name)
                    (self._hidden / study).rmdir()
                except OSError as error:
                    raise output_error(error, "a series could not be put in its place", path=self._root) from None
                del self._last_s[study]
                shown.append(study)
        return shown

    def _show(self, arrived: Path, final: Path) -> None:
        for path in list(arrived.iterdir()):
            if path.name.startswith("."):  # what a killed process was writing
                path.unlink()
        if final.is_dir():
            old = {path.name: path for path in final.iterdir()}
            came = list(arrived.iterdir())
            again = [path for path in came if path.name in old and path.read_bytes() == old[path.name].read_bytes()]
            if len(again) == len(came):
                # Nothing new: the images stay as they are, with their times, and so does what was made of them.
                self._bytes -= sum(path.stat().st_size for path in came)
                shutil.rmtree(arrived, ignore_errors=True)
                return
            if len(again) == sum(path.name in old for path in came):
                self._bytes -= sum(path.stat().st_size for path in again)
                for path in old.values():
                    path.rename(arrived / path.name)
            self._bytes -= sum(path.stat().st_size for path in _files(final))
            leaving = final.with_name(f".leaving-{final.name}")
            final.rename(leaving)
            shutil.rmtree(leaving, ignore_errors=True)
        arrived.rename(final)

    def make_room(self, is_done: Callable[[str], bool], *, older_than_s: float | None = None) -> int:
        """Remove images of finished studies: those that have been here for long, and the oldest ones if the room gets short.

        Parameters
        ----------
        is_done
            Whether the series at ``<study>/<series>`` has a finished result.
        older_than_s
            Age from which on they go in any case.

        Returns
        -------
        count
            Series that were removed.
        """
        removed = 0
        shown = [folder for folder in self._root.glob("*/*") if folder.is_dir() and not folder.parent.name.startswith(".")]
        for folder in sorted(shown, key=lambda folder: folder.stat().st_mtime):
            is_old = older_than_s is not None and self._clock() - folder.stat().st_mtime > older_than_s
            if not (is_old or self._bytes > self._most_bytes // 2) or not is_done(folder.relative_to(self._root).as_posix()):
                continue
            with self._turn:
                self._bytes -= sum(path.stat().st_size for path in _files(folder))
                shutil.rmtree(folder, ignore_errors=True)
                with suppress(OSError):
                    folder.parent.rmdir()
            removed += 1
        return removed


def _files(folder: Path) -> Iterator[Path]:
    for where, _, names in os.walk(folder):
        yield from (Path(where) / name for name in names if name.endswith(".dcm"))
