"""Optimizers with the formulas of Keras 3, on single variables and on whole arenas alike."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from distgrad.keras import registry
from distgrad.keras.optimizers import schedules
from distgrad.keras.optimizers.adam import Adam, Adamax, AdamW, Nadam
from distgrad.keras.optimizers.adaptive import Adadelta, Adagrad, Ftrl, RMSprop
from distgrad.keras.optimizers.base import Optimizer
from distgrad.keras.optimizers.descent import SGD, Lion
from distgrad.keras.optimizers.layerwise import Adafactor, Lamb, Muon, ScheduleFreeAdamW
from distgrad.keras.optimizers.scaling import LossScaleOptimizer
from distgrad.keras.optimizers.several import MultiOptimizer, OptimizerMap

_BY_VARIABLE = (Lamb, Adafactor, Muon, ScheduleFreeAdamW)
_CLASSES = (SGD, Adam, AdamW, Adamax, Nadam, RMSprop, Adagrad, Adadelta, Ftrl, Lion, *_BY_VARIABLE)
_AROUND = (LossScaleOptimizer, MultiOptimizer)
_KNOWN: dict[str, Any] = {cls.__name__.lower(): cls for cls in (*_CLASSES, *_AROUND)}

# Where TensorFlow 2.11 to 2.15 had one of two kinds of optimizers; also for `from ... import`.
legacy = experimental = sys.modules[__name__]
sys.modules.update({f"{__name__}.legacy": legacy, f"{__name__}.experimental": experimental})

__all__ = [
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Ftrl",
    "Lamb",
    "Lion",
    "LossScaleOptimizer",
    "MultiOptimizer",
    "Muon",
    "Nadam",
    "Optimizer",
    "OptimizerMap",
    "RMSprop",
    "ScheduleFreeAdamW",
    "deserialize",
    "get",
    "legacy",
    "schedules",
    "serialize",
]


def get(identifier: Any) -> Any:
    """The optimizer for a name, a config or an object; None for None.

    Raises ValueError for an unknown name.
    """
    if identifier is None or isinstance(identifier, Optimizer):
        return identifier
    if isinstance(identifier, Mapping):
        return deserialize(identifier)
    if isinstance(identifier, type) and issubclass(identifier, Optimizer):
        return identifier()
    name = identifier.lower() if isinstance(identifier, str) else identifier
    return registry.lookup("optimizer", name, _KNOWN)()


def scaled_for(policy: Any, optimizer: Optimizer) -> Optimizer:
    """The optimizer with loss scaling where a policy computes in float16."""
    if getattr(policy, "name", None) != "mixed_float16" or isinstance(
        optimizer, LossScaleOptimizer
    ):
        return optimizer
    return LossScaleOptimizer(optimizer)


def serialize(optimizer: Optimizer) -> Any:
    """The config of an optimizer."""
    return registry.serialize(optimizer)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The optimizer of a config. Raises ValueError for an unknown name."""
    known = {**_KNOWN, **{cls.__name__: cls for cls in _KNOWN.values()}}
    found = registry.deserialize("optimizer", config, known, custom_objects)
    return found() if isinstance(found, type) else found
