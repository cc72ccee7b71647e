"""The names that Keras users know, on distgrad's tape and training loop."""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from distgrad.core.later import later as _later
from distgrad.keras import (
    activations,
    backend,
    callbacks,
    constraints,
    datasets,
    initializers,
    layers,
    losses,
    metrics,
    mixed_precision,
    models,
    optimizers,
    preprocessing,
    random,
    regularizers,
    utils,
)
from distgrad.keras.initializers import Initializer
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.input import Input
from distgrad.keras.layers.input_spec import InputSpec
from distgrad.keras.layers.operation import Operation
from distgrad.keras.layers.remat import RematScope
from distgrad.keras.layers.symbolic import KerasTensor
from distgrad.keras.losses.base import Loss
from distgrad.keras.metrics.base import Metric
from distgrad.keras.mixed_precision import DTypePolicy
from distgrad.keras.models import Model, Sequential
from distgrad.keras.models.function import Function
from distgrad.keras.optimizers.base import Optimizer
from distgrad.keras.regularizers import Regularizer
from distgrad.keras.variable import Variable
from distgrad.ops.recompute import recompute_grad as remat
from distgrad.ops.scopes import device, name_scope

__all__ = [
    "DTypePolicy",
    "FloatDTypePolicy",
    "Function",
    "Initializer",
    "Input",
    "InputSpec",
    "KerasTensor",
    "Layer",
    "Loss",
    "Metric",
    "Model",
    "Operation",
    "Optimizer",
    "Regularizer",
    "RematScope",
    "Sequential",
    "StatelessScope",
    "Variable",
    "activations",
    "applications",
    "backend",
    "callbacks",
    "config",
    "constraints",
    "datasets",
    "device",
    "distillation",
    "dtype_policies",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "mixed_precision",
    "models",
    "name_scope",
    "ops",
    "optimizers",
    "preprocessing",
    "random",
    "regularizers",
    "remat",
    "saving",
    "tree",
    "utils",
    "version",
    "visualization",
    "wrappers",
]

FloatDTypePolicy = DTypePolicy
__version__ = "3.15.1"  # the Keras whose names, formats and behaviour these are

if _TYPE_CHECKING:
    from distgrad.keras import (
        config,
        distillation,
        dtype_policies,
        ops,
        saving,
        tree,
        visualization,
        wrappers,
    )

# Loaded at their first use.
_NAMES = (
    "applications", "config", "distillation", "dtype_policies", "ops", "saving", "tree",
    "visualization", "wrappers",
)  # fmt: skip
_LATER = {**{name: f".{name}" for name in _NAMES}, "StatelessScope": ".stateless"}


def version() -> str:
    """The version of Keras whose names and formats are followed here."""
    return __version__


__getattr__, __dir__ = _later(__name__, globals(), _LATER)
