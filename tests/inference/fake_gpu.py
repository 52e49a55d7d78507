"""A device that is not there: its tensors hold their values on the CPU, and reading them back is counted.

What torch would send to a GPU is computed on the CPU under another name, so that the arithmetic of a GPU's code paths and its
waits can be tested on any machine. Values are exact; nothing is said about speed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

aten = torch.ops.aten

WAITS = {
    aten._local_scalar_dense,
    aten.nonzero,
    aten.is_nonzero,
    aten.masked_select,
    aten.bincount,
    aten.equal,
    aten.unique_dim,
    aten._unique2,
}
"""What makes the host wait, beside copies to it."""


class OnGpu(Tensor):
    """A tensor on the fake device."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnGpu:
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device("lazy", 0),
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise AssertionError(f"{func} outside of the fake device")


class FakeGpu(TorchDispatchMode):
    """While it is entered, ``lazy:0`` is there."""

    device = torch.device("lazy", 0)

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        there = [each for each in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(each, OnGpu)]
        packet = func.overloadpacket
        asked = kwargs.get("device")
        if packet is aten._pin_memory:
            return args[0].clone()
        if packet in WAITS and there:
            self.waits += 1
        wanted = bool(there)
        if asked is not None:
            wanted = torch.device(asked).type == "lazy"
            kwargs["device"] = torch.device("cpu")
            self.waits += bool(there) and not wanted
        plain = tree_map_only(OnGpu, lambda tensor: tensor.inner, (args, kwargs))
        done = func(*plain[0], **plain[1])
        if not wanted or packet is aten._local_scalar_dense:
            return done
        # In place and out=: the tensor that was given comes back as it is.
        given = {id(tensor.inner): tensor for tensor in there}
        return tree_map_only(Tensor, lambda tensor: given[id(tensor)] if id(tensor) in given else OnGpu(tensor), done)
