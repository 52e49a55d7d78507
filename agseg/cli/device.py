"""A device is checked before anything is looked for: a night without studies must not hide a wrong ``--device``."""

from __future__ import annotations


def check_device(name: str) -> None:
    """Refuse a device that does not exist here; ``auto`` and ``cpu`` always do, and cost no import of torch.

    Raises
    ------
    UsageError
        If the name is unknown, or the device is not there.
    """
    if name not in ("auto", "cpu"):
        from agseg.inference.device import resolve_device

        resolve_device(name)
