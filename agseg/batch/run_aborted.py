"""Raised to end a run early; carries the record for studies that were not processed."""

from __future__ import annotations

from typing import Any, Self

from agseg.batch.outcome import Fault
from agseg.errors import Code
from agseg.report import StudyStatus


class RunAborted(Exception):  # noqa: N818
    """The run ends before its studies do. ``code`` and ``message`` go into the records of those that are left.

    Parameters
    ----------
    code, message
        Why.
    status
        What becomes of the studies that are left.
    blame
        What ended it.
    """

    def __init__(self, code: Code, message: str, *, status: StudyStatus, blame: Fault) -> None:
        super().__init__(message)
        self.code, self.message, self.status, self.blame = code, message, status, blame

    def to_dict(self) -> dict[str, str]:
        """For a worker of a cluster, or from one."""
        return {"code": str(self.code), "message": self.message, "status": str(self.status), "blame": str(self.blame)}

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> Self:
        """From what :meth:`to_dict` gave."""
        return cls(Code(told["code"]), told["message"], status=StudyStatus(told["status"]), blame=Fault(told["blame"]))
