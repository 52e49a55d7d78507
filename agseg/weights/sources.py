"""Where weights come from over the network: a Hugging Face hub at a pinned revision, or an https URL.

This file and :mod:`agseg.weights.download` are the only ones of the room that use the network. Hosts are on an allow-list and
every redirect is checked against it; plain http goes to this machine's loopback only. ``huggingface_hub`` finds the file (it
honours HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE, HF_TOKEN); the bytes of both sources go through the one download, which takes
interrupted files up again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from agseg.errors import Code, WeightsError
from agseg.io.connection import why_no_connection
from agseg.io.exchange import is_loopback
from agseg.weights.digest import Digest, refuse_unless, short
from agseg.weights.download import (
    ATTEMPTS,
    NETWORK_HINT,
    TRANSIENT_STATUS,
    HostRules,
    Remote,
    download,
    pause,
)
from agseg.weights.files import SourceKind, WeightsFile
from agseg.weights.progress import Progress, no_progress

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata

URL_HOSTS = frozenset(
    {"raw.githubusercontent.com", "github.com", "objects.githubusercontent.com", "release-assets.githubusercontent.com"}
)
"""Hosts of URL sources; a site's manifest may name more."""

HUB_DOMAINS = ("huggingface.co", "hf.co")
"""The hub and, below these domains, its own download hosts."""

HUB_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Fetched:
    """A checked file.

    Parameters
    ----------
    is_temporary
        Whether the file may be moved into the cache (a download), or must be copied (somebody else's cache).
    commit
        The hub's commit, None for a URL.
    """

    path: Path
    digest: Digest
    commit: str | None
    is_temporary: bool


def fetch(
    file: WeightsFile,
    partial: Path,
    *,
    weights_id: str,
    commit: str | None,
    recorded_sha256: str | None,
    allowed_hosts: tuple[str, ...],
    offline: bool,
    progress: Progress = no_progress,
) -> Fetched:
    """Get one file and check it.

    Parameters
    ----------
    partial
        Where the download grows; an interrupted one is taken up there.
    commit, recorded_sha256
        What the first fetch of a hub file found, see :mod:`agseg.weights.trust`; both bind.

    Raises
    ------
    WeightsError
        If the network may not be used or does not have the file, or the file is another (``E_WEIGHTS_CHECKSUM``).
    OutputError
        If the disk is full or the cache cannot be written.
    """
    is_hub = file.source.kind is SourceKind.HUB
    if is_hub and (cached := _from_hub_cache(file, commit, recorded_sha256)) is not None:
        return cached
    if offline:
        raise _offline(file, weights_id, "--offline")
    remote = _hub_remote(file, commit, weights_id) if is_hub else _url_remote(file, allowed_hosts)
    digest = _download_checked(file, remote, partial, recorded_sha256, progress)
    return Fetched(partial, digest, remote.commit, is_temporary=True)


def _download_checked(
    file: WeightsFile, remote: Remote, partial: Path, recorded_sha256: str | None, progress: Progress
) -> Digest:
    """Download and check; a resumed file that turns out wrong is loaded once more from its beginning."""
    resumed = partial.exists()
    while True:
        download(remote, partial, size_bytes=file.size_bytes, progress=progress)
        digest = Digest.of(partial)
        if digest.is_of(file, recorded_sha256=recorded_sha256) and remote.sha256 in (None, digest.sha256):
            return digest
        partial.unlink()
        if not resumed:
            break
        resumed = False
    refuse_unless(digest, file, path=Path(file.filename), recorded_sha256=recorded_sha256)
    raise WeightsError(
        f"{file.filename} arrived with another SHA-256 than the hub announced",
        code=Code.WEIGHTS_CHECKSUM,
        value=short(digest.sha256),
        expected=short(remote.sha256 or ""),
    )


def _url_remote(file: WeightsFile, allowed_hosts: tuple[str, ...]) -> Remote:
    url = str(file.source.url)
    return Remote(url, HostRules(hosts=URL_HOSTS | set(allowed_hosts), loopback=is_loopback(url)))


def _from_hub_cache(file: WeightsFile, commit: str | None, recorded_sha256: str | None) -> Fetched | None:
    """A copy that huggingface_hub itself has below HF_HOME, if it is the right file. No network."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    source = file.source
    try:
        found = try_to_load_from_cache(str(source.repository), str(source.path), revision=commit or source.revision)
    except (HFValidationError, OSError):
        return None
    if not isinstance(found, str) or not Path(found).is_file():
        return None
    path = Path(found)
    digest = Digest.of(path)
    if not digest.is_of(file, recorded_sha256=recorded_sha256):
        return None
    # .../snapshots/<commit>/<path in the repository>
    snapshot = path.parts[path.parts.index("snapshots") + 1] if "snapshots" in path.parts else None
    return Fetched(path, digest, snapshot, is_temporary=False)


def _hub_remote(file: WeightsFile, commit: str | None, weights_id: str) -> Remote:
    """Where the hub keeps the file: its commit, its size and the address of its bytes, from one HEAD request."""
    from huggingface_hub import constants, get_token, hf_hub_url

    source = file.source
    if constants.HF_HUB_OFFLINE:
        raise _offline(file, weights_id, "HF_HUB_OFFLINE")
    url = hf_hub_url(str(source.repository), str(source.path), revision=commit or source.revision)
    rules = HostRules(
        hosts=frozenset({_host(constants.ENDPOINT), *HUB_DOMAINS}),
        domains=HUB_DOMAINS,
        loopback=is_loopback(constants.ENDPOINT),
    )
    rules.check(url)
    metadata = _metadata(url, file)
    if commit is not None and metadata.commit_hash != commit:
        raise WeightsError(
            f"the hub answers with another commit of {source.repository} than the one recorded at the first fetch",
            code=Code.WEIGHTS_CHECKSUM,
            value=short(str(metadata.commit_hash)),
            expected=short(commit),
        )
    etag = (metadata.etag or "").strip('"')
    token, location = get_token(), urljoin(url, metadata.location or url)
    return Remote(
        location,
        rules,
        commit=metadata.commit_hash,
        size_bytes=metadata.size,
        sha256=etag if len(etag) == 64 else None,  # large files carry their SHA-256 as ETag, small ones a git hash
        # The token goes to the hub itself, never to a download host.
        authorization=f"Bearer {token}" if token and _host(location) == _host(url) else None,
    )


def _metadata(url: str, file: WeightsFile) -> HfFileMetadata:
    """The hub's answer, or a sentence on why there is none."""
    from huggingface_hub import constants, get_hf_file_metadata
    from huggingface_hub.errors import HfHubHTTPError

    # The client would otherwise ask its endpoint for a list of tools to name in its User-Agent: nobody's business here.
    constants.HF_HUB_DISABLE_TELEMETRY = True
    for attempt in range(ATTEMPTS):
        pause(attempt)
        try:
            return get_hf_file_metadata(url, timeout=HUB_TIMEOUT_S)
        except HfHubHTTPError as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            problem = WeightsError(
                f"the hub does not give {file.filename}",
                value=f"HTTP status {status}",
                hint="If the repository asks for a login, set HF_TOKEN.",
            )
            if status not in TRANSIENT_STATUS:
                break
        except Exception as error:  # the client raises its HTTP library's errors, and that library changes with its version
            problem = WeightsError(
                f"the hub cannot be reached for {file.filename}: {why_no_connection(error)}", hint=NETWORK_HINT
            )
    raise problem


def _host(url: str) -> str:
    return urlsplit(url).netloc.lower()


def _offline(file: WeightsFile, weights_id: str, why: str) -> WeightsError:
    return WeightsError(
        f"the weights file {file.filename} is not in the cache and network access is disabled ({why})",
        hint=f"Fetch it where there is a network (agseg weights fetch {weights_id}; agseg weights export {weights_id} -o "
        "bundle.tar) and bring it here: agseg weights import bundle.tar",
    )
