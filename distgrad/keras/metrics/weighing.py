"""Values of samples on the host, and their weights: what metrics make their sums of."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.keras.losses.base import in_float32
from distgrad.training.state import share


def host(value: Any) -> np.ndarray:
    """A tensor, variable, array or nest of numbers on the host; floats of 16 bits as float32."""
    return in_float32(as_tensor(value))._host()


def mean_sums(values: np.ndarray, weight: Any) -> np.ndarray:
    """Weighted sum over samples of the means of their values, and the sum of weights.

    The first axis is that of the samples; weights may be one per sample or have more axes.
    """
    values = values.astype(np.float64)
    if weight is None and not values.ndim:  # counts once in a batch, whatever its shards
        return np.array([values * share(), share()])
    if weight is None:
        return np.array([_per_sample(values).sum(), values.shape[0]])
    values, weight = same_rank(values, host(weight).astype(np.float64))
    if values.ndim > weight.ndim:
        values = values.mean(axis=tuple(range(weight.ndim, values.ndim)))
    if values.ndim:  # else one value of the whole batch, which weighs what that does
        weight = np.broadcast_to(weight, values.shape)
    return np.array([_per_sample(values * weight).sum(), _per_sample(weight).sum()])


def masked_weight(weight: Any, mask: Any) -> Any:
    """What values weigh that count only where the mask of the predictions is True."""
    if mask is None:
        return weight
    counted = host(mask).astype(np.float64)
    if weight is None:
        return counted
    counted, given = same_rank(counted, host(weight).astype(np.float64))
    if given.ndim < counted.ndim:
        given = given.reshape(given.shape + (1,) * (counted.ndim - given.ndim))
    return counted * given


def _per_sample(values: np.ndarray) -> np.ndarray:
    return values.mean(axis=tuple(range(1, values.ndim))) if values.ndim > 1 else values


def same_rank(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rule of Keras for ranks that differ by one axis of size 1."""
    if a.ndim == b.ndim + 1 and a.shape[-1] == 1:
        return (a, b[..., None]) if b.ndim == 1 else (a[..., 0], b)
    if b.ndim == a.ndim + 1 and b.shape[-1] == 1:
        return (a[..., None], b) if a.ndim == 1 else (a, b[..., 0])
    return a, b


def arrays(y_true: Any, y_pred: Any) -> tuple[np.ndarray, np.ndarray]:
    """Targets and predictions on the host, of one rank where Keras makes them so."""
    return same_rank(host(y_true), host(y_pred))
