"""From the command line's words to an archive, for the commands that talk to one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from agseg.cli.options import pacs_secret

if TYPE_CHECKING:
    from agseg.io.pacs.archive import Archive, PacsLimits

__all__ = ["opened"]


def opened(address: str, credentials: Path | None, limits: PacsLimits) -> Archive:
    """The archive behind an address, with the secrets of a file or else of the environment; nothing is sent yet."""
    from agseg.io.pacs.archive import Credentials, PacsAddress, open_archive

    if credentials is not None:
        secrets = Credentials.from_file(credentials)
    else:
        secrets = Credentials(pacs_secret("USER"), pacs_secret("PASSWORD"), pacs_secret("TOKEN"))
    return open_archive(PacsAddress.parse(address), credentials=secrets, limits=limits)
