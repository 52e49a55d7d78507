"""Shared integer that a child process writes and its parent reads: which file the child was at when it died."""

from __future__ import annotations

import mmap
import os
import struct
import tempfile

_NUMBER = struct.Struct("<q")


class Marker:
    """Shared memory of one number.

    Parameters
    ----------
    descriptor
        In the child: the parent's, inherited. Without one, new memory is made.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = _anonymous() if descriptor is None else descriptor
        self._memory = mmap.mmap(self.descriptor, _NUMBER.size)

    @property
    def value(self) -> int:
        """The number that was written last."""
        number: int = _NUMBER.unpack_from(self._memory)[0]
        return number

    @value.setter
    def value(self, number: int) -> None:
        _NUMBER.pack_into(self._memory, 0, number)

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()
        os.close(self.descriptor)


def _anonymous() -> int:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("agseg-marker", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as stream:
            descriptor = os.dup(stream.fileno())
    os.ftruncate(descriptor, _NUMBER.size)
    return descriptor
