"""What a generator gives, beside what was announced of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.core.composite import Composite
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.texts import as_strings
from distgrad.data import nest


def fitted(value: Any, announced: Any, convert: Callable[[Any, Any], Any]) -> Any:
    """What a generator gave, with ``convert`` of each part of ``announced`` and of it.

    Raises InvalidArgumentError (a ValueError) for another form, or what cannot be converted.
    """
    try:
        return nest.map_leaves(convert, announced, _like(announced, value))
    except InvalidArgumentError:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidArgumentError(f"the generator gave what was not announced: {error}") from error


def _like(announced: Any, value: Any) -> Any:
    """What a generator gave: a list will do for a tuple, and a tuple for an array."""
    if isinstance(announced, tuple):
        return tuple(value) if isinstance(value, list) else value
    if isinstance(value, tuple) and not isinstance(announced, dict):
        try:
            return np.asarray(value)
        except ValueError:  # of unequal parts
            return value
    return value


def cast(dtype: Any, value: Any) -> np.ndarray:
    """The value as an array of that dtype. Raises ValueError for numbers in place of texts."""
    wanted = np.dtype(getattr(dtype, "as_numpy_dtype", dtype))
    return as_strings(value) if wanted.kind == "U" else np.asarray(value, wanted)


def as_specified(spec: Any, value: Any) -> np.ndarray:
    """The value as an array of that dtype and shape.

    Raises InvalidArgumentError (a ValueError) for another shape.
    """
    if isinstance(value, Composite):
        if not spec.is_compatible_with(value):
            what = f"{value.spec} where {spec} was announced"
            raise InvalidArgumentError(f"the generator gave {what}")
        return value  # type: ignore[return-value]
    return _fits(cast(spec.dtype, value), spec.shape)


def checked(element: Any, shapes: Any) -> Any:
    """The element, if its arrays have these shapes. Raises InvalidArgumentError otherwise."""
    if shapes is None:
        return element
    if isinstance(element, dict):
        return {key: checked(part, shapes[key]) for key, part in element.items()}
    if isinstance(element, tuple):
        return tuple(checked(part, shape) for part, shape in zip(element, shapes, strict=True))
    return _fits(element, shapes)


def _fits(array: np.ndarray, shape: Any) -> np.ndarray:
    """The array, if the shape, where None stands for any size, is its own."""
    if shape is None or getattr(shape, "rank", 0) is None:
        return array
    wanted = [getattr(size, "value", size) for size in shape]
    same = len(wanted) == array.ndim and all(
        size in (None, length) for size, length in zip(wanted, array.shape, strict=True)
    )
    if not same:
        raise InvalidArgumentError(
            f"the generator gave an array {array.shape} where {shape} was announced"
        )
    return array
