"""An entry, its files and its input are valid once built, whoever builds them: a manifest, a recipe, or code."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import pytest

from agseg.errors import FieldError, RecipeError
from agseg.io.resources import resource_path
from agseg.measure.calibration import Calibration
from agseg.training.recipe import find_recipe, recipe_names
from agseg.weights.entry import Cleanup
from agseg.weights.files import FileSource, SourceKind, WeightsFile
from agseg.weights.input_spec import Carry, GridRule, InputSpec, Normalisation
from agseg.weights.manifest import Manifest

SPEC = InputSpec(
    "CT",
    axis_codes="RAS",
    spacing_mm=(2.0, 2.0, 2.5),
    window_hu=(-100.0, 240.0),
    normalisation=Normalisation.WINDOW_TO_UNIT,
    tile=(96, 96, 64),
)
HERE = FileSource(SourceKind.LOCAL, path="net.safetensors")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("modality", "CTT"),
        ("axis_codes", "XYZ"),
        ("axis_codes", "RAR"),
        ("axis_codes", ""),
        ("spacing_mm", (-1.0, 0.0, 2.0)),
        ("spacing_mm", (1.0, math.nan, 2.0)),
        ("spacing_mm", (1.0, math.inf, 2.0)),
        ("spacing_mm", (1.0, 2.0)),
        ("spacing_mm", None),
        ("window_hu", (300.0, -200.0)),
        ("window_hu", (0.0, math.inf)),
        ("normalisation", "window"),
        ("tile", (0, -4, 16)),
        ("tile", (16, 16)),
        ("tile", (16.0, 16.0, 16.0)),
        ("overlap", 1.0),
        ("overlap", 1.5),
        ("overlap", -0.1),
        ("overlap", math.nan),
        ("padding", "mirror"),
        ("fixed_shape", (144, 0, 144)),
        ("window_height_mm", 0.0),
        ("body_box", True),
    ],
)
def test_an_input_that_no_network_could_see_cannot_be_built(field, value):
    with pytest.raises(FieldError) as refused:
        replace(SPEC, **{field: value})
    assert refused.value.field == field


def test_a_window_normalisation_needs_a_window():
    with pytest.raises(FieldError, match="window_hu"):
        replace(SPEC, window_hu=None)
    assert replace(SPEC, window_hu=None, normalisation=Normalisation.ZSCORE).window_hu is None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"filename": "../net"}, "filename"),
        ({"filename": ""}, "filename"),
        ({"sha256": "AB" * 32}, "sha256"),
        ({"sha256": None}, "sha256"),
        ({"sha256": None, "md5": "ab" * 16}, "sha256"),
        ({"md5": "ab"}, "md5"),
        ({"size_bytes": 0}, "size_bytes"),
    ],
)
def test_a_file_that_could_not_be_checked_cannot_be_built(changes, field):
    with pytest.raises(FieldError) as refused:
        replace(WeightsFile("net.safetensors", HERE, "ab" * 32, 12), **changes)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("kind", "places"),
    [
        (SourceKind.HUB, {"repository": "owner", "revision": "main", "path": "a"}),
        (SourceKind.HUB, {"repository": "owner/name", "path": "a"}),
        (SourceKind.URL, {"url": "file:///etc/passwd"}),
        (SourceKind.PACKAGED, {"path": "/etc/passwd"}),
        (SourceKind.PACKAGED, {"path": "a/../../b"}),
        (SourceKind.LOCAL, {}),
    ],
)
def test_a_source_that_leads_nowhere_cannot_be_built(kind, places):
    with pytest.raises(FieldError):
        FileSource(kind, **places)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "Site Net"),
        ("files", ()),
        ("default_for", ("heart",)),
        ("cleanup", {"heart": Cleanup.LARGEST_COMPONENT}),
        ("cleanup", {"liver": "most"}),
        ("calibration", {"heart": Calibration(0.5)}),
        ("classes", ("a", "a")),
    ],
)
def test_an_entry_that_contradicts_itself_cannot_be_built(field, value):
    entry = Manifest.load().entry("attention-unet-abdomen")
    with pytest.raises(FieldError) as refused:
        replace(entry, **{field: value})
    assert refused.value.field == field


def test_two_files_of_one_name_and_an_entry_without_meaning_are_refused():
    entry = Manifest.load().entry("attention-unet-abdomen")
    with pytest.raises(FieldError, match="one name"):
        replace(entry, files=entry.files * 2)
    with pytest.raises(FieldError, match="labels"):
        replace(entry, classes=("a", "b"))


def test_every_packaged_recipe_and_entry_holds():
    assert all(find_recipe(name).input.tile for name in recipe_names())
    assert Manifest.load().entries


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("tile: [", "tile: [0, ", "tile"),
        ("spacing_mm: [", "spacing_mm: [-", "spacing_mm"),
        ("overlap: 0.5", "overlap: 1.5", "overlap"),
        ("modality: CT", "modality: CTT", "modality"),
        ("axis_codes: RAS", "axis_codes: XYZ", "axis_codes"),
    ],
)
def test_a_recipe_is_refused_for_what_a_manifest_is_refused_for_with_its_line(tmp_path, old, new, field):
    lines = resource_path("train/recipes/attention-unet3d-ct82-scr.yaml").read_text().splitlines()
    at = next((n for n, line in enumerate(lines) if old.split("[")[0].strip() in line), None)
    if field == "overlap" and at is None:
        at = next(n for n, line in enumerate(lines) if "tile:" in line) + 1
        lines.insert(at, "  overlap: 0.5")
    assert at is not None
    lines[at] = lines[at].replace(old, new) if field != "tile" else "  tile: [0, 16, 16]"
    path = tmp_path / "attention-unet3d-ct82-scr.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(RecipeError, match=f"line {at + 1}: {field}: ") as refused:
        find_recipe(path)
    assert refused.value.path == path


def test_a_field_that_comes_later_leaves_the_digests_of_today():
    first = (
        "modality axis_codes spacing_mm window_hu normalisation tile overlap antialias padding body_box fixed_shape "
        "window_height_mm"
    )
    assert set(SPEC.identity()) == set(first.split())
    assert SPEC.identity().items() <= asdict(SPEC).items()
    later = replace(SPEC, carry=Carry.LOGITS, grid=GridRule.EDGES)
    assert later.identity() == {**SPEC.identity(), "carry": "logits", "grid": "edges"}
