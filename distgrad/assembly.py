"""From a job and its samples to a compiled model, with a clear word where they do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from distgrad import keras
from distgrad.core.errors import DataError, JobError, UsageError
from distgrad.data.csvfile import listing
from distgrad.data.preparation import Preparation
from distgrad.data.source import ArraySource, Splits, Subset
from distgrad.job import Job
from distgrad.keras import losses, mixed_precision, specs
from distgrad.keras.layers.base import Layer
from distgrad.ops import streams

_SIZES = {"Embedding": "input_dim", "TokenAndPositionEmbedding": "vocabulary_size"}


def build_model(job: Job, splits: Splits) -> keras.Sequential:
    """The compiled model of a job for such samples, its weights drawn from the job's seed.

    Raises UsageError for layers that cannot take the samples, or one another's outputs, or give
    something else than the targets are, and DataError for labels that are no class of the model.
    """
    streams.set_seed(job.seed)
    mixed_precision.enable_tensor_float_32_execution(job.tensor_float_32)
    layers = _layers(job)
    _check_tokens(job, layers[0], splits)
    model = _compiled(job, layers)
    sample = splits.train.take(slice(0, 1))
    try:
        model.prepare(sample)
        shape = np.shape(model.predict_on_batch(sample[0]))[1:]
    except JobError:
        raise
    except MemoryError as error:
        raise UsageError(
            f"the layers need more memory than there is ({error}): look at their sizes"
        ) from error
    except Exception as error:
        _blame_a_layer(job, sample[0], error)
        raise
    check_targets(job, shape, splits.parts())
    check_metrics(job, model, splits.train)
    return model


def model_for(job: Job, preparation: Preparation) -> keras.Sequential:
    """The same model for samples that are described, not there; its weights mean nothing yet.

    The random numbers of the process stay as they were.
    """
    model = _compiled(job, _layers(job))
    x = np.zeros((1, *preparation.shape), preparation.dtype)
    with streams.stream(job.seed):
        model.prepare((x, np.zeros((1, *preparation.target_shape), preparation.target_dtype)))
    assert model.optimizer is not None
    model.optimizer.build(model.trainable_variables)
    return model


def class_weights(job: Job, splits: Splits) -> dict[int, float] | None:
    """What the loss of a sample counts in training, by the number of its class; None: 1.

    Balanced ones are n / (classes * n of the class), by the samples to train on, as in scikit-learn
    (`compute_class_weight`). Raises UsageError for targets that are no classes, and for a class
    that there is not.
    """
    if job.class_weight is None:
        return None
    train = splits.train  # whose inputs, perhaps on a disk, are not needed
    labels = train.arrays[1][train.rows] if isinstance(train, Subset) else train.arrays[1]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UsageError(
            f"train.class_weight is for classes, but the targets of {_origin(job)} are "
            f"{labels.dtype} of shape {labels.shape[1:]}"
        )
    numbers, counts = np.unique(labels, return_counts=True)
    if isinstance(job.class_weight, str):
        weights = len(labels) / (len(numbers) * counts)
        return dict(zip(numbers.tolist(), weights.tolist(), strict=True))
    named = splits.preparation.classes if splits.preparation is not None else ()
    known = {name: number for number, name in enumerate(named)}
    known = known or {str(number): number for number in numbers.tolist()}
    for name in job.class_weight:
        if name not in known:
            raise UsageError(
                f"train.class_weight.{name}: {_origin(job)} has no such class, but "
                f"{listing(list(known), 10)}"
            )
    return {known[name]: weight for name, weight in job.class_weight.items()}


def _compiled(job: Job, layers: list[Layer]) -> keras.Sequential:
    model = keras.Sequential(layers)
    optimizer = specs.make("optimizer", job.optimizer)
    if job.mixed_precision:
        policy = mixed_precision.get(job.mixed_precision)
        optimizer = keras.optimizers.scaled_for(policy, optimizer)
    loss = _named("loss", job.loss)
    metrics = [_named("metric", metric) for metric in job.metrics]
    model.compile(optimizer=optimizer, loss=loss, metrics=metrics)
    return model


def _layers(job: Job) -> list[Layer]:
    with keras.RematScope("full" if job.recompute else None):
        return [specs.make("layer", spec, dtype=job.mixed_precision) for spec in job.layers]


def _named(kind: specs.Kind, value: Any) -> Any:
    return specs.make(kind, value) if isinstance(value, dict) else value


def _blame_a_layer(job: Job, x: Any, error: Exception) -> None:
    """Raises UsageError that names the first layer which cannot be called on what it is given.

    A library that is missing, or a device that fails, is not its fault, and raised as it is.
    """
    for index, layer in enumerate(_layers(job)):
        shape, before = tuple(x.shape[1:]), f"layer {index - 1}" if index else "the data"
        try:
            x = layer(x, training=False)
        except (ArithmeticError, LookupError, NotImplementedError, TypeError, ValueError) as found:
            text = " ".join(str(found).split())
            raise UsageError(
                f"model.layers.{index} ({job.layers[index]['type']}) cannot take what {before} "
                f"gives, {_shape(shape)} a sample: {text}"
            ) from error


def _check_tokens(job: Job, first: Layer, splits: Splits) -> None:
    """Raises UsageError where the data have integers beyond the table of the first layer."""
    key = _SIZES.get(type(first).__name__, "")
    size = getattr(first, key, None)
    if size is None or splits.train.slow:  # what stays on the disk is not read through for this
        return
    for part, source in splits.parts().items():
        x = source.arrays[0]
        if x.size and (x.min() < 0 or x.max() >= size):
            raise UsageError(
                f"model.layers.0.{key} is {size}, but the {part} samples of {_origin(job)} hold "
                f"numbers from {x.min()} to {x.max()}: it must be greater than them all"
            )


def check_targets(job: Job, shape: tuple[int, ...], parts: Mapping[str, ArraySource]) -> None:
    """Raises JobError where targets cannot be compared with outputs of this shape a sample."""
    if job.loss is None:
        return
    loss = losses.as_loss(_named("loss", job.loss))
    name = getattr(loss, "name", "")
    sparse = name == "sparse_categorical_crossentropy"
    expected = shape[:-1] if sparse else shape
    for part, source in parts.items():
        y = source.arrays[1]
        targets = y.shape[1:]
        if targets != expected and _squeezed(targets) != _squeezed(expected):
            raise UsageError(
                f"{name} needs targets of {_shape(expected)} a sample where the last layer gives "
                f"{_shape(shape)}; those of {_origin(job)} have {_shape(targets)}"
            )
        if sparse:
            _check_labels(job, part, y, shape[-1], getattr(loss, "ignore_class", None))
        elif name.startswith("binary_"):
            _check_shares(job, part, y)


def check_metrics(job: Job, model: keras.Model, samples: ArraySource) -> None:
    """Raises UsageError where a metric cannot compare the targets with the model's outputs."""
    x, y = samples.take(slice(0, 2))
    found = model.predict_on_batch(x) if job.metrics else None
    for number, spec in enumerate(job.metrics):
        metric = keras.metrics.compiled(_named("metric", spec))
        try:
            metric(y, found)
        except ValueError as error:
            raise UsageError(
                f"metrics.{number}: {metric.name} cannot compare the targets of {_origin(job)} "
                f"with what the last layer gives ({error}): choose another one"
            ) from error


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:-1] if shape[-1:] == (1,) else shape  # losses take it both ways


def _check_labels(job: Job, part: str, y: np.ndarray, classes: int, ignored: int | None) -> None:
    wrong = (y < 0) | (y >= classes)
    if y.dtype.kind == "f":
        wrong |= y != np.floor(y)
    if ignored is not None:
        wrong &= y != ignored
    if wrong.any():
        raise DataError(
            f"{_offender(job, part, y, wrong)} is none of the {classes} classes, 0 to "
            f"{classes - 1}, that the last layer gives: number the labels from 0, or give it as "
            "many units as there are classes"
        )


def _check_shares(job: Job, part: str, y: np.ndarray) -> None:
    wrong = ~((y >= 0) & (y <= 1))
    if wrong.any():
        raise DataError(
            f"{_offender(job, part, y, wrong)} is not between 0 and 1, as a binary loss needs it"
        )


def _offender(job: Job, part: str, y: np.ndarray, wrong: np.ndarray) -> str:
    """The first wrong label, where it is, and how many there are."""
    where = np.argwhere(wrong)
    count = f", the first of {len(where)}," if len(where) > 1 else ""
    return f"{_origin(job)}: the label {y[tuple(where[0])]} of {part} sample {where[0][0]}{count}"


def _origin(job: Job) -> str:
    """The file of the targets, or the name of the source."""
    keys = ("path", "y", "labels", "builtin", "source")
    return str(next(job.data[key] for key in keys if job.data.get(key)))


def _shape(shape: tuple[int, ...]) -> str:
    return f"shape {shape}" if shape else "one number"
