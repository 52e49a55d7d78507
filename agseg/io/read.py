"""One way in: a Study, whatever its format, becomes a Volume."""

from __future__ import annotations

from agseg.errors import Code, InputError
from agseg.io.channels import read_channels
from agseg.io.readers import reader_of
from agseg.study import Study
from agseg.volume import Volume

__all__ = ["read_volume"]


def read_volume(study: Study) -> Volume:
    """Read the voxels of a study that discovery has found.

    Returns
    -------
    Volume
        Voxels (i, j, k) on the source's own grid, RAS+ mm, HU or signal, with the warnings of discovery and of reading.

    Raises
    ------
    InputError
        With the reason code: the study's own if discovery rejected it, or what reading ran into.
    """
    if study.rejected is not None:
        raise InputError(study.rejected.message, code=study.rejected.code)
    try:
        return reader_of(study.kind).read(study) if study.channels == 1 else read_channels(study)
    except FileNotFoundError:
        raise InputError("a file of the study has gone since it was found", code=Code.CHANGED) from None
    except PermissionError:
        raise InputError("no permission to read a file of the study", code=Code.PERMISSION) from None
    except OSError as error:
        raise InputError(f"a file of the study cannot be read (errno {error.errno})", code=Code.UNREADABLE_FILE) from None
    except RecursionError:
        raise InputError("the header is nested too deeply", code=Code.HEADER_INVALID) from None
    except (InputError, MemoryError):
        raise
    except Exception as error:
        # Files can make a library raise anything; that is about them, and the error's text may quote a header.
        raise InputError(f"the study cannot be understood ({type(error).__name__})", code=Code.DECODE) from error
