"""A stop says the same on the other side of a cluster's wire."""

from __future__ import annotations

import json

import pytest

from agseg.batch.outcome import Fault
from agseg.batch.run_aborted import RunAborted
from agseg.errors import Code
from agseg.report import StudyStatus


@pytest.mark.parametrize("status", [StudyStatus.FAILED, StudyStatus.DEFERRED])
@pytest.mark.parametrize("code", [Code.CRASHED, Code.INTERRUPTED, Code.DISK_FULL])
def test_a_stop_survives_json(code, status):
    stop = RunAborted(code, "why", status=status, blame=Fault.OUTPUT)
    back = RunAborted.from_dict(json.loads(json.dumps(stop.to_dict())))
    assert (back.code, back.message, back.status, back.blame) == (code, "why", status, Fault.OUTPUT)
    assert str(back) == "why"
