"""UIDs that are derived from what a result is, so that making and sending it twice adds nothing to an archive."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agseg.volume import LabelMask


def derived_uid(*parts: str) -> str:
    """A UID below 2.25 (DICOM PS3.5 B.2: a UUID as a decimal number) that depends on nothing but its parts."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}"


def mask_digest(mask: LabelMask) -> str:
    """SHA-256 of labels, shape, affine and label names."""
    # In the order (k, j, i), in which masks usually lie in memory: no copy then.
    digest = hashlib.sha256(np.ascontiguousarray(mask.labels.T).data.cast("B"))
    labels = [(label.index, label.name) for label in mask.label_set]
    digest.update(json.dumps([mask.grid.shape, mask.grid.affine.tolist(), labels]).encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class ResultIdentity:
    """Patient, source series, weights, parameters and mask, as one digest.

    Images that are filed again under another patient or study give other objects: an archive takes the same UID for the same
    object, and would keep the one of the wrong patient.
    """

    digest: str

    @classmethod
    def of(
        cls,
        *,
        patient_id: str,
        study_uid: str,
        series_uid: str,
        first_image_uid: str,
        weights_sha256: Sequence[str],
        parameters: Mapping[str, Any],
        mask: LabelMask,
    ) -> ResultIdentity:
        """The identity of the result that these weights and parameters give on this series of this patient.

        ``first_image_uid`` tells the passes of one series apart, whose masks may be alike: no organ in either, for example.
        """
        settings = json.dumps(parameters, sort_keys=True, default=str)
        content = json.dumps(
            [patient_id, study_uid, series_uid, first_image_uid, list(weights_sha256), settings, mask_digest(mask)]
        )
        return cls(hashlib.sha256(content.encode()).hexdigest())

    def uid(self, *role: str) -> str:
        """The UID of one thing about this result, e.g. ``("sr", "series")`` or ``("organ", "liver")``."""
        return derived_uid(self.digest, *role)
