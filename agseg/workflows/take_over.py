"""Begin with another network's weights: all of them, or the parts that a recipe names."""

from __future__ import annotations

from torch import nn

from agseg.errors import RecipeError
from agseg.training.recipe import Recipe
from agseg.training.trained_model import TrainedModel
from agseg.training.wrappers import EveryScore


def take_over(network: nn.Module, source: TrainedModel, recipe: Recipe) -> int:
    """Copy a source's weights: all of them, or the parts that the recipe's ``start`` names; returns how many tensors.

    Raises
    ------
    RecipeError
        If they do not fit.
    """
    own = network.network if isinstance(network, EveryScore) else network
    state, theirs = own.state_dict(), source.bare().state_dict()
    if recipe.start is None or not recipe.start.parts:
        different = [
            k for k in state.keys() | theirs.keys() if k not in state or k not in theirs or state[k].shape != theirs[k].shape
        ]
        if different:
            raise RecipeError(
                "the source is another network", value=sorted(different)[:3], expected=recipe.network.architecture
            )
        own.load_state_dict(theirs)
        return len(theirs)
    taken = {}
    for part in recipe.start.parts:
        fitting = {k: v for k, v in theirs.items() if k.startswith(part) and k in state and state[k].shape == v.shape}
        if not fitting:
            raise RecipeError("the source has no such part", value=part, expected=recipe.start.recipe)
        taken.update(fitting)
    own.load_state_dict(state | taken)
    return len(taken)
