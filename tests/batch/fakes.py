"""Readers and models that do what the test asks for, without torch: what a study is to do stands in its file's name.

Every child process of a run imports this module, so it imports no more than they have.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agseg.batch import BatchJob, Limits, Processor, StudyFolder, StudyTask
from agseg.batch.draft import Draft
from agseg.batch.provenance import NetworkUse
from agseg.errors import Code, InferenceError, InputError, UsageError, WeightsError
from agseg.io.nifti import read_nifti
from agseg.io.nifti_write import write_mask
from agseg.report import Measurement, OrganStatus, StudyReport, WeightsRef
from agseg.study import Study
from agseg.volume import Volume

SHAPE = (12, 10, 8)
AFFINE = np.diag([-2.0, -2.0, 3.0, 1.0])
WEIGHTS = WeightsRef(id="fake", sha256="0" * 64, architecture="threshold", licence="Apache-2.0")
NETWORK = NetworkUse(WEIGHTS, ("liver",))


def write_study(path: Path, *, seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> Path:
    """A small CT as NIfTI."""
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(seed).integers(-200, 300, shape).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, AFFINE), path)
    return path


def misbehave(study: Study, where: str) -> None:
    """Do what the name says, e.g. ``read-segv`` or ``model-hang``."""
    name = study.files[0].name
    if f"{where}-kill" in name:
        os.kill(os.getpid(), signal.SIGKILL)
    if f"{where}-segv" in name:
        ctypes.string_at(0)
    if f"{where}-hang" in name:
        time.sleep(600)
    if f"{where}-exit" in name:
        os._exit(3)
    if f"{where}-grow" in name:
        hoard = []
        while True:
            hoard.append(np.ones(16 << 20))
    if f"{where}-reject" in name:
        raise InputError("a slice is missing", code=Code.MISSING_SLICES)
    if f"{where}-eio" in name:
        raise OSError(errno.EIO, "input/output error")
    if f"{where}-codec" in name:
        raise InputError("no codec is installed", code=Code.TRANSFER_SYNTAX)
    if f"{where}-infer" in name:
        raise InferenceError("it does not fit")
    if f"{where}-bug" in name:
        raise ZeroDivisionError("SECRET^NAME")
    if f"{where}-slow" in name:
        time.sleep(0.3)
    if f"{where}-full" in name:
        raise OSError(errno.ENOSPC, "no space")


def read(study: Study) -> Volume:
    """A NIfTI file as a Volume, or trouble."""
    misbehave(study, "read")
    volume = read_well(study)
    if "read-change" in study.files[0].name:
        os.utime(study.files[0])
    return volume


class Threshold:
    """A model: soft tissue is liver. What it found is left to the writer."""

    environment: dict[str, Any] = {"device": "none"}  # noqa: RUF012

    def process(self, task: StudyTask, volume: Volume, stage: Callable[[str], None]) -> StudyReport | Draft:
        started = time.monotonic()
        stage("predict")
        misbehave(task.study, "model")
        labels = (volume.voxels > 100).astype(np.uint8)
        if "waves" in task.study.id:
            (task.root.parent / "waving").touch()
        return Draft(labels, {"seconds": time.monotonic() - started})


class WholeThreshold(Threshold):
    """The same model, which writes for itself."""

    def process(self, task: StudyTask, volume: Volume, stage: Callable[[str], None]) -> StudyReport:
        draft = super().process(task, volume, stage)
        assert isinstance(draft, Draft)
        return LiverWriter().write(task, volume, draft, stage)


class LiverWriter:
    """Writes the mask and its volume, or gets into trouble before and after."""

    def write(self, task: StudyTask, volume: Volume, draft: Draft, stage: Callable[[str], None]) -> StudyReport:
        stage("write")
        labels = draft.labels
        while "waits" in task.study.id and not (task.root.parent / "waving").exists():
            time.sleep(0.02)
        with StudyFolder(task) as folder:
            write_mask(folder.path / "liver.nii.gz", labels, volume.grid)
            misbehave(task.study, "write")
            voxels = int(labels.sum())
            organ = Measurement(
                "liver", OrganStatus.PRESENT, voxels * volume.grid.voxel_volume_ml, voxels, 200.0, weights="fake"
            )
            report = folder.publish(volume, organs=(organ,), seconds={"total": draft.facts["seconds"]})
        misbehave(task.study, "written")
        return report


@dataclass(frozen=True)
class MakeThreshold:
    """The factory, or trouble in it."""

    trouble: str = ""
    whole: bool = False

    def __call__(self) -> Processor:
        if self.trouble == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.trouble == "weights":
            raise WeightsError("a tensor is missing")
        if self.trouble == "usage":
            raise UsageError("there is no GPU")
        return WholeThreshold() if self.whole else Threshold()


def read_well(study: Study) -> Volume:
    """As :func:`read`, on a day without trouble."""
    volume = read_nifti(study)
    return Volume(volume.voxels.astype(np.int16), volume.grid)


def job(*inputs: Path, **changes: Any) -> BatchJob:
    """A run of the fakes over the inputs; short limits."""
    given: dict[str, Any] = {
        "model": MakeThreshold(),
        "writer": LiverWriter,
        "networks": (NETWORK,),
        "parameters": {"organs": ["liver"]},
        "read": read,
        "limits": Limits(study_timeout_s=20),
    }
    return BatchJob(inputs=inputs, **{**given, **changes})
