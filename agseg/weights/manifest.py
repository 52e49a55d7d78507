"""The weights manifest: every trained network that agseg may use, read from YAML and checked key by key.

The packaged ``weights_manifest.yaml`` comes first; a site's own file merges over it: an entry with a known id overrides the
keys it names, an entry with a new id is added. docs/weights.md shows the format.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from agseg.errors import Code, UsageError, WeightsError
from agseg.io.resources import resource_path
from agseg.labels import unknown_organ
from agseg.weights.entry import WeightsEntry
from agseg.weights.fields import Fields
from agseg.weights.parse import parse_entry

__all__ = ["MANIFEST_NAME", "MANIFEST_SCHEMA", "Manifest"]

MANIFEST_NAME = "weights_manifest.yaml"
"""The packaged manifest, see :func:`agseg.io.resources.resource_path`."""

MANIFEST_SCHEMA = "agseg.weights/1"

_ID = re.compile(r"[a-z0-9][a-z0-9.\-]{0,63}")
_HOST = re.compile(r"[a-z0-9]([a-z0-9.\-]{0,252}[a-z0-9])?")


@dataclass(frozen=True)
class Manifest:
    """All entries by id.

    Parameters
    ----------
    by_id
        Entries in the order of the files, packaged ones first.
    defaults
        ``(organ, modality)`` to the id of its default entry.
    allowed_hosts
        Hosts from which a site's own manifest lets files come, beside the built-in ones.
    """

    by_id: Mapping[str, WeightsEntry]
    defaults: Mapping[tuple[str, str], str] = field(default_factory=dict)
    allowed_hosts: tuple[str, ...] = ()

    @classmethod
    def load(cls, site_manifest: Path | None = None) -> Manifest:
        """The packaged manifest, with a site's own merged over it.

        Raises
        ------
        UsageError
            If a file is not a manifest: an unknown or missing key, a wrong type, a digest that is none, two defaults for one
            organ; with file and line.
        """
        packaged = Fields.read(resource_path(MANIFEST_NAME), name="weights manifest")
        site = None if site_manifest is None else Fields.read(site_manifest, name="site manifest")
        return _merged(packaged, site)

    @property
    def entries(self) -> tuple[WeightsEntry, ...]:
        """All entries, packaged manifest first."""
        return tuple(self.by_id.values())

    @property
    def organs(self) -> tuple[str, ...]:
        """Names that some entry knows, in order of the alphabet."""
        return tuple(sorted({name for entry in self.entries for name in entry.labels.names}))

    def entry(self, weights_id: str) -> WeightsEntry:
        """The entry with this id.

        Raises
        ------
        WeightsError
            If it is the name of a file: a file without an entry has no digest to check it against, so it is never opened.
        UsageError
            If there is no such entry; the message lists the ids.
        """
        if weights_id in self.by_id:
            return self.by_id[weights_id]
        if Path(weights_id).suffix or "/" in weights_id or "\\" in weights_id:
            raise WeightsError(
                "a weights file without an entry in the manifest has no digest to check and is not opened",
                code=Code.WEIGHTS_CHECKSUM,
                path=weights_id,
                expected=f"one of {', '.join(self.by_id)}",
                hint="Describe a safetensors file in a manifest of your own (--manifest), or `agseg weights import FILE`.",
            )
        raise UsageError(
            "no weights have this id", value=weights_id, expected=", ".join(self.by_id), hint="List them: agseg weights list"
        )

    def unknown_organ(self, organ: str) -> UsageError:
        """The error for an organ that no entry knows: those with default weights first, and the command that shows the most."""
        first = [name for name, _ in self.defaults]
        most = max(self.entries, key=lambda entry: len(entry.labels.names))
        return unknown_organ(organ, self.organs, first=first, hint=f"Those of one entry: agseg weights show {most.id}")

    def default_for(self, organ: str, modality: str) -> WeightsEntry:
        """The one entry that segments ``organ`` in images of ``modality`` where the user names none.

        Raises
        ------
        UsageError
            If there is none; the hint names the entries that know the organ, or the organs that are named alike.
        """
        if (organ, modality) in self.defaults:
            return self.by_id[self.defaults[organ, modality]]
        if organ not in self.organs:
            raise self.unknown_organ(organ)
        able = [entry.id for entry in self.entries if organ in entry.labels and entry.input.modality == modality]
        known = sorted(name for name, of in self.defaults if of == modality)
        raise UsageError(
            f"no default weights for {organ} in {modality}",
            expected=f"one of {', '.join(known)}" if known else "an organ of the manifest",
            hint=f"These weights know it: --weights {' | '.join(able)}" if able else "List organs: agseg weights list",
        )


def _merged(packaged: Fields, site: Fields | None) -> Manifest:
    base = _sections(packaged)
    over = {} if site is None else _sections(site)
    hosts = () if site is None else _hosts(site)
    for document in (packaged, site):
        if document is not None:
            document.finish()
    entries: dict[str, WeightsEntry] = {}
    defaults: dict[tuple[str, str], str] = {}
    for part in (base, over):
        claimed: dict[tuple[str, str], str] = {}
        for weights_id, fields in part.items():
            if part is base and weights_id in over:
                continue  # read below, merged
            if part is over and weights_id in base:
                fields = fields.merged_over(base[weights_id])
            line = fields.line_of("default_for")
            entry = parse_entry(weights_id, fields)
            entries[weights_id] = entry
            for organ in entry.default_for:
                key = (organ, entry.input.modality)
                if key in claimed:
                    raise fields.error(f"a second default for {organ} in {key[1]} beside {claimed[key]}", line)
                claimed[key] = weights_id
        defaults.update(claimed)
    ordered = {weights_id: entries[weights_id] for weights_id in (*base, *(new for new in over if new not in base))}
    return Manifest(MappingProxyType(ordered), MappingProxyType(defaults), hosts)


def _sections(document: Fields) -> dict[str, Fields]:
    schema = document.take("schema", str)
    if schema != MANIFEST_SCHEMA:
        raise document.error("another schema", document.line, value=schema, expected=MANIFEST_SCHEMA)
    entries = document.section("entries", "entries")
    sections = {}
    for weights_id in entries.keys():  # noqa: SIM118 - Fields is no dict
        if not _ID.fullmatch(weights_id):
            raise entries.error("not an id", entries.line_of(weights_id), value=weights_id, expected="a-z, 0-9, . and -")
        sections[weights_id] = entries.section(weights_id, f"entry {weights_id}")
    return sections


def _hosts(site: Fields) -> tuple[str, ...]:
    line = site.line_of("allowed_hosts")
    hosts = site.take("allowed_hosts", list, [])
    for host in hosts:
        if not isinstance(host, str) or not _HOST.fullmatch(host):
            raise site.error("not a host name", line, value=host, expected="weights.example.org")
    return tuple(hosts)
