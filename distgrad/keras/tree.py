"""``keras.tree``: nests of lists, tuples, named tuples and dicts, with Keras's rules.

They are the nests of ``distgrad.nest``; types must always agree, as in Keras 3, a path tells where
in a nest a leaf lies, and an OrderedDict has its own order, where other dicts are sorted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from distgrad.core import tree
from distgrad.core.tree import is_nested

__all__ = [
    "MAP_TO_NONE",
    "assert_same_paths",
    "assert_same_structure",
    "flatten",
    "flatten_with_path",
    "is_nested",
    "lists_to_tuples",
    "map_shape_structure",
    "map_structure",
    "map_structure_up_to",
    "pack_sequence_as",
    "traverse",
]


class MAP_TO_NONE:
    """What a function given to `traverse` returns to put None in the place of a part."""


def flatten(structure: Any) -> list[Any]:
    """The leaves of a nest in order."""
    return [leaf for _, leaf in flatten_with_path(structure)]


def pack_sequence_as(structure: Any, flat_sequence: Any) -> Any:
    """The nest with the items of ``flat_sequence``, in order, as its leaves.

    Raises ValueError where there are more or fewer items than leaves.
    """
    items, places = list(flat_sequence), [path for path, _ in flatten_with_path(structure)]
    if len(items) == len(places):
        at = dict(zip(places, items, strict=True))
        items = [at[path] for path, _ in _with_paths(structure, tree.keys)]
    return tree.pack_sequence_as(structure, items)


def assert_same_structure(a: Any, b: Any, check_types: Any = None) -> None:
    """Raises ValueError where two nests differ in structure or in the types of their nodes."""
    try:
        tree.assert_same_structure(a, b)
    except TypeError as error:
        raise ValueError(f"The two structures don't have the same nested structure: {error}") from (
            None
        )


def assert_same_paths(a: Any, b: Any) -> None:
    """Raises ValueError where the leaves of two nests lie in different places."""
    places = [{path for path, _ in flatten_with_path(nest)} for nest in (a, b)]
    if places[0] != places[1]:
        first, second = places
        raise ValueError(
            "`a` and `b` don't have the same paths: only in `a` are "
            f"{sorted(first - second, key=str)}, only in `b` {sorted(second - first, key=str)}"
        )


def flatten_with_path(structure: Any) -> list[tuple[tuple, Any]]:
    """``(path, leaf)`` of each leaf in order; a path is a tuple of indices and keys."""
    return _with_paths(structure, _keys)


def _keys(nest: Mapping) -> list[Any]:
    return list(nest) if isinstance(nest, OrderedDict) else tree.keys(nest)


def _with_paths(structure: Any, keys: Callable[[Mapping], list]) -> list[tuple[tuple, Any]]:
    if isinstance(structure, Mapping):
        items = [(key, structure[key]) for key in keys(structure)]
    elif isinstance(structure, (list, tuple)):
        items = list(enumerate(structure))
    else:
        return [((), structure)]
    return [((key, *path), leaf) for key, item in items for path, leaf in _with_paths(item, keys)]


def map_structure(func: Callable[..., Any], *structures: Any, none_is_leaf: bool = True) -> Any:
    """The first nest with ``func(leaf, ...)`` in place of each leaf; of None, too, by default.

    Raises TypeError for a ``func`` that cannot be called, ValueError where the nests differ.
    """
    if not callable(func):
        raise TypeError(f"map_structure needs a function, not {func!r}")
    if not structures:
        raise TypeError("map_structure needs at least one structure")
    for other in structures[1:]:
        assert_same_structure(structures[0], other)

    def apply(*leaves: Any) -> Any:
        return None if not none_is_leaf and leaves[0] is None else func(*leaves)

    return tree.map_structure(apply, *structures)


def map_structure_up_to(shallow_structure: Any, func: Callable[..., Any], *structures: Any) -> Any:
    """The shallow nest with ``func`` of what lies in the others at the place of each leaf.

    Raises ValueError where one of them is shallower than it.
    """
    if not structures:
        raise TypeError("map_structure_up_to needs at least one structure")
    columns = zip(*(tree.flatten_up_to(shallow_structure, s) for s in structures), strict=True)
    return tree.pack_sequence_as(shallow_structure, [func(*column) for column in columns])


def traverse(func: Callable[[Any], Any], structure: Any, top_down: bool = True) -> Any:
    """The nest with ``func`` of every part in its place, where that gives something.

    From above, the parts below such a part are not visited; from below, all are, children first.
    A part for which ``func`` gives None stays; ``MAP_TO_NONE`` stands for None. Raises TypeError
    for a ``func`` that cannot be called.
    """
    if not callable(func):
        raise TypeError(f"traverse needs a function, not {func!r}")
    found = func(structure) if top_down else None
    if found is None:
        if isinstance(structure, Mapping):
            parts = {k: traverse(func, structure[k], top_down) for k in _keys(structure)}
            structure = tree.like(structure, [(key, parts[key]) for key in structure])
        elif isinstance(structure, (list, tuple)):
            items = [traverse(func, item, top_down) for item in structure]
            structure = tree.like(structure, items)
        if top_down:
            return structure
        found = func(structure)
    if found is None:
        return structure
    return None if found is MAP_TO_NONE or isinstance(found, MAP_TO_NONE) else found


def lists_to_tuples(structure: Any) -> Any:
    """The nest with tuples in place of its lists."""
    return traverse(lambda x: tuple(x) if type(x) is list else None, structure, top_down=False)


def map_shape_structure(func: Callable[[Any], Any], structure: Any) -> Any:
    """The nest with ``func(shape)`` in place of each shape: a tuple or list of ints and None.

    What is neither a shape nor a nest is given to ``func``, too. Raises TypeError for a ``func``
    that cannot be called.
    """

    def is_shape(x: Any) -> bool:
        return isinstance(x, (list, tuple)) and all(n is None or isinstance(n, int) for n in x)

    if not callable(func):
        raise TypeError(f"map_shape_structure needs a function, not {func!r}")
    if is_shape(structure):
        return func(tuple(structure))
    if isinstance(structure, Mapping):
        return {key: map_shape_structure(func, item) for key, item in structure.items()}
    if isinstance(structure, (list, tuple)):
        return tree.like(structure, [map_shape_structure(func, item) for item in structure])
    return func(structure)
