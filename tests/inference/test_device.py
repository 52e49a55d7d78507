"""A device that was asked for is taken or refused with what is there; never replaced silently."""

from __future__ import annotations

import pytest
import torch

from agseg.errors import UsageError
from agseg.inference import device
from agseg.inference.device import choose_precision, resolve_device
from agseg.models.precision import Precision


@pytest.fixture
def gpus(monkeypatch):
    """Let torch see so many GPUs."""

    def see(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return see


@pytest.mark.parametrize("name", ["gpu", "gpu:0", "gpu:3", "cuda", "cuda:1"])
def test_without_a_gpu_the_sentence_says_so_and_what_works(gpus, name):
    gpus(0)
    with pytest.raises(UsageError) as caught:
        resolve_device(name)
    assert caught.value.sentence() == f"no GPU is visible to torch here: found {name}"
    assert caught.value.hint == "Use --device cpu or auto."


def test_a_number_too_high_is_answered_with_those_that_are_there(gpus):
    gpus(2)
    assert resolve_device("gpu:1") == resolve_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(UsageError, match="expected gpu:0, gpu:1"):
        resolve_device("gpu:2")


def test_auto_takes_the_first_gpu_where_there_is_one(gpus):
    gpus(1)
    assert resolve_device("auto") == torch.device("cuda:0")
    gpus(0)
    assert resolve_device("auto").type in {"cpu", "mps"}


def test_fp16_is_refused_where_it_would_be_emulated(monkeypatch):
    monkeypatch.setattr(device, "_cpu_has", lambda *wanted: False)
    with pytest.raises(UsageError, match="no fp16 arithmetic"):
        choose_precision(Precision.FP16, torch.device("cpu"))
    assert choose_precision(Precision.FP16, torch.device("cuda", 0)) is Precision.FP16
    monkeypatch.setattr(device, "_cpu_has", lambda *wanted: "avx512_fp16" in wanted)
    assert choose_precision(Precision.FP16, torch.device("cpu")) is Precision.FP16
    # Where the instruction sets are not known, who asks for it gets it.
    monkeypatch.setattr(device, "_cpu_has", lambda *wanted: None)
    assert choose_precision(Precision.FP16, torch.device("cpu")) is Precision.FP16


@pytest.mark.parametrize(
    ("cpuinfo", "known"),
    [
        ("flags\t\t: fpu avx512_fp16 amx_tile\n", True),
        ("flags\t\t: fpu avx2\n", False),
        ("Features\t: fp asimd fphp asimdhp\n", True),
        ("Features\t: fp asimd\n", False),
        ("model name: of which nothing is told\n", None),
        (None, None),
    ],
)
def test_instruction_sets_are_read_as_linux_tells_them_on_x86_and_arm(monkeypatch, tmp_path, cpuinfo, known):
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(device, "Path", lambda _where: tmp_path / "cpuinfo")
    assert device._cpu_has("avx512_fp16", "asimdhp") is known
