"""Where an archive is, how it is spoken to, and the secrets that it asks for."""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from agseg.errors import UsageError

AE_TITLE = re.compile(r"[\x21-\x5b\x5d-\x7e]{1,16}")
"""What an AE title may be: printable characters without spaces and backslash."""


class Transport(StrEnum):
    """How an archive is spoken to."""

    WEB = "dicomweb"
    DIMSE = "dimse"


@dataclass(frozen=True)
class PacsAddress:
    """Where an archive is: ``https://host/dicom-web``, or ``dicom://CALLED_AE@host:port`` (``dicoms://`` with TLS)."""

    transport: Transport
    host: str
    port: int
    tls: bool
    url: str = ""
    called_aet: str = ""

    @classmethod
    def parse(cls, text: str) -> PacsAddress:
        """The address that a person wrote.

        Raises
        ------
        UsageError
            For an unknown scheme, a missing port or AE title, or credentials inside the address.
        """
        try:
            parts = urlsplit(text)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise UsageError("the archive's address is no URL", value=_shown(text), expected=_FORMS) from None
        if not host:
            raise UsageError("the archive's address names no host", value=_shown(text), expected=_FORMS)
        if parts.scheme in ("http", "https"):
            if parts.username or parts.password or parts.query or parts.fragment:
                raise UsageError(
                    "the archive's address holds more than host, port and path", hint="See docs/pacs.md for credentials."
                )
            tls = parts.scheme == "https"
            return cls(Transport.WEB, host, port or (443 if tls else 80), tls, url=text.rstrip("/"))
        if parts.scheme in ("dicom", "dicoms"):
            title = parts.username or ""
            if port is None or not AE_TITLE.fullmatch(title) or parts.password or parts.path.strip("/"):
                raise UsageError("the archive's address needs an AE title and a port", value=_shown(text), expected=_FORMS)
            return cls(Transport.DIMSE, host, port, parts.scheme == "dicoms", called_aet=title)
        raise UsageError("unknown kind of address", value=_shown(text), expected=_FORMS)

    @property
    def place(self) -> str:
        """Host and port, for messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether the archive is on this machine."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def _shown(text: str) -> str:
    """The address without what may be a password."""
    return re.sub(r"//[^/]*@", "//...@", text)


_FORMS = "https://host/dicom-web or dicom://AETITLE@host:port (dicoms:// with TLS)"


@dataclass(frozen=True)
class Credentials:
    """User and password, or a bearer token; never shown."""

    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    def __bool__(self) -> bool:
        return bool(self.user or self.token)

    @classmethod
    def from_file(cls, path: Path) -> Credentials:
        """From a YAML file with ``user`` and ``password``, or ``token``, that nobody else may read.

        Raises
        ------
        UsageError
            If the file is missing, a link, readable for others, or holds anything else.
        """
        import yaml

        try:
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        except OSError:
            raise UsageError("the credentials file cannot be read, or is a link", path=path) from None
        with os.fdopen(descriptor, encoding="utf-8") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
                raise UsageError(
                    "others may read the credentials file",
                    path=path, value=oct(status.st_mode & 0o777), expected="0o600", hint=f"chmod 600 {path}",
                )  # fmt: skip
            try:
                content = yaml.safe_load(file)
            except (yaml.YAMLError, UnicodeDecodeError):
                content = None
        known = {"user", "password", "token"}
        if not isinstance(content, dict) or not set(content) <= known or not all(isinstance(v, str) for v in content.values()):
            raise UsageError("the credentials file holds no credentials", path=path, expected="user and password, or token")
        return cls(**content)
