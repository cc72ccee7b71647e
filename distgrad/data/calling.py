"""Elements of a dataset as a user's own code gets them: tensors, as in TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.data import nest


def as_tensors(element: Any) -> Any:
    """An element with tensors for its arrays of numbers; what else it holds stays as it is."""
    from distgrad.core.dispatch import as_tensor

    def tensor(leaf: Any) -> Any:
        array = isinstance(leaf, (np.ndarray, np.generic))
        return as_tensor(leaf) if array and leaf.dtype.kind not in "OSU" else leaf

    return nest.map_leaves(tensor, element)


def holds(predicate: Callable[..., Any], element: Any) -> bool:
    """What a user's predicate says of an element. Raises ValueError where that is no bool."""
    answer = call(predicate, element)
    if type(answer) is not bool and (
        getattr(answer, "dtype", None) != np.bool_ or getattr(answer, "ndim", 0)
    ):
        raise ValueError(f"a predicate must return one bool, not {answer!r}: compare, or use cast")
    return bool(answer)


def call(function: Callable[..., Any], element: Any) -> Any:
    """A user's function on an element: the parts of a tuple are its arguments."""
    given = as_tensors(element)
    return function(*given) if isinstance(given, tuple) else function(given)
