"""Objects from ``{type: Name, **keywords}``, the form in which a job's YAML writes them.

A keyword such as ``learning_rate`` or ``kernel_initializer`` may hold such a spec in its turn.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from distgrad.keras.registry import snake_case

if TYPE_CHECKING:
    from distgrad.config.constructors import Kind

# Of each kind: the module that has its classes, and their base, which is not one to use.
_HOMES = {
    "layer": ("distgrad.keras.layers", "Layer"),
    "loss": ("distgrad.keras.losses", "Loss"),
    "metric": ("distgrad.keras.metrics", "Metric"),
    "optimizer": ("distgrad.keras.optimizers", "Optimizer"),
    "schedule": ("distgrad.keras.optimizers.schedules", "LearningRateSchedule"),
    "initializer": ("distgrad.keras.initializers", "Initializer"),
    "regularizer": ("distgrad.keras.regularizers", "Regularizer"),
    "constraint": ("distgrad.keras.constraints", "Constraint"),
}
# They go around others that a job does not name, or have no place between layers.
_NOT_OF_JOBS = {"LossScaleOptimizer", "MultiOptimizer", "MeanMetricWrapper"}
_NOT_OF_JOBS |= {"MaxNumBoundingBoxes", "Wrapper"}
_INNER = ("layer", "initializer", "regularizer", "constraint")
_LAYERS = ("cell", "cells", "layers")  # keywords that take a layer, or a list of them


def module_of(kind: Kind) -> Any:
    """The module where the classes of a kind are."""
    return importlib.import_module(_HOMES[kind][0])


@lru_cache
def classes(kind: Kind) -> dict[str, type]:
    """The public classes of a kind by name, without those that are only there to derive from.

    Of two names of one class, as ``MaxPooling2D`` and ``MaxPool2D``, its own is the one to use.
    """
    module, base = module_of(kind), getattr(module_of(kind), _HOMES[kind][1])
    # A list holds what is to be used; without one that is what can be called, by its own name.
    listed = getattr(module, "__all__", None)
    found = {name: getattr(module, name) for name in listed or list(vars(module))}
    return {
        name: value
        for name, value in found.items()
        if inspect.isclass(value)
        and issubclass(value, base)
        and value is not base
        and name not in _NOT_OF_JOBS
        and (_is_first(name, value, listed) if listed else _is_complete(name, value, base))
    }


def _is_first(name: str, cls: type, listed: list[str]) -> bool:
    return name == cls.__name__ or cls.__name__ not in listed


def _is_complete(name: str, cls: type, base: type) -> bool:
    return name == cls.__name__ and name[0] != "_" and cls.__call__ is not base.__call__


def kind_of(keyword: str) -> Kind | None:
    """The kind of object that a keyword takes, by its name; None for plain values."""
    if keyword == "learning_rate":
        return "schedule"
    if keyword in _LAYERS:
        return "layer"
    last = keyword.rpartition("_")[2]
    return cast("Kind", last) if last in _INNER else None


def each_spec(fn: Callable[[Mapping[str, Any]], Any], value: Any) -> Any:
    """The value of a keyword with ``fn`` applied to the spec that it is, or those in its list."""
    if isinstance(value, list):
        return [each_spec(fn, item) for item in value]
    return fn(value) if isinstance(value, Mapping) else value


def make(kind: Kind, spec: Mapping[str, Any], *, dtype: str | None = None) -> Any:
    """The object that a spec describes; layers without a ``dtype`` of their own get this one.

    A metric has the name of its type, however many a process makes. Raises KeyError for an unknown
    type, and what the constructor raises.
    """
    common = {} if dtype is None or kind != "layer" else {"dtype": dtype}
    if kind == "metric":
        common["name"] = snake_case(spec["type"])
    given = {key: _made(key, value, dtype) for key, value in spec.items() if key != "type"}
    return classes(kind)[spec["type"]](**{**common, **given})


def _made(keyword: str, value: Any, dtype: str | None) -> Any:
    inner = kind_of(keyword)
    if inner is None:
        return value
    return each_spec(lambda spec: make(inner, spec, dtype=dtype), value)
