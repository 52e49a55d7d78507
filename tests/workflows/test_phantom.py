import pytest

from agseg.errors import RecipeError
from agseg.training.cohort import open_cohort
from agseg.training.frames import open_frames, subject_of
from agseg.training.splits import read_split
from agseg.workflows.check_dataset import check_dataset
from agseg.workflows.phantom import make_phantom

COARSE = 4.0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ct150", "ct82"])
def test_a_cohort_passes_its_own_check(kind, tmp_path):
    made = make_phantom(kind, cases=4, output=tmp_path / "out", coarsen=COARSE)
    assert made["cases"] == 4
    assert check_dataset(tmp_path / "out").problems == ()
    cohort = open_cohort(tmp_path / "out")
    assert cohort.name == kind
    split = read_split(tmp_path / "out")
    assert split.train
    assert split.validation
    assert split.test
    again = make_phantom(kind, cases=4, output=tmp_path / "again", coarsen=COARSE)
    assert again == made
    for path in sorted((tmp_path / "out").rglob("*.json")):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(tmp_path / "out")).read_bytes()


@pytest.mark.slow
def test_frames_are_listed_boxed_and_split_by_subject(tmp_path):
    make_phantom("us", cases=5, output=tmp_path / "out")
    cohort = open_frames(tmp_path / "out")
    assert len(cohort.ids) == 5 * 14
    assert len(cohort.labels) == 14
    assert cohort.read(cohort.ids[0]).shape == (224, 288)
    assert all((row.box is None) == (row.label == "Background") for row in cohort.rows.values())
    split = read_split(tmp_path / "out")
    sides = [{subject_of(frame) for frame in side} for side in (split.train, split.validation, split.test)]
    assert sum(map(len, sides)) == 5


def test_what_cannot_be_made_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="unknown phantom"):
        make_phantom("mr", cases=5, output=tmp_path / "a")
    with pytest.raises(RecipeError, match="a case to train on"):
        make_phantom("ct82", cases=2, output=tmp_path / "b")
    (tmp_path / "c").mkdir()
    (tmp_path / "c/x").touch()
    with pytest.raises(RecipeError, match="not empty"):
        make_phantom("ct82", cases=3, output=tmp_path / "c")
