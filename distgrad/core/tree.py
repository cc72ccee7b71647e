"""Nests of lists, tuples, named tuples and dicts: take their leaves out and put others back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def flatten(nest: Any) -> list[Any]:
    """Leaves of a nest in order; anything that is not a list, tuple or dict is a leaf."""
    if isinstance(nest, (list, tuple)):
        return [leaf for item in nest for leaf in flatten(item)]
    if isinstance(nest, dict):
        return [leaf for item in nest.values() for leaf in flatten(item)]
    return [nest]


def map_structure(fn: Callable[..., Any], nest: Any, *others: Any) -> Any:
    """The same nest with ``fn(leaf, ...)`` in place of each leaf.

    Further nests are walked beside the first. Raises ValueError where their structures differ.
    """
    if isinstance(nest, (list, tuple)):
        for other in others:
            if not isinstance(other, (list, tuple)) or len(other) != len(nest):
                raise ValueError(f"structures differ: {nest!r} beside {other!r}")
        items = [map_structure(fn, *group) for group in zip(nest, *others, strict=True)]
        if hasattr(nest, "_fields"):
            return type(nest)(*items)
        return type(nest)(items) if type(nest) in (list, tuple) else list(items)
    if isinstance(nest, dict):
        for other in others:
            if not isinstance(other, dict) or other.keys() != nest.keys():
                raise ValueError(f"structures differ: {nest!r} beside {other!r}")
        return {key: map_structure(fn, nest[key], *(o[key] for o in others)) for key in nest}
    return fn(nest, *others)


def unflatten(nest: Any, leaves: list[Any]) -> Any:
    """The structure of ``nest`` with ``leaves``, in order, in place of its own."""
    remaining = iter(leaves)
    return map_structure(lambda _: next(remaining), nest)
