"""Labels: names, codes and laterality."""

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest

from agseg.errors import UsageError
from agseg.labels import STRUCTURES_FILE, Label, LabelSet, known_structures
from agseg.weights.manifest import Manifest
from tests.colour import VISIONS, distance

TABLE = Path(__file__).resolve().parents[2] / "shared" / "design" / "structures117.csv"


def test_left_and_right_share_a_concept_and_differ_by_modifier():
    left, right = known_structures()["kidney_left"], known_structures()["kidney_right"]
    assert left.code == right.code
    assert left.laterality is not None
    assert right.laterality is not None
    assert left.laterality.value != right.laterality.value


def test_a_label_set_is_ordered_and_refuses_duplicates():
    labels = LabelSet.from_mapping({0: "background", 3: "liver", 1: "spleen"})
    assert labels.names == ("spleen", "liver")
    assert labels.class_count == 4
    assert labels["liver"].index == 3
    with pytest.raises(ValueError, match="unique"):
        LabelSet.from_mapping({1: "liver", 2: "liver"})
    with pytest.raises(ValueError, match="1 to 255"):
        LabelSet.from_mapping({256: "liver"})


def test_an_unknown_organ_lists_the_known_ones():
    labels = LabelSet.from_mapping({1: "spleen", 2: "liver"})
    with pytest.raises(UsageError, match="spleen, liver"):
        labels.only(["pancreas"])


@pytest.mark.parametrize(
    ("written", "meant"), [("pancras", "pancreas"), ("Spleen", "spleen"), ("kidny left", "kidney_left"), ("livre", "liver")]
)
def test_a_misspelt_organ_is_answered_with_the_name_that_was_meant(written, meant):
    labels = LabelSet.from_mapping({1: "spleen", 2: "liver", 3: "pancreas", 4: "kidney_left", 5: "kidney_right"})
    with pytest.raises(UsageError) as caught:
        labels.only([written])
    assert caught.value.hint is not None
    assert meant in caught.value.hint


def test_titles_read_as_people_write_them():
    assert LabelSet.from_mapping({1: "kidney_left"})["kidney_left"].title == "left kidney"


_SPINE = (("L", 5), ("T", 12), ("C", 7))
VERTEBRAE = ["vertebrae_S1", *(f"vertebrae_{part}{n}" for part, count in _SPINE for n in range(1, count + 1))]
RIBS = [f"rib_{side}_{n}" for side in ("left", "right") for n in range(1, 13)]


def test_every_rib_and_vertebra_has_a_code_of_its_own():
    known = known_structures()
    assert len({known[name].code.value for name in VERTEBRAE}) == 25
    assert len({known[name].code.value for name in RIBS}) == 12
    assert all(known[name].laterality.meaning.lower() in name for name in RIBS)


def test_sided_names_have_their_side_and_one_concept_for_both():
    known = known_structures()
    for name, structure in known.items():
        side = next((s for s in ("left", "right") if s in name.split("_")), None)
        in_the_meaning = side is not None and side in structure.code.meaning.lower()
        if in_the_meaning or name.startswith("heart_"):
            assert structure.laterality is None, name
        else:
            assert (structure.laterality.meaning.lower() if structure.laterality else None) == side, name
        other = known.get(name.replace("left", "right"))
        if side == "left" and other is not None and other.laterality is not None:
            assert other.code == structure.code


# The Verhoeff check digit that every SNOMED CT identifier ends with: dihedral group multiplication and permutation.
_MULTIPLY = [[(a + b) % 5 if a < 5 and b < 5 else 5 + (a + b) % 5 if a < 5 else 5 + (a - b) % 5 if b < 5 else (a - b) % 5
              for b in range(10)] for a in range(10)]  # fmt: skip
_PERMUTE = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def is_snomed(code: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed(code)):
        value = int(digit)
        for _ in range(place):
            value = _PERMUTE[value]
        total = _MULTIPLY[total][value]
    return total == 0


def test_every_code_has_the_check_digit_of_snomed_ct():
    assert is_snomed("78961009")
    assert not is_snomed("78961008")
    for structure in known_structures().values():
        assert is_snomed(structure.code.value), structure.name
        assert len(structure.code.meaning) <= 64
        assert structure.region is None or is_snomed(structure.region.value)


def test_the_table_holds_no_name_twice():
    rows = csv.reader(line for line in STRUCTURES_FILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    names = [row[0] for row in rows]
    assert len(names) == len(set(names)) == len(known_structures()) + 1


@pytest.mark.shared
@pytest.mark.skipif(not TABLE.is_file(), reason="../shared is not here")
def test_totalsegmentators_structures_have_the_published_codes():
    decided = {"gluteus_maximus_left", "gluteus_maximus_right"}  # where the two published tables differ
    with TABLE.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 117
    for row in rows:
        structure = known_structures()[row["name"]]
        codes = {row["code_TS"], row["code_MOOSE_same_name"]} if row["name"] in decided else {row["code_TS"]}
        assert structure.code.value in codes
        if structure.region is None:
            assert (structure.laterality.meaning if structure.laterality else "") == row["modifier"]


def test_every_structure_of_the_manifest_that_is_anatomy_has_a_code():
    for entry in Manifest.load().entries:
        assert [label.name for label in entry.labels if label.structure is None] == [], entry.id


def test_the_packaged_organs_can_be_told_apart_by_everybody():
    names = {name for entry in Manifest.load().entries for name in entry.default_for if name in entry.labels}
    assert len(names) == 5
    for vision in VISIONS:
        for one, other in itertools.combinations(sorted(names), 2):
            assert distance(known_structures()[one].rgb, known_structures()[other].rgb, vision=vision) > 20, (
                vision,
                one,
                other,
            )


def test_neighbours_can_be_told_apart_and_nothing_is_grey():
    structures = list(known_structures().values())
    touching = (
        "gallbladder liver, gallbladder duodenum, stomach spleen, stomach liver, pancreas duodenum, pancreas stomach, "
        "pancreas portal_vein_and_splenic_vein, adrenal_gland_left kidney_left, adrenal_gland_right kidney_right, "
        "aorta inferior_vena_cava, colon small_bowel, urinary_bladder prostate, rib_left_1 rib_right_1"
    )
    pairs = [(a.rgb, b.rgb) for a, b in itertools.pairwise(structures)]
    pairs += [(known_structures()[a].rgb, known_structures()[b].rgb) for a, b in map(str.split, touching.split(", "))]
    for one, other in pairs:
        assert min(distance(one, other, vision=vision) for vision in VISIONS) > 12
    for structure in structures:
        assert np.ptp(structure.rgb) > 60, structure.name


def test_labels_without_a_code_have_different_colours():
    assert len({Label(index, f"thing_{index}").rgb for index in range(1, 11)}) == 10
