"""A format is one module and one row of the table: a toy that nothing else knows is found, told from label maps and read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from agseg.errors import Code, InputError
from agseg.grid import Grid
from agseg.io import readers
from agseg.io.discover import discover
from agseg.io.read import read_volume
from agseg.io.readers import Reader
from agseg.study import Study
from agseg.volume import Volume
from tests import phantoms

MAGIC = b"TOY1"


@dataclass(frozen=True)
class Toy:
    """``TOY1``, three sizes as bytes, int16 voxels: 2 mm apart, along the patient's axes."""

    files: tuple[Path, ...]
    grid: Grid
    stored: np.ndarray

    def values(self):
        yield self.stored.ravel(order="F")


def toy_header(path: Path) -> Toy:
    content = path.read_bytes()
    shape = (content[4], content[5], content[6])
    if len(content) != 7 + 2 * int(np.prod(shape)):
        raise InputError("the file is shorter than its voxels", code=Code.TRUNCATED, path=path)
    stored = np.frombuffer(content[7:], dtype="<i2").reshape(shape, order="F")
    return Toy((path,), Grid(shape, np.diag([2.0, 2.0, 2.0, 1.0])), stored)


def read_toy(study: Study) -> Volume:
    found = toy_header(study.files[0])
    return Volume(found.stored, found.grid, warnings=study.warnings)


TOY = Reader("toy", (".toy",), recognises=lambda head: head.startswith(MAGIC), read=read_toy, header=toy_header)


def toy_bytes(voxels: np.ndarray) -> bytes:
    return MAGIC + bytes(voxels.shape) + voxels.astype("<i2").tobytes(order="F")


@pytest.fixture
def with_toy(monkeypatch):
    monkeypatch.setattr(readers, "READERS", (*readers.READERS, TOY))


def test_one_row_makes_a_format_known(tmp_path, with_toy):
    grid = Grid((9, 8, 7), np.diag([2.0, 2.0, 2.0, 1.0]))
    hu = phantoms.sampled(phantoms.linear_hu, grid.shape, grid.affine).astype(np.int16)
    (tmp_path / "scan").write_bytes(toy_bytes(hu))
    (tmp_path / "mask.toy").write_bytes(toy_bytes((hu > 0).astype(np.int16)))
    (tmp_path / "cut.toy").write_bytes(toy_bytes(hu)[:-1])
    (tmp_path / "other.toy").write_bytes(b"something else")
    found = discover([tmp_path])
    told = {study.id: study.rejected and study.rejected.code for study in found.studies}
    assert told == {"scan": None, "cut": Code.TRUNCATED, "other": Code.HEADER_INVALID}
    assert [(skip.path.name, skip.reason) for skip in found.skipped] == [("mask.toy", "label_map")]
    (scan,) = (study for study in found.studies if study.id == "scan")
    assert scan.kind == "toy"
    assert np.array_equal(read_volume(scan).voxels, hu)


def test_without_its_row_it_is_no_image(tmp_path):
    (tmp_path / "scan").write_bytes(toy_bytes(np.zeros((4, 4, 4))))
    assert discover([tmp_path]).studies == ()
    with pytest.raises(InputError) as caught:
        read_volume(Study("scan", tmp_path, (tmp_path / "scan",), "toy"))
    assert caught.value.code is Code.UNSUPPORTED_INPUT


def test_whatever_a_file_makes_a_library_raise_is_its_own_rejection(tmp_path, monkeypatch):
    def breaks(study: Study) -> Volume:
        raise ZeroDivisionError(phantoms.CANARIES[0])

    monkeypatch.setattr(readers, "READERS", (Reader("toy", (".toy",), lambda head: False, breaks),))
    with pytest.raises(InputError) as caught:
        read_volume(Study("scan", tmp_path, (tmp_path / "scan",), "toy"))
    assert caught.value.code is Code.DECODE
    assert phantoms.CANARIES[0] not in caught.value.sentence()
