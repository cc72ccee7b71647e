"""From arrays as files have them to the two parts of a job: checked, cast and split."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distgrad.core.errors import DataError
from distgrad.data.preparation import Preparation
from distgrad.data.shard import stratified_split
from distgrad.data.source import ArraySource, Splits, Subset

TEST_FRACTION = 0.2  # of samples that have no test part of their own, where nothing else is said


def hold_out(
    name: str, x: np.ndarray, y: np.ndarray, test_fraction: float, seed: int, **how: Any
) -> Splits:
    """Split rows at random, as `drawn_rows` draws them; ``how`` they were made is kept."""
    train, test = drawn_rows(name, y, test_fraction, seed)
    return splits(name, ArraySource(x[train], y[train]), ArraySource(x[test], y[test]), **how)


def drawn_rows(
    name: str, y: np.ndarray, fraction: float, seed: int, key: str = "test_fraction"
) -> tuple[np.ndarray, np.ndarray]:
    """Sorted rows to train on and to hold out: class labels keep their shares in both parts.

    Targets that are no class labels have no shares to keep. Raises DataError for an empty part.
    """
    classes = y if y.ndim == 1 and y.dtype.kind in "iu" else np.zeros(len(y), dtype=np.int32)
    try:
        return stratified_split(classes, fraction, seed)
    except ValueError as error:
        # The message is about the test part, as most splits are.
        raise DataError(f"{name}: {str(error).replace('test_fraction', key)}") from error


def own_parts(
    name: str, arrays: Mapping[str, np.ndarray], scale: float = 1, classes: Sequence[str] = ()
) -> Splits:
    """The parts of data that has both: ``x_train, y_train, x_test, y_test``, x divided by scale."""
    sources = {}
    for part in ("train", "test"):
        x = as_inputs(f"{name}: x_{part}", arrays[f"x_{part}"])
        y = as_targets(f"{name}: y_{part}", arrays[f"y_{part}"])
        sources[part] = ArraySource(x if scale == 1 else x / np.float32(scale), y)
    check_samples(name, sources["train"], sources["test"])
    how: dict[str, Any] = {"scale": float(scale), "raw_dtype": arrays["x_train"].dtype.name}
    return splits(name, sources["train"], sources["test"], classes=tuple(classes), **how)


def with_validation(spec: Mapping[str, Any], found: Splits, fraction: float, seed: int) -> Splits:
    """Holds out a part of the training samples: the end of a text or a series, else drawn ones.

    Raises DataError for an empty part.
    """
    name, n = str(spec.get("path") or spec.get("builtin") or spec["source"]), len(found.train)
    if spec["source"] in ("text", "series"):
        end = cut(name, n, fraction, "training windows", "validation_fraction")
        # The last windows before the cut would have to forecast values that lie behind it.
        train = np.arange(end - spec.get("horizon", 1) + 1)
        held = np.arange(end, n)
    else:
        labels = found.train.take(slice(0, n))[1]
        train, held = drawn_rows(name, labels, fraction, seed, "validation_fraction")
    if not len(train):
        raise DataError(f"{name}: validation_fraction {fraction} leaves nothing to train on")
    return dataclasses.replace(
        found,
        train=Subset(found.train, train),
        description=f"{found.description}; {len(held)} of those to train on are kept for "
        "validation",
        validation=Subset(found.train, held),
    )


def check_samples(name: str, train: ArraySource, test: ArraySource) -> None:
    """Raises DataError unless the samples of both parts have the same shape."""
    for ours, theirs, key in zip(train.arrays, test.arrays, "xy", strict=True):
        if ours.shape[1:] != theirs.shape[1:]:
            raise DataError(
                f"{name}: a sample of {key}_train has shape {ours.shape[1:]} but one of "
                f"{key}_test {theirs.shape[1:]}; they need the same"
            )


def splits(
    name: str,
    train: ArraySource,
    test: ArraySource,
    more: str = "",
    kind: str = "arrays",
    **how: Any,
) -> Splits:
    """Both parts with their line of description, and how they were made (`Preparation`)."""
    shape = " x ".join(map(str, train.arrays[0].shape[1:])) or "scalar"
    return Splits(
        train,
        test,
        f"{name}: {len(train)} training and {len(test)} test samples, {shape}{more}",
        preparation=Preparation.of(kind, train, **how),
    )


def cut(name: str, n: int, fraction: float, what: str, key: str = "test_fraction") -> int:
    """Where the last ``fraction`` of ``n`` values in order begins. Raises DataError."""
    test = math.ceil(n * fraction - 1e-9)  # the allowance: as in stratified_split
    if not 0 < test < n:
        raise DataError(f"{name}: {key} {fraction} of {n} {what} leaves a part empty")
    return n - test


def as_inputs(where: str, array: np.ndarray) -> np.ndarray:
    """``array`` as float32, itself where it is so already; raises DataError unless all finite."""
    if array.dtype.kind not in "fiub":
        raise DataError(f"{where} has dtype {array.dtype}; save numbers, not text or objects")
    with np.errstate(over="ignore"):
        values = array.astype(np.float32, copy=False)
    # Every integer is a finite float32, so there is no need to look for the others.
    if array.dtype.kind == "f" and not np.isfinite(values).all():
        bad = np.argwhere(~np.isfinite(values))
        index = ", ".join(map(str, bad[0]))
        raise DataError(
            f"{where} has {len(bad)} values that are no finite float32 numbers, the first at "
            f"[{index}] ({array[tuple(bad[0])]}); replace them or leave those samples out"
        )
    return values


def as_targets(where: str, array: np.ndarray) -> np.ndarray:
    """Class labels as int32, any other targets as float32."""
    if array.dtype.kind not in "iu":
        return as_inputs(where, array)
    limits = np.iinfo(np.int32)
    if array.size and (array.min() < limits.min or array.max() > limits.max):
        first = np.argwhere((array < limits.min) | (array > limits.max))[0]
        raise DataError(
            f"{where}: the label of sample {first[0]} is {array[tuple(first)]}, which is no int32: "
            "labels are the numbers of classes, from 0 to below the number of classes; save other "
            "targets as floats"
        )
    return array.astype(np.int32, copy=False)


class Standard:
    """Mean and standard deviation of each column of the training part, to apply to both parts."""

    def __init__(self, mean: np.ndarray, deviation: np.ndarray) -> None:
        self.mean = mean
        self.deviation = deviation

    @classmethod
    def of(cls, train: np.ndarray) -> Standard:
        """That of the columns of ``train``."""
        with np.errstate(over="ignore", invalid="ignore"):
            mean = train.mean(axis=0, dtype=np.float64)
            deviation = train.std(axis=0, dtype=np.float64)
        large = ~np.isfinite(deviation)
        if large.any():  # squares of what is beyond 1e154 overflow
            size = np.where(large, np.abs(train).max(axis=0), 1.0)
            scaled = train / size
            mean, deviation = scaled.mean(axis=0) * size, scaled.std(axis=0) * size
        # A constant column becomes 0.
        return cls(mean, np.where(deviation > 0, deviation, 1.0))

    def described(self) -> dict[str, tuple[float, ...]]:
        """The numbers, as a `Preparation` keeps them."""
        kept = {"mean": self.mean, "deviation": self.deviation}
        return {key: tuple(np.atleast_1d(values).tolist()) for key, values in kept.items()}

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return ((values - self.mean) / self.deviation).astype(np.float32)
