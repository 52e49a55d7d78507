"""Hand-over from the model to the writer: the labels of a study and the facts for its record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Draft:
    """A study that is segmented but not written.

    Parameters
    ----------
    labels
        uint8 (i, j, k) on the volume's grid.
    facts
        JSON-able; the processor that makes the draft and the writer that takes it agree on what is in it.
    """

    labels: NDArray[np.uint8]
    facts: dict[str, Any]
