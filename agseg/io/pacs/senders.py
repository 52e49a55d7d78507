"""Who may send to us: AE titles, each from addresses of its own."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agseg.errors import UsageError
from agseg.io.pacs.address import AE_TITLE

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Sender:
    """A station that may send: its AE title, from this host, address or network (``10.1.2.0/24``)."""

    aet: str
    host: str

    @classmethod
    def parse(cls, text: str) -> Sender:
        """``AETITLE@HOST``, ``AETITLE@ADDRESS`` or ``AETITLE@NETWORK/BITS``.

        Raises
        ------
        UsageError
            For anything else: a sender without an address would be anybody who knows a word.
        """
        aet, at, host = text.partition("@")
        if not at or not host or not AE_TITLE.fullmatch(aet):
            raise UsageError(
                "this names no sender", value=text, expected="AETITLE@HOST, AETITLE@10.1.2.3 or AETITLE@10.1.2.0/24"
            )
        return cls(aet, host)

    def networks(self) -> tuple[Network, ...]:
        """Where it may send from; a host's name is looked up now.

        Raises
        ------
        UsageError
            If the name is not known.
        """
        try:
            return (ipaddress.ip_network(self.host, strict=False),)
        except ValueError:
            pass
        try:
            found = {str(entry[4][0]).partition("%")[0] for entry in socket.getaddrinfo(self.host, None)}
        except OSError:
            raise UsageError("a sender's address is not known here", value=self.host) from None
        return tuple(ipaddress.ip_network(address) for address in sorted(found))


def known_addresses(senders: Iterable[Sender]) -> dict[str, tuple[Network, ...]]:
    """AE title -> where it may send from."""
    known: dict[str, tuple[Network, ...]] = {}
    for sender in senders:
        known[sender.aet] = (*known.get(sender.aet, ()), *sender.networks())
    return known


def allows(networks: Sequence[Network], address: str) -> bool:
    """Whether an address (as a socket tells it) is in one of the networks."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    found = getattr(found, "ipv4_mapped", None) or found
    return any(found in network for network in networks)
