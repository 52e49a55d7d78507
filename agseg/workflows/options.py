"""How masks are made and what is written of them: the settings of ``agseg segment`` beyond inputs and weights.

What shapes a mask is a type of its own. It alone enters resume keys and derived UIDs: a run that is repeated with another
output, or on another device, asks for the same masks.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from agseg.io.outputs import Outputs


@dataclass(frozen=True, kw_only=True)
class Shaping:
    """What decides about a mask's voxels, beside input and weights.

    Parameters
    ----------
    precision
        ``auto``, ``fp32``, ``bf16`` or ``fp16``.
    overlap
        Fraction shared by neighbouring tiles; None means the weights' own.
    fast, mirror
        See :class:`agseg.inference.segment.Settings`.
    prune_depth
        At which depth a nested network is cut off; None for none.
    """

    precision: str = "auto"
    overlap: float | None = None
    fast: bool = False
    mirror: bool = False
    prune_depth: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """As in records, resume keys and derived UIDs."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class SegmenterOptions:
    """All settings of a run that are the same for every study.

    Parameters
    ----------
    device
        Where to compute.
    scout
        ``auto``, ``off``, or the id of the weights that look for the organs first. Records name those that did.
    shaping, outputs
        What decides about the masks, and what is written of them.
    """

    device: str = "auto"
    scout: str = "auto"
    shaping: Shaping = field(default_factory=Shaping)
    outputs: Outputs = field(default_factory=Outputs)

    def to_dict(self) -> dict[str, Any]:
        """As in records."""
        return {"device": self.device, **self.shaping.to_dict(), **self.outputs.to_dict()}
