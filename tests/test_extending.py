"""docs/extending.md does what it says: a writer, an architecture, a predictor, a weights format, an organ, each with a toy."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from agseg import labels as labels_module
from agseg.grid import Grid
from agseg.inference.network import ReadyNetwork
from agseg.inference.predictor import Scores
from agseg.inference.segment import segment_volume
from agseg.io.outputs import Outputs, Written
from agseg.io.writers import WRITERS, Result, Writer, check_outputs, write_all
from agseg.labels import LabelSet
from agseg.models.catalogue import FAMILIES, Family, facts
from agseg.models.precision import Precision
from agseg.models.registry import build
from agseg.study import Study, StudyKind
from agseg.volume import LabelMask, Volume
from agseg.weights import convert as convert_module
from agseg.weights.convert import convert
from agseg.weights.input_spec import InputSpec, Normalisation

SPEC = InputSpec(
    "CT",
    axis_codes="RAS",
    spacing_mm=(2.0, 2.0, 2.0),
    window_hu=(-100.0, 100.0),
    normalisation=Normalisation.WINDOW_TO_UNIT,
    tile=(8, 8, 8),
)
LIVER = LabelSet.from_mapping({1: "liver"})


def cube() -> Volume:
    voxels = np.full((16, 16, 16), -80, dtype=np.int16, order="F")
    voxels[4:12, 4:12, 4:12] = 80
    return Volume(voxels, Grid(voxels.shape, np.diag([2.0, 2.0, 2.0, 1.0])))


def by_value(x: Tensor) -> Tensor:
    """Liver above the middle of the window."""
    return torch.cat([torch.zeros_like(x), 20 * (x - 0.5)], dim=1)


class ToyNetwork(nn.Module):
    """What a file of ``agseg/models`` would hold."""

    def __init__(self, *, classes: int = 2) -> None:
        super().__init__()
        self.size_multiple = 2
        self.head = nn.Conv3d(1, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x)


def test_an_architecture_is_a_builder_and_a_line_in_the_catalogue(monkeypatch):
    monkeypatch.setitem(FAMILIES, "toy", Family("tests.test_extending:ToyNetwork", lambda config: 2, classes=2))
    assert (facts("toy").size_multiple, facts("toy", {"classes": 5}).classes) == (2, 5)
    network = build("toy")
    with torch.no_grad():
        network.head.weight.copy_(torch.tensor([0.0, 20.0]).reshape(2, 1, 1, 1, 1))
        network.head.bias.copy_(torch.tensor([0.0, -10.0]))
    ready = ReadyNetwork([network], device=torch.device("cpu"), precision=Precision.FP32)
    found = segment_volume(cube(), ready, spec=SPEC, labels=LIVER).mask.labels
    assert np.array_equal(found == 1, cube().voxels > 0)


@dataclass(frozen=True)
class ToyPredictor:
    """Another engine: here no engine at all, on probabilities."""

    device: torch.device = torch.device("cpu")  # noqa: RUF009 - immutable
    precision: Precision = Precision.FP32
    in_channels: int = 1
    scores: Scores = Scores.PROBABILITIES

    def moved(self, device: torch.device, precision: Precision) -> ToyPredictor:
        return ToyPredictor(device, precision)

    def __call__(self, batch: Tensor) -> Tensor:
        return torch.softmax(by_value(batch), dim=1)


def test_a_predictor_is_a_class_of_that_shape():
    found = segment_volume(cube(), ToyPredictor(), spec=SPEC, labels=LIVER).mask.labels
    assert np.array_equal(found == 1, cube().voxels > 0)


def test_a_weights_format_is_a_function_and_a_line(monkeypatch, tmp_path):
    def from_toy(path):
        return {name: torch.tensor(values) for name, values in json.loads(path.read_text()).items()}

    monkeypatch.setitem(convert_module.FORMATS, "toy", from_toy)
    (tmp_path / "weights.json").write_text('{"head.bias": [0.0, -10.0]}')
    convert(tmp_path / "weights.json", tmp_path / "weights.safetensors", weights_format="toy")
    assert torch.equal(load_file(tmp_path / "weights.safetensors")["head.bias"], torch.tensor([0.0, -10.0]))


def test_an_organ_is_a_line_of_the_table(monkeypatch, tmp_path):
    table = tmp_path / "structures.csv"
    shutil.copy(labels_module.STRUCTURES_FILE, table)
    assert LabelSet.from_mapping({1: "appendix"})["appendix"].structure is None
    with table.open("a", encoding="utf-8") as file:
        file.write("appendix,66754008,Appendix,,,,204,51,85\n")
    monkeypatch.setattr(labels_module, "STRUCTURES_FILE", table)
    labels_module.known_structures.cache_clear()
    try:
        structure = LabelSet.from_mapping({1: "appendix"})["appendix"].structure
        assert structure is not None
        assert (structure.code.value, structure.rgb) == ("66754008", (204, 51, 85))
    finally:
        labels_module.known_structures.cache_clear()


def test_a_writer_is_a_function_and_a_line(monkeypatch, tmp_path):
    def write_toy(folder, result):
        (folder / "toy.txt").write_text(" ".join(result.mask.label_set.names))
        return Written(("toy.txt",))

    monkeypatch.setitem(WRITERS, "toy", Writer("toy", write_toy))
    check_outputs(["toy"])
    volume = cube()
    mask = LabelMask(np.zeros(volume.grid.shape, dtype=np.uint8), volume.grid, LIVER)
    study = Study("cube", tmp_path, (tmp_path / "cube.nii.gz",), StudyKind.NIFTI)
    result = Result(study, volume, mask, (), (), outputs=Outputs(kinds=("toy",)))
    assert write_all(tmp_path, result)["toy"].files == ("toy.txt",)
    assert (tmp_path / "toy.txt").read_text() == "liver"


@pytest.mark.parametrize("section", ["A reader", "A writer", "An architecture", "A predictor", "A weights format", "An organ"])
def test_the_page_has_the_section(section):
    from agseg.io.resources import resource_path

    page = resource_path("weights_manifest.yaml").parent / "docs" / "extending.md"
    assert f"\n## {section}\n" in page.read_text(encoding="utf-8")
