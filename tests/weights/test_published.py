"""Models by name: a local web plays the release host."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest
import yaml

from agseg.errors import Code, FieldError, UsageError, WeightsError
from agseg.labels import known_structures
from agseg.weights.cache import WeightsCache
from agseg.weights.manifest import Manifest
from agseg.weights.published import Archive, LicenceClass, PublishedModel
from agseg.workflows.weights import describe_published, export_weights, fetch_weights, import_weights, pin_weights, summaries
from tests.weights.toy_models import DATASET, weights, write_model, zipped

OPEN = {"licence": "Apache-2.0", "licence_class": "open", "citation": "A paper", "orientation": "RAS"}


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> list[bytes]:
    """Two models with labels of their own, zipped."""
    root = tmp_path_factory.mktemp("models")
    made = []
    for number, organs in enumerate((["liver", "kidney_left", "spleen"], ["pancreas", "stomach", "aorta"])):
        labels = {"background": 0} | {name: index for index, name in enumerate(organs, start=1)}
        folder = root / str(number)
        write_model(folder, dataset={**DATASET, "labels": labels}, states={"0": weights(seed=number)})
        made.append(zipped(folder, root / f"{number}.zip").read_bytes())
    return made


@pytest.fixture
def site(web, archives, tmp_path):
    """A site's manifest with published models on the local server."""
    web.files |= {f"/releases/part{number}.zip": content for number, content in enumerate(archives)}

    def write(**models: dict) -> tuple[Manifest, WeightsCache]:
        path = tmp_path / "site.yaml"
        path.write_text(yaml.safe_dump({"schema": "agseg.weights/1", "models": models}))
        home = tmp_path / "home"
        return Manifest.load(path, home=home), WeightsCache(home, offline=False)

    return write


def model(web, *numbers: int, **changes) -> dict:
    urls = [{"url": f"{web.base}/releases/part{number}.zip"} for number in numbers]
    return {"archives": urls, **OPEN, **changes}


def test_fetched_by_name_it_is_an_entry_of_the_site_and_its_digest_binds(site, web, archives, caplog):
    manifest, cache = site(toy=model(web, 0, input={"overlap": 0.2}))
    with pytest.raises(UsageError, match="not here yet"):
        manifest.entry("toy")
    with caplog.at_level(logging.WARNING):
        assert fetch_weights(manifest, cache, ["toy"]) == ("toy",)
    assert "unverified" in caplog.text
    manifest, cache = site(toy=model(web, 0))
    entry = manifest.entry("toy")
    assert entry.labels.names == ("liver", "kidney_left", "spleen")
    assert (entry.input.overlap, entry.citation, entry.licence) == (0.2, "A paper", "Apache-2.0 (open)")
    # The same address now gives another file: neither this machine nor one with the pinned digest takes it.
    pin = pin_weights(manifest, cache, "toy")["models"]["toy"]["archives"][0]
    assert pin["sha256"] == hashlib.sha256(archives[0]).hexdigest()
    (cache.root / "blobs" / pin["sha256"]).unlink()
    (cache.root.parent / "manifest.d" / "toy.yaml").unlink()
    web.files["/releases/part0.zip"] = archives[1]
    for known in (model(web, 0), {**OPEN, "archives": [pin]}):
        manifest, cache = site(toy=known)
        with pytest.raises(WeightsError) as refused:
            fetch_weights(manifest, cache, ["toy"])
        assert refused.value.code is Code.WEIGHTS_CHECKSUM
        assert "toy" not in Manifest.load(home=cache.root.parent).by_id


def test_an_interrupted_fetch_is_taken_up_again(site, web, archives):
    web.break_off_after = [len(archives[0]) // 2]
    manifest, cache = site(toy=model(web, 0))
    fetch_weights(manifest, cache, ["toy"])
    asked = [wanted for path, wanted in web.gets() if path == "/releases/part0.zip"]
    assert asked[0] is None
    assert asked[-1] == f"bytes={len(archives[0]) // 2}-"


def test_several_archives_are_one_entry_with_parts(site, web):
    manifest, cache = site(toy=model(web, 0, 1))
    fetch_weights(manifest, cache, ["toy"])
    manifest, _ = site(toy=model(web, 0, 1))
    entry = manifest.entry("toy")
    assert entry.labels.names == ("liver", "kidney_left", "spleen", "pancreas", "stomach", "aorta")
    assert [part.labels.names for part in entry.parts] == [("liver", "kidney_left", "spleen"), ("pancreas", "stomach", "aorta")]
    assert not list((cache.root / "partial").glob("*parts*"))


@pytest.mark.parametrize("licence_class", ["licensed", "non-commercial"])
def test_what_is_not_open_is_never_asked_for(site, web, licence_class):
    closed = model(web, 0, licence="CC BY-NC 4.0", licence_class=licence_class)
    manifest, cache = site(toy=closed)
    with pytest.raises(WeightsError, match="not fetched: its licence") as refused:
        fetch_weights(manifest, cache, ["toy"])
    assert "agseg weights import FILE --as toy" in str(refused.value.hint)
    assert web.asked == []


def test_offline_names_what_is_missing(site, web):
    manifest, cache = site(toy=model(web, 0))
    cache.offline = True
    with pytest.raises(WeightsError, match="offline"):
        fetch_weights(manifest, cache, ["toy"])


def test_a_pin_before_the_first_fetch_is_refused(site, web):
    manifest, cache = site(toy=model(web, 0))
    with pytest.raises(WeightsError, match="not fetched yet"):
        pin_weights(manifest, cache, "toy")


def test_the_packaged_list_holds_together(tmp_path):
    published = Manifest.load().published
    total = published["totalsegmentator-total"]
    assert len(total.archives) == 5
    assert len(total.organs) == 117
    assert total.input["overlap"] == 0.2
    assert set(total.organs) <= set(known_structures())
    assert len(published["totalsegmentator-total-mr"].organs) == 50
    assert published["totalsegmentator-total-mr"].modality == "MR"
    assert published["mrsegmentator"].archives[0].sha256 is not None
    assert published["totalsegmentator-brain-aneurysm"].licence_class is LicenceClass.NON_COMMERCIAL
    assert published["totalsegmentator-tissue-types"].licence_class is LicenceClass.LICENSED
    assert all(archive.url.startswith("https://github.com/") for model in published.values() for archive in model.archives)
    assert not [m.id for m in published.values() if m.licence_class is not LicenceClass.OPEN and m.archives]
    rows = {row["id"]: row for row in summaries(Manifest.load(), WeightsCache(tmp_path, offline=True))}
    assert rows["totalsegmentator-total"]["available"] is False
    described = describe_published(total, WeightsCache(tmp_path, offline=True))
    assert described["archives"][0]["url"].endswith("part1_organs_1559subj.zip")


WRONG = {"archives": (), "orientation": "RRA", "organs": ("liver",), "modality": "XX"}


@pytest.mark.parametrize(("field", "value"), WRONG.items())
def test_a_model_that_contradicts_itself_cannot_be_built(field, value):
    facts = {"archives": (Archive("https://github.com/a/b.zip"),), "licence": "MIT", "licence_class": LicenceClass.OPEN}
    with pytest.raises(FieldError) as refused:
        PublishedModel("toy", citation="", classes=2, **(facts | {field: value}))
    assert refused.value.field == field
    with pytest.raises(FieldError):
        Archive("ftp://github.com/a.zip")
    assert Path(Archive("https://github.com/a/b.zip").file.filename).suffix == ".zip"


@pytest.fixture(scope="module")
def five_parts(tmp_path_factory) -> list[bytes]:
    """Five models with three organs each."""
    root = tmp_path_factory.mktemp("five")
    names = [name for name in known_structures() if "kidney_cyst" not in name][:15]
    made = []
    for number in range(5):
        labels = {"background": 0} | {name: index for index, name in enumerate(names[3 * number : 3 * number + 3], start=1)}
        write_model(root / str(number), dataset={**DATASET, "labels": labels}, states={"0": weights(seed=number)})
        made.append(zipped(root / str(number), root / f"{number}.zip").read_bytes())
    return made


@pytest.mark.slow
def test_an_entry_of_five_parts_travels_to_a_place_without_a_network(site, web, five_parts, tmp_path):
    web.files |= {f"/releases/part{number}.zip": content for number, content in enumerate(five_parts)}
    manifest, cache = site(whole=model(web, *range(5)))
    fetch_weights(manifest, cache, ["whole"])
    manifest, cache = site(whole=model(web, *range(5)))
    there = manifest.entry("whole")
    export_weights(manifest, cache, ["whole"], tmp_path / "bundle.tar")
    asked = len(web.asked)

    home = tmp_path / "other"
    done = import_weights(Manifest.load(home=home), WeightsCache(home, offline=True), tmp_path / "bundle.tar")
    assert [(file.id, file.missing) for file in done] == [("whole", 0)] * 5
    here, cache = Manifest.load(home=home).entry("whole"), WeightsCache(home, offline=True)
    assert (here.labels, here.parts, here.input, here.licence, here.sha256) == (
        there.labels, there.parts, there.input, there.licence, there.sha256
    )  # fmt: skip
    assert len(cache.ensure(here)) == 5
    assert all(home in path.parents for path in cache.ensure(here))
    assert len(web.asked) == asked


@pytest.mark.slow
def test_a_damaged_bundle_of_an_entry_leaves_nothing_behind(site, web, tmp_path):
    manifest, cache = site(toy=model(web, 0))
    fetch_weights(manifest, cache, ["toy"])
    manifest, cache = site(toy=model(web, 0))
    bundle = tmp_path / "bundle.tar"
    export_weights(manifest, cache, ["toy"], bundle)
    content = bytearray(bundle.read_bytes())
    content[-3000] ^= 1
    content[len(content) // 2] ^= 1
    bundle.write_bytes(content)
    home = tmp_path / "other"
    with pytest.raises(WeightsError):
        import_weights(Manifest.load(home=home), WeightsCache(home, offline=True), bundle)
    assert "toy" not in Manifest.load(home=home).by_id
    assert not list(home.rglob("*.safetensors"))


@pytest.mark.slow
def test_what_publishers_set_beside_the_plans_makes_entries_that_hold(site, web):
    """Every combination of the packaged list, on a model as nnU-Net writes it."""
    published = Manifest.load().published
    kinds = {str(sorted(found.input.items(), key=str)): found for found in published.values()}
    models = {f"toy-{n}": model(web, 0, input=found.input) for n, found in enumerate(kinds.values())}
    manifest, cache = site(**models)
    fetch_weights(manifest, cache, list(models))
    manifest, _ = site(**models)
    for (name, _), found in zip(models.items(), kinds.values(), strict=True):
        spec = manifest.entry(name).input
        assert all(
            getattr(spec, key) in (value, tuple(value) if isinstance(value, list) else value)
            for key, value in found.input.items()
        )
