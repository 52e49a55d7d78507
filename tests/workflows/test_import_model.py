"""A model folder of nnU-Net becomes an entry and segments; what is hostile or not supported is refused, without a trace."""

from __future__ import annotations

import copy
import json
import stat
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from agseg.cli.app import app
from agseg.errors import AgsegError, Code, UsageError, WeightsError
from agseg.weights.cache import WeightsCache
from agseg.weights.manifest import Manifest
from agseg.workflows.import_model import ImportRequest, import_model
from tests.weights.toy_models import CONFIGURATION, DATASET, PLANS, old_plans, weights, write_model, zipped


def imported(source: Path, home: Path, **options):
    return import_model(ImportRequest(source, options.pop("as_id", "toy"), home, **options))


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) if folder.exists() else []


def changed(**keys) -> dict:
    """Plans whose only configuration has other keys."""
    plans = copy.deepcopy(PLANS)
    plans["configurations"]["3d_fullres"] |= keys
    return plans


def architecture(**keys) -> dict:
    plans = copy.deepcopy(PLANS)
    described = plans["configurations"]["3d_fullres"]["architecture"]
    described |= {key: value for key, value in keys.items() if key == "network_class_name"}
    described["arch_kwargs"] |= {key: value for key, value in keys.items() if key != "network_class_name"}
    return plans


# -- what is taken ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "zip", "old_plans", "deeper"])
def test_a_model_becomes_an_entry_of_this_site(tmp_path, kind):
    folder = write_model(tmp_path / "model", plans=old_plans() if kind == "old_plans" else None)
    source = zipped(tmp_path / "model", tmp_path / "model.zip") if kind == "zip" else folder
    entry = imported(tmp_path / "model" if kind == "deeper" else source, tmp_path / "home")
    assert entry.architecture == "nnunet-plain"
    assert [label.name for label in entry.labels] == ["liver", "left_kidney", "spleen"]
    assert (entry.input.axis_codes, entry.input.spacing_mm, entry.input.mirror_axes) == ("SAR", (4.0, 3.1, 3.0), (0, 1, 2))
    assert (entry.input.window_hu, entry.input.mean_std) == ((-100.0, 200.0), (20.0, 60.0))
    assert entry.licence == "CC0-1.0"
    cache = WeightsCache(tmp_path / "home", offline=True)
    (path,) = cache.ensure(Manifest.load(home=tmp_path / "home").entry("toy"))
    assert path.stat().st_size < 0.6 * sum(t.nbytes for t in weights().values())  # every tensor once, no optimiser


def test_the_toy_is_read_as_torch_reads_it(tmp_path):
    from agseg.weights.nnunet.checkpoint import read_checkpoint

    state = weights()
    folder = write_model(tmp_path, states={"0": {f"module.{key}": tensor for key, tensor in state.items()}})
    found = read_checkpoint(folder / "fold_0" / "checkpoint_final.pth")
    assert (found.trainer, found.configuration, found.epoch) == ("nnUNetTrainer", "3d_fullres", 7)
    torch.testing.assert_close(
        found.state["encoder.stages.0.0.convs.0.norm.weight"], state["encoder.stages.0.0.convs.0.norm.weight"]
    )
    assert not [key for key in found.state if "all_modules" in key or key.startswith("decoder.encoder")]


def test_checkpoints_of_numpy_1_are_read(tmp_path):
    folder = write_model(tmp_path / "model")
    path = folder / "fold_0" / "checkpoint_final.pth"
    with zipfile.ZipFile(path) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            archive.writestr(
                name,
                content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray") if name.endswith("data.pkl") else content,
            )
    assert imported(folder, tmp_path / "home").id == "toy"


def test_folds_are_all_taken_or_those_that_were_asked_for(tmp_path):
    folder = write_model(tmp_path / "model", states={"0": weights(seed=0), "1": weights(seed=1), "all": weights(seed=2)})
    assert len(imported(folder, tmp_path / "home").files) == 3
    assert [file.filename for file in imported(folder, tmp_path / "home", folds=("1",)).files] == ["fold_1.safetensors"]
    with pytest.raises(WeightsError, match="no such fold"):
        imported(folder, tmp_path / "home", folds=("4",))
    assert len(list((tmp_path / "home" / "weights" / "imported").iterdir())) == 1  # the earlier import's files are gone


@pytest.mark.slow
def test_orientation_must_be_said_where_the_plan_does_not(tmp_path):
    folder = write_model(
        tmp_path / "model", plans=PLANS | {"image_reader_writer": "SimpleITKIO", "transpose_forward": [1, 0, 2]}
    )
    with pytest.raises(UsageError, match="oriented"):
        imported(folder, tmp_path / "home")
    codes = {name: imported(folder, tmp_path / "home", orientation=name).input.axis_codes for name in ("RAS", "LPS", "stored")}
    assert codes == {"RAS": "ASR", "LPS": "PSL", "stored": "JKI"}
    with pytest.raises(UsageError, match="turns scans itself"):
        imported(write_model(tmp_path / "other"), tmp_path / "home", orientation="LPS")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("channel", "scheme", "said", "expected"),
    [
        ("CT", "CTNormalization", None, "CT"), ("T2w", "ZScoreNormalization", None, "MR"),
        ("CT", "ZScoreNormalization", None, "CT"), ("CT", "ZScoreNormalization", "MR", "MR"),
        ("PET", "CTNormalization", "CT", "CT"),
    ],
)  # fmt: skip
def test_the_modality_is_the_plans_unless_it_is_said(tmp_path, channel, scheme, said, expected):
    plans = copy.deepcopy(PLANS)
    plans["configurations"]["3d_fullres"]["normalization_schemes"] = [scheme]
    folder = write_model(tmp_path / "model", plans=plans, dataset=DATASET | {"channel_names": {"0": channel}})
    assert imported(folder, tmp_path / "home", modality=said).input.modality == expected


def test_models_of_emission_scans_are_refused(tmp_path):
    folder = write_model(tmp_path / "model", dataset=DATASET | {"channel_names": {"0": "PET"}})
    with pytest.raises(WeightsError, match="emission"):
        imported(folder, tmp_path / "home")


def test_regions_and_the_ignore_label(tmp_path):
    labels = {"background": 0, "organs": [1, 2, 3], "kidney": [2], "spleen": 3, "ignore": 4}
    dataset = DATASET | {"labels": labels, "regions_class_order": [1, 2, 3]}
    entry = imported(write_model(tmp_path / "a", dataset=dataset, states={"0": weights(heads=3)}), tmp_path / "home")
    assert entry.input.regions == (1, 2, 3)
    assert {label.index: label.name for label in entry.labels} == {1: "organs", 2: "kidney", 3: "spleen"}


def test_names_of_organs_can_be_said(tmp_path):
    (tmp_path / "names.yaml").write_text("Left Kidney: kidney_left\n")
    entry = imported(write_model(tmp_path / "a"), tmp_path / "home", organ_names=tmp_path / "names.yaml", licence="CC BY 4.0")
    assert (entry.labels.names, entry.licence) == (("liver", "kidney_left", "spleen"), "CC BY 4.0")


def test_post_processing_of_cross_validation_is_part_of_the_entry(tmp_path):
    folder = write_model(tmp_path / "model")
    (folder / "crossval_results_folds_0_1").mkdir()
    steps = {"postprocessing_fns": ["remove_all_but_largest_component_from_segmentation"] * 2,
             "postprocessing_kwargs": [{"labels_or_regions": [1, 2, 3]}, {"labels_or_regions": 3}]}  # fmt: skip
    (folder / "crossval_results_folds_0_1" / "postprocessing.json").write_text(json.dumps(steps))
    assert imported(folder, tmp_path / "home").largest_of == (("liver", "left_kidney", "spleen"), ("spleen",))


def test_a_configuration_inherits(tmp_path):
    plans = copy.deepcopy(PLANS)
    plans["configurations"]["3d_child"] = {"inherits_from": "3d_fullres", "spacing": [5.0, 5.0, 5.0]}
    entry = imported(write_model(tmp_path / "model", plans=plans, configuration="3d_child"), tmp_path / "home")
    assert (entry.input.spacing_mm, entry.input.tile) == ((5.0, 5.0, 5.0), (8, 16, 12))


@pytest.mark.parametrize(
    ("function", "carry"), [("resample_data_or_seg_to_shape", "half_logits"), ("resample_torch_fornnunet", "logits")]
)
def test_scores_are_rounded_where_the_plans_function_rounds_them(tmp_path, function, carry):
    separate = {"is_seg": False, "force_separate_z": None}
    plans = changed(resampling_fn_probabilities=function, resampling_fn_probabilities_kwargs={**separate, "order": 1})
    assert imported(write_model(tmp_path / "model", plans=plans), tmp_path / "home").input.carry == carry


# -- from the folder to masks ----------------------------------------------------------------------------------------


def scan(path: Path) -> Path:
    from tests.inference.test_nnunet_way import scan as made

    volume = made((26, 24, 20), (2.0, 2.2, 2.5), codes="LPS")
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(volume.voxels), volume.grid.affine), path)
    return path


def command(*arguments: object, home: Path) -> int:
    """The exit code of a command line."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], env={"AGSEG_HOME": str(home)})
    return int(result.exception.exit_code) if isinstance(result.exception, AgsegError) else result.exit_code


@pytest.mark.slow
def test_from_a_folder_to_masks_in_two_commands(tmp_path):
    write_model(tmp_path / "model", mirror=None)
    home, image = tmp_path / "home", scan(tmp_path / "in" / "case.nii.gz")
    assert command("weights", "import", tmp_path / "model", "--as", "toy", home=home) == 0
    out = tmp_path / "out"
    assert command("segment", image, "--weights", "toy", "--ml", "-o", out, "-d", "cpu", "--no-preview", home=home) == 0
    record = json.loads((out / "run.json").read_text())
    assert record["counts"]["done"] == 1
    assert {organ["name"] for organ in record["studies"][0]["organs"]} == {"liver", "left_kidney", "spleen"}


@pytest.mark.slow
def test_the_four_commands_of_the_guide(tmp_path, monkeypatch):
    guide = Path(__file__).parents[2] / "docs" / "nnunet.md"
    lines = [line.split("#")[0].split() for line in guide.read_text().splitlines() if line.startswith("    agseg ")]
    assert len(lines) == 4
    write_model(tmp_path, name="Dataset911_Abdomen")
    scan(tmp_path / "studies" / "case.nii.gz")
    monkeypatch.chdir(tmp_path)
    for _agseg, *arguments in lines:
        more = ("-d", "cpu", "--no-preview") if arguments[0] == "segment" else ()
        assert command(*arguments, *more, home=tmp_path / "home") == 0, arguments
    assert len(list((tmp_path / "masks" / "case").glob("*.nii.gz"))) == 3
    assert [path.name for path in (tmp_path / "livers" / "case").glob("*.nii.gz")] == ["liver.nii.gz"]


def composite(root: Path, home: Path):
    """Two models as one; both know a liver, the second overwrites."""
    for number in (1, 2):
        write_model(root, name=f"Dataset90{number}_Toy", states={"0": weights(seed=number)})
    model = "nnUNetTrainer__nnUNetPlans__3d_fullres"
    parts = [
        {"model": f"Dataset901_Toy/{model}", "labels": {1: "liver", 2: "pancreas"}},
        {"model": f"Dataset902_Toy/{model}", "labels": {2: "spleen", 3: "stomach"}},
    ]
    labels = {1: "liver", 2: "pancreas", 3: "spleen", 4: "stomach"}
    (root / "parts.yaml").write_text(yaml.safe_dump({"parts": parts, "labels": labels}))
    return imported(root, home, as_id="whole")


@pytest.mark.slow
def test_parts_are_merged_in_their_order_and_only_those_that_are_needed_run(tmp_path):
    from agseg.inference.by_entry import segment_with_entry
    from agseg.inference.network import load_entry
    from agseg.models.precision import Precision
    from tests.inference.test_nnunet_way import scan as made

    entry = composite(tmp_path / "model", tmp_path / "home")
    cache, volume = WeightsCache(tmp_path / "home", offline=True), made((26, 24, 20), (2.0, 2.2, 2.5))

    def labels(of, organs=None):
        loaded = load_entry(of, cache.ensure(of), device=torch.device("cpu"), precision=Precision.FP32)
        return segment_with_entry(volume, loaded, of, organs=organs).mask.labels

    whole = labels(entry)
    first, second = (labels(part) for part in entry.part_entries())
    expected = np.where(second > 1, second + 1, np.where(first < 3, first, 0))
    np.testing.assert_array_equal(whole, expected)
    assert len(np.unique(whole)) > 3
    narrow = entry.narrowed(["stomach"])
    assert [part.labels.names for part in narrow.parts] == [("spleen", "stomach")]
    assert [file.filename for file in narrow.files] == ["part2-fold_0.safetensors"]
    np.testing.assert_array_equal(labels(narrow, ["stomach"]) > 0, second == 3)


@pytest.mark.slow
def test_the_image_of_parts_that_see_the_same_is_prepared_once(tmp_path, monkeypatch):
    from agseg.inference import prepare
    from agseg.inference.by_entry import segment_with_entry
    from agseg.inference.network import load_entry
    from agseg.models.precision import Precision
    from tests.inference.test_nnunet_way import scan as made

    entry = composite(tmp_path / "model", tmp_path / "home")
    paths = WeightsCache(tmp_path / "home", offline=True).ensure(entry)
    loaded = load_entry(entry, paths, device=torch.device("cpu"), precision=Precision.FP32)
    calls, original = [], prepare.prepare
    monkeypatch.setattr(prepare, "prepare", lambda *a, **k: calls.append(1) or original(*a, **k))
    segment_with_entry(made((26, 24, 20), (2.0, 2.2, 2.5)), loaded, entry)
    assert len(calls) == 1


# -- what is refused -------------------------------------------------------------------------------------------------


class Runs:
    """Would print when a pickle of it is loaded the unsafe way."""

    def __reduce__(self):
        return (print, ("the pickle ran",))


REFUSED = {
    "cascade": ({"plans": changed(previous_stage="3d_lowres")}, "cascade"),
    "cascade_by_name": (
        {"plans": {**PLANS, "configurations": {"3d_cascade_fullres": CONFIGURATION}}, "configuration": "3d_cascade_fullres"},
        "cascade",
    ),
    "channels": ({"dataset": DATASET | {"channel_names": {"0": "CT", "1": "PET"}}}, "CT, PET"),
    "class": ({"plans": architecture(network_class_name="os.system")}, "os.system"),
    "transformer": ({"plans": architecture(network_class_name="architectures.primus.Primus")}, "Primus"),
    "operator": ({"plans": architecture(conv_op="subprocess.Popen")}, "subprocess.Popen"),
    "argument": ({"plans": architecture(squeeze_excitation=True)}, "squeeze_excitation"),
    "normalisation": ({"plans": changed(normalization_schemes=["RGBTo01Normalization"])}, "RGBTo01Normalization"),
    "resampling": ({"plans": changed(resampling_fn_data="no_resampling_data_or_seg_to_shape")}, "no_resampling"),
    "reader": ({"plans": PLANS | {"image_reader_writer": "Tiff3DIO"}}, "Tiff3DIO"),
    "label_manager": ({"plans": PLANS | {"label_manager": "Mine"}}, "Mine"),
    "loop": ({"plans": changed(inherits_from="3d_fullres")}, "inherits from itself"),
    "unknown_configuration": ({"configuration": "2d"}, "2d"),
    "tensors": ({"states": {"0": weights(heads=7)}}, "nnUNetTrainer do not fit"),
    "two_copies": ({"states": {"0": {**weights(), "decoder.encoder.stages.0.0.convs.0.conv.bias": torch.ones(4)}}}, "two diff"),
    "not_finite": ({"states": {"0": {**weights(), "decoder.seg_layers.0.bias": torch.full((4,), torch.nan)}}}, "not finite"),
    "pickle": ({"extra": {"logging": Runs()}}, "builtins.print"),
    "labels": ({"dataset": DATASET | {"labels": {"background": 0, "liver": 1, "spleen": 5}}}, "gaps"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_refused_by_name_and_leaves_nothing(tmp_path, name, capfd):
    options, said = REFUSED[name]
    write_model(tmp_path / "model", **options)
    home = tmp_path / "home"
    with pytest.raises(AgsegError) as refusal:
        imported(tmp_path / "model", home)
    assert said in refusal.value.sentence()
    assert files_below(home) == []
    assert "the pickle ran" not in capfd.readouterr().out


def hostile_zip(path: Path, name: str, content: bytes = b"x", *, mode: int = 0o644) -> Path:
    """A good model and one entry more."""
    write_model(path.parent / "model")
    zipped(path.parent / "model", path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
        archive.writestr(info, content)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "mode"),
    [
        ("../escaped.txt", b"x", 0o644),
        ("a/../../escaped.txt", b"x", 0o644),
        ("/tmp/escaped.txt", b"x", 0o644),
        ("..\\escaped.txt", b"x", 0o644),
        ("C:/escaped.txt", b"x", 0o644),
        ("link", b"/etc/passwd", stat.S_IFLNK | 0o777),
        ("Dataset901_Toy/fold_0/checkpoint_final.pth", bytes(30_000_000), 0o644),
        ("Dataset901_Toy/nnUNetTrainer__nnUNetPlans__3d_fullres/plans.json", b"{}", 0o644),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_archives_are_refused(tmp_path, name, content, mode):
    archive = hostile_zip(tmp_path / "model.zip", name, content, mode=mode)
    before = files_below(tmp_path)
    with pytest.raises(WeightsError) as refusal:
        imported(archive, tmp_path / "home")
    assert refusal.value.code is Code.UNSAFE_ARCHIVE
    assert files_below(tmp_path) == before


@pytest.mark.slow
def test_a_zip_of_something_else_is_no_model(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    assert command("weights", "import", tmp_path / "a.zip", "--as", "toy", home=tmp_path / "home") == 7
    (tmp_path / "empty").mkdir()
    assert command("weights", "import", tmp_path / "empty", "--as", "toy", home=tmp_path / "home") == 7


def test_a_model_needs_a_name_that_is_free(tmp_path):
    folder = write_model(tmp_path / "model")
    for name in (None, "attention-unet-abdomen", "Not An Id"):
        named = () if name is None else ("--as", name)
        assert command("weights", "import", folder, *named, home=tmp_path / "home") == 2


def test_several_models_are_not_guessed_at(tmp_path):
    for number in (1, 2):
        write_model(tmp_path / "model", name=f"Dataset90{number}_Toy")
    with pytest.raises(UsageError, match="several models"):
        imported(tmp_path / "model", tmp_path / "home")


def test_parts_stay_below_their_folder(tmp_path):
    write_model(tmp_path / "model")
    text = yaml.safe_dump({"parts": [{"model": "../elsewhere", "labels": {1: "liver"}}], "labels": {1: "liver"}})
    (tmp_path / "model" / "parts.yaml").write_text(text)
    with pytest.raises(WeightsError, match="below this file"):
        imported(tmp_path / "model", tmp_path / "home")
