"""Build a network by its name in the catalogue; a family's file is imported when the first of its networks is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, cast

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from agseg.errors import UsageError
from agseg.models.catalogue import FAMILIES, config_of

_DRAWING = frozenset({Tensor.uniform_, Tensor.normal_})


def build(architecture: str, config: Mapping[str, Any] | None = None) -> nn.Module:
    """The network with fresh weights.

    Parameters
    ----------
    architecture
        A family or a published configuration.
    config
        Keyword arguments of its builder; they override the published ones.

    Raises
    ------
    UsageError
        If there is no such network, or it does not take such an argument.
    """
    family, arguments = config_of(architecture, config)
    try:
        return _builder(family)(**arguments)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{architecture} cannot be built from this configuration", value=arguments) from error


def build_undrawn(architecture: str, config: Mapping[str, Any] | None = None) -> nn.Module:
    """As :func:`build`, but for a network whose weights are about to be loaded: none are drawn, so they may be anything."""
    with _NothingDrawn():
        return build(architecture, config)


class _NothingDrawn(TorchFunctionMode):
    """Leaves memory as it is where random numbers would be drawn into it: for a small network that is most of its building."""

    def __torch_function__(
        self, func: Callable[..., Any], _types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return args[0] if func in _DRAWING else func(*args, **(kwargs or {}))


def _builder(family: str) -> Callable[..., nn.Module]:
    module, _, name = FAMILIES[family].builder.partition(":")
    return cast(Callable[..., nn.Module], getattr(import_module(module), name))
