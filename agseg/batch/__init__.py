"""Many studies: the lock, fingerprints, worker processes, and one record per study.

How a run is put together (``workflows.segment`` does exactly this)::

    with claim_output(out, dry_run=..., part=...) as output:      # OutputError (8) or LockedError (6) before anything else
        entry, files = ...                                        # the manifest and the weights cache; no torch in this process
        job = BatchJob(inputs=..., model=ModelFactory(...), networks=(NetworkUse(...),), parameters={...}, ...)
        report = run_batch(job, output, on_event=...)             # -> BatchReport; report.exit_code is the process's exit code

The parent process imports no torch and reads no pixels. *Reader* processes call ``job.read(study) -> Volume`` (default
``agseg.io.read.read_volume``); one *model* process calls ``job.model()`` once, which imports torch, loads the weights and
returns an object with

* ``environment: dict[str, Any]``: what it runs on (device, torch version, ...), JSON-able; it goes into run.json;
* ``process(task: StudyTask, volume: Volume, stage: Callable[[str], None]) -> StudyReport | Draft``: one study. It calls
  ``stage("predict")`` and the like as it goes. To refuse or give up it raises: InputError -> ``rejected``; InferenceError,
  MemoryError and anything unexpected -> ``failed``; OutputError -> ``failed`` and exit 8.

It may leave a :class:`~agseg.batch.draft.Draft` (labels and JSON-able facts): the *writer* process, made by ``job.writer()``,
turns it into files by ``write(task, volume, draft, stage)`` while the model has the next study. Or it writes for itself. Either
way files are written through :class:`~agseg.batch.folder.StudyFolder`, and the report's status is ``done``::

    class Segmenter:
        def process(self, task, volume, stage):
            with StudyFolder(task) as folder:
                write_mask(folder.path / "pancreas.nii.gz", ...)          # any files, any sub-folders
                return folder.publish(volume, organs=..., warnings=..., seconds={...})   # study.json, then all at once

``job.read``, ``job.model`` and ``job.writer`` cross a process boundary: they must be picklable (a top-level function; a frozen
dataclass with ``__call__``). They are imported in the child from the module that defines them, so that module must not import
torch at its top if the parent imports it too. ``task.read_seconds`` is what the reader took; ``seconds`` of the report should
include it.

A job without readers (``read=None``) has clips or other files that are never held whole: its processor reads them itself,
``process(task, stage)``.

A child that crashes, hangs longer than ``limits.study_timeout_s`` or grows beyond its memory limit costs the study it was
working on (``E_CRASHED``, ``E_TIMEOUT``, ``E_OUT_OF_MEMORY``), nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agseg.batch.events import BatchEvent, EventKind
    from agseg.batch.folder import StudyFolder
    from agseg.batch.job import BatchJob, Limits, Part, Processor, StudyTask
    from agseg.batch.output import Output, claim_output
    from agseg.batch.run import run_batch

__all__ = [
    "BatchEvent",
    "BatchJob",
    "EventKind",
    "Limits",
    "Output",
    "Part",
    "Processor",
    "StudyFolder",
    "StudyTask",
    "claim_output",
    "run_batch",
]

_HOME = {
    "BatchEvent": "events",
    "BatchJob": "job",
    "EventKind": "events",
    "Limits": "job",
    "Output": "output",
    "Part": "job",
    "Processor": "job",
    "StudyFolder": "folder",
    "StudyTask": "job",
    "claim_output": "output",
    "run_batch": "run",
}


def __getattr__(name: str) -> Any:
    """The public names from their modules: a child process, which imports this package too, needs few of them."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
