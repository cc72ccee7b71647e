"""The names that Keras users know, on distgrad's tape and training loop."""

from distgrad.keras import (
    activations,
    callbacks,
    datasets,
    initializers,
    layers,
    losses,
    metrics,
    models,
    optimizers,
    utils,
)
from distgrad.keras.layers.base import Layer
from distgrad.keras.models import Model, Sequential

__all__ = [
    "Layer",
    "Model",
    "Sequential",
    "activations",
    "callbacks",
    "datasets",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "models",
    "optimizers",
    "utils",
]
