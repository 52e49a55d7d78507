"""What a result was made from and with; written to study.json, it decides whether the result still holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from agseg.report import WeightsRef


@dataclass(frozen=True)
class NetworkUse:
    """One network of a run and what is asked of it.

    Parameters
    ----------
    weights
        Its weights.
    organs
        The organs that it makes, by name.
    usage_sha256
        SHA-256 of the entry's inference settings (input, labels, clean-up, ...), which the weights files do not contain.
    """

    weights: WeightsRef
    organs: tuple[str, ...] = ()
    usage_sha256: str = ""


@dataclass(frozen=True)
class Provenance:
    """What made a study's result.

    Parameters
    ----------
    run
        Id of the run.
    version
        Of agseg.
    networks, parameters
        As in :class:`agseg.batch.job.BatchJob`.
    keys
        For each network, the digest of all that its masks depend on (:func:`agseg.batch.fingerprint.resume_key`).
    fingerprint
        Of the input files (:func:`agseg.batch.fingerprint.input_fingerprint`); None if they could not be read.
    key
        Digest of the keys: the whole result.
    environment
        What it was computed on; known once a processor has the study.
    """

    run: str
    version: str
    networks: tuple[NetworkUse, ...]
    parameters: dict[str, Any]
    fingerprint: str | None
    keys: tuple[str, ...]
    key: str
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def weights(self) -> tuple[WeightsRef, ...]:
        """The weights of all networks."""
        return tuple(network.weights for network in self.networks)

    def to_dict(self) -> dict[str, Any]:
        """As it stands in study.json."""
        return {
            "version": self.version,
            "networks": [
                {"id": use.weights.id, "organs": list(use.organs), "usage_sha256": use.usage_sha256, "key": key}
                for use, key in zip(self.networks, self.keys, strict=True)
            ],
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
