"""Sound files of every format, and headers made from them that are not: drawn from a seed, and aware of the format.

A mutation changes what a parser decides by: lines and keys of text headers, fields of NIfTI, elements, lengths and
representations of DICOM, boxes and chunks of videos. It is for finding what breaks, so nothing here asks what is right.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from agseg.io.nifti_fields import NiftiFields
from tests import phantoms
from tests.ultrasound import scans

SHAPE, SPACING = (8, 7, 5), (3.0, 3.0, 5.0)
WORDS = (
    "", "0", "-1", "1", "2", "4", "16", "255", "4095", "65536", "2147483647", "2147483648", "4294967295",
    "9223372036854775808", "1e308", "-1e308", "1e999", "nan", "inf", "-inf", "none", "0x10", "1_0", "1e", ".", "()",
    "(1,2,3)", "True", "False", "LOCAL", "LIST", "%03d", "../other.raw", "/etc/passwd", "./x", "A" * 300, "\u00e9",
    "\x85", "\x0b", "\x00", "\r", "raw", "gzip", "bzip2", "MET_DOUBLE",
)  # fmt: skip
NUMBERS = (0, 1, 2, 3, 7, 8, 15, 16, 127, 128, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1)


def voxels() -> np.ndarray:
    """(i, j, k) int16, HU, from fat to muscle and beyond."""
    return np.asarray(
        3 * phantoms.sampled(phantoms.linear_hu, SHAPE, phantoms.coded_affine("LPS", SHAPE, SPACING)), dtype=np.int16
    )


def metaimage() -> tuple[bytes, bytes]:
    """A header and its voxels."""
    lines = [
        "ObjectType = Image", "NDims = 3", "BinaryData = True", "BinaryDataByteOrderMSB = False", "CompressedData = False",
        "TransformMatrix = 1 0 0 0 1 0 0 0 1", "Offset = -10 -10 -10", "CenterOfRotation = 0 0 0",
        "AnatomicalOrientation = RAI",
        "ElementSpacing = 3 3 5", "DimSize = 8 7 5",
        "ElementType = MET_SHORT", "ElementDataFile = LOCAL",
    ]  # fmt: skip
    return ("\n".join(lines) + "\n").encode(), voxels().tobytes(order="F")


def nrrd() -> tuple[bytes, bytes]:
    """A header and its voxels."""
    lines = [
        "NRRD0004", "# comment", "type: short", "dimension: 3", "space: left-posterior-superior", "sizes: 8 7 5",
        "space directions: (3,0,0) (0,3,0) (0,0,5)", "kinds: domain domain domain", "endian: little", "encoding: raw",
        "space origin: (-10,-10,-10)", "key:=value", "", "",
    ]  # fmt: skip
    return "\n".join(lines).encode(), voxels().tobytes(order="F")


def changed_text(header: bytes, draw: random.Random) -> bytes:
    """Some lines of a text header changed."""
    lines = header.decode("latin-1").split("\n")
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        at = draw.randrange(len(lines))
        lines[at : at + 1] = _changed_line(lines[at], draw)
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def _changed_line(line: str, draw: random.Random) -> list[str]:
    mark = "=" if "=" in line else ":"
    key, _, value = line.partition(mark)
    words = value.split() or [""]
    word = draw.choice(WORDS)
    at = draw.randrange(len(words))
    changes: tuple[Callable[[], list[str]], ...] = (
        lambda: [],
        lambda: [line, line],
        lambda: [line, f"{key}{mark} {word}"],
        lambda: [f"{key.swapcase()}{mark}{value}"],
        lambda: [f"{key}{mark} {word}"],
        lambda: [f"{key}{mark} {' '.join([*words[:at], word, *words[at + 1 :]])}"],
        lambda: [f"{key}{mark} {' '.join([*words, word])}"],
        lambda: [f"{key}{mark} {' '.join(words[:-1])}"],
        lambda: [f"{key}{mark} {' '.join(words * draw.choice((2, 50)))}"],
        lambda: ["#" + "x" * draw.choice((1, 1000, 70_000)), line],
        lambda: [line.replace(mark, draw.choice((":", "=", ":=", "")))],
        lambda: [line[: draw.randrange(len(line) + 1)] + draw.choice("\x00\x0b\x0c\r\x1c\x1b\x7f") + line],
    )
    return draw.choice(changes)()


def changed_bytes(content: bytes, draw: random.Random, *, within: int) -> bytes:
    """Bytes flipped, overwritten with numbers, cut out, doubled, or cut off."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4))):
        if not data:
            break
        at = draw.randrange(min(within, len(data)))
        kind = draw.randrange(6)
        if kind == 0:
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            width, form = draw.choice(((2, "H"), (4, "I")))
            number = draw.choice(NUMBERS) & (256**width - 1)
            data[at : at + width] = struct.pack(draw.choice("<>") + form, number)
        elif kind == 2:
            del data[at : at + draw.choice((1, 2, 4, 64))]
        elif kind == 3:
            data[at:at] = data[at : at + draw.choice((1, 2, 8, 64))]
        elif kind == 4:
            data[at:at] = bytes(draw.randrange(256) for _ in range(draw.choice((1, 4, 16))))
        else:
            del data[at:]
    return bytes(data)


def changed_nifti(content: bytes, draw: random.Random) -> bytes:
    """A field of the header set to what it should not be, or bytes changed."""
    if draw.random() < 0.4:
        return changed_bytes(content, draw, within=352)
    fields = NiftiFields(1, content[:348])
    name = draw.choice(
        ["sizeof_hdr", "dim", "datatype", "bitpix", "pixdim", "vox_offset", "scl_slope", "scl_inter", "xyzt_units",
         "qform_code", "sform_code", "quatern", "qoffset", "srow"]
    )  # fmt: skip
    value = draw.choice((0, 1, -1, 2, 3, 7, 8, 255, 32767, -32768, 1e30, -1e30, float("nan"), float("inf"), 0.01, 352.5))
    field = fields[name]
    with np.errstate(all="ignore"):
        if field.shape:
            flat = field.reshape(-1)
            flat[draw.randrange(flat.size)] = _fitting(value, field.dtype)
        else:
            fields[name] = _fitting(value, field.dtype)
    return fields.to_bytes() + content[348:]


def _fitting(value: float, dtype: np.dtype) -> float | int:
    if dtype.kind == "f":
        return value
    limits = np.iinfo(dtype)
    return int(np.clip(0 if value != value else value, limits.min, limits.max))


def changed_dicom(content: bytes, draw: random.Random) -> bytes:
    """An element's tag, representation, length or value changed; one doubled, moved or nested; or bytes changed."""
    spans = list(_elements(content))
    if draw.random() < 0.25 or not spans:
        return changed_bytes(content, draw, within=min(len(content), 2048))
    data = bytearray(content)
    start, value, stop = draw.choice(spans)
    length_at = value - (4 if data[start + 4 : start + 6] in (b"OB", b"OW", b"SQ", b"UN", b"UT") else 2)
    width = value - length_at
    kind = draw.randrange(9)
    if kind == 0:
        data[length_at:value] = (draw.choice(NUMBERS) & (256**width - 1)).to_bytes(width, "little")
    elif kind == 1:
        data[start + 4 : start + 6] = draw.choice((b"UN", b"SQ", b"OB", b"US", b"DS", b"\0\0", b"zz", b"FD", b"AT"))
    elif kind == 2:
        data[start : start + 4] = struct.pack(
            "<HH", draw.choice((0, 2, 8, 0x28, 0x7FE0, 0xFFFE, 0xFFFF)), draw.randrange(65536)
        )
    elif kind == 3:
        text = draw.choice(WORDS).encode("utf-8", "surrogateescape")[: stop - value]
        data[value:stop] = text.ljust(stop - value, b" ")
    elif kind == 4:
        data[start:start] = data[start:stop]
    elif kind == 5:
        del data[start:stop]
    elif kind == 6:
        data[value:stop] = bytes(draw.randrange(256) for _ in range(min(stop - value, 64))).ljust(stop - value, b"\0")
    elif kind == 7:
        depth = draw.choice((1, 20, 500))
        nested = (b"\x09\x00\x01\x10SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * depth
        data[start:start] = nested + (
            b"" if draw.random() < 0.3 else (b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0") * depth
        )
    else:
        items = draw.choice((10, 3000)) * b"\xfe\xff\x00\xe0\x00\x00\x00\x00"
        data[start:start] = b"\x09\x00\x01\x10UN\0\0\xff\xff\xff\xff" + items + b"\xfe\xff\xdd\xe0\0\0\0\0"
    return bytes(data)


def _elements(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Start, start of the value and end of each element of an explicit little endian file before its pixels."""
    at = 132
    while at + 8 <= len(content):
        representation = content[at + 4 : at + 6]
        is_long = representation in (b"OB", b"OW", b"SQ", b"UN", b"UT")
        length = int.from_bytes(content[at + 8 : at + 12] if is_long else content[at + 6 : at + 8], "little")
        value = at + (12 if is_long else 8)
        if length == 0xFFFFFFFF or value + length > len(content):
            return
        yield at, value, value + length
        at = value + length


def write_cases(folder: Path, kind: str, count: int, seed: int) -> None:
    """``count`` cases below the folder, one in each of its own folders; the same seed gives the same bytes."""
    draw = random.Random(f"{kind} {seed}")
    write = {
        "metaimage": _text_cases(metaimage, "x.mha"),
        "nrrd": _text_cases(nrrd, "x.nrrd"),
        "nifti": _nifti_cases,
        "dicom": _dicom_cases,
        "enhanced": _enhanced_cases,
        "avi": _video_cases("x.avi"),
        "mp4": _video_cases("x.mp4"),
    }[kind]
    folder.mkdir(parents=True, exist_ok=True)
    write(folder, count, draw)


KINDS = ("metaimage", "nrrd", "nifti", "dicom", "enhanced", "avi", "mp4")


def _case(folder: Path, number: int) -> Path:
    path = folder / f"c{number:05d}"
    path.mkdir()
    return path


def _text_cases(sound: Callable[[], tuple[bytes, bytes]], name: str) -> Callable[[Path, int, random.Random], None]:
    def write(folder: Path, count: int, draw: random.Random) -> None:
        header, body = sound()
        for number in range(count):
            (_case(folder, number) / name).write_bytes(changed_text(header, draw) + body)

    return write


def _nifti_cases(folder: Path, count: int, draw: random.Random) -> None:
    sound = phantoms.write_nifti(folder / "sound.nii", voxels(), phantoms.coded_affine("RAS", SHAPE, SPACING))
    content = sound.read_bytes()
    sound.unlink()
    for number in range(count):
        (_case(folder, number) / "x.nii").write_bytes(changed_nifti(content, draw))


def _dicom_cases(folder: Path, count: int, draw: random.Random) -> None:
    phantoms.write_dicom(folder / "sound", voxels(), phantoms.dicom_affine("axial", SHAPE, SPACING))
    slices = [path.read_bytes() for path in sorted((folder / "sound").iterdir())]
    _remove(folder / "sound")
    for number in range(count):
        bad, path = draw.randrange(len(slices)), _case(folder, number)
        for place, content in enumerate(slices):
            own = _owned(content, number)
            (path / f"{place}.dcm").write_bytes(changed_dicom(own, draw) if place == bad else own)


def _enhanced_cases(folder: Path, count: int, draw: random.Random) -> None:
    sound = phantoms.write_enhanced(folder / "sound.dcm", voxels(), phantoms.dicom_affine("axial", SHAPE, SPACING))
    content = sound.read_bytes()
    sound.unlink()
    for number in range(count):
        (_case(folder, number) / "x.dcm").write_bytes(changed_dicom(_owned(content, number), draw))


def _owned(content: bytes, number: int) -> bytes:
    """The file as one of another study and series: cases must not be put together."""
    for tag in (b"\x20\x00\x0d\x00UI", b"\x20\x00\x0e\x00UI"):
        at = content.index(tag) + 8
        length = int.from_bytes(content[at - 2 : at], "little")
        uid = content[at : at + length].rstrip(b"\0")
        content = content[:at] + (uid[:-6] + f"1{number:05d}".encode()).ljust(length, b"\0") + content[at + length :]
    return content


def _video_cases(name: str) -> Callable[[Path, int, random.Random], None]:
    def write(folder: Path, count: int, draw: random.Random) -> None:
        frames = np.zeros((3, 48, 64, 3), dtype=np.uint8)
        frames[:, 10:30, 10:40] = 180
        scans.write_video(folder / name, list(frames))
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        # The index of an mp4 is often at its end.
        ends = [0, max(0, len(content) - 1024)]
        for number in range(count):
            at = draw.choice(ends)
            head, tail = content[:at], content[at:]
            (_case(folder, number) / name).write_bytes(head + changed_bytes(tail, draw, within=1024))

    return write


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
