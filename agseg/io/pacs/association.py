"""One DIMSE connection: agreed on, watched, and its failures said in words that help the keepers of both sides."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from agseg.errors import PacsError
from agseg.extras import require
from agseg.io.pacs.address import PacsAddress
from agseg.io.pacs.archive import TransientPacsError
from agseg.io.pacs.limits import PacsLimits
from agseg.io.pacs.unreachable import unreachable
from agseg.io.pacs.watch import Watch

SUCCESS = 0x0000
NOT_AUTHORISED = 0x0124
MOVE_DESTINATION_UNKNOWN = 0xA801

REJECTED_BY_USER, REJECTED_BY_PROVIDER = 1, 3
CALLING_AET_NOT_RECOGNISED, CALLED_AET_NOT_RECOGNISED = 3, 7
"""A-ASSOCIATE-RJ, source and reason (PS3.8, 9.3.4)."""


T = TypeVar("T")
Answers = Iterator[tuple[Any, Any]]
"""Statuses, each with a match or None."""


class Association:
    """An association in use: pynetdicom's, with what its silence means."""

    def __init__(self, association: Any, watch: Watch, service: str, limits: PacsLimits, address: PacsAddress) -> None:
        self._association, self._watch, self._service = association, watch, service
        self._limits, self._address = limits, address

    def echo(self) -> Any:
        """C-ECHO."""
        return self._association.send_c_echo()

    def find(self, identifier: Any, model: str) -> Answers:
        """C-FIND."""
        answers: Answers = self._offered(lambda: self._association.send_c_find(identifier, model))
        return answers

    def get(self, identifier: Any, model: str) -> Answers:
        """C-GET; objects go to the handler of :meth:`on_store`."""
        answers: Answers = self._offered(lambda: self._association.send_c_get(identifier, model))
        return answers

    def move(self, identifier: Any, model: str) -> Answers:
        """C-MOVE to ourselves. What comes, comes on another connection: this one may be silent, and only the watch ends it."""
        self._association.dimse_timeout = self._association.network_timeout = None
        us = self._limits.calling_aet
        answers: Answers = self._offered(lambda: self._association.send_c_move(identifier, us, model))
        return answers

    def store(self, path: Path) -> Any:
        """C-STORE of a file, in the form it has or, if that was not agreed on, another without compression."""
        import pydicom

        dataset = pydicom.dcmread(path)
        return self._offered(lambda: self._association.send_c_store(dataset))

    def on_store(self, handler: Callable[[Any], int]) -> None:
        """What takes the objects of C-GET."""
        from pynetdicom import evt

        self._association.bind(evt.EVT_C_STORE, handler)

    def accepts(self, sop_class: str) -> bool:
        """Whether the archive agreed to objects of this class, in any form."""
        return any(context.abstract_syntax == sop_class for context in self._association.accepted_contexts)

    def alive(self, n_bytes: int) -> None:
        """Something came on another connection that belongs to this one."""
        self._watch.alive(n_bytes)

    def code(self, status: Any) -> int:
        """The number in a status.

        Raises
        ------
        PacsError
            If there is none: the archive fell silent, or ended the association.
        """
        if status and "Status" in status:
            return int(status.Status)
        if self._watch.has_cut:
            raise TransientPacsError(f"the archive at {self._address.place} answers too slowly to be waited for")
        if self._association.is_aborted:
            raise TransientPacsError(
                f"the archive ended the connection when it was asked for {self._service}", hint=self._unknown
            )
        raise TransientPacsError(f"the archive stopped answering while it was asked for {self._service}", hint=self._unknown)

    def check(self, status: Any, *also: int) -> None:
        """Raise unless the status is success, or one of these."""
        code = self.code(status)
        if code == SUCCESS or code in also:
            return
        hint = None
        if code == MOVE_DESTINATION_UNKNOWN:
            hint = f"The archive must know our AE title {self._limits.calling_aet} with this machine's address and port."
        elif code == NOT_AUTHORISED:
            hint = self._unknown
        elif self._service == "C-MOVE":
            hint = (
                f"Does it know our AE title {self._limits.calling_aet}, with this machine's address and port, as a destination?"
            )
        raise PacsError(f"the archive refused {self._service}", value=f"status {code:#06x}", hint=hint)

    @property
    def _unknown(self) -> str:
        return f"The archive may not know our AE title {self._limits.calling_aet} (--aet), or not allow it {self._service}."

    def _offered(self, ask: Callable[[], T]) -> T:
        """Pynetdicom raises ValueError where the service was not agreed on, RuntimeError where the connection is gone."""
        try:
            return ask()
        except ValueError:
            raise PacsError(f"the archive does not offer {self._service} to us", hint=self._unknown) from None
        except RuntimeError:
            raise TransientPacsError("the archive closed the connection", hint=self._unknown) from None


@contextmanager
def associated(
    address: PacsAddress, limits: PacsLimits, contexts: Sequence[tuple[str, str | None]], *, service: str,
    roles: Sequence[str] = (),
) -> Iterator[Association]:  # fmt: skip
    """An association for these SOP classes and transfer syntaxes; ``roles`` are classes that the archive sends to us.

    Raises
    ------
    PacsError
        If the archive is not there, or does not let us in; with the likely reason.
    """
    pynetdicom = pynetdicom_or_refusal()
    from pynetdicom import build_role, evt

    entity = pynetdicom.AE(ae_title=limits.calling_aet)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = limits.timeout_s
    for sop_class, transfer_syntax in contexts:
        entity.add_requested_context(sop_class, transfer_syntax)
    with Watch(limits.pace) as watch:
        handlers = [(evt.EVT_CONN_OPEN, watch.begin), (evt.EVT_DATA_RECV, watch.moved), (evt.EVT_DATA_SENT, watch.moved)]
        try:
            association = entity.associate(
                address.host,
                address.port,
                ae_title=address.called_aet,
                ext_neg=[build_role(sop_class, scp_role=True) for sop_class in roles],
                evt_handlers=handlers,
                tls_args=(limits.client_context(), address.host) if address.tls else None,
            )
        except OSError as error:  # a name that cannot be resolved
            raise unreachable(address, limits, error) from None
        try:
            if association.is_rejected:
                raise _rejection(association, address, limits)
            if not association.is_established:
                if not association.accepted_contexts and association.rejected_contexts:
                    raise PacsError(f"the archive does not offer {service} to us",
                                    hint=f"Its keeper must allow it to our AE title {limits.calling_aet} (--aet).")  # fmt: skip
                raise unreachable(address, limits)
            yield Association(association, watch, service, limits, address)
        finally:
            if association.is_established:
                association.release()


def _rejection(association: Any, address: PacsAddress, limits: PacsLimits) -> PacsError:
    answer = association.acceptor.primitive
    source, reason = getattr(answer, "result_source", None), getattr(answer, "diagnostic", None)
    kind = TransientPacsError if source == REJECTED_BY_PROVIDER else PacsError
    message = f"the archive at {address.place} rejected the association"
    if (source, reason) == (REJECTED_BY_USER, CALLED_AET_NOT_RECOGNISED):
        return PacsError(f"{message}: it is not called {address.called_aet}",
                         hint="The AE title in the address (--pacs) is not the archive's; ask its keeper.")  # fmt: skip
    if (source, reason) == (REJECTED_BY_USER, CALLING_AET_NOT_RECOGNISED):
        return PacsError(f"{message}: it does not know our AE title {limits.calling_aet}",
                         hint="Its keeper must add it, with this machine's address; or name another with --aet.")  # fmt: skip
    return kind(message, hint=f"It must know our AE title {limits.calling_aet} (--aet), and be called {address.called_aet}.")


def pynetdicom_or_refusal() -> Any:
    """The library, silent.

    Raises
    ------
    UsageError
        If it is not installed.
    """
    pynetdicom = require("pynetdicom", purpose="DIMSE")
    # Its log lines hold UIDs and keys of queries.
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    return pynetdicom
