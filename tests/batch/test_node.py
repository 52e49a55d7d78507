"""What a Dask worker does with the studies that it is given."""

from __future__ import annotations

import pickle
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

distributed = pytest.importorskip("distributed")


def test_a_study_is_taken_before_the_thread_is_given_back_so_that_none_overtakes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from agseg.batch.node import do_study

    did: list[str] = []

    def take(key: str, task: Any) -> Future[dict[str, Any] | None]:
        did.append(f"{key} takes {task}")
        answer: Future[dict[str, Any] | None] = Future()
        answer.set_result({"report": {}})
        return answer

    worker = SimpleNamespace(
        plugins={"run": SimpleNamespace(take=take, over=False)}, address="here", get_current_task=lambda: "key"
    )
    monkeypatch.setattr(distributed, "get_worker", lambda: worker)
    monkeypatch.setattr(distributed, "secede", lambda: did.append("gives the thread back"))
    assert do_study("run", pickle.dumps("study")) == {"report": {}, "worker": "here"}
    assert did == ["key takes study", "gives the thread back"]
    worker.plugins["run"] = SimpleNamespace(take=lambda *_: None, over=False)
    with pytest.raises(distributed.Reschedule):
        do_study("run", pickle.dumps("study"))
