"""Opening a file with pydicom, quietly: its log lines and warnings quote header values, and those are patient data."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from typing import Any

from agseg.errors import Code, InputError
from agseg.io.opening import open_regular


@cache
def quiet_pydicom() -> Any:
    """The pydicom module, with its logger cut off and without value checks that warn."""
    import pydicom
    from pydicom import config

    logger = logging.getLogger("pydicom")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    # What a reader must reject is decided here, value by value; pydicom's own checks would only print.
    config.settings.reading_validation_mode = config.IGNORE
    return pydicom


def open_dataset(path: Path, *, with_pixels: bool = True, only: list[Any] | None = None) -> Any:
    """The pydicom data set of a file, with or without a preamble.

    Parameters
    ----------
    only
        Tags to keep; None keeps all.

    Raises
    ------
    InputError
        ``E_TRUNCATED``, ``E_PERMISSION``, ``E_UNREADABLE_FILE``.
    """
    pydicom = quiet_pydicom()
    try:
        with open_regular(path) as stream:
            return pydicom.dcmread(stream, stop_before_pixels=not with_pixels, force=True, specific_tags=only)
    except InputError:
        raise
    except EOFError:
        raise InputError("the file ends too early", code=Code.TRUNCATED, path=path) from None
    except PermissionError:
        raise InputError("no permission to read the file", code=Code.PERMISSION, path=path) from None
    except Exception as error:
        # pydicom raises whatever its parsing ran into, RecursionError included; its text may quote header values.
        raise InputError(
            f"the DICOM data set cannot be read ({type(error).__name__})", code=Code.UNREADABLE_FILE, path=path
        ) from None
