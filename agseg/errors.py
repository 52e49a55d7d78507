"""Every error agseg raises on purpose, and the exit codes that scripts rely on.

    AgsegError
    ├── UsageError       the command line or a configuration asks for something that cannot be     exit 2
    ├── InputError       a study, file or video that must not be processed                         exit 3 or 4
    ├── WeightsError     weights that are missing, unverified, corrupt or unfit                    exit 7
    ├── RecipeError      a training recipe, data set or split that does not hold together          exit 2
    ├── InferenceError   the network could not be run on this study                                exit 3 or 4
    ├── LockedError      another run holds this output                                             exit 6
    ├── PacsError        an archive that cannot be reached, refuses, or answers nonsense          exit 4
    └── OutputError      a result that could not be written or did not read back                   exit 8

An error carries data (reason code, path, value, expected, hint); the command line makes the sentence. Nothing that comes
from a patient's header may be put into ``value`` or ``message``: errors are printed, logged and reported.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from pathlib import Path

__all__ = [
    "AgsegError",
    "Code",
    "ExitCode",
    "FieldError",
    "InferenceError",
    "InputError",
    "LockedError",
    "OutputError",
    "PacsError",
    "RecipeError",
    "UsageError",
    "WeightsError",
]


class ExitCode(IntEnum):
    """What a finished process says to the script that started it (stable; see docs/hospital.md)."""

    OK = 0
    BUG = 1
    USAGE = 2
    SOME_NOT_DONE = 3
    NONE_DONE = 4
    NO_STUDY = 5
    LOCKED = 6
    WEIGHTS = 7
    OUTPUT = 8
    DEADLINE = 9
    INTERRUPTED = 130
    TERMINATED = 143


class Code(StrEnum):
    """Reason (``E_``) and warning (``W_``) codes. They are stable API: documented, never renamed."""

    UNREADABLE_FILE = "E_UNREADABLE_FILE"
    TRUNCATED = "E_TRUNCATED"
    HEADER_INVALID = "E_HEADER_INVALID"
    HEADER_LIES = "E_HEADER_LIES"
    NOT_DICOM = "E_NOT_DICOM"
    NOT_NIFTI = "E_NOT_NIFTI"
    NO_IMAGE_SERIES = "E_NO_IMAGE_SERIES"
    NO_PIXELS = "E_NO_PIXELS"
    NO_GEOMETRY = "E_NO_GEOMETRY"
    NO_RESCALE = "E_NO_RESCALE"
    SINGULAR_AFFINE = "E_SINGULAR_AFFINE"
    SHEARED = "E_SHEARED"
    SFORM_QFORM_CONFLICT = "E_SFORM_QFORM_CONFLICT"
    IMPLAUSIBLE_SPACING = "E_IMPLAUSIBLE_SPACING"
    NONUNIFORM_SPACING = "E_NONUNIFORM_SPACING"
    MISSING_SLICES = "E_MISSING_SLICES"
    TOO_FEW_SLICES = "E_TOO_FEW_SLICES"
    DUPLICATE_POSITIONS = "E_DUPLICATE_POSITIONS"
    MIXED_SERIES = "E_MIXED_SERIES"
    GANTRY_TILT = "E_GANTRY_TILT"
    DIMENSIONS = "E_DIMENSIONS"
    FOUR_D = "E_4D"
    DTYPE = "E_DTYPE"
    EMPTY_IMAGE = "E_EMPTY_IMAGE"
    TOO_LARGE = "E_TOO_LARGE"
    MODALITY = "E_MODALITY"
    TRANSFER_SYNTAX = "E_TRANSFER_SYNTAX"
    DECODE = "E_DECODE"
    UNSUPPORTED_INPUT = "E_UNSUPPORTED_INPUT"
    UNSAFE_ARCHIVE = "E_UNSAFE_ARCHIVE"
    PATH_ESCAPE = "E_PATH_ESCAPE"
    SYMLINK = "E_SYMLINK"
    PERMISSION = "E_PERMISSION"
    OUTPUT_NOT_WRITABLE = "E_OUTPUT_NOT_WRITABLE"
    VIDEO = "E_VIDEO"
    WEIGHTS_CHECKSUM = "E_WEIGHTS_CHECKSUM"
    NOT_HU = "E_NOT_HU"
    IDENTITY = "E_IDENTITY"
    # our own, beside those of the published list
    CRASHED = "E_CRASHED"
    TIMEOUT = "E_TIMEOUT"
    OUT_OF_MEMORY = "E_OUT_OF_MEMORY"
    CHANGED = "E_CHANGED"
    DISK_FULL = "E_DISK_FULL"
    OUTPUT = "E_OUTPUT"
    INFERENCE = "E_INFERENCE"
    USAGE = "E_USAGE"
    WEIGHTS = "E_WEIGHTS"
    RECIPE = "E_RECIPE"
    DEADLINE = "E_DEADLINE"
    PACS = "E_PACS"
    INTERNAL = "E_INTERNAL"
    LOCKED = "E_LOCKED"
    INTERRUPTED = "E_INTERRUPTED"

    DUPLICATE_SLICES = "W_DUPLICATE_SLICES"
    DUPLICATE_UID = "W_DUPLICATE_UID"
    MISSING_UIDS = "W_MISSING_UIDS"
    NONFINITE = "W_NONFINITE"
    BODY_PART = "W_BODY_PART"
    MODALITY_ASSUMED = "W_MODALITY_ASSUMED"
    GANTRY_TILT_CORRECTED = "W_GANTRY_TILT_CORRECTED"
    JUNK_FILES = "W_JUNK_FILES"
    FALLBACK = "W_FALLBACK"
    OVERLAP = "W_OVERLAP"
    SCOUT = "W_SCOUT"
    EDITED = "W_EDITED"
    NOT_CODED = "W_NOT_CODED"
    NO_ORGAN = "W_NO_ORGAN"
    FRAMES_LOST = "W_FRAMES_LOST"
    FRAME_TIMES = "W_FRAME_TIMES"
    FRAME_TURN = "W_FRAME_TURN"
    IDENTITY_ODD = "W_IDENTITY"
    LEFT_OUT = "W_LEFT_OUT"
    INCOMPLETE = "W_INCOMPLETE"
    DERIVED = "W_DERIVED"
    UNUSED_BITS = "W_UNUSED_BITS"
    CHARACTER_SET = "W_CHARACTER_SET"
    LONG_VALUE = "W_LONG_VALUE"
    NO_FAN = "W_NO_FAN"
    CLOCK = "W_CLOCK"


class AgsegError(Exception):
    """Root of the tree. ``str()`` is one sentence fit for a report.

    Parameters
    ----------
    message
        What is wrong, in one sentence, free of patient data.
    code
        The reason code that stands in the records.
    path
        The file or folder concerned.
    value, expected
        The offending value and what was expected in its place.
    hint
        What to do next, often the command to type.
    """

    exit_code: ExitCode = ExitCode.BUG
    default_code: Code = Code.INTERNAL

    def __init__(
        self,
        message: str,
        *,
        code: Code | None = None,
        path: Path | str | None = None,
        value: object = None,
        expected: object = None,
        hint: str | None = None,
    ) -> None:
        self.message = message
        self.code = code or self.default_code
        self.path = None if path is None else Path(path)
        self.value = value
        self.expected = expected
        self.hint = hint
        super().__init__(self.sentence())

    def sentence(self) -> str:
        """The message with value and expectation, without the path."""
        parts = [self.message]
        if self.value is not None:
            parts.append(f"found {self.value}")
        if self.expected is not None:
            parts.append(f"expected {self.expected}")
        return ": ".join((parts[0], ", ".join(parts[1:]))) if len(parts) > 1 else parts[0]

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions cross process boundaries; keyword-only arguments need this to survive pickling.
        state = {k: getattr(self, k) for k in ("code", "path", "value", "expected", "hint")}
        return (_rebuild, (type(self), self.message, state))


def _rebuild(kind: type[AgsegError], message: str, state: dict[str, object]) -> AgsegError:
    return kind(message, **state)  # type: ignore[arg-type]


class FieldError(ValueError):
    """A field of a value that does not hold what it must; where the value came from a file, the binder adds file and line.

    Parameters
    ----------
    field
        The field's name.
    message, value, expected
        As in :class:`AgsegError`.
    """

    def __init__(self, field: str, message: str, *, value: object = None, expected: object = None) -> None:
        self.field = field
        self.message = message
        self.value = value
        self.expected = expected
        found = "" if value is None else f", found {value}"
        wanted = "" if expected is None else f", expected {expected}"
        super().__init__(f"{field}: {message}{found}{wanted}")

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_field, (self.field, self.message, self.value, self.expected))


def _rebuild_field(field: str, message: str, value: object, expected: object) -> FieldError:
    return FieldError(field, message, value=value, expected=expected)


class UsageError(AgsegError):
    """The command line or a configuration file asks for something that does not exist or does not fit."""

    exit_code = ExitCode.USAGE
    default_code = Code.USAGE


class InputError(AgsegError):
    """An input that must not be segmented; costs this study, never the batch."""

    exit_code = ExitCode.SOME_NOT_DONE
    default_code = Code.UNREADABLE_FILE


class WeightsError(AgsegError):
    """Weights that are missing, unverified, corrupt, or do not fit their network."""

    exit_code = ExitCode.WEIGHTS
    default_code = Code.WEIGHTS


class RecipeError(AgsegError):
    """A recipe, data set or split with an unknown key, a missing case or a contradiction."""

    exit_code = ExitCode.USAGE
    default_code = Code.RECIPE


class InferenceError(AgsegError):
    """The network could not be run on this study (memory, device, shape)."""

    exit_code = ExitCode.SOME_NOT_DONE
    default_code = Code.INFERENCE


class LockedError(AgsegError):
    """Another run is writing into this output folder."""

    exit_code = ExitCode.LOCKED
    default_code = Code.LOCKED


class PacsError(AgsegError):
    """An archive could not be reached in time, refused, or answered with nonsense."""

    exit_code = ExitCode.NONE_DONE
    default_code = Code.PACS


class OutputError(AgsegError):
    """A result could not be written, or did not read back as written."""

    exit_code = ExitCode.OUTPUT
    default_code = Code.OUTPUT
