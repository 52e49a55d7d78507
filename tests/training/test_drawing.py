"""Images drawn from label maps: a body around the organs, densities of a phase, gas in front, another image each time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agseg.training.anatomy import OUTSIDE
from agseg.training.cases import Case
from agseg.training.drawing import FILL, FIRST_SHELL, INNER_WALL, SHELLS, draw_anatomy, enclose
from agseg.training.patch_draws import PatchDraws, PatchSettings
from agseg.training.synthesis import PHASE_HU, Phase, Tissue
from agseg.weights.input_spec import InputSpec, Normalisation

LIVER, COLON, SPINE, KIDNEY = 5, 20, 29, 2
SPEC = InputSpec("CT", normalisation=Normalisation.NONE, tile=(16, 16, 16), axis_codes="RAS", spacing_mm=(4.0, 4.0, 4.0))
TISSUES = {LIVER: Tissue.LIVER, COLON: Tissue.GUT, SPINE: Tissue.BONE, KIDNEY: Tissue.KIDNEY}


@pytest.fixture
def labelled() -> np.ndarray:
    found = np.zeros((64, 56, 24), dtype=np.uint8)
    found[20:34, 24:40, 4:20] = LIVER
    found[38:46, 26:42, 4:20] = COLON
    found[28:36, 14:20, 2:22] = SPINE
    found[40:46, 16:22, 6:18] = KIDNEY
    return found


def _draw(structures: np.ndarray, seed: int, *, random_chance: float = 0.0) -> torch.Tensor:
    return draw_anatomy(
        torch.from_numpy(structures),
        tissues=TISSUES,
        contrast=PHASE_HU,
        random_chance=random_chance,
        lesion_chance=0.0,
        generator=torch.Generator().manual_seed(seed),
    )


def test_a_map_is_enclosed_by_a_body_and_keeps_its_labels(labelled: np.ndarray) -> None:
    whole = enclose(labelled)
    assert (whole > 0).all()
    assert np.array_equal(whole[labelled > 0], labelled[labelled > 0])
    layer = whole[:, :, 12]
    assert {FILL, INNER_WALL, FIRST_SHELL, FIRST_SHELL + 1} <= set(np.unique(layer))
    # Walking outwards from the middle of the front, one meets shell after shell.
    column = layer[30, 42:].astype(int)
    shells = column[(column >= FIRST_SHELL) & (column < FIRST_SHELL + SHELLS)]
    assert len(shells) > 5
    assert (np.diff(shells) >= 0).all()


def test_a_map_that_shows_nothing_is_air() -> None:
    assert (enclose(np.zeros((8, 8, 3), dtype=np.uint8)) == OUTSIDE).all()


def test_every_draw_is_another_image_and_a_seed_repeats_it(labelled: np.ndarray) -> None:
    whole = enclose(labelled)
    first, again, other = _draw(whole, 1), _draw(whole, 1), _draw(whole, 2)
    assert torch.equal(first, again)
    assert (first - other)[torch.from_numpy(labelled == LIVER)].abs().mean() > 1


@pytest.mark.slow
def test_organs_have_a_density_of_some_phase_and_air_is_around_the_body(labelled: np.ndarray) -> None:
    whole = enclose(labelled)
    inner = torch.zeros(whole.shape, dtype=torch.bool)
    inner[23:31, 27:37, 7:17] = True
    ranges = [PHASE_HU[Tissue.LIVER][phase] for phase in Phase]
    low, high = min(r[0] for r in ranges) - 25, max(r[1] for r in ranges) + 45
    means = [float(_draw(whole, seed)[inner].mean()) for seed in range(8)]
    assert all(low < mean < high for mean in means)
    assert np.ptp(means) > 5
    assert float(_draw(whole, 3)[0, 0].max()) < -900
    assert float(_draw(whole, 3)[torch.from_numpy(labelled == SPINE)].mean()) > 100


@pytest.mark.slow
def test_gas_collects_in_front(labelled: np.ndarray) -> None:
    whole = enclose(labelled)
    front, back = 0, 0
    for seed in range(6):
        gas = (_draw(whole, seed) < -500) & torch.from_numpy(labelled == COLON)
        front, back = front + int(gas[:, 34:].sum()), back + int(gas[:, :34].sum())
    assert front > 1.1 * back


def test_patches_are_drawn_of_cases_that_have_no_scan(labelled: np.ndarray) -> None:
    whole = torch.from_numpy(enclose(labelled))
    labels = torch.from_numpy((labelled == LIVER).astype(np.uint8))
    case = Case("map", torch.where(whole < FIRST_SHELL, 0.0, -1024.0), labels, None, whole, drawn=True)
    draws = PatchDraws([case], PatchSettings(shape=(32, 32, 16)), SPEC, seed=1, tissues=TISSUES)
    samples = [draws[number] for number in range(4)]
    assert all(bool((s.image != 0).any()) and bool(torch.isfinite(s.image).all()) for s in samples)
    assert len({float(s.image.mean()) for s in samples}) == 4


def test_a_case_without_scan_needs_structures() -> None:
    empty = torch.zeros((4, 4, 4))
    with pytest.raises(ValueError, match="structures"):
        Case("map", empty, empty.to(torch.uint8), drawn=True)
