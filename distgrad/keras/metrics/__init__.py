"""Metrics: objects that add up batches, functions with one value per sample, and ``get``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distgrad.keras import registry
from distgrad.keras.losses import (
    KLD,
    MAE,
    MAPE,
    MSE,
    MSLE,
    binary_crossentropy,
    binary_focal_crossentropy,
    categorical_crossentropy,
    categorical_focal_crossentropy,
    categorical_hinge,
    hinge,
    huber,
    kl_divergence,
    kld,
    kullback_leibler_divergence,
    log_cosh,
    logcosh,
    mae,
    mape,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_logarithmic_error,
    mse,
    msle,
    poisson,
    sparse_categorical_crossentropy,
    squared_hinge,
)
from distgrad.keras.metrics.accuracy import (
    Accuracy,
    BinaryAccuracy,
    CategoricalAccuracy,
    FittingAccuracy,
    SparseCategoricalAccuracy,
    SparseTopKCategoricalAccuracy,
    TopKCategoricalAccuracy,
    binary_accuracy,
    categorical_accuracy,
    sparse_categorical_accuracy,
    sparse_top_k_categorical_accuracy,
    top_k_categorical_accuracy,
)
from distgrad.keras.metrics.auc import AUC
from distgrad.keras.metrics.base import Mean, MeanMetric, MeanMetricWrapper, Metric, Sum
from distgrad.keras.metrics.classes import (
    BinaryIoU,
    F1Score,
    FBetaScore,
    IoU,
    MeanIoU,
    OneHotIoU,
    OneHotMeanIoU,
)
from distgrad.keras.metrics.confusion import (
    FalseNegatives,
    FalsePositives,
    Precision,
    PrecisionAtRecall,
    Recall,
    RecallAtPrecision,
    SensitivityAtSpecificity,
    SpecificityAtSensitivity,
    TrueNegatives,
    TruePositives,
)
from distgrad.keras.metrics.correlation import (
    ConcordanceCorrelation,
    PearsonCorrelation,
    concordance_correlation,
    pearson_correlation,
)
from distgrad.keras.metrics.regression import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    CategoricalHinge,
    CosineSimilarity,
    Hinge,
    KLDivergence,
    LogCoshError,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Poisson,
    R2Score,
    RootMeanSquaredError,
    SparseCategoricalCrossentropy,
    SquaredHinge,
)

_CLASSES = (
    AUC,
    Accuracy,
    BinaryAccuracy,
    BinaryCrossentropy,
    BinaryIoU,
    CategoricalAccuracy,
    CategoricalCrossentropy,
    CategoricalHinge,
    ConcordanceCorrelation,
    CosineSimilarity,
    F1Score,
    FBetaScore,
    FalseNegatives,
    FalsePositives,
    Hinge,
    IoU,
    KLDivergence,
    LogCoshError,
    Mean,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanIoU,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    OneHotIoU,
    OneHotMeanIoU,
    PearsonCorrelation,
    Poisson,
    Precision,
    PrecisionAtRecall,
    R2Score,
    Recall,
    RecallAtPrecision,
    RootMeanSquaredError,
    SensitivityAtSpecificity,
    SparseCategoricalAccuracy,
    SparseCategoricalCrossentropy,
    SparseTopKCategoricalAccuracy,
    SpecificityAtSensitivity,
    SquaredHinge,
    Sum,
    TopKCategoricalAccuracy,
    TrueNegatives,
    TruePositives,
)
_KNOWN: dict[str, Any] = registry.by_name(
    *_CLASSES,
    mse=MeanSquaredError,
    mae=MeanAbsoluteError,
    mape=MeanAbsolutePercentageError,
    msle=MeanSquaredLogarithmicError,
    rmse=RootMeanSquaredError,
    bce=BinaryCrossentropy,
    kld=KLDivergence,
    logcosh=LogCoshError,
)
# Those that take values alone are none that a model can be compiled with.
_BY_NAME = {name: cls for name, cls in _KNOWN.items() if cls not in (Mean, Sum)}
_ACCURACY = ("accuracy", "acc")

_FUNCTIONS = (
    *("KLD", "MAE", "MAPE", "MSE", "MSLE", "binary_accuracy", "binary_crossentropy"),
    *("binary_focal_crossentropy", "categorical_accuracy", "categorical_crossentropy"),
    *("categorical_focal_crossentropy", "categorical_hinge", "concordance_correlation", "hinge"),
    *("huber", "kl_divergence", "kld", "kullback_leibler_divergence", "log_cosh", "logcosh", "mae"),
    *("mape", "mean_absolute_error", "mean_absolute_percentage_error", "mean_squared_error"),
    *("mean_squared_logarithmic_error", "mse", "msle", "pearson_correlation", "poisson"),
    *("sparse_categorical_accuracy", "sparse_categorical_crossentropy"),
    *("sparse_top_k_categorical_accuracy", "squared_hinge", "top_k_categorical_accuracy"),
)
__all__ = ["MeanMetricWrapper", "Metric", "deserialize", "get", "serialize"]
__all__ += [*(cls.__name__ for cls in _CLASSES), *_FUNCTIONS]


def get(identifier: Any) -> Metric:
    """The metric for a name, a config, a function or an object, as ``compile`` takes them.

    Raises ValueError for an unknown name.
    """
    if isinstance(identifier, Metric):
        return identifier
    if isinstance(identifier, Mapping):
        return deserialize(identifier)
    if isinstance(identifier, type) and issubclass(identifier, Metric):
        return identifier()
    if callable(identifier):
        own = getattr(identifier, "__name__", None) or getattr(identifier, "name", None)
        name = own or type(identifier).__name__
        return MeanMetricWrapper(identifier, registry.snake_case(name.strip("<>")))
    return registry.lookup("metric", identifier, _BY_NAME)()


def compiled(identifier: Any) -> Metric:
    """``get`` for a model, which shows a metric that it is given by name under that name.

    Its ``accuracy`` is the one that fits the shapes of targets and predictions.
    """
    if isinstance(identifier, str) and identifier.lower() in _ACCURACY:
        return FittingAccuracy(name=identifier)
    metric = get(identifier)
    if isinstance(identifier, str):
        metric.name = identifier
    return metric


def check(identifier: Any) -> None:
    """Raises ValueError where ``compiled`` would not know it; of names and classes none is made."""
    if isinstance(identifier, str):
        if identifier.lower() not in _ACCURACY:
            registry.lookup("metric", identifier, _BY_NAME)
    elif not isinstance(identifier, type):
        get(identifier)


def serialize(metric: Metric) -> Any:
    """The config of a metric: a dict, or the name of a function."""
    return registry.serialize(metric)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The metric of a config. Raises ValueError for an unknown name."""
    found = registry.deserialize("metric", config, _KNOWN, custom_objects)
    return found() if isinstance(found, type) else found
