"""Laws of patches of CT: what was drawn once is drawn for ever, a still patch is a crop, any CT recipe may draw them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from agseg.errors import FieldError, RecipeError
from agseg.grid import Grid
from agseg.labels import LabelSet
from agseg.training.anatomy import FAT, OUTSIDE
from agseg.training.augment import IntensityAugmentation
from agseg.training.batches import DrawBatches
from agseg.training.cases import AIR_HU, Case
from agseg.training.cohort import describe_cohort, open_cohort, write_volume_case
from agseg.training.drawing import FIRST_SHELL, enclose
from agseg.training.listing import OpenCase, Structure
from agseg.training.loaders import batches_of, load_case
from agseg.training.negatives import Scene
from agseg.training.patch_draws import PatchDraws, PatchSettings
from agseg.training.patches import Deformation, patch_centre
from agseg.training.recipe import LossName, NetworkChoice, Recipe
from agseg.training.sample import step_generator
from agseg.training.settings import LoopSettings
from agseg.training.splits import Split
from agseg.training.synthesis import PHASE_HU, Phase, SynthesisSettings, Tissue
from agseg.volume import LabelMask, Volume
from agseg.weights.input_spec import ChannelSpec, InputSpec, Normalisation

SPEC = InputSpec(
    "CT",
    normalisation=Normalisation.WINDOW_TO_UNIT,
    tile=(16, 16, 16),
    axis_codes="RAS",
    spacing_mm=(4.0, 4.0, 4.0),
    window_hu=(-200.0, 300.0),
)
TISSUES = {5: Tissue.LIVER, 1: Tissue.SPLEEN, 2: Tissue.KIDNEY, FAT: Tissue.FAT}


def box(size: int = 24) -> Case:
    generator = torch.Generator().manual_seed(5)
    image = torch.rand((size, size, size), generator=generator) * 200
    labels = torch.zeros((size, size, size), dtype=torch.uint8)
    labels[8:14, 8:14, 8:14] = 2
    return Case("one", image, labels)


def everything() -> list[Case]:
    """A scan whose map can be recoloured, one without a map of which one organ is labelled, and a map without a scan."""
    found = np.zeros((28, 26, 24), dtype=np.uint8)
    found[4:14, 6:20, 4:18], found[17:23, 8:14, 8:16], found[16:22, 16:20, 6:14] = 5, 1, 2
    i, j, k = np.indices(found.shape)
    image = np.where(found > 0, 60.0, -90.0) + (i * 7 + j * 3 + k * 5) % 17
    image[(i < 2) | (j < 3)] = -1000.0
    whole = np.where(found > 0, found, np.where(image > -500, FAT, OUTSIDE)).astype(np.uint8)
    labels = torch.from_numpy(np.where(found == 5, 1, np.where(found == 1, 2, 0)).astype(np.uint8))
    scan = torch.from_numpy(image.astype(np.float32))
    drawn = torch.from_numpy(enclose(found))
    return [
        Case("whole", scan, labels, structures=torch.from_numpy(whole)),
        Case("plain", scan + 20, labels * (labels == 1), known=(1,), weight=0.5),
        Case("map", torch.where(drawn < FIRST_SHELL, 0.0, AIR_HU), labels, structures=drawn, weight=1.5, drawn=True),
    ]


EVERYTHING = PatchSettings(
    shape=(16, 16, 16),
    swelling_chance=0.6,
    swelling={0: (0.8, 1.25), 1: (0.95, 1.55), 2: (0.7, 1.2)},
    intensity=IntensityAugmentation(cut_chance=0.4),
)

NEVER = ("noise_chance", "shading_chance", "blur_chance", "thick_slices_chance", "streak_chance", "cut_chance")
CALM = IntensityAugmentation(**dict.fromkeys(NEVER, 0.0), gain=0.0, offset_hu=0.0)

GOLDEN: tuple[tuple[str, tuple[int, ...] | None, list[int], float, float], ...] = (
    ("map", None, [3593, 503, 0], 0.09607, 0.18228),
    ("whole", None, [1933, 2163, 0], 0.36493, 0.27517),
    ("whole", None, [2629, 1467, 0], 0.25297, 0.23045),
    ("map", None, [2918, 570, 608], 0.29949, 0.18244),
    ("plain", (1,), [3509, 587, 0], 0.12252, 0.20317),
    ("map", None, [3429, 667, 0], 0.13951, 0.23002),
    ("whole", None, [3873, 0, 223], 0.08305, 0.12441),
    ("whole", None, [3814, 0, 282], 0.19704, 0.18473),
    ("map", None, [3554, 349, 193], 0.20095, 0.21462),
    ("whole", None, [3248, 828, 20], 0.18852, 0.19484),
    ("map", None, [3808, 0, 288], 0.23762, 0.24494),
    ("whole", None, [3801, 65, 230], 0.14868, 0.14003),
)
"""Case, known classes, voxels of each class, mean and standard deviation of each draw."""


THAT_DAY = {
    Tissue.LIVER: ((38, 68), (50, 85), (85, 130), (75, 105)),
    Tissue.SPLEEN: ((40, 55), (90, 160), (95, 145), (80, 110)),
    Tissue.KIDNEY: ((25, 38), (110, 200), (140, 220), (120, 200)),
}
"""Densities by phase when the table was drawn; they follow what open scans measure, and may change."""


def test_the_packaged_networks_see_the_patches_that_they_always_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn by the sampler that ``make weights`` had to itself, up to the rounding of the processor."""
    for tissue, ranges in THAT_DAY.items():
        monkeypatch.setitem(PHASE_HU, tissue, dict(zip(Phase, ranges, strict=True)))
    draws = PatchDraws(everything(), EVERYTHING, SPEC, seed=11, tissues=TISSUES)
    for number, (case_id, known, counts, mean, deviation) in enumerate(GOLDEN):
        sample = draws[number]
        assert (sample.case_id, sample.known) == (case_id, known)
        assert torch.bincount(sample.labels.flatten().long(), minlength=3).tolist() == pytest.approx(counts, abs=3)
        image = sample.image.double()
        assert (float(image.mean()), float(image.std())) == pytest.approx((mean, deviation), abs=2e-4)


def test_a_patch_that_nothing_happens_to_is_the_normalised_crop() -> None:
    keep = SynthesisSettings(keep_chance=1.0, recolour_chance=0.0, draw_chance=0.0)
    still = PatchSettings(
        (8, 6, 4), swelling_chance=0.0, deformation=Deformation(probability=0.0), intensity=CALM, synthesis=keep
    )
    one = box(32)
    inside = 0
    for number in range(40):
        generator = step_generator(4, number)
        torch.multinomial(torch.ones(1, dtype=torch.float64), 1, generator=generator)  # which case
        centre = patch_centre(one, shape=(8, 6, 4), organ_probability=0.75, generator=generator)
        start = centre - torch.tensor([3.5, 2.5, 1.5])
        low = start.floor().int()
        if bool((low < 0).any()) or bool((low + torch.tensor([9, 7, 5]) > 32).any()):
            continue
        inside += 1
        part = start - low
        crop = one.image[low[0] : low[0] + 9, low[1] : low[1] + 7, low[2] : low[2] + 5]
        for axis in range(3):  # trilinear: one axis after the other
            crop = (
                crop.narrow(axis, 0, crop.shape[axis] - 1) * (1 - part[axis])
                + crop.narrow(axis, 1, crop.shape[axis] - 1) * part[axis]
            )
        sample = PatchDraws([one], still, SPEC, seed=4, tissues={})[number]
        torch.testing.assert_close(sample.image[0], (crop + 200) / 500, rtol=0, atol=1e-4)
    assert inside > 20


def test_a_sample_depends_on_seed_and_number_alone() -> None:
    settings = PatchSettings(shape=(12, 12, 12))
    first, second = (PatchDraws([box(), box()], settings, SPEC, seed=7, tissues={}) for _ in range(2))
    first[3]
    a, b = first[11], second[11]
    assert torch.equal(a.image, b.image)
    assert torch.equal(a.labels, b.labels)
    assert not torch.equal(a.image, first[12].image)
    assert not torch.equal(a.image, PatchDraws([box()], settings, SPEC, seed=8, tissues={})[11].image)


def test_workers_and_a_late_start_change_no_batch() -> None:
    draws = PatchDraws([replace(case, known=None) for case in everything()], EVERYTHING, SPEC, seed=2, tissues=TISSUES)
    straight = list(DrawBatches(draws, size=2).batches(0, 6))
    ahead = list(DrawBatches(draws, size=2, workers=1).batches(3, 6))
    assert all(
        torch.equal(a.image, b.image) and torch.equal(a.target, b.target) for a, b in zip(straight[3:], ahead, strict=True)
    )


@pytest.mark.slow
def test_cases_are_drawn_by_weight() -> None:
    light, heavy = box(), box()
    cases = [Case("light", light.image, light.labels, weight=1.0), Case("heavy", heavy.image, heavy.labels, weight=9.0)]
    draws = PatchDraws(cases, PatchSettings(shape=(4, 4, 4)), SPEC, seed=0, tissues={})
    share = sum(draws[number].case_id == "heavy" for number in range(200)) / 200
    assert 0.82 < share < 0.97


def test_classes_without_an_entry_of_their_own_swell_by_entry_0() -> None:
    grown = PatchSettings((24, 24, 24), 0.0, 1.0, {0: (1.5, 1.5)}, Deformation(0.0, (1.0, 1.0), 0.0, (), 1.0), CALM)
    still = replace(grown, swelling_chance=0.0)
    more, fewer = (int((PatchDraws([box()], s, SPEC, seed=3, tissues={})[0].labels == 2).sum()) for s in (grown, still))
    assert more > 1.3 * fewer > 0


RECIPE = Recipe(
    name="mine",
    title="two boxes",
    source="us",
    dataset="mine",
    split="own",
    network=NetworkChoice("attention-unet", {"classes": 3, "widths": [2, 4]}),
    input=SPEC,
    loss=LossName.DICE_CROSS_ENTROPY,
    batch=2,
    loop=LoopSettings(steps=1),
    labels={1: "liver", 2: "spleen"},
    patches=PatchSettings(shape=(16, 16, 16)),
    structures={5: Structure(Tissue.LIVER), 1: Structure(Tissue.SPLEEN), FAT: Structure(Tissue.FAT)},
)


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    grid = Grid((20, 20, 20), np.diag([4.0, 4.0, 4.0, 1.0]))
    names = LabelSet.from_mapping({1: "spleen", 5: "liver"})
    labels = np.zeros(grid.shape, dtype=np.uint8)
    labels[4:10, 4:14, 4:14], labels[12:16, 6:12, 6:12] = 5, 1
    image = np.full(grid.shape, -90, dtype=np.int16)
    image[labels > 0] = 60
    image[:2] = -1000
    for case in ("a", "b"):
        write_volume_case(tmp_path, case, Volume(image, grid), LabelMask(labels, grid, names))
    describe_cohort(tmp_path, name="mine", label_set=names, modality="CT", file_ending=".nii.gz", cases=2)
    return tmp_path


def test_the_scans_of_a_cohort_are_recoloured_by_their_own_labels(cohort: Path) -> None:
    case = load_case(open_cohort(cohort), "a", RECIPE)
    assert case.structures is not None
    assert sorted(case.structures.unique().tolist()) == [1, 5, OUTSIDE, FAT]
    assert torch.equal(case.structures == 5, case.labels == 1)  # numbered as the network's classes
    assert load_case(open_cohort(cohort), "a", replace(RECIPE, structures={})).structures is None


@pytest.mark.parametrize("recoloured", [False, True])
def test_contrast_changes_only_where_the_recipe_says_what_the_labels_look_like(cohort: Path, recoloured: bool) -> None:
    drawn = SynthesisSettings(keep_chance=0, recolour_chance=1, draw_chance=0, oral_contrast_chance=0, lesion_chance=0)
    recipe = replace(RECIPE, patches=PatchSettings((16, 16, 16), intensity=CALM, synthesis=drawn))
    recipe = recipe if recoloured else replace(recipe, structures={})
    batches = list(batches_of(recipe, cohort, Split(("a", "b"))).batches(0, 8))
    assert all(batch.image.shape == (2, 1, 16, 16, 16) and batch.target.shape == (2, 16, 16, 16) for batch in batches)
    livers = torch.stack([batch.image[:, 0][batch.target == 1].median() for batch in batches])
    assert bool(livers.std() > 0.03) is recoloured
    if not recoloured:
        assert livers.tolist() == pytest.approx([(60 + 200) / 500] * 8, abs=0.01)


@pytest.mark.slow
def test_made_up_scans_without_organs_lie_among_the_cohorts(cohort: Path) -> None:
    recipe = replace(RECIPE, scenes={Scene.THIGHS: 1000.0}, scenes_each=1)
    batch = next(batches_of(recipe, cohort, Split(("a", "b"))).batches(0, 1))
    assert int(batch.target.max()) == 0


@pytest.mark.parametrize(
    ("field", "changed"),
    [
        ("patches", {"input": replace(SPEC, modality="MR")}),
        ("patches", {"input": replace(SPEC, channels=(ChannelSpec("late", "CT", Normalisation.NONE),))}),
        ("patches", {"input": replace(SPEC, normalisation=Normalisation.ZSCORE)}),
        ("patches", {"patches": PatchSettings(shape=(15, 16, 16))}),
        ("patches", {"organ_share": 0.5}),
        ("structures", {"patches": None}),
        ("structures", {"structures": {5: Structure(Tissue.LIVER, 1)}}),
        ("phantoms", {"phantoms": {"ct150": 1.0}}),
        ("left_out", {"left_out": (OpenCase("a", "a.nii.gz"),)}),
        ("scenes", {"scenes": {Scene.HEAD: -1.0}}),
        ("stop_after", {"stop_after": 0}),
        ("structures", {"cases": (OpenCase("a", "a.nii.gz"),)}),
    ],
)
def test_what_does_not_hold_together_is_refused_by_its_key(field: str, changed: dict[str, object]) -> None:
    with pytest.raises(FieldError) as refused:
        replace(RECIPE, **changed)  # type: ignore[arg-type]
    assert refused.value.field in (field, "network")


def test_a_label_that_has_a_number_of_ours_is_not_recoloured(cohort: Path) -> None:
    described = (cohort / "dataset.json").read_text(encoding="utf-8")
    (cohort / "dataset.json").write_text(described.replace('"liver": 5', f'"liver": 5, "odd": {FAT}'), encoding="utf-8")
    with pytest.raises(RecipeError, match="recoloured"):
        load_case(open_cohort(cohort), "a", RECIPE)


def test_a_run_that_began_before_there_were_patches_can_go_on() -> None:
    plain = replace(RECIPE, patches=None, structures={})
    assert plain.fingerprint == "647508e39be2e0569f01d582373eb5f95805d6cd0701eec86009f118b8467fd7"
    assert len({plain.fingerprint, replace(RECIPE, structures={}).fingerprint, RECIPE.fingerprint}) == 3
