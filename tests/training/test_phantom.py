import numpy as np
import pytest

from agseg.errors import RecipeError
from agseg.training.phantom import SITES, make_case, make_cohort

COARSE = 3.0


@pytest.mark.slow
@pytest.mark.parametrize("site", SITES)
def test_a_case_depends_on_site_seed_and_index_alone(site):
    again = make_case(site, index=2, seed=5, coarsen=COARSE)
    (_, second) = make_cohort(site, cases=2, seed=5, coarsen=COARSE)
    assert second.id == again.id == f"{site}_0002"
    assert np.array_equal(second.volume.voxels, again.volume.voxels)
    assert np.array_equal(second.mask.labels, again.mask.labels)
    assert second.volume.grid == again.volume.grid
    other = make_case(site, index=2, seed=6, coarsen=COARSE)
    assert other.volume.grid != again.volume.grid


@pytest.mark.slow
@pytest.mark.parametrize("site", SITES)
def test_organs_are_plausible_and_vary(site):
    cohort = list(make_cohort(site, cases=4, coarsen=COARSE))
    for organ in SITES[site].organs:
        volumes_ml = [case.mask.of(organ).sum() * case.mask.grid.voxel_volume_ml for case in cohort]
        assert all(25 < volume < 600 for volume in volumes_ml), (organ, volumes_ml)
        assert len(set(volumes_ml)) == 4
        for case in cohort:
            mean_hu = case.volume.voxels[case.mask.of(organ)].mean()
            assert 60 < mean_hu < 220


def test_sites_differ_in_contrast_noise_orientation_and_labels():
    first, second = (make_case(site, index=1, coarsen=COARSE) for site in ("ct150", "ct82"))
    assert first.volume.grid.axis_codes == "LPS"
    assert second.volume.grid.axis_codes == "RAS"
    assert first.mask.label_set.names == ("spleen", "pancreas", "kidney")
    assert second.mask.label_set.names == ("pancreas",)
    assert SITES["ct82"].noise_hu[0] >= SITES["ct150"].noise_hu[1]


def test_left_and_right_are_where_they_belong():
    case = make_case("ct150", index=3, coarsen=COARSE)
    spleen_mm = case.mask.grid.to_world(np.argwhere(case.mask.of("spleen"))).mean(axis=0)
    pancreas_mm = case.mask.grid.to_world(np.argwhere(case.mask.of("pancreas"))).mean(axis=0)
    assert spleen_mm[0] < -60  # on the patient's left, in RAS
    assert spleen_mm[1] < pancreas_mm[1]  # behind the pancreas
    assert spleen_mm[2] > pancreas_mm[2]


def test_edges_are_partial_volume():
    case = make_case("ct150", index=1, coarsen=COARSE)
    fat_to_muscle = case.volume.voxels[(case.volume.voxels > -70) & (case.volume.voxels < 0)]
    assert fat_to_muscle.size > 0.01 * (case.volume.voxels > -200).sum()


def test_an_unknown_site_names_the_known_ones():
    with pytest.raises(RecipeError, match="ct150, ct82"):
        make_case("ct99", index=1)
