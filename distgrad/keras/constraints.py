"""Constraints on weights: functions that give the nearest allowed tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.keras import registry
from distgrad.keras.registry import Configured
from distgrad.ops.arithmetic import square
from distgrad.ops.clipping import clip, maximum
from distgrad.ops.powers import sqrt
from distgrad.ops.reduce import reduce_sum

_EPSILON = 1e-7


class Constraint(Configured):
    """Base of all constraints: ``constraint(w)`` is a tensor like ``w`` that keeps it."""

    def __call__(self, w: Any) -> Tensor:
        return as_tensor(w)


def _norms(w: Tensor, axis: Any) -> Tensor:
    return sqrt(reduce_sum(square(w), axis=axis, keepdims=True))


class NonNeg(Constraint):
    """No element below 0."""

    def __call__(self, w: Any) -> Tensor:
        return maximum(as_tensor(w), 0.0)


class MinMaxNorm(Constraint):
    """Vectors along ``axis`` with lengths in a range; ``rate`` is how far to go towards it."""

    def __init__(
        self, min_value: float = 0.0, max_value: float = 1.0, rate: float = 1.0, axis: Any = 0
    ) -> None:
        self.min_value = min_value
        self.max_value = max_value
        self.rate = rate
        self.axis = axis

    def __call__(self, w: Any) -> Tensor:
        w = as_tensor(w)
        norms = _norms(w, self.axis)
        bounded = clip(norms, float(self.min_value), float(self.max_value))
        desired = self.rate * bounded + (1 - self.rate) * norms
        return w * (desired / (norms + _EPSILON))


class MaxNorm(Constraint):
    """Vectors along ``axis`` no longer than ``max_value``."""

    def __init__(self, max_value: float = 2, axis: Any = 0) -> None:
        self.max_value = max_value
        self.axis = axis

    def __call__(self, w: Any) -> Tensor:
        w = as_tensor(w)
        norms = _norms(w, self.axis)
        return w * (clip(norms, 0.0, float(self.max_value)) / (norms + _EPSILON))


class UnitNorm(Constraint):
    """Vectors along ``axis`` of length 1."""

    def __init__(self, axis: Any = 0) -> None:
        self.axis = axis

    def __call__(self, w: Any) -> Tensor:
        w = as_tensor(w)
        return w / (_norms(w, self.axis) + _EPSILON)


non_neg, min_max_norm, max_norm, unit_norm = NonNeg, MinMaxNorm, MaxNorm, UnitNorm
_KNOWN = registry.by_name(NonNeg, MinMaxNorm, MaxNorm, UnitNorm)


def get(identifier: Any) -> Any:
    """The constraint for None, a name, a config, or an object. Raises ValueError otherwise."""
    return registry.find("constraint", identifier, _KNOWN)


def serialize(constraint: Constraint) -> Any:
    """The config of a constraint."""
    return registry.serialize(constraint)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The constraint of a config. Raises ValueError for an unknown name."""
    return registry.deserialize("constraint", config, _KNOWN, custom_objects)
