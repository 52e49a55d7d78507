"""torch imported for inference alone computes what the whole torch computes, for every network there is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from agseg.inference import lean_torch

WHOLE = "import torch"
LEAN = "from agseg.inference.lean_torch import SKIPPED, import_torch; import_torch()"

DIGESTS = """
import hashlib
import sys
import torch
from agseg.inference.network import ReadyNetwork
from agseg.models.fold import fold_batch_norm
from agseg.models.precision import Precision
from agseg.models.registry import build
from tests.models.test_every_architecture import TINY

print("left out" if "torch._meta_registrations" not in sys.modules else "whole")
torch.set_num_threads(1)
for tiny in TINY:
    if tiny.is_classifier:
        continue
    torch.manual_seed(7)
    network = fold_batch_norm(build(tiny.family, tiny.config).eval())
    ready = ReadyNetwork([network], device=torch.device("cpu"), precision=Precision.FP32)
    scores = ready(torch.randn(1, tiny.facts.in_channels, *tiny.grids[0]))
    print(tiny.id, hashlib.sha256(scores.contiguous().numpy().tobytes()).hexdigest())
"""


def printed(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path.cwd())
    return done.stdout.splitlines()


known = pytest.mark.skipif(not lean_torch._is_known(), reason="this torch is not one that is imported in part")


@pytest.mark.slow
@known
def test_every_network_gives_the_same_bits() -> None:
    lean, whole = printed(f"{LEAN}\n{DIGESTS}"), printed(f"{WHOLE}\n{DIGESTS}")
    assert lean[0] == "left out"
    assert whole[0] == "whole"
    assert len(lean) > 20
    assert lean[1:] == whole[1:]


@pytest.mark.slow
@known
def test_what_was_left_out_can_be_imported_later() -> None:
    program = (
        f"{LEAN}\nimport torch\nassert not hasattr(torch, 'export')\nimport torch.export, torch._meta_registrations\n"
        "net = torch.nn.Linear(2, 2)\nprint(type(torch.export.export(net, (torch.zeros(1, 2),))).__name__)"
    )
    assert printed(program) == ["ExportedProgram"]


@pytest.mark.parametrize(
    ("version", "known"),
    [
        ("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n", True),
        ("__version__ = '2.13.1'\ncuda: Optional[str] = None\n", True),
        ("__version__ = '2.13.0+cu130'\ncuda: Optional[str] = '13.0'\n", False),
        ("__version__ = '2.13.0'\ncuda: Optional[str] = '13.0'\n", False),
        ("__version__ = '2.13.0'\ncuda: Optional[str] = None\nhip: Optional[str] = '7.1'\n", False),
        ("__version__ = '2.14.0+cpu'\ncuda: Optional[str] = None\n", False),
        ("__version__ = '2.13.0a0+git1234'\ncuda: Optional[str] = None\n", False),
        ("", False),
    ],
)
def test_another_torch_is_imported_whole(version: str, known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").touch()
    (tmp_path / "torch" / "version.py").write_text(version)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "torch")
    assert lean_torch._is_known() is known


def test_a_torch_that_is_there_already_is_left_alone() -> None:
    lean_torch.import_torch()
    assert hasattr(torch, "export")
