"""What `agseg train` makes, classify-us takes: from the run's folder, and from what `agseg export` writes."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from agseg.errors import ExitCode, UsageError
from agseg.training.frames import open_frames
from agseg.training.recipe import find_recipe
from agseg.training.trained_model import open_run
from agseg.ultrasound.timeline import PLANES
from agseg.workflows.classify_us import ClassifyRequest, classify_us
from agseg.workflows.export import export_run
from agseg.workflows.phantom import make_phantom
from agseg.workflows.train import RunPlace, run_training
from tests.ultrasound.scans import write_video

TILE = (48, 64)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("us") / "data"
    make_phantom("us", cases=3, output=root)
    return root


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """Sononet-8, and AG-Sononet-8 on its trunk, two steps each."""
    root = tmp_path_factory.mktemp("runs")
    source = None
    for name in ("sononet-8-phantom-us", "ag-sononet-8-phantom-us"):
        recipe = find_recipe(name)
        loop = replace(recipe.loop, steps=2, warmup_steps=0, validate_every=2)
        small = replace(recipe, batch=4, input=replace(recipe.input, tile=(*TILE, 1)), loop=loop)
        run_training(small, RunPlace(data, root / name, device="cpu"), source=source)
        source = open_run(root / name)
    return root


def rows_of(folder):
    with (folder / "frames.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sononet-8-phantom-us", "ag-sononet-8-phantom-us"])
def test_a_trained_network_classifies_as_it_did_in_training(name, runs, data, tmp_path):
    cohort = open_frames(data)
    frames = [cohort.read(frame_id) for frame_id in cohort.ids[:6]]
    (tmp_path / "stills").mkdir()
    for number, pixels in enumerate(frames):
        Image.fromarray(pixels).save(tmp_path / f"stills/{number}.png")
    exported = export_run(open_run(runs / name), weights_id=name, output=tmp_path / "w")

    def classify(output, weights, manifest=None):
        request = ClassifyRequest(
            inputs=(tmp_path / "stills",),
            output=tmp_path / output,
            home=tmp_path / "home",
            weights=str(weights),
            manifest=manifest,
            offline=True,
            device="cpu",
            precision="fp32",
            crop=(0, 0, 288, 224),
        )
        report = classify_us(request)
        assert report.exit_code is ExitCode.OK
        return report, rows_of(tmp_path / output / "stills")

    from_run, rows = classify("a", runs / name)
    assert [weights.id for weights in from_run.weights] == [name]
    from_export, same_rows = classify("b", name, exported.manifest)
    assert (from_run.weights, rows) == (from_export.weights, same_rows)
    trained = open_run(runs / name)
    for row, pixels in zip(rows, frames, strict=True):
        expected = trained.classify(pixels).numpy()
        assert np.allclose([float(row[plane]) for plane in PLANES], expected, atol=2e-4)


@pytest.mark.slow
def test_a_clip_of_phantoms_is_annotated_with_a_trained_network(runs, data, tmp_path):
    cohort = open_frames(data)
    frames = [np.repeat(cohort.read(frame_id)[..., None], 3, axis=2) for frame_id in cohort.ids[:4]]
    video = write_video(tmp_path / "scan.mp4", frames)
    weights = str(runs / "ag-sononet-8-phantom-us")
    request = ClassifyRequest(
        (video,), tmp_path / "out", tmp_path / "home", weights=weights, offline=True, device="cpu", annotated=True
    )
    report = classify_us(request)
    assert report.exit_code is ExitCode.OK
    assert report.environment["precision"] in ("fp32", "bf16")
    assert len(rows_of(tmp_path / "out/scan")) == 4
    assert (tmp_path / "out/scan/annotated.mp4").stat().st_size > 0


def test_a_number_format_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(UsageError, match="precision"):
        ClassifyRequest((tmp_path,), tmp_path / "out", tmp_path / "home", precision="fp8")
