"""Strict loading: a state dict fits its network key by key and shape by shape, or the error lists what does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from agseg.errors import WeightsError

LISTED_KEYS = 6
"""How many keys of each kind an error names."""


@runtime_checkable
class Pruned(Protocol):
    """A network cut off at a depth, which knows the keys of its uncut form."""

    def is_beyond(self, key: str) -> bool:
        """Whether ``key`` belongs to a part that this network does not have because of its depth."""
        ...


def load_strict(module: nn.Module, weights: Mapping[str, Tensor] | Path | str, *, prune: bool = False) -> nn.Module:
    """Load a state dict, or a safetensors file, into ``module`` and return it.

    Parameters
    ----------
    module
        The network.
    weights
        Name to tensor, or the path of a safetensors file.
    prune
        The weights are those of a deeper network: leave out what ``module`` says lies beyond its depth
        (:class:`Pruned`). From a file such tensors are never read.

    Raises
    ------
    WeightsError
        If keys are missing, unexpected or of another shape (all three are listed), or if the file is not safetensors.
    """
    path = None if isinstance(weights, Mapping) else Path(weights)
    beyond = module.is_beyond if prune and isinstance(module, Pruned) else _nothing
    if isinstance(weights, Mapping):
        state = {key: tensor for key, tensor in weights.items() if not beyond(key)}
    else:
        state = _read(Path(weights), beyond)
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
    module.load_state_dict(state, strict=True)
    return module


def _nothing(_key: str) -> bool:
    return False


def _read(path: Path, beyond: Callable[[str], bool]) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            # Tensor by tensor: what lies beyond the depth stays on the disk.
            return {key: file.get_tensor(key) for key in file.keys() if not beyond(key)}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            "the weights file cannot be read", path=path, value=type(error).__name__, expected="a safetensors file"
        ) from error


def _listed(keys: list[str]) -> str:
    more = len(keys) - LISTED_KEYS
    return ", ".join(keys[:LISTED_KEYS]) + (f" and {more} more" if more > 0 else "")
