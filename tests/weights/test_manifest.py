"""Laws of the manifest: nothing unknown passes, complaints carry their line, a site's file goes over the packaged one."""

from __future__ import annotations

import hashlib

import pytest
import yaml

from agseg.errors import Code, ExitCode, UsageError, WeightsError
from agseg.io.resources import resource_path
from agseg.weights.files import SourceKind
from agseg.weights.manifest import Manifest

DIGEST = "ab" * 32

VALID = f"""schema: agseg.weights/1
entries:
  site-net:
    architecture: unet
    format: safetensors
    files:
      - filename: net.safetensors
        local: net.safetensors
        sha256: {DIGEST}
        size_bytes: 12
    input:
      modality: CT
      axis_codes: RAS
      spacing_mm: [2, 2, 2.5]
      window_hu: [-100, 240]
      normalisation: window_to_unit
      tile: [96, 96, 96]
    labels: {{1: pancreas, 2: liver}}
    default_for: [pancreas]
    licence: CC0-1.0
    citation: none
    attribution: made by this test
    intended_use: tests
"""


def loaded(tmp_path, text: str) -> Manifest:
    path = tmp_path / "site.yaml"
    path.write_text(text)
    return Manifest.load(path)


def test_the_packaged_manifest_holds_the_published_facts():
    manifest = Manifest.load()
    obelisk = manifest.entry("obelisk-tcia")
    assert [file.size_bytes for file in obelisk.files] == [946082] * 4
    assert obelisk.labels.names == (
        "spleen", "pancreas", "kidney_left", "gallbladder", "esophagus", "liver", "stomach", "duodenum",
    )  # fmt: skip
    assert len(manifest.entry("sononet16").classes) == 14
    assert manifest.entry("sononet16").classes.index("Background") == 3
    spleen = manifest.entry("monai-spleen")
    assert (spleen.input.spacing_mm, spleen.input.window_hu) == ((1.5, 1.5, 2.0), (-57.0, 164.0))
    for weights_id, spacing in (("monai-wholebody", 1.5), ("monai-wholebody-3mm", 3.0)):
        entry = manifest.entry(weights_id)
        assert len(entry.labels) == 104
        assert entry.labels.class_count == entry.config["out_channels"] == 105
        assert entry.input.spacing_mm == (spacing,) * 3
        numbers = {label.name: label.index for label in entry.labels}
        known = {"spleen": 1, "kidney_right": 2, "kidney_left": 3, "gallbladder": 4, "liver": 5, "stomach": 6, "pancreas": 10}
        assert known.items() <= numbers.items()


def test_every_packaged_default_travels_with_agseg_and_is_the_only_one():
    manifest = Manifest.load()
    for (organ, modality), weights_id in manifest.defaults.items():
        entry = manifest.entry(weights_id)
        assert organ in entry.default_for
        assert entry.input.modality == modality
        assert all(file.source.kind is SourceKind.PACKAGED for file in entry.files)


def test_packaged_files_are_there_with_the_digest_the_manifest_gives():
    from agseg.weights.cache import PACKAGED_FOLDER

    for entry in Manifest.load().entries:
        for file in entry.files:
            if file.source.kind is SourceKind.PACKAGED:
                content = (PACKAGED_FOLDER / str(file.source.path)).read_bytes()
                assert hashlib.sha256(content).hexdigest() == file.sha256
                assert len(content) == file.size_bytes


def test_every_file_of_the_packaged_manifest_is_bound_to_a_digest_and_a_pinned_place():
    for entry in Manifest.load().entries:
        for file in entry.files:
            assert file.sha256 or (file.md5 and file.source.kind is SourceKind.HUB)
            if file.source.kind is SourceKind.URL:
                assert any(len(part) == 40 for part in str(file.source.url).split("/"))


def test_a_sites_entry_is_added_and_becomes_the_default(tmp_path):
    manifest = loaded(tmp_path, VALID)
    entry = manifest.entry("site-net")
    assert entry.input.spacing_mm == (2.0, 2.0, 2.5)
    assert entry.files[0].source.path == str(tmp_path / "net.safetensors")
    assert manifest.default_for("pancreas", "CT").id == "site-net"
    assert manifest.entry("obelisk-tcia") == Manifest.load().entry("obelisk-tcia")


def test_a_sites_keys_go_over_those_of_a_known_entry(tmp_path):
    text = "schema: agseg.weights/1\nentries:\n  obelisk-tcia:\n    default_for: [gallbladder]\n"
    entry, packaged = loaded(tmp_path, text).entry("obelisk-tcia"), Manifest.load().entry("obelisk-tcia")
    assert entry.default_for == ("gallbladder",)
    assert (entry.files, entry.labels, entry.input) == (packaged.files, packaged.labels, packaged.input)


@pytest.mark.parametrize("indent", ["", "    ", "      ", "        "])
def test_an_unknown_key_is_refused_with_its_line(tmp_path, indent):
    after = {"": "schema:", "    ": "    architecture:", "      ": "      modality:", "        ": "        local:"}[indent]
    lines = VALID.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith(after)) + 1
    lines.insert(at, f"{indent}licens: MIT")
    with pytest.raises(UsageError, match=f"line {at + 1}: unknown key 'licens'") as refused:
        loaded(tmp_path, "\n".join(lines))
    assert refused.value.path == tmp_path / "site.yaml"


REQUIRED = ("architecture", "format", "input", "licence", "citation", "attribution", "intended_use", "files")


@pytest.mark.parametrize("key", REQUIRED)
def test_a_missing_key_is_refused(tmp_path, key):
    document = yaml.safe_load(VALID)
    del document["entries"]["site-net"][key]
    with pytest.raises(UsageError, match=f"missing key '{key}'"):
        loaded(tmp_path, yaml.safe_dump(document))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (DIGEST, DIGEST[:-1], "not a SHA-256"),
        (DIGEST, DIGEST[:-1] + "G", "not a SHA-256"),
        (f"        sha256: {DIGEST}\n", "", "sha256 is missing"),
        (f"        sha256: {DIGEST}\n", f"        md5: {'ab' * 16}\n", "sha256 is missing"),
        ("local: net.safetensors", "packaged: ../net.safetensors", "not a path below"),
        ("local: net.safetensors", "url: ftp://localhost/net", "not a URL"),
        ("local: net.safetensors", "local: a\n        url: https://localhost/net", "exactly one source"),
        ("filename: net.safetensors", "filename: ../net.safetensors", "not a file name"),
        ("axis_codes: RAS", "axis_codes: RAA", "axis_codes"),
        ("modality: CT", "modality: PT", "unknown modality"),
        ("[2, 2, 2.5]", "[2, 2]", "spacing_mm"),
        ("[2, 2, 2.5]", "[2, 2, -2.5]", "spacing_mm"),
        ("[-100, 240]", "[240, -100]", "window_hu"),
        ("window_to_unit", "window", "'window' is not known"),
        ("{1: pancreas, 2: liver}", "{1: pancreas, 2: pancreas}", "unique"),
        ("{1: pancreas, 2: liver}", "{one: pancreas}", "wrong type: found 'one', expected int"),
        ("default_for: [pancreas]", "default_for: [spleen]", "does not know"),
        ("    licence: CC0-1.0", "    licence: CC0-1.0\n    cleanup: {spleen: largest_component}", "does not know"),
        (
            "    licence: CC0-1.0",
            "    licence: CC0-1.0\n    cleanup: {liver: most}",
            "'most' is not known",
        ),
        ("    licence: CC0-1.0", "    licence: CC0-1.0\n    cleanup: largest_component", "a mapping"),
        ("    licence: CC0-1.0", "    licence: CC0-1.0\n    calibration: {spleen: {scale: 0.5}}", "does not know"),
        ("    licence: CC0-1.0", "    licence: CC0-1.0\n    calibration: {liver: {scale: 0}}", "no scale of log odds"),
        ("    licence: CC0-1.0", "    licence: CC0-1.0\n    calibration: {liver: {shift: 0.5}}", "missing key 'scale'"),
        ("  site-net:", "  Site Net:", "not an id"),
        ("agseg.weights/1", "agseg.weights/2", "another schema"),
        ("    licence: CC0-1.0", "    licence: CC0-1.0\n    licence: MIT", "'licence' appears twice"),
        ("    licence: CC0-1.0", "    licence: 1", "wrong type"),
        ("    licence: CC0-1.0", "    licence: !!python/object/apply:os.getcwd []", "plain YAML"),
        ("entries:", "entries: [", "not valid YAML"),
    ],
)
def test_what_does_not_hold_together_is_refused(tmp_path, old, new, complaint):
    assert old in VALID
    with pytest.raises(UsageError, match=complaint):
        loaded(tmp_path, VALID.replace(old, new))


def test_two_defaults_for_one_organ_and_modality_are_refused(tmp_path):
    twice = VALID + VALID.split("entries:\n")[1].replace("site-net", "other-net")
    with pytest.raises(UsageError, match="second default for pancreas"):
        loaded(tmp_path, twice)


def test_an_unknown_id_lists_the_known_ones():
    with pytest.raises(UsageError, match="obelisk-tcia") as refused:
        Manifest.load().entry("nothing")
    assert refused.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize("name", ["model.pt", "some/where", "/tmp/a.safetensors", "a.pth"])
def test_a_bare_file_is_never_taken_for_weights(name):
    with pytest.raises(WeightsError) as refused:
        Manifest.load().entry(name)
    assert refused.value.code is Code.WEIGHTS_CHECKSUM
    assert refused.value.exit_code is ExitCode.WEIGHTS


def test_no_default_names_the_entries_that_could():
    with pytest.raises(UsageError) as refused:
        Manifest.load().default_for("gallbladder", "CT")
    assert "--weights obelisk-tcia | monai-wholebody" in str(refused.value.hint)


def test_the_entrys_digest_does_not_depend_on_the_order_of_its_files(tmp_path):
    entry = Manifest.load().entry("obelisk-tcia")
    text = resource_path("weights_manifest.yaml").read_text()
    assert entry.sha256 is not None
    assert all(str(file.sha256) in text for file in entry.files)
    joined = "\n".join(sorted(str(file.sha256) for file in entry.files)).encode()
    assert entry.sha256 == hashlib.sha256(joined).hexdigest()


def test_the_example_in_the_documentation_is_a_manifest(tmp_path):
    page = (resource_path("weights_manifest.yaml").parent / "docs/weights.md").read_text(encoding="utf-8")
    example = page.split("```yaml\n")[1].split("```")[0].replace("<64 hexadecimal digits>", DIGEST)
    manifest = loaded(tmp_path, example)
    assert manifest.default_for("pancreas", "CT").id == "our-pancreas"
    assert manifest.allowed_hosts == ("weights.example.org",)
