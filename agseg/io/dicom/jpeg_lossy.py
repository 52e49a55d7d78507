"""Whether a lossy JPEG codestream holds all of the picture that was decoded from it.

Decoders leave the blocks behind an early end at zero coefficients, which is flat mid-grey, and only print a warning. Blocks are
coded in rows, so the last one tells: in a picture of a body it is air, or anything but a flat area of exactly this value.
Source: ISO/IEC 10918-1 (ITU-T T.81), A.3.1 (level shift) and A.2.3 (order of blocks of one component).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agseg.errors import Code, InputError

BLOCK = 8


def check_last_block(decoded: NDArray[Any], bits: int) -> None:
    """Refuse a decoded picture (rows, columns; stored patterns) whose last block was filled up.

    Raises
    ------
    InputError
        ``E_TRUNCATED``.
    """
    rows, columns = ((size - 1) // BLOCK * BLOCK for size in decoded.shape)
    if decoded.size and np.all(decoded[rows:, columns:] == 1 << (bits - 1)):
        raise InputError("the compressed picture ends early: the decoder has filled it up", code=Code.TRUNCATED)
