"""Checkpoints: everything that is needed to go on with a training as if nothing had happened."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agseg.errors import RecipeError

LAST = "last.pt"
"""File name of the newest state in a run's folder."""

BEST = "best.pt"
"""File name of the state with the best validation score."""

FORMAT = 1
"""Version of the layout below; a file of another version is refused."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One moment of a run.

    Parameters
    ----------
    step
        Optimiser steps done.
    network, averaged
        State dict of the network, and of its moving average where one is kept.
    optimiser
        State dict.
    best_score
        Highest validation score so far, or None.
    random
        State of every random number generator (:func:`random_state`).
    fingerprint
        What the run was started with; resuming with another one is an error, not a surprise.
    """

    step: int
    network: dict[str, Any]
    averaged: dict[str, Any] | None
    optimiser: dict[str, Any]
    best_score: float | None
    random: dict[str, Any]
    fingerprint: str

    def write(self, path: Path) -> None:
        """Write atomically: a crash leaves the former file."""
        temporary = path.with_name(f".{path.name}.part")
        with temporary.open("wb") as file:
            torch.save({"format": FORMAT, **vars(self)}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Read a state; only tensors and plain values are unpickled.

        Raises
        ------
        RecipeError
            If the file is missing, damaged or of another format.
        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError as error:
            raise RecipeError("there is no checkpoint to resume from", path=path) from error
        except Exception as error:
            raise RecipeError("the checkpoint cannot be read", path=path, value=type(error).__name__) from error
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise RecipeError("the checkpoint has another format", path=path, expected=FORMAT)
        return cls(**content)


def random_state() -> dict[str, Any]:
    """State of Python's, NumPy's, torch's and every GPU's generator, as plain values and tensors."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002 - the global state is what must be kept
    version, internal, python_gauss = random.getstate()
    return {
        "python": [version, list(internal), python_gauss],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), float(gauss)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Put every generator back to where :func:`random_state` found it; GPUs only where their number is the same."""
    version, internal, python_gauss = state["python"]
    random.setstate((version, tuple(internal), python_gauss))
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
