"""Foreign weights files to safetensors, after their digest was checked. The only file of this room that uses torch.

Nothing here runs code from a file: NumPy archives are read with ``allow_pickle=False``, torch files with
``weights_only=True``, and there is no second attempt.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agseg.errors import Code, WeightsError
from agseg.weights.entry import WeightsFormat

SONONET_LAYERS = 15
"""Convolutions of SonoNet, each with W, beta, gamma, mean and inverse standard deviation (Lasagne's order)."""

SONONET_TRUNK_LAYERS = 13
SONONET_TRUNK_EPS = 1e-4
SONONET_HEAD_EPS = 1e-5
"""The batch norms' epsilon, which Lasagne's inverse standard deviation contains."""


def convert(source: Path, destination: Path, *, weights_format: WeightsFormat) -> None:
    """Write the state dict of a checked foreign file as safetensors.

    Parameters
    ----------
    source
        A file whose digest was checked.
    destination
        Where the safetensors file goes.

    Raises
    ------
    WeightsError
        If the file is not what its format says.
    """
    from safetensors.torch import save_file

    state = FORMATS[weights_format](source)
    save_file({key: tensor.contiguous().clone() for key, tensor in state.items()}, destination)


def from_obelisk(path: Path) -> dict[str, Tensor]:
    """OBELISK's ``.pth``: a plain state dict whose names the network shares."""
    return _tensors(_load(path), path)


def from_monai(path: Path) -> dict[str, Tensor]:
    """A MONAI bundle's ``.pt``: a state dict, bare or below ``model`` or ``state_dict``."""
    content = _load(path)
    if isinstance(content, Mapping):
        for key in ("model", "state_dict"):
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
    return _tensors(content, path)


def from_sononet(path: Path) -> dict[str, Tensor]:
    """SonoNet's ``.npz``: ``arr_0`` to ``arr_74`` by name; weights are not flipped.

    Batch norm keeps a variance where Lasagne keeps the inverse standard deviation: ``1 / inv_std² - eps``, in float64.
    """
    state: dict[str, Tensor] = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = [np.asarray(archive[f"arr_{n}"]) for n in range(5 * SONONET_LAYERS)]
            unexpected = len(archive.files) - len(arrays)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise _unfit(path, error, "a NumPy archive with arr_0 to arr_74, without pickles") from error
    if unexpected:
        raise WeightsError("the SonoNet archive holds more than its 75 arrays", path=path, value=unexpected)
    for layer in range(SONONET_LAYERS):
        kernel, beta, gamma, mean, inverse_std = arrays[5 * layer : 5 * layer + 5]
        epsilon = SONONET_TRUNK_EPS if layer < SONONET_TRUNK_LAYERS else SONONET_HEAD_EPS
        variance = 1.0 / inverse_std.astype(np.float64) ** 2 - epsilon
        conv, norm = _sononet_names(layer)
        named = {
            f"{conv}.weight": kernel,
            f"{norm}.weight": gamma,
            f"{norm}.bias": beta,
            f"{norm}.running_mean": mean,
            f"{norm}.running_var": variance,
        }
        state.update({key: torch.from_numpy(values.astype(np.float32)) for key, values in named.items()})
        state[f"{norm}.num_batches_tracked"] = torch.zeros((), dtype=torch.int64)
    return state


def _sononet_names(layer: int) -> tuple[str, str]:
    return f"layers.{layer}.0", f"layers.{layer}.1"


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises its own, pickle's, zipfile's and more: none of them may load the file
        raise _unfit(path, error, "a torch file of tensors only") from error


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    if not isinstance(content, Mapping) or not content:
        raise WeightsError("the weights file holds no state dict", path=path, value=type(content).__name__)
    strangers = [str(key) for key, value in content.items() if not isinstance(key, str) or not isinstance(value, Tensor)]
    if strangers:
        raise WeightsError("the state dict holds something else than tensors", path=path, value=strangers[0])
    return {key: tensor.detach() for key, tensor in content.items()}


def _unfit(path: Path, error: Exception, expected: str) -> WeightsError:
    return WeightsError(
        "the weights file cannot be read", code=Code.WEIGHTS, path=path, value=type(error).__name__, expected=expected
    )


FORMATS: dict[WeightsFormat, Callable[[Path], dict[str, Tensor]]] = {
    WeightsFormat.OBELISK_PTH: from_obelisk,
    WeightsFormat.SONONET_NPZ: from_sononet,
    WeightsFormat.MONAI_PT: from_monai,
}
"""Each foreign format's reader: from a checked file to a state dict. A new format is one function and one line here."""
