"""Recipes by name: those of QMTL, those of installed packages (entry points of the group `qmtl.nodesets`), and those that a module has registered."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Final, TypeAlias, TypeVar

from qmtl.foundation.common.errors import InvalidNodeSet, RecipeTaken, UnknownRecipe
from qmtl.foundation.common.names import MAX_NAME, NAME_RULE, is_name
from qmtl.runtime.nodesets.node_set import NodeSet
from qmtl.runtime.sdk.nodes import Node

GROUP: Final = "qmtl.nodesets"
_BUILTIN: Final = "qmtl.runtime.nodesets.recipes"

Recipe: TypeAlias = Callable[..., NodeSet]
"""Takes a signal, a world's id and keywords."""

_R = TypeVar("_R", bound=Recipe)
_recipes: dict[str, Recipe] = {}


def nodeset_recipe(name: str) -> Callable[[_R], _R]:
    """Register a function `(signal, world_id, **kwargs) -> NodeSet` under a name.

    Raises:
        InvalidNodeSet: no name, or no function.
        RecipeTaken: a ValueError: the name is another function's. The same one of a module that is loaded again takes its own place.
    """
    if not is_name(name):
        raise InvalidNodeSet(
            f"the name of a recipe was {name!r}; {NAME_RULE}, {MAX_NAME} at most.", "Rename it."
        )

    def register(recipe: _R) -> _R:
        if not callable(recipe):
            raise InvalidNodeSet(
                f"the recipe {name} was a {type(recipe).__name__}; a function is required.", "Decorate one."
            )
        known = _recipes.get(name)
        if known is not None and _place(known) != _place(recipe):
            raise RecipeTaken(
                f"the recipe {name!r} was registered by {_place(recipe)} and is {_place(known)}'s.",
                "Choose another name.",
            )
        _recipes[name] = recipe
        return recipe

    return register


def make(name: str, signal: Node, world_id: str, **kwargs: object) -> NodeSet:
    """The node set of a recipe behind a signal.

    Raises:
        UnknownRecipe: no recipe has this name; lists those that are known.
        InvalidNodeSet: what the recipe refuses, a keyword that it does not take, or a recipe that gave something else than a NodeSet.
    """
    found = recipe(name)
    made: object = found(signal, world_id, **kwargs)
    if not isinstance(made, NodeSet):
        raise InvalidNodeSet(
            f"the recipe {name} gave a {type(made).__name__}; a NodeSet is required.", "Let it return one."
        )
    return made


def recipe(name: str) -> Recipe:
    """The function of a name.

    Raises:
        UnknownRecipe: no recipe has this name; lists those that are known.
        InvalidNodeSet: the package that has it can't be loaded.
    """
    import_module(_BUILTIN)
    if name not in _recipes:
        for entry in _installed():
            if entry.name == name:
                nodeset_recipe(name)(_loaded(entry))
                break
        else:
            raise UnknownRecipe(
                f"the node set {name!r} is not known; known are {', '.join(recipe_names())}.",
                "Name one of them, or import the module that registers it.",
            )
    return _recipes[name]


def recipe_names() -> tuple[str, ...]:
    """All names that `make` takes, sorted; nothing of an installed package is loaded for it."""
    import_module(_BUILTIN)
    return tuple(sorted({*_recipes, *(one.name for one in _installed())}))


def _installed() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=GROUP))


def _loaded(entry: EntryPoint) -> Recipe:
    try:
        found: Recipe = entry.load()
    except Exception as error:
        raise InvalidNodeSet(
            f"the recipe {entry.name!r} of {entry.value} can't be loaded: {type(error).__name__}: {error}.",
            "Mend or remove the package.",
        ) from error
    return found


def _place(recipe: Recipe) -> str:
    return f"{getattr(recipe, '__module__', '?')}.{getattr(recipe, '__qualname__', repr(recipe))}"
