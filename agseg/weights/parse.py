"""From the keys of one manifest entry to a :class:`~agseg.weights.entry.WeightsEntry`; every key is known and checked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

from agseg.labels import LabelSet
from agseg.weights.entry import (
    Cleanup,
    FileSource,
    InputSpec,
    Normalisation,
    Padding,
    SourceKind,
    WeightsEntry,
    WeightsFile,
    WeightsFormat,
)
from agseg.weights.fields import Fields

__all__ = ["parse_entry"]

Choice = TypeVar("Choice", bound=StrEnum)

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MD5 = re.compile(r"[0-9a-f]{32}")
_AXIS_CODES = re.compile(r"[LR][AP][SI]|[LR][SI][AP]|[AP][LR][SI]|[AP][SI][LR]|[SI][LR][AP]|[SI][AP][LR]")
_REPOSITORY = re.compile(r"[A-Za-z0-9_.\-]+/[A-Za-z0-9_.\-]+")
_MODALITIES = ("CT", "US")


def parse_entry(weights_id: str, fields: Fields) -> WeightsEntry:
    """One entry; ``fields`` is empty afterwards.

    Raises
    ------
    UsageError
        If a key is missing, unknown or does not hold what it must; with its line.
    """
    line = fields.line
    files = tuple(_file(part) for part in fields.sections("files", f"entry {weights_id}, file"))
    if len({file.filename for file in files}) != len(files):
        raise fields.error("two files of one name", line)
    labels = _labels(fields)
    classes = tuple(str(name) for name in fields.take("classes", list, []))
    default_line = fields.line_of("default_for")
    default_for = tuple(fields.take("default_for", list, []))
    known = labels.names or classes
    if strangers := [organ for organ in default_for if organ not in known]:
        raise fields.error("default for an organ that it does not know", default_line, value=strangers[0])
    spec = fields.section("input", f"entry {weights_id}, input")
    entry = WeightsEntry(
        id=weights_id,
        architecture=fields.take("architecture", str),
        config=fields.take("config", dict, {}),
        format=_choice(fields, "format", WeightsFormat),
        files=files,
        input=_input(spec),
        labels=labels,
        classes=classes,
        licence=fields.take("licence", str),
        citation=fields.take("citation", str),
        attribution=fields.take("attribution", str),
        intended_use=fields.take("intended_use", str),
        scores=fields.take("scores", dict, {}),
        default_for=default_for,
        caution=fields.take("caution", str, ""),
        cleanup=_cleanup(fields, known),
    )
    fields.finish()
    return entry


def _cleanup(fields: Fields, organs: Sequence[str]) -> dict[str, Cleanup]:
    line = fields.line_of("cleanup")
    rules = fields.take("cleanup", dict, {})
    for organ, rule in rules.items():
        if organ not in organs:
            raise fields.error("clean-up of an organ that it does not know", line, value=organ)
        if not isinstance(rule, str) or rule not in set(Cleanup):
            raise fields.error("cleanup", line, value=rule, expected=" or ".join(Cleanup))
    return {organ: Cleanup(rule) for organ, rule in rules.items()}


def _labels(fields: Fields) -> LabelSet:
    line = fields.line_of("labels")
    names = fields.take("labels", dict, {})
    if any(not isinstance(i, int) or isinstance(i, bool) or not isinstance(name, str) for i, name in names.items()):
        raise fields.error("labels map an index to a name", line, expected="{1: spleen, 2: pancreas}")
    try:
        return LabelSet.from_mapping(names)
    except ValueError as error:
        raise fields.error("label indices must lie in 1 to 255, and indices and names be unique", line) from error


def _file(fields: Fields) -> WeightsFile:
    line = fields.line
    filename = fields.take("filename", str)
    if PurePosixPath(filename).name != filename or filename.startswith("."):
        raise fields.error("not a file name", line, value=filename)
    source = _source(fields)
    sha256 = fields.take("sha256", str, "") or None
    md5 = fields.take("md5", str, "") or None
    size = fields.take("size_bytes", int, 0) or None
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise fields.error("not a SHA-256", line, value=sha256, expected="64 lower-case hexadecimal digits")
    if md5 is not None and not _MD5.fullmatch(md5):
        raise fields.error("not an MD5", line, value=md5, expected="32 lower-case hexadecimal digits")
    if sha256 is None and (md5 is None or source.kind is not SourceKind.HUB):
        # Only a hub names a commit that can be recorded and held to.
        raise fields.error("sha256 is missing; only a hub file may do with its md5", line)
    fields.finish()
    return WeightsFile(filename=filename, source=source, sha256=sha256, size_bytes=size, md5=md5)


def _source(fields: Fields) -> FileSource:
    line, folder = fields.line, fields.path.parent
    kinds = [kind for kind in SourceKind if kind in fields.keys()]  # noqa: SIM118 - Fields is no dict
    if len(kinds) != 1:
        raise fields.error("a file has exactly one source", line, expected=" or ".join(SourceKind))
    kind = kinds[0]
    if kind is SourceKind.HUB:
        hub = fields.section("hub", f"{fields.name}, hub")
        source = FileSource(
            kind, path=hub.take("path", str), repository=hub.take("repository", str), revision=hub.take("revision", str)
        )
        hub.finish()
        if not _REPOSITORY.fullmatch(source.repository or ""):
            raise fields.error("not a hub repository", line, value=source.repository, expected="owner/name")
        return source
    text = fields.take(kind, str)
    if kind is SourceKind.URL:
        if urlsplit(text).scheme not in ("https", "http") or not urlsplit(text).hostname:
            raise fields.error("not a URL", line, value=text, expected="https://...")
        return FileSource(kind, url=text)
    if kind is SourceKind.PACKAGED:
        if PurePosixPath(text).is_absolute() or ".." in PurePosixPath(text).parts:
            raise fields.error("not a path below the package's weights folder", line, value=text)
        return FileSource(kind, path=text)
    return FileSource(kind, path=str(folder / Path(text).expanduser()))


def _input(fields: Fields) -> InputSpec:
    line = fields.line
    modality = fields.take("modality", str)
    if modality not in _MODALITIES:
        raise fields.error("unknown modality", line, value=modality, expected=" or ".join(_MODALITIES))
    axis_codes = fields.take("axis_codes", str, "")
    if modality == "CT" and not _AXIS_CODES.fullmatch(axis_codes):
        raise fields.error("axis_codes", line, value=axis_codes, expected="three letters such as RAS")
    window = _numbers(fields, "window_hu", 2, default=True)
    tile = _numbers(fields, "tile", 3)
    spacing = _numbers(fields, "spacing_mm", 3, default=True)
    fixed = _numbers(fields, "fixed_shape", 3, default=True)
    height = fields.take("window_height_mm", float, 0.0) or None
    overlap = fields.take("overlap", float, 0.5)
    if not 0 <= overlap < 1:
        raise fields.error("overlap is a fraction", line, value=overlap, expected="0 to below 1")
    if window is not None and window[0] >= window[1]:
        raise fields.error("window_hu", line, value=list(window), expected="low below high")
    if spacing is None and fixed is None and modality == "CT":
        raise fields.error("either spacing_mm or fixed_shape is needed", line)
    spec = InputSpec(
        modality=modality,
        axis_codes=axis_codes,
        spacing_mm=None if spacing is None else (spacing[0], spacing[1], spacing[2]),
        window_hu=None if window is None else (window[0], window[1]),
        normalisation=_choice(fields, "normalisation", Normalisation),
        tile=_sides(tile),
        overlap=overlap,
        antialias=fields.take("antialias", bool, False),
        padding=_choice(fields, "padding", Padding, Padding.ZERO),
        body_box=fields.take("body_box", bool, False),
        fixed_shape=None if fixed is None else _sides(fixed),
        window_height_mm=height,
    )
    fields.finish()
    return spec


def _sides(numbers: tuple[float, ...] | None) -> tuple[int, int, int]:
    a, b, c = numbers or (0, 0, 0)
    return int(a), int(b), int(c)


def _numbers(fields: Fields, key: str, count: int, *, default: bool = False) -> tuple[float, ...] | None:
    line = fields.line_of(key)
    if default and key not in fields.keys():  # noqa: SIM118 - Fields is no dict
        return None
    values: list[Any] = fields.take(key, list)
    plain = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    if len(values) != count or not plain or (key != "window_hu" and min(values) <= 0):
        raise fields.error(key, line, value=values, expected=f"{count} numbers" + ("" if key == "window_hu" else " above 0"))
    return tuple(float(value) for value in values)


def _choice(fields: Fields, key: str, kind: type[Choice], default: Choice | None = None) -> Choice:
    line = fields.line_of(key)
    text = fields.take(key, str, None if default is None else str(default))
    if text not in set(kind):
        raise fields.error(key, line, value=text, expected=" or ".join(kind))
    return kind(text)
