"""Strict loading: a state dict fits its network key by key and shape by shape, or the error lists what does not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from agseg.errors import WeightsError

__all__ = ["load_strict"]

LISTED_KEYS = 6
"""How many keys of each kind an error names."""


def load_strict(module: nn.Module, weights: Mapping[str, Tensor] | Path | str) -> nn.Module:
    """Load a state dict, or a safetensors file, into ``module`` and return it.

    Raises
    ------
    WeightsError
        If keys are missing, unexpected or of another shape (all three are listed), or if the file is not safetensors.
    """
    path = None if isinstance(weights, Mapping) else Path(weights)
    state = weights if isinstance(weights, Mapping) else _read(Path(weights))
    wanted = module.state_dict()
    missing = [key for key in wanted if key not in state]
    unexpected = [key for key in state if key not in wanted]
    misshapen = [
        f"{key} {tuple(state[key].shape)} for {tuple(tensor.shape)}"
        for key, tensor in wanted.items()
        if key in state and state[key].shape != tensor.shape
    ]
    if missing or unexpected or misshapen:
        kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
        raise WeightsError(
            f"the weights do not fit {type(module).__name__}: "
            + "; ".join(f"{len(keys)} {kind} ({_listed(keys)})" for kind, keys in kinds if keys),
            path=path,
            expected=f"the {len(wanted)} tensors of the network",
            hint="Check the entry's architecture and config: `agseg weights show ID`.",
        )
    module.load_state_dict(dict(state), strict=True)
    return module


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            "the weights file cannot be read as safetensors",
            path=path,
            value=type(error).__name__,
            expected="a .safetensors file",
        ) from error
    return tensors


def _listed(keys: list[str]) -> str:
    more = len(keys) - LISTED_KEYS
    return ", ".join(keys[:LISTED_KEYS]) + (f" and {more} more" if more > 0 else "")
