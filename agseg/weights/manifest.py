"""The weights manifest: every trained network that agseg may use, read from YAML and checked key by key.

The packaged ``weights_manifest.yaml`` comes first; a site's own file merges over it: an entry with a known id overrides the
keys it names, an entry with a new id is added. docs/weights.md shows the format.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from agseg.binding import Form, Forms, bind, bind_node, load
from agseg.errors import Code, FieldError, UsageError, WeightsError
from agseg.io.resources import resource_path
from agseg.labels import LabelSet, find_organ, unknown_organ
from agseg.weights.entry import WEIGHTS_ID, WeightsEntry
from agseg.weights.files import FileSource, SourceKind, WeightsFile
from agseg.weights.published import PublishedModel
from agseg.weights.site import site_manifests
from agseg.yaml_nodes import Node

MANIFEST_NAME = "weights_manifest.yaml"
"""The packaged manifest, see :func:`agseg.io.resources.resource_path`."""

PUBLISHED_NAME = "published_models.yaml"
"""The packaged list of models that others publish."""

MANIFEST_SCHEMA = "agseg.weights/1"

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
    published
        Models that others publish, by name; fetched, they become entries.
    """

    by_id: Mapping[str, WeightsEntry]
    defaults: Mapping[tuple[str, str], str] = field(default_factory=dict)
    allowed_hosts: tuple[str, ...] = ()
    published: Mapping[str, PublishedModel] = field(default_factory=dict)

    @classmethod
    def load(cls, site_manifest: Path | None = None, *, home: Path | None = None) -> Manifest:
        """The packaged manifest, with a site's own merged over it.

        Parameters
        ----------
        site_manifest
            A manifest that the user names.
        home
            Folder of the weights cache: what this site has imported (:mod:`agseg.weights.site`) is merged in before.

        Raises
        ------
        UsageError
            If a file is not a manifest: an unknown or missing key, a wrong type, a digest that is none, two defaults for one
            organ; with file and line.
        """
        paths = [resource_path(MANIFEST_NAME), resource_path(PUBLISHED_NAME), *(() if home is None else site_manifests(home))]
        if site_manifest is not None:
            paths.append(site_manifest)
        return _merged([load(path, _Document, error=UsageError) for path in paths])

    @classmethod
    def check(cls, text: str, path: Path) -> None:
        """Refuse the text of a manifest of this path that could not be read once it is there.

        Raises
        ------
        UsageError
            As :meth:`load`.
        """
        _merged([bind(text, _Document, path=path, error=UsageError)])

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
        if weights_id in self.published:
            raise UsageError(
                f"the model {weights_id!r} is not here yet",
                hint=f"Get it: agseg weights fetch {weights_id}   (agseg weights show {weights_id} says what it is)",
            )
        raise UsageError(
            "no weights have this id", value=weights_id, expected=", ".join(self.by_id), hint="List them: agseg weights list"
        )

    def organ(self, text: str) -> str:
        """The organ that is meant, however it is spelt (see :func:`agseg.labels.find_organ`).

        Raises
        ------
        UsageError
            If no entry knows one.
        """
        found = find_organ(text, self.organs)
        if found is None:
            raise self.unknown_organ(text)
        return found

    def unknown_organ(self, organ: str) -> UsageError:
        """The error for an organ that no entry knows: those with default weights first, and the command that shows the most."""
        first = [name for name, _ in self.defaults]
        most = max(self.entries, key=lambda entry: len(entry.labels.names))
        return unknown_organ(organ, self.organs, first=first, hint=f"All of one entry: agseg weights show {most.id}")

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


@dataclass(frozen=True)
class _Document:
    """A manifest file; its entries are bound one by one, after a site's have been merged over the packaged ones."""

    schema: str
    entries: dict[str, Node] = field(default_factory=dict)
    models: dict[str, Node] = field(default_factory=dict)
    allowed_hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.schema != MANIFEST_SCHEMA:
            raise FieldError("schema", "another schema", value=self.schema, expected=MANIFEST_SCHEMA)
        for host in self.allowed_hosts:
            if not _HOST.fullmatch(host):
                raise FieldError("allowed_hosts", "not a host name", value=host, expected="weights.example.org")


@dataclass(frozen=True)
class _HubForm:
    repository: str
    revision: str
    path: str


@dataclass(frozen=True)
class _FileForm:
    """A file as a manifest writes it: its source is the one key of four that is there."""

    filename: str
    packaged: str | None = None
    hub: _HubForm | None = None
    url: str | None = None
    local: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    md5: str | None = None

    def file(self, manifest: Path | None) -> WeightsFile:
        """The same as :class:`WeightsFile`; a local path is relative to the manifest's folder."""
        sources: list[FileSource] = []
        if self.packaged is not None:
            sources.append(FileSource(SourceKind.PACKAGED, path=self.packaged))
        if self.hub is not None:
            sources.append(FileSource(SourceKind.HUB, **vars(self.hub)))
        if self.url is not None:
            sources.append(FileSource(SourceKind.URL, url=self.url))
        if self.local is not None:
            folder = Path() if manifest is None else manifest.parent
            sources.append(FileSource(SourceKind.LOCAL, path=str(folder / Path(self.local).expanduser())))
        if len(sources) != 1:
            raise ValueError(f"a file has exactly one source: {' or '.join(SourceKind)}")
        return WeightsFile(self.filename, sources[0], self.sha256, self.size_bytes, self.md5)


FORMS: Forms = {
    LabelSet: Form(dict[int, str], lambda names, _path: LabelSet.from_mapping(names)),
    WeightsFile: Form(_FileForm, lambda form, path: form.file(path)),
}
"""How a manifest writes the types of an entry."""


def _merged(documents: Sequence[_Document]) -> Manifest:
    """All documents in order: a later one overrides the keys that it names of an entry, and adds entries."""
    nodes: dict[str, Node] = {}
    for document in documents:
        for weights_id, node in document.entries.items():
            if not WEIGHTS_ID.fullmatch(weights_id):
                raise node.refuse("not an id", value=weights_id, expected="a-z, 0-9, . and -")
            nodes[weights_id] = node.merged_over(nodes[weights_id]) if weights_id in nodes else node
    entries: dict[str, WeightsEntry] = {
        name: bind_node(node, WeightsEntry, forms=FORMS, id=name) for name, node in nodes.items()
    }
    defaults: dict[tuple[str, str], str] = {}
    last = {name: number for number, document in enumerate(documents) for name in document.entries}
    for number in range(len(documents)):
        claimed: dict[tuple[str, str], str] = {}
        for weights_id, entry in entries.items():
            for organ in entry.default_for if last[weights_id] == number else ():
                key = (organ, entry.input.modality)
                if key in claimed:
                    message = f"a second default for {organ} in {key[1]} beside {claimed[key]}"
                    raise nodes[weights_id].items()["default_for"].refuse(message)
                claimed[key] = weights_id
        defaults.update(claimed)
    models: dict[str, Node] = {}
    for document in documents:
        for name, node in document.models.items():
            models[name] = node.merged_over(models[name]) if name in models else node
    published: dict[str, PublishedModel] = {name: bind_node(node, PublishedModel, id=name) for name, node in models.items()}
    hosts = documents[-1].allowed_hosts if len(documents) > 1 else ()
    return Manifest(MappingProxyType(entries), MappingProxyType(defaults), hosts, MappingProxyType(published))
