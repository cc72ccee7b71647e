"""The names that Keras users know, on distgrad's tape and training loop."""

from distgrad.core.variable import Variable
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
    ops,
    optimizers,
    preprocessing,
    random,
    regularizers,
    saving,
    utils,
)
from distgrad.keras.initializers import Initializer
from distgrad.keras.layers import Input
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.remat import RematScope
from distgrad.keras.layers.symbolic import KerasTensor
from distgrad.keras.losses import Loss
from distgrad.keras.metrics import Metric
from distgrad.keras.models import Model, Sequential
from distgrad.keras.optimizers import Optimizer
from distgrad.keras.regularizers import Regularizer
from distgrad.ops.recompute import recompute_grad as remat

__all__ = [
    "Initializer",
    "Input",
    "KerasTensor",
    "Layer",
    "Loss",
    "Metric",
    "Model",
    "Optimizer",
    "Regularizer",
    "RematScope",
    "Sequential",
    "Variable",
    "activations",
    "backend",
    "callbacks",
    "constraints",
    "datasets",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "mixed_precision",
    "models",
    "ops",
    "optimizers",
    "preprocessing",
    "random",
    "regularizers",
    "remat",
    "saving",
    "utils",
]
