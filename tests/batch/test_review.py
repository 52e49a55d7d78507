from __future__ import annotations

from dataclasses import replace

import pytest

from agseg.batch.review import LOW_PROBABILITY, MANY_COMPONENTS, plausible_volume_ml, review, review_list
from agseg.errors import ExitCode
from agseg.report import BatchReport, Measurement, OrganStatus, StudyReport, StudyStatus

LIVER = Measurement("liver", OrganStatus.PRESENT, 1500.0, 50000, 60.0)
CUT = replace(LIVER, status=OrganStatus.CUT_OFF, touches_border=True)


def test_a_usual_organ_has_no_reason() -> None:
    assert review(LIVER, probability=0.95, components=1) == ()


@pytest.mark.parametrize(
    ("found", "probability", "components", "starts"),
    [
        (replace(LIVER, volume_ml=100.0), 0.9, 1, ["implausible volume"]),
        (replace(LIVER, volume_ml=9000.0), 0.9, 1, ["implausible volume"]),
        (CUT, 0.9, 1, ["cut off by the field of view"]),
        (replace(CUT, volume_ml=100.0), 0.9, 1, ["cut off by the field of view"]),
        (replace(CUT, volume_ml=9000.0), 0.9, 1, ["implausible volume", "cut off by the field of view"]),
        (LIVER, LOW_PROBABILITY - 0.01, 1, ["low margin"]),
        (LIVER, LOW_PROBABILITY, 1, []),
        (LIVER, 0.9, MANY_COMPONENTS + 1, ["many components"]),
        (LIVER, 0.9, MANY_COMPONENTS, []),
        (replace(LIVER, name="stomach", volume_ml=3000.0), None, 0, []),
        (Measurement("liver", OrganStatus.ABSENT), 0.1, 9, []),
        (Measurement("liver", OrganStatus.NOT_IN_WEIGHTS), None, 0, []),
    ],
)
def test_each_reason_is_given_when_it_holds_and_only_then(
    found: Measurement, probability: float | None, components: int, starts: list[str]
) -> None:
    reasons = review(found, probability=probability, components=components)
    assert len(reasons) == len(starts)
    assert all(reason.startswith(start) for reason, start in zip(reasons, starts, strict=True))


def test_limits_hold_the_published_means() -> None:
    low, high = plausible_volume_ml("pancreas") or (0, 0)
    assert low < 64.4 < 87.4 < high
    assert plausible_volume_ml("stomach") is None


def test_the_list_is_worst_first_and_holds_only_studies_with_reasons() -> None:
    def study(name: str, *organs: Measurement) -> StudyReport:
        return StudyReport(
            name,
            StudyStatus.DONE,
            organs=tuple(replace(o, review=review(o, components=9 if "m" in name else 1)) for o in organs),
        )

    studies = (
        study("cut", CUT),
        study("fine", LIVER),
        study("wrong", replace(LIVER, volume_ml=10.0)),
        study("m-pieces", LIVER),
        study("also cut", CUT),
        StudyReport("bad", StudyStatus.REJECTED),
    )
    report = BatchReport("1", "", "", ExitCode.OK, (), {}, {}, studies, {})
    assert [item.study.input for item in review_list(report)] == ["wrong", "m-pieces", "also cut", "cut"]
    assert review_list(report)[0].reasons[0].startswith("liver: implausible volume")
