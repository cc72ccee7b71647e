"""Keras 2's order of arguments for a weight, which scripts of its time still have."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

_ORDER = ("name", "shape", "dtype", "initializer", "regularizer", "trainable", "constraint")

Adds = TypeVar("Adds", bound=Callable[..., Any])


def named_first(add: Adds) -> Adds:
    """An ``add_weight`` that also takes ``("kernel", shape, dtype, initializer, ...)``.

    The first argument of today's is a shape, which is never a text. Raises TypeError for an
    argument that is given twice.
    """

    @functools.wraps(add)
    def either(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not args or not isinstance(args[0], str):
            return add(self, *args, **kwargs)
        for name, value in zip(_ORDER, args, strict=False):
            if name in kwargs:
                raise TypeError(f"add_weight() got multiple values for argument {name!r}")
            kwargs[name] = value
        return add(self, **kwargs)

    return cast(Adds, either)
