"""What is offered to an archive: kinds of objects and the forms in which they travel."""

from __future__ import annotations

from collections.abc import Sequence

IMAGE_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2",  # CT
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT
    "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT
    "1.2.840.10008.5.1.4.1.1.4",  # MR
    "1.2.840.10008.5.1.4.1.1.6.1",  # US
    "1.2.840.10008.5.1.4.1.1.3.1",  # US multi-frame
)
"""Storage classes that we take in."""

RESULT_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.66.4": "segmentations",
    "1.2.840.10008.5.1.4.1.1.88.34": "structured reports",
    "1.2.840.10008.5.1.4.1.1.481.3": "RT structure sets",
}
"""Storage classes of what we send, and what people call them."""

SCREEN_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.7": "secondary captures",
    "1.2.840.10008.5.1.4.1.1.104.1": "encapsulated PDF",
}
"""Storage classes that we send only if key images or a PDF were asked for; an archive need not take them otherwise."""

UNCOMPRESSED = (
    "1.2.840.10008.1.2.1",  # explicit VR little endian
    "1.2.840.10008.1.2",  # implicit VR little endian
)

IMAGE_SYNTAXES = (
    *UNCOMPRESSED,
    "1.2.840.10008.1.2.4.70",  # JPEG lossless, first-order prediction
    "1.2.840.10008.1.2.4.57",  # JPEG lossless
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.201",  # HTJ2K lossless
    "1.2.840.10008.1.2.5",  # RLE
    "1.2.840.10008.1.2.4.50",  # JPEG baseline
    "1.2.840.10008.1.2.4.51",  # JPEG extended
    "1.2.840.10008.1.2.4.81",  # JPEG-LS near lossless
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
)
"""Transfer syntaxes that we take in, each proposed by itself: the archive keeps what it stores as it is."""


RESULT_SYNTAXES = (
    *UNCOMPRESSED,
    "1.2.840.10008.1.2.4.70",  # JPEG lossless, first-order prediction
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.5",  # RLE
)
"""In what we send an archive may have put its own compression; more would not fit beside the images into one association."""


def retrieved(classes: Sequence[str]) -> list[tuple[str, str]]:
    """Storage class and transfer syntax of each presentation context of a C-GET; an association holds 128 (PS3.8, 9.3.2)."""
    return [
        (storage, syntax) for storage in classes for syntax in (IMAGE_SYNTAXES if storage in IMAGE_CLASSES else RESULT_SYNTAXES)
    ]


def storage_classes() -> tuple[str, ...]:
    """Every storage class that there is: what may be part of a study that somebody sends."""
    from pynetdicom import AllStoragePresentationContexts

    return tuple(str(context.abstract_syntax) for context in AllStoragePresentationContexts)
