"""A document posted to an address of the site, once, within limits; what does not work is said and harms nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from agseg import __version__
from agseg.errors import UsageError
from agseg.io.connection import why_no_connection
from agseg.io.exchange import Answer, HttpClient, Pace, is_loopback, trusted

PACE = Pace(silence_s=10.0, grace_s=15.0, longest_s=30.0)
"""Nobody waits longer at the end of a night for somebody to be told of it."""

_MOST_BYTES = 1 << 16


def check_address(url: str) -> None:
    """Refuse an address that nothing is posted to, before the run.

    Raises
    ------
    UsageError
        Naming scheme and host only: such addresses often hold a secret.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise UsageError("--webhook is no address", expected="https://host/path") from None
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(url))
    if not is_safe or not host or parts.username is not None:
        raise UsageError(
            "--webhook does not take this address",
            value=f"{parts.scheme}://{host or ''}",
            expected="https://host/path, or http to this machine, without a user's name",
        )


def post(url: str, document: Mapping[str, Any], *, pace: Pace = PACE) -> str | None:
    """Post JSON; redirections are not followed, certificates are verified, proxies are those of the environment.

    Returns
    -------
    why
        What kept it from arriving, None if it arrived. It names the host only.
    """
    import httpx2

    content = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    # With its length: not every receiver takes a body in chunks.
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(content)),
        "User-Agent": f"agseg/{__version__}",
    }
    host = urlsplit(url).hostname
    client = HttpClient(pace=pace, verify=trusted(), uses_proxies=not is_loopback(url))
    try:
        # Nobody needs to know what it answers beyond the status.
        answer = client.ask("POST", url, most_bytes=_MOST_BYTES, headers=headers, content=(content,), sink=_unread)
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
        return f"{host}: {why_no_connection(error, timeout_s=pace.grace_s)}"
    finally:
        client.close()
    return None if 200 <= answer.status < 300 else f"{host} answered with status {answer.status}"


def _unread(_answer: Answer) -> None:
    return None
