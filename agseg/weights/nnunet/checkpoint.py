"""``checkpoint_final.pth`` without running it: tensors and five facts, by PyTorch's restricted unpickler.

nnU-Net loads its checkpoints with full pickle, which runs whatever a file says. Here only the constructors of plain data that
nnU-Net's own trainer writes are let through; a file that names anything else is refused with that name.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agseg.errors import WeightsError

_PREFIXES = ("module.", "_orig_mod.")
"""Put before every name by data-parallel training and by compilation."""

_HEADS = "decoder.seg_layers."


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One fold of a model folder.

    Parameters
    ----------
    state
        Name to float tensor, without the copies that nnU-Net stores and without the heads of deep supervision.
    trainer, configuration
        Class of the trainer, and the configuration of the plan that it followed.
    mirror_axes
        Tensor axes along which the trainer lets scans be mirrored.
    epoch
        Epochs done.
    """

    state: dict[str, Tensor]
    trainer: str
    configuration: str
    mirror_axes: tuple[int, ...]
    epoch: int

    @property
    def has_batch_norm(self) -> bool:
        """Whether the tensors are those of batch norms, which some trainers put in place of the plan's instance norms."""
        return any(key.endswith(".running_mean") for key in self.state)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint.

    Raises
    ------
    WeightsError
        If the file is not a checkpoint of nnU-Net v2, or asks for more than plain data; the message names what.
    """
    _check_archive(path)
    content = _loaded(path)
    if not isinstance(content, Mapping) or not isinstance(content.get("network_weights"), Mapping):
        raise WeightsError("not a checkpoint of nnU-Net v2", path=path, expected="a mapping with network_weights")
    arguments = content.get("init_args")
    configuration = arguments.get("configuration") if isinstance(arguments, Mapping) else None
    trainer, axes = content.get("trainer_name"), content.get("inference_allowed_mirroring_axes") or ()
    if not isinstance(configuration, str) or not isinstance(trainer, str):
        raise WeightsError("the checkpoint does not say its trainer and configuration", path=path)
    if not isinstance(axes, (tuple, list)) or not set(axes) <= {0, 1, 2}:
        raise WeightsError("the checkpoint's mirroring axes are not axes", path=path, value=axes, expected="0, 1 and 2")
    epoch = content.get("current_epoch")
    state = _without_copies(_tensors(content["network_weights"], path), path)
    return Checkpoint(state, trainer, configuration, tuple(sorted(set(axes))), epoch if isinstance(epoch, int) else 0)


def _check_archive(path: Path) -> None:
    """A checkpoint is a ZIP of stored records: anything packed could unpack to more than a disk holds."""
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [info.filename for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED]
    except (OSError, zipfile.BadZipFile) as problem:
        raise WeightsError("the checkpoint cannot be read", path=path, expected="a file that torch.save wrote") from problem
    if packed:
        raise WeightsError("the checkpoint holds compressed records", path=path, value=packed[0])


def _loaded(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_constructors()):
            if strangers := torch.serialization.get_unsafe_globals_in_checkpoint(path):
                raise WeightsError(
                    "the checkpoint asks for more than plain data and was not loaded",
                    path=path,
                    value=", ".join(strangers),
                    expected="tensors and numbers, as nnU-Net's own trainers write",
                    hint="Ask whoever trained it for a checkpoint without that object.",
                )
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (UnpicklingError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, EOFError) as problem:
        first_line = str(problem).strip().split("\n")[0][:200]
        raise WeightsError(
            "the checkpoint cannot be read", path=path, value=first_line, expected="a file that torch.save wrote"
        ) from problem


def _constructors() -> list[Any]:
    """What logs and numbers of nnU-Net's trainers are made of, under the names of NumPy 1 and 2; none calls out."""
    from _codecs import encode

    from numpy._core.multiarray import _reconstruct, scalar

    kinds = ("Float16DType", "Float32DType", "Float64DType", "Int32DType", "Int64DType", "BoolDType")
    return [
        scalar,
        (scalar, "numpy.core.multiarray.scalar"),
        _reconstruct,
        (_reconstruct, "numpy.core.multiarray._reconstruct"),
        np.ndarray,
        np.dtype,
        *(getattr(np.dtypes, kind) for kind in kinds),
        encode,
        torch.device,
    ]


def _tensors(weights: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    """Dense float tensors by their plain names, no larger than the file that they came from."""
    state = {}
    for key, tensor in weights.items():
        if (
            not isinstance(key, str)
            or not isinstance(tensor, Tensor)
            or tensor.layout is not torch.strided
            or tensor.is_quantized
        ):
            raise WeightsError("the network's weights hold something else than tensors", path=path, value=str(key))
        name = key
        while prefix := next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None):
            name = name.removeprefix(prefix)
        state[name] = tensor
    largest = max((tensor.numel() * tensor.element_size() for tensor in state.values()), default=0)
    if largest > path.stat().st_size:
        raise WeightsError("a tensor is larger than the checkpoint that holds it", path=path, value=largest)
    return state


def _without_copies(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Each tensor once: a block stores its parts under two names, and the decoder stores the whole encoder again."""
    named: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name = _name(key)
        if name in named and not torch.equal(named[name], tensor):
            raise WeightsError("the checkpoint holds two different tensors for one part of the network", path=path, value=key)
        named[name] = tensor
    last = max((int(key.split(".")[2]) for key in named if key.startswith(_HEADS)), default=0)
    kept = {}
    for key, tensor in named.items():
        if key.startswith(_HEADS) and not key.startswith(f"{_HEADS}{last}."):
            continue
        kept[key.replace(f"{_HEADS}{last}.", "decoder.seg_layer.")] = tensor
    broken = [key for key, tensor in kept.items() if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())]
    if broken:
        raise WeightsError("the network's weights are not finite numbers", path=path, value=broken[0])
    return {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in kept.items()}


def _name(key: str) -> str:
    """The name under which a tensor is kept."""
    key = key.removeprefix("decoder.") if key.startswith("decoder.encoder.") else key
    block, found, part = key.partition(".all_modules.")
    if not found:
        return key
    number, _, suffix = part.partition(".")
    # The convolution is the first part of a block; of the others only the norm has tensors.
    return f"{block}.{'conv' if number == '0' else 'norm'}.{suffix}"
