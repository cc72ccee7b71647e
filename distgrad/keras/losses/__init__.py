"""Losses: classes to compile a model with, functions with one value per sample, and ``get``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distgrad.keras import registry
from distgrad.keras.losses.alignment import CTC, ctc
from distgrad.keras.losses.base import FunctionLoss, Loss, Reduction
from distgrad.keras.losses.entropy import (
    BinaryCrossentropy,
    BinaryFocalCrossentropy,
    CategoricalCrossentropy,
    CategoricalFocalCrossentropy,
    FittingCrossentropy,
    KLDivergence,
    Poisson,
    SparseCategoricalCrossentropy,
    binary_crossentropy,
    binary_focal_crossentropy,
    categorical_crossentropy,
    categorical_focal_crossentropy,
    kl_divergence,
    poisson,
    sparse_categorical_crossentropy,
)
from distgrad.keras.losses.overlap import (
    CategoricalGeneralizedCrossEntropy,
    Circle,
    Dice,
    Tversky,
    categorical_generalized_cross_entropy,
    circle,
    dice,
    tversky,
)
from distgrad.keras.losses.regression import (
    CategoricalHinge,
    CosineSimilarity,
    Hinge,
    Huber,
    LogCosh,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    SquaredHinge,
    categorical_hinge,
    cosine_similarity,
    hinge,
    huber,
    log_cosh,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_logarithmic_error,
    squared_hinge,
)
from distgrad.keras.registry import snake_case

mse = MSE = mean_squared_error
mae = MAE = mean_absolute_error
mape = MAPE = mean_absolute_percentage_error
msle = MSLE = mean_squared_logarithmic_error
bce = BCE = binary_crossentropy
kld = KLD = kullback_leibler_divergence = kl_divergence
logcosh = log_cosh

_CLASSES = (
    CTC,
    BinaryCrossentropy,
    BinaryFocalCrossentropy,
    CategoricalCrossentropy,
    CategoricalFocalCrossentropy,
    CategoricalGeneralizedCrossEntropy,
    CategoricalHinge,
    Circle,
    CosineSimilarity,
    Dice,
    Hinge,
    Huber,
    KLDivergence,
    LogCosh,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Poisson,
    SparseCategoricalCrossentropy,
    SquaredHinge,
    Tversky,
)
_ALIASES: dict[str, Any] = {
    "mse": MeanSquaredError,
    "mae": MeanAbsoluteError,
    "mape": MeanAbsolutePercentageError,
    "msle": MeanSquaredLogarithmicError,
    "bce": BinaryCrossentropy,
    "kld": KLDivergence,
    "kullback_leibler_divergence": KLDivergence,
    "logcosh": LogCosh,
}
_KNOWN: dict[str, Any] = registry.by_name(*_CLASSES, **_ALIASES)

_FUNCTIONS: dict[str, Any] = {
    snake_case(cls.__name__): globals()[snake_case(cls.__name__)] for cls in _CLASSES
}
_FUNCTIONS.update({name: globals()[name] for name in _ALIASES})

__all__ = ["Loss", "Reduction", "deserialize", "get", "serialize"]
__all__ += ["BCE", "KLD", "MAE", "MAPE", "MSE", "MSLE"]
__all__ += [*(cls.__name__ for cls in _CLASSES), *_FUNCTIONS]


def get(identifier: Any) -> Any:
    """The function of a name ("mse"), the loss of a class's name or a config; None for None.

    A loss or a function is what it gives back. Raises ValueError for an unknown name.
    """
    if identifier is None or isinstance(identifier, Loss):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Loss):
        return identifier()
    return identifier if callable(identifier) else deserialize(identifier)


def as_loss(identifier: Any) -> Loss | None:
    """The loss that ``compile`` makes of a name, a config or a function; None for None.

    ``crossentropy`` is the one that fits the shapes of targets and predictions. Raises ValueError
    for an unknown name.
    """
    if isinstance(identifier, str) and identifier.lower() in ("crossentropy", "ce"):
        return FittingCrossentropy(identifier)
    if isinstance(identifier, str):
        found = registry.lookup("loss", identifier, _KNOWN)
        found = found() if isinstance(found, type) else found
    else:
        found = get(identifier)
    return found if found is None or isinstance(found, Loss) else FunctionLoss(found)


def serialize(loss: Any) -> Any:
    """The config of a loss: a dict, or the name of a function."""
    return registry.serialize(loss)


def deserialize(name: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The loss of a config or the function of a name. Raises ValueError for an unknown one."""
    found = registry.deserialize("loss", name, {**_KNOWN, **_FUNCTIONS}, custom_objects)
    return found() if isinstance(found, type) else found
