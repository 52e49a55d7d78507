"""``agseg doctor``: is this machine ready for tonight's run? Each part is looked at on its own and says what to do."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from agseg import __version__
from agseg.batch.memory import machine_memory_bytes
from agseg.errors import AgsegError, Code, ExitCode, UsageError
from agseg.extras import EXTRA_OF, install_hint, is_installed
from agseg.io.dicom.pixels import check_codec
from agseg.io.os_errors import in_words
from agseg.io.pacs.archive import Archive, Need
from agseg.weights.cache import FileState, WeightsCache
from agseg.weights.manifest import Manifest
from agseg.workflows.choose_networks import default_entry

DOCTOR_SCHEMA = "agseg.doctor/1"

GIB = 1 << 30

LEAST_MEMORY_BYTES = 4 * GIB
"""Below this a 512 x 512 x 300 study does not fit."""

COMFORTABLE_MEMORY_BYTES = 12 * GIB
"""Below this studies of 800 slices may not fit."""

LEAST_DISK_BYTES = 1 * GIB
COMFORTABLE_DISK_BYTES = 10 * GIB

SYNTAXES = {
    "JPEG baseline": "1.2.840.10008.1.2.4.50",
    "JPEG lossless": "1.2.840.10008.1.2.4.70",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG 2000": "1.2.840.10008.1.2.4.90",
    "HTJ2K": "1.2.840.10008.1.2.4.201",
    "RLE": "1.2.840.10008.1.2.5",
}
"""Compressed transfer syntaxes that scanners and archives send."""


class Health(StrEnum):
    """What a check found."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """One part of the machine.

    Parameters
    ----------
    name
        ``"device"``, ``"memory"``, ``"codecs"``, ``"weights"``, ``"disk"``, ``"temp"``, ``"dicom-out"``, ``"pacs"``.
    health
        ``fail`` means that a run would fail; ``warn`` that some studies may.
    message
        One sentence.
    hint
        What to do.
    facts
        Numbers behind the sentence, JSON-able.
    """

    name: str
    health: Health
    message: str
    hint: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {
            "name": self.name,
            "health": self.health.value,
            "message": self.message,
            "hint": self.hint,
            "facts": self.facts,
        }


@dataclass(frozen=True)
class Diagnosis:
    """All checks; ready if none failed."""

    checks: tuple[Check, ...]

    @property
    def exit_code(self) -> ExitCode:
        """0 if the machine is ready (warnings included), else 3."""
        failed = any(check.health is Health.FAIL for check in self.checks)
        return ExitCode.SOME_NOT_DONE if failed else ExitCode.OK

    def to_dict(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {
            "schema": DOCTOR_SCHEMA,
            "version": __version__,
            "python": platform.python_version(),
            "ready": self.exit_code is ExitCode.OK,
            "exit_code": int(self.exit_code),
            "checks": [check.to_dict() for check in self.checks],
        }


@dataclass(frozen=True)
class DoctorRequest:
    """What the machine is to be ready for.

    Parameters
    ----------
    output
        Where results are to go; it need not exist yet.
    home
        Folder of the weights cache.
    device
        As for ``agseg segment``.
    weights, manifest
        Which weights; None for the manifest's default.
    archive
        Makes the connection to the site's archive, or None if there is none to be asked.
    """

    output: Path
    home: Path
    device: str = "auto"
    weights: str | None = None
    manifest: Path | None = None
    archive: Callable[[], Archive] | None = None


def examine(request: DoctorRequest) -> Diagnosis:
    """Look at everything a run needs. Nothing is fetched, and nothing stays on the disk."""
    return Diagnosis(tuple(_checks(request)))


def _checks(request: DoctorRequest) -> Iterator[Check]:
    yield _device(request.device)
    yield _memory()
    yield _codecs()
    yield _weights(request)
    yield _disk("disk", request.output, "results")
    yield _disk("cache", request.home, "weights")
    yield _disk("temp", Path(tempfile.gettempdir()), "temporary files")
    yield _dicom_out()
    yield _pacs(request.archive)


def _device(name: str) -> Check:
    try:
        import torch

        from agseg.inference.device import choose_precision, describe, resolve_device
        from agseg.models.precision import Precision

        device = resolve_device(name)
        precision = choose_precision(Precision.AUTO, device).value
    except UsageError as error:
        return Check("device", Health.FAIL, error.sentence(), error.hint)
    except (ImportError, OSError, RuntimeError) as error:
        return Check("device", Health.FAIL, f"torch does not start ({type(error).__name__})", "Install agseg again.")
    facts: dict[str, Any] = {"device": describe(device), "precision": precision, "torch": torch.__version__}
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        facts |= {"free_bytes": free, "total_bytes": total}
        return Check("device", Health.OK, f"{facts['device']}, {total / GIB:.0f} GiB, {precision}", facts=facts)
    said = f"{facts['device']}, {precision}"
    if device.type == "cpu" and name == "auto":
        return Check("device", Health.OK, f"no GPU is visible; studies run on {said}", facts=facts)
    return Check("device", Health.OK, said, facts=facts)


def _memory() -> Check:
    memory = machine_memory_bytes()
    facts = {"bytes": memory}
    said = f"{memory / GIB:.1f} GiB"
    if memory < LEAST_MEMORY_BYTES:
        return Check("memory", Health.FAIL, f"only {said}", f"Studies need {LEAST_MEMORY_BYTES // GIB} GiB.", facts)
    if memory < COMFORTABLE_MEMORY_BYTES:
        return Check("memory", Health.WARN, f"{said}; long studies may not fit", None, facts)
    return Check("memory", Health.OK, said, facts=facts)


def _codecs() -> Check:
    missing = []
    for name, syntax in SYNTAXES.items():
        try:
            check_codec(syntax)
        except AgsegError:
            missing.append(name)
    facts = {"available": [name for name in SYNTAXES if name not in missing], "missing": missing}
    if missing:
        message = f"{', '.join(missing)} cannot be decoded; such studies are rejected"
        return Check("codecs", Health.WARN, message, install_hint("codecs"), facts)
    return Check("codecs", Health.OK, f"{', '.join(SYNTAXES)} can be decoded", facts=facts)


def _weights(request: DoctorRequest) -> Check:
    try:
        manifest = Manifest.load(request.manifest, home=request.home)
        entry = default_entry(manifest) if request.weights is None else manifest.entry(request.weights)
        states = WeightsCache(request.home, offline=True).verify(entry)
    except AgsegError as error:
        return Check("weights", Health.FAIL, error.sentence(), error.hint)
    facts = {"id": entry.id, "files": {file.filename: state.value for file, state in states}}
    bad = [f"{file.filename} is {state.value}" for file, state in states if state is not FileState.VERIFIED]
    if bad:
        hint = f"agseg weights fetch {entry.id}, or `agseg weights import` on a machine without a network."
        return Check("weights", Health.FAIL, f"{entry.id}: {', '.join(bad)}", hint, facts)
    return Check("weights", Health.OK, f"{entry.id} is here and its digests are right", facts=facts)


def _disk(name: str, wanted: Path, purpose: str) -> Check:
    """Whether files can be made at, or above, the place where they are to go, and how much room there is."""
    place = wanted.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        return Check(name, Health.FAIL, f"the place for {purpose} is not a folder", None)
    try:
        with tempfile.TemporaryFile(dir=place) as stream:
            stream.write(b"x")
            stream.flush()
            os.fsync(stream.fileno())
        free = shutil.disk_usage(place).free
    except OSError as error:
        message = f"{purpose} cannot be written: {in_words(error)}"
        return Check(name, Health.FAIL, message, "Give another folder, or make this one writable.")
    facts = {"free_bytes": free}
    said = f"{free / GIB:.1f} GiB free for {purpose}"
    if free < LEAST_DISK_BYTES:
        return Check(name, Health.FAIL, f"only {said}", "Make room.", facts)
    return Check(name, Health.WARN if free < COMFORTABLE_DISK_BYTES else Health.OK, said, facts=facts)


def _dicom_out() -> Check:
    if not is_installed("highdicom"):
        message = "DICOM objects cannot be written; masks and reports can"
        return Check("dicom-out", Health.WARN, message, install_hint(EXTRA_OF["highdicom"]))
    return Check("dicom-out", Health.OK, "SEG, SR and RTSTRUCT can be written")


def _pacs(archive: Callable[[], Archive] | None) -> Check:
    if archive is None:
        return Check("pacs", Health.OK, "no archive is configured (--pacs, or AGSEG_PACS)", facts={"configured": False})
    facts: dict[str, Any] = {"configured": True}
    try:
        there = archive()
        there.echo()
        answers = there.check(tuple(Need))
    except AgsegError as error:
        hint = error.hint or "See docs/hospital.md, The archive."
        return Check("pacs", Health.FAIL, error.sentence(), hint, {**facts, "code": str(error.code or Code.INTERNAL)})
    facts["services"] = {
        answer.service: answer.problem or ("granted" if answer.is_known else "not tried") for answer in answers
    }
    refused = [answer for answer in answers if answer.problem is not None]
    if refused:
        message = "the archive answers, and refuses " + "; ".join(f"{answer.service} ({answer.problem})" for answer in refused)
        return Check("pacs", Health.FAIL, message, refused[0].hint or "See docs/pacs.md.", {**facts, "code": str(Code.PACS)})
    granted = ", ".join(answer.service for answer in answers)
    return Check("pacs", Health.OK, f"the archive answers and grants {granted}", facts=facts)
