"""Penalties on weights: functions of a tensor that give a scalar to add to the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.keras import registry
from distgrad.keras.losses.regression import normalized
from distgrad.keras.registry import Configured
from distgrad.ops.arithmetic import abs, square
from distgrad.ops.constants import eye
from distgrad.ops.linalg import matmul
from distgrad.ops.reduce import reduce_sum


class Regularizer(Configured):
    """Base of all regularizers: ``regularizer(x)`` is a scalar."""

    def __call__(self, x: Any) -> Tensor:
        raise NotImplementedError


def _factor(name: str, value: Any) -> float:
    if not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} must be a number of 0 or more, not {value!r}")
    return float(value)


class L1L2(Regularizer):
    """``l1 * sum(abs(x)) + l2 * sum(x ** 2)``."""

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        self.l1 = _factor("l1", 0.0 if l1 is None else l1)
        self.l2 = _factor("l2", 0.0 if l2 is None else l2)

    def __call__(self, x: Any) -> Tensor:
        x = as_tensor(x)
        return self.l1 * reduce_sum(abs(x)) + self.l2 * reduce_sum(square(x))


class L1(Regularizer):
    """``l1 * sum(abs(x))``."""

    def __init__(self, l1: float = 0.01) -> None:
        self.l1 = _factor("l1", 0.01 if l1 is None else l1)

    def __call__(self, x: Any) -> Tensor:
        return self.l1 * reduce_sum(abs(as_tensor(x)))


class L2(Regularizer):
    """``l2 * sum(x ** 2)``."""

    def __init__(self, l2: float = 0.01) -> None:
        self.l2 = _factor("l2", 0.01 if l2 is None else l2)

    def __call__(self, x: Any) -> Tensor:
        return self.l2 * reduce_sum(square(as_tensor(x)))


class OrthogonalRegularizer(Regularizer):
    """``factor`` times the mean absolute cosine between the rows (or columns) of a matrix."""

    def __init__(self, factor: float = 0.01, mode: str = "rows") -> None:
        self.factor = _factor("factor", factor)
        if mode not in ("rows", "columns"):
            raise ValueError(f"mode must be rows or columns, not {mode!r}")
        self.mode = mode

    def __call__(self, x: Any) -> Tensor:
        x = as_tensor(x)
        if x._data.ndim != 2:
            raise ValueError(f"OrthogonalRegularizer takes a matrix, not shape {x._data.shape}")
        by_rows = self.mode == "rows"
        unit = normalized(x, 1 if by_rows else 0)
        product = matmul(unit, unit, transpose_a=not by_rows, transpose_b=by_rows)
        size = product._data.shape[0]
        apart = product * (1.0 - eye(size, dtype=product.dtype))
        return self.factor * 0.5 * reduce_sum(abs(apart)) / (size * (size - 1) / 2)


l1, l2, l1_l2, orthogonal_regularizer = L1, L2, L1L2, OrthogonalRegularizer


def _both() -> L1L2:
    """What the text "l1_l2" names, as in Keras 2; one of 0 and 0 would do nothing."""
    return L1L2(0.01, 0.01)


_KNOWN = registry.by_name(L1, L2, L1L2, OrthogonalRegularizer, l1_l2=_both)


def get(identifier: Any) -> Any:
    """The regularizer for None, a name, a config, or an object. Raises ValueError otherwise."""
    return registry.find("regularizer", identifier, _KNOWN)


def serialize(regularizer: Regularizer) -> Any:
    """The config of a regularizer."""
    return registry.serialize(regularizer)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The regularizer of a config. Raises ValueError for an unknown name."""
    return registry.deserialize("regularizer", config, _KNOWN, custom_objects)
