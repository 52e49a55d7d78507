"""What measuring, cleaning up, drawing and writing a volume may allocate at a time: a tenth of it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agseg.grid import Grid
from agseg.inference.cleanup import clean_up
from agseg.io.mosaic import write_mosaic
from agseg.io.nifti_write import write_mask
from agseg.io.preview import write_preview
from agseg.io.voxels import check_looks_like_hu
from agseg.labels import LabelSet
from agseg.measure.evidence import collect
from agseg.measure.volumes import measure, survey
from agseg.volume import LabelMask, Volume
from agseg.weights.entry import Cleanup

pytestmark = pytest.mark.slow

LABELS = LabelSet.from_mapping({1: "liver", 2: "spleen", 3: "pancreas"})
SHAPE = (448, 400, 200)
SHARE = 0.1


@pytest.fixture(scope="module", params=["F", "C"])
def scene(request: pytest.FixtureRequest) -> tuple[Volume, LabelMask]:
    """Organs as large as in an abdomen, one in two parts, one at the edge."""
    labels = np.zeros(SHAPE, np.uint8, order=request.param)
    labels[60:260, 90:290, 40:160] = 1
    labels[300:390, 200:290, 0:60] = 2
    labels[200:290, 300:340, 60:90] = 3
    labels[300:310, 300:310, 100:105] = 3
    voxels = np.full(SHAPE, -1000, np.int16, order=request.param)
    voxels[20:430, 60:370] = -100
    voxels[labels > 0] = 60
    grid = Grid(SHAPE, np.diag([-0.8, -0.8, 1.5, 1.0]))
    return Volume(voxels, grid), LabelMask(labels, grid, LABELS)


def allocated(work: Callable[[], object]) -> int:
    work()  # imports and tables that stay
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


STEPS: dict[str, Callable[[Volume, LabelMask, Path], object]] = {
    "binding": lambda _volume, mask, _path: LabelMask(mask.labels, mask.grid, mask.label_set),
    "judging": lambda volume, _mask, _path: check_looks_like_hu(volume.voxels),
    "measuring": lambda volume, mask, _path: measure(mask, volume),
    "looking for doubts": lambda volume, mask, _path: collect(mask, volume, survey(mask, volume)),
    "drawing slices": lambda volume, mask, path: write_mosaic(path / "mosaic.png", volume, mask, measure(mask, volume)),
    "cleaning up": lambda _volume, mask, _path: clean_up(mask.labels, {3: Cleanup.LARGE_COMPONENTS}),
    "drawing": lambda volume, mask, path: write_preview(path / "preview.png", volume, mask, ()),
    "writing": lambda _volume, mask, path: write_mask(path / "liver.nii.gz", mask.labels, mask.grid, value=1),
    "writing all": lambda _volume, mask, path: write_mask(path / "labels.nii", mask.labels, mask.grid),
}


@pytest.mark.parametrize("step", STEPS)
def test_no_step_allocates_more_than_a_tenth_of_the_volume(step: str, scene: tuple[Volume, LabelMask], tmp_path: Path) -> None:
    volume, mask = scene
    assert allocated(lambda: STEPS[step](volume, mask, tmp_path)) <= SHARE * volume.voxels.nbytes
