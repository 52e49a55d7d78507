"""Calibrations: what they do to a probability, and that they are found again where voxels are right by a known law."""

from __future__ import annotations

import numpy as np
import pytest

from agseg.errors import FieldError
from agseg.measure.calibration import AS_IT_IS, Calibration, logit
from agseg.measure.reliability import Tally, chosen, curve, fitted, left_out, loss

TRUTH = Calibration(0.5, -0.3)
"""How often voxels of the patients below are right."""


def patient(seed: int, voxels: int = 40_000, truth: Calibration = TRUTH) -> Tally:
    rng = np.random.default_rng(seed)
    p = rng.uniform(0.4, 0.999, voxels)
    return Tally.of(p, rng.uniform(size=voxels) < truth.of(p))


def test_a_calibration_keeps_the_order_of_voxels_and_the_ends_finite() -> None:
    p = np.linspace(0, 1, 101)
    said = Calibration(0.7, 1.0).of(p)
    assert (np.diff(said) >= 0).all()
    assert ((said > 0) & (said < 1)).all()
    np.testing.assert_allclose(AS_IT_IS.of(p[1:-1]), p[1:-1])


@pytest.mark.parametrize(("scale", "shift"), [(0.0, 0.0), (-1.0, 0.0), (float("nan"), 0.0), (1.0, float("inf"))])
def test_no_calibration_turns_certainty_round_or_is_no_number(scale: float, shift: float) -> None:
    with pytest.raises(FieldError):
        Calibration(scale, shift)


def test_every_voxel_is_counted_once() -> None:
    p, right = np.array([0.0, 0.3, 0.5, 0.9, 1.0]), np.array([False, True, True, False, True])
    tally = Tally.of(p, right)
    assert (tally.total, int(tally.right.sum()), tally.share_right) == (5, 3, 0.6)
    assert (tally + tally).total == 10
    assert np.isnan(Tally.of(p[:0], right[:0]).share_right)


def test_the_mean_of_a_tally_is_the_mean_over_its_voxels() -> None:
    p = np.random.default_rng(1).uniform(0.2, 0.999, 5000)
    tally = Tally.of(p, p > 0.5)
    assert tally.mean() == pytest.approx(p.mean(), abs=2e-3)
    assert tally.mean(TRUTH) == pytest.approx(TRUTH.of(p).mean(), abs=2e-3)


def test_a_fit_finds_the_law_by_which_voxels_are_right() -> None:
    found = fitted([patient(seed) for seed in range(4)], shifted=True)
    assert found is not None
    assert (found.scale, found.shift) == (pytest.approx(0.5, abs=0.05), pytest.approx(-0.3, abs=0.05))
    scaled = fitted([patient(seed, truth=Calibration(0.6)) for seed in range(4)], shifted=False)
    assert scaled is not None
    assert (scaled.scale, scaled.shift) == (pytest.approx(0.6, abs=0.03), 0.0)


def test_where_certainty_says_the_opposite_there_is_no_fit() -> None:
    p = np.linspace(0.4, 0.99, 2000)
    wrong_way = Tally.of(p, p < 0.6)
    assert fitted([wrong_way], shifted=True) is None


def test_patients_count_alike_whatever_the_size_of_their_organ() -> None:
    large, small = patient(1, truth=Calibration(1.2)), patient(2, truth=Calibration(0.3, -0.5))
    tenfold = Tally(large.right * 10, large.wrong * 10)
    once, again = fitted([large, small], shifted=True), fitted([tenfold, small], shifted=True)
    assert once is not None
    assert again is not None
    assert (once.scale, once.shift) == (pytest.approx(again.scale), pytest.approx(again.shift))


def test_what_is_chosen_is_better_on_patients_left_out() -> None:
    fit = chosen({str(seed): patient(seed) for seed in range(5)})
    assert fit is not None
    assert fit.after < fit.before
    assert fit.calibration.shift != 0
    unseen = patient(99)
    assert loss([unseen], fit.calibration) < loss([unseen])
    assert curve([unseen], fit.calibration).error < 0.02 < curve([unseen]).error


def test_few_patients_and_an_honest_network_are_left_as_they_are() -> None:
    assert chosen({"one": patient(1), "two": patient(2)}) is None
    honest = {str(seed): patient(seed, voxels=4000, truth=AS_IT_IS) for seed in range(6)}
    fit = chosen(honest)
    assert fit is None or fit.calibration.scale == pytest.approx(1.0, abs=0.05)
    assert curve([*honest.values()]).error < 0.02


def test_a_calibration_that_brings_the_mean_no_nearer_is_not_taken() -> None:
    def of(wrong: int) -> Tally:
        return Tally.of(np.full(1000, 0.9999), np.arange(1000) >= wrong)

    # One patient in three is far off: doubting everybody costs less likelihood, and tells of no single patient better.
    patients = {"a": of(30), "b": of(30), "odd": of(400)}
    fits = left_out(patients, shifted=False)
    assert fits is not None
    assert sum(loss([patients[name]], fit) for name, fit in fits.items()) < sum(loss([tally]) for tally in patients.values())
    assert chosen(patients) is None


def test_a_patient_has_no_part_in_its_own_calibration() -> None:
    others = {"a": patient(1), "b": patient(2)}
    fits = [left_out({**others, "odd": odd}, shifted=True) for odd in (patient(3), patient(3, truth=Calibration(3.0, 1.0)))]
    assert fits[0] is not None
    assert fits[1] is not None
    assert fits[0]["odd"] == fits[1]["odd"]
    assert fits[0]["a"] != fits[1]["a"]


def test_a_diagram_holds_every_patient_once_and_their_own_calibrations() -> None:
    patients = [patient(1), patient(2, voxels=1000)]
    drawn = curve(patients, [AS_IT_IS, Calibration(0.2)])
    assert drawn.share.sum() == pytest.approx(1)
    assert np.nansum(drawn.share * drawn.right) == pytest.approx(np.mean([tally.share_right for tally in patients]))
    assert float(logit(np.array(0.5))) == 0
