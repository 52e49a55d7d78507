"""What a result was made from and by; it stands in study.json, and decides whether the result still holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from agseg.report import WeightsRef

__all__ = ["Provenance"]


@dataclass(frozen=True)
class Provenance:
    """What made a study's result.

    Parameters
    ----------
    run
        Id of the run.
    version
        Of agseg.
    weights, usage_sha256, parameters
        As in :class:`agseg.batch.job.BatchJob`.
    fingerprint
        Of the input files (:func:`agseg.batch.fingerprint.input_fingerprint`); None if they could not be read.
    key
        Digest of all of the above but the run (:func:`agseg.batch.fingerprint.resume_key`).
    environment
        What it was computed on; known once a processor has the study.
    """

    run: str
    version: str
    weights: WeightsRef | None
    usage_sha256: str
    parameters: dict[str, Any]
    fingerprint: str | None
    key: str
    environment: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As it stands in study.json."""
        return {
            "version": self.version,
            "weights": None if self.weights is None else self.weights.to_dict(),
            "usage_sha256": self.usage_sha256,
            "parameters": self.parameters,
            "fingerprint": self.fingerprint,
            "key": self.key,
            "run": self.run,
            **({"environment": self.environment} if self.environment else {}),
        }

    @property
    def identity(self) -> dict[str, Any]:
        """The part of it that a study's entry in run.json repeats, so that the next run knows a rejection again."""
        return {"key": self.key, "fingerprint": self.fingerprint}

    def made(self, record: dict[str, Any]) -> bool:
        """Whether a study.json was written by this run from the same things."""
        return record.get("key") == self.key and record.get("run") == self.run
