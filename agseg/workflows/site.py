"""One file that says where a hospital's images come from, what is made of them, and where the results go.

For ``agseg night`` and ``agseg listen``; docs/pacs.md has an example of each. Relative paths are below the file's own folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from agseg.binding import Form, bind_node
from agseg.errors import FieldError, UsageError
from agseg.io.pacs.days import seconds_of
from agseg.io.pacs.limits import PacsLimits
from agseg.io.pacs.query import IMAGE_MODALITIES
from agseg.io.pacs.senders import Sender
from agseg.yaml_nodes import Node, read

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
TWO_WORDS = frozenset({"preview"})
"""Switches of ``segment`` that are on unless they are switched off."""

_OPTIONS_AS_GIVEN = frozenset({"segment", "archives"})
"""Keys whose own keys are not fields: options of ``segment``, names of archives."""


@dataclass(frozen=True)
class ArchiveSite:
    """An archive: the options of ``agseg pacs`` under their own names, and which way things go.

    ``pull`` says whether images are fetched from it, ``send`` whether the results of its images go back to it, ``find`` whether
    it can be asked what it holds: a router that only stores cannot.
    """

    pacs: str
    aet: str = "AGSEG"
    credentials: Path | None = None
    modality: tuple[str, ...] = ("CT",)
    move_port: int | None = None
    move_from: tuple[str, ...] = ()
    ca_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    allow_plain_http: bool = False
    timeout: float = 30.0
    retries: int = 3
    pull: bool = True
    send: bool = True
    find: bool = True

    def __post_init__(self) -> None:
        if not self.modality or not set(self.modality) <= set(IMAGE_MODALITIES):
            raise FieldError("modality", "only images are pulled", value=", ".join(self.modality), expected="CT, MR, US")
        if self.pull and not self.find:
            raise FieldError("find", "nothing can be pulled from an archive that cannot be searched", expected="pull: false")
        self.limits()

    def limits(self) -> PacsLimits:
        """How it may be spoken to."""
        return PacsLimits(
            self.timeout, self.retries, self.ca_file, self.aet, self.move_port, self.allow_plain_http, self.tls_cert,
            self.tls_key, tuple(Sender.parse(text) for text in self.move_from),
        )  # fmt: skip


@dataclass(frozen=True)
class ListenSite:
    """What ``agseg listen`` listens to.

    Parameters
    ----------
    allow
        Who may send, ``AETITLE@HOST``; nobody without it.
    port, host, aet
        Where, and as whom; without a port only the folder is watched.
    quiet
        A study is complete once nothing of it has come for so long.
    disk_gb
        Images that wait or are kept take no more than this; then senders are told to try again later.
    watch
        A folder that others write into; a series in it is taken once it has been quiet.
    send_to
        Name of the archive that results go to.
    tls_cert, tls_key, ca_file
        Our certificate, and who signs the senders'; with a certificate the port speaks TLS only.
    """

    allow: tuple[str, ...] = ()
    port: int | None = None
    host: str = ""
    aet: str = "AGSEG"
    quiet: str = "60s"
    disk_gb: float = 100.0
    watch: Path | None = None
    send_to: str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    ca_file: Path | None = None

    def __post_init__(self) -> None:
        if self.port is None and self.watch is None:
            raise FieldError("port", "nothing to listen to", expected="a port, or a folder to watch")
        if self.port is not None and not self.allow:
            raise FieldError("allow", "nobody may send", expected="a list of AETITLE@HOST")
        if not seconds_of(self.quiet) > 0:
            raise FieldError("quiet", "must be longer than nothing", value=self.quiet)
        if not self.disk_gb > 0:
            raise FieldError("disk_gb", "must be more than 0", value=self.disk_gb)
        self.senders()

    def senders(self) -> tuple[Sender, ...]:
        """Who may send."""
        return tuple(Sender.parse(text) for text in self.allow)

    def limits(self) -> PacsLimits:
        """Who we are, and whom we trust."""
        return PacsLimits(ca_file=self.ca_file, calling_aet=self.aet, tls_cert=self.tls_cert, tls_key=self.tls_key)


@dataclass(frozen=True)
class Site:
    """The file.

    Parameters
    ----------
    incoming, output
        Where images arrive, a folder per archive below it, and where results go.
    archives
        By name.
    since
        Studies of the days that this time before now touches.
    keep
        Images of finished studies are removed from ``incoming`` when they have been there for so long; None keeps them.
    segment
        Options of ``agseg segment``, by their long names; each knows its line.
    listen
        For ``agseg listen``.
    """

    incoming: Path
    output: Path
    archives: dict[str, ArchiveSite] = field(default_factory=dict)
    since: str = "36h"
    keep: str | None = None
    segment: dict[str, Node] = field(default_factory=dict)
    listen: ListenSite | None = None

    def __post_init__(self) -> None:
        for name in self.archives:
            if not _NAME.fullmatch(name):
                raise FieldError("archives", "this is no name for an archive", value=name, expected="letters, digits, - and _")
        if self.keep is not None:
            seconds_of(self.keep)
        if self.listen is not None and self.listen.send_to not in (None, *self.archives):
            raise FieldError("listen", "send_to names no archive of this file", value=self.listen.send_to)


def load_site(path: Path) -> Site:
    """Read the file.

    Raises
    ------
    UsageError
        With file and line, if it holds what cannot be.
    """
    root = read(path, error=UsageError)
    _underscored(root.raw)
    forms = {Path: Form(str, lambda text, file: (Path() if file is None else file.absolute().parent) / Path(text).expanduser())}
    site: Site = bind_node(root, Site, forms=forms)
    return site


def _underscored(node: Any) -> None:
    """``move-port`` and ``move_port`` are the same key, as they are on the command line."""
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode):
            key.value = key.value.replace("-", "_")
            if key.value not in _OPTIONS_AS_GIVEN:
                _underscored(value)
            elif key.value == "archives" and isinstance(value, yaml.MappingNode):
                for _, archive in value.value:
                    _underscored(archive)


def option_words(options: dict[str, Any], *, refused: frozenset[str]) -> list[str]:
    """The options of a section as they would be typed.

    Raises
    ------
    UsageError
        For an option that the site's file decides otherwise.
    """
    words: list[str] = []
    for key, value in options.items():
        name = str(key).replace("_", "-")
        if name in refused:
            raise UsageError(
                f"{name!r} cannot stand under segment in a site's file", expected="another option of agseg segment"
            )
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, bool):
                words += [f"--{name}"] if one else [f"--no-{name}"] if name in TWO_WORDS else []
            elif isinstance(one, str | int | float):
                words += [f"--{name}", str(one)]
            else:
                raise UsageError(f"the value of {name!r} is not one that an option takes", value=type(one).__name__)
    return words
