"""Transfer of volumes between processes through anonymous memory, without a copy on any disk.

The voxels lie in anonymous memory (``memfd``, or an unlinked temporary file where the system has none); only its descriptor
and a small JSON header travel. Nothing has to be cleaned up, whatever dies.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agseg.errors import Code
from agseg.grid import Grid
from agseg.volume import Quantity, Volume, Warned

_CHUNK_BYTES = 1 << 26
_ALIGNMENT = 8


def pack(volume: Volume) -> tuple[dict[str, Any], int]:
    """The volume's header and a descriptor of its voxels, which the caller closes.

    Returns
    -------
    header
        JSON-able; shape, dtype, memory order, affine, quantity, modality, warnings, number of further channels.
    descriptor
        Open file of exactly the voxels' bytes, those of further channels behind those of the first.
    """
    layout, descriptor = pack_array(volume.voxels)
    try:
        if volume.more:
            _write(descriptor, np.zeros(_padding(volume.voxels.nbytes), dtype=np.uint8))
        for channel in volume.more:
            _write(descriptor, np.ascontiguousarray(channel.T, dtype=np.float32))
    except BaseException:
        os.close(descriptor)
        raise
    header = {
        **layout,
        "more": len(volume.more),
        "affine": volume.grid.affine.tolist(),
        "quantity": str(volume.quantity),
        "modality": volume.modality,
        "warnings": [warned.to_dict() for warned in volume.warnings],
    }
    return header, descriptor


def unpack(header: dict[str, Any], descriptor: int) -> Volume:
    """The volume over the memory that :func:`pack` filled; closes the descriptor.

    Its voxels may be written to: the pages are copied on write.
    """
    memory = _mapped(descriptor)
    first = _array(memory, header)
    begin, size = first.nbytes + _padding(first.nbytes), first.size * np.dtype(np.float32).itemsize
    layout = {"shape": header["shape"], "dtype": np.dtype(np.float32).str, "order": "F"}
    return Volume(
        first,
        Grid(tuple(header["shape"]), np.array(header["affine"], dtype=np.float64)),
        quantity=Quantity(header["quantity"]),
        modality=header["modality"],
        warnings=tuple(Warned(Code(w["code"]), w["message"]) for w in header["warnings"]),
        more=tuple(_array(memory, layout, at=begin + size * number) for number in range(header["more"])),
    )


def pack_array(array: NDArray[Any]) -> tuple[dict[str, Any], int]:
    """Shape, dtype and memory order (JSON-able), and a descriptor of exactly the array's bytes, which the caller closes."""
    order = "C" if array.flags.c_contiguous and not array.flags.f_contiguous else "F"
    data = np.ascontiguousarray(array if order == "C" else array.T)
    descriptor = _anonymous()
    try:
        _write(descriptor, data)
    except BaseException:
        os.close(descriptor)
        raise
    return {"shape": list(array.shape), "dtype": array.dtype.str, "order": order}, descriptor


def unpack_array(layout: dict[str, Any], descriptor: int) -> NDArray[Any]:
    """The array over the memory that :func:`pack_array` filled; closes the descriptor. Pages are copied on write."""
    return _array(_mapped(descriptor), layout)


def _mapped(descriptor: int) -> mmap.mmap:
    try:
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)
    finally:
        os.close(descriptor)


def _array(memory: mmap.mmap, layout: dict[str, Any], *, at: int = 0) -> NDArray[Any]:
    """The array of this layout whose bytes begin at ``at``."""
    count = int(np.prod(layout["shape"]))
    values = np.frombuffer(memory, dtype=np.dtype(layout["dtype"]), count=count, offset=at)
    return values.reshape(layout["shape"], order=layout["order"])


def _padding(count: int) -> int:
    """Bytes behind so many, up to where a number of any type may begin."""
    return -count % _ALIGNMENT


def _write(descriptor: int, data: NDArray[Any]) -> None:
    """All bytes of a contiguous array, behind what is there."""
    view = data.reshape(-1).view(np.uint8).data
    position = 0
    while position < len(view):
        position += os.write(descriptor, view[position : position + _CHUNK_BYTES])


def _anonymous() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("agseg", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as stream:
        return os.dup(stream.fileno())
