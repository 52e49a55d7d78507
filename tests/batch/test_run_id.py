"""Runs are told apart by ids: clocks may stand still, and parts of one run may overlap."""

from __future__ import annotations

import json
import re
import threading
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agseg.batch import Part, claim_output, run_batch
from agseg.batch.output import Output
from agseg.batch.run_id import begin_run
from agseg.report import BatchReport
from tests.batch.fakes import job, write_study

pytestmark = pytest.mark.slow


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run starts and ends in the same second."""
    monkeypatch.setattr("agseg.batch.run._now", lambda: datetime(2026, 1, 1, 2, tzinfo=UTC).isoformat(timespec="seconds"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for number, name in enumerate("abcd"):
        write_study(tmp_path / "in" / f"{name}.nii.gz", seed=number)
    return tmp_path / "in"


def run(source: Path, target: Path, part: Part | None = None, **changes: Any) -> BatchReport:
    with claim_output(target, part=part) as output:
        return run_batch(job(source, **changes), output)


def figures_of(page: Path) -> dict[str, list[int]]:
    """Per organ how many studies each run of the trend measured, oldest run first."""
    said = re.findall(r'aria-label="Median (\S+) volume by run: ([^"]*)"', page.read_text())
    return {organ: [int(count) for count in re.findall(r" ml in (\d+)", line)] for organ, line in said}


def kept(target: Path) -> list[dict[str, Any]]:
    records = [json.loads(path.read_bytes()) for path in (target / "runs").glob("*.json")]
    return sorted(records, key=lambda record: record["run_number"])


@pytest.mark.usefixtures("frozen")
def test_three_runs_in_one_second_are_three_runs(source: Path, tmp_path: Path) -> None:
    ids = [run(source, tmp_path / "out", overwrite=True).run_id for _ in range(3)]
    assert len(set(ids)) == 3
    assert [record["run_id"] for record in kept(tmp_path / "out")] == ids[:2]
    last = json.loads((tmp_path / "out" / "run.json").read_bytes())
    assert (last["run_id"], last["run_number"]) == (ids[2], 3)
    assert len(kept(tmp_path / "out")) == 2
    assert figures_of(tmp_path / "out" / "report.html") == {"liver": [4, 4, 4]}
    # A run that measures nothing keeps the one before it, and is not worth keeping itself.
    for _ in range(2):
        run(source, tmp_path / "out")
    assert [record["run_id"] for record in kept(tmp_path / "out")] == ids


@pytest.mark.usefixtures("frozen")
def test_overlapping_parts_are_one_run(source: Path, tmp_path: Path) -> None:
    def night(**changes: Any) -> set[str]:
        """Both parts begin before either ends."""
        with ExitStack() as held:
            outputs = [held.enter_context(claim_output(tmp_path / "out", part=Part(index, 2))) for index in range(2)]
            found: list[str] = []
            both = threading.Barrier(2)

            def work(output: Output) -> None:
                # Signals are noted in the main thread only, so the parts themselves run one after the other.
                found.append(begin_run(output).id)
                both.wait(timeout=20)

            threads = [threading.Thread(target=work, args=(output,)) for output in outputs]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            reports = [run_batch(job(source, **changes), output) for output in outputs]
            assert {report.run_id for report in reports} == set(found)
            return set(found)

    nights = [night(overwrite=True) for _ in range(3)]
    assert all(len(ids) == 1 for ids in nights)
    assert len(set.union(*nights)) == 3
    assert len(kept(tmp_path / "out")) == 2
    assert [{record["run_id"]} for record in kept(tmp_path / "out")] == nights[:2]
    assert all(record["counts"]["done"] == 4 for record in kept(tmp_path / "out"))
    assert figures_of(tmp_path / "out" / "report.html") == {"liver": [4, 4, 4]}


def test_parts_one_after_the_other_are_one_run_and_a_part_that_comes_again_begins_the_next(
    source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = [run(source, out, Part(index, 2)).run_id for index in range(2)]
    assert first[0] == first[1]
    assert not (out / "runs").exists()
    again = run(source, out, Part(0, 2), overwrite=True)
    assert again.run_id != first[0]
    # The other part's results of the last run are shown, but not counted as measured again.
    assert figures_of(out / "report.html") == {"liver": [4, len(again.studies)]}
    assert run(source, out, Part(1, 2), overwrite=True).run_id == again.run_id
    assert figures_of(out / "report.html") == {"liver": [4, 4]}
    # A part that was killed has no record, so it goes on with its run.
    with claim_output(out, part=Part(0, 2)) as output:
        opened = begin_run(output)
        assert begin_run(output) == opened != again.run_id


def test_a_part_that_ends_after_the_next_run_has_begun_belongs_to_its_own(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with claim_output(out, part=Part(1, 2)) as late:
        old = run(source, out, Part(0, 2)).run_id
        assert begin_run(late).id == old

        def in_the_meantime(_event: object) -> None:
            if not later:
                later.append(run(source, out, Part(0, 2), overwrite=True))

        later: list[BatchReport] = []
        report = run_batch(job(source), late, on_event=in_the_meantime)
    assert report.run_id == old
    (new,) = later
    (filed,) = kept(out)
    assert (filed["run_id"], sorted(study["input"] for study in filed["studies"])) == (old, ["a", "b", "c", "d"])
    now = json.loads((out / "run.json").read_bytes())
    assert now["run_id"] == new.run_id
    assert {study["run"] for study in now["studies"]} == {old, new.run_id}


def test_a_record_of_before_is_kept_under_a_name_of_its_own(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(source, out)
    record = json.loads((out / "run.json").read_bytes())
    for key in ("run_id", "run_number"):
        del record[key]
    for study in record["studies"]:
        del study["run"]
    (out / "run.json").write_text(json.dumps(record))
    run(source, out, overwrite=True)
    run(source, out, overwrite=True)
    assert len(list((out / "runs").iterdir())) == 2
    assert figures_of(out / "report.html") == {"liver": [4, 4, 4]}
