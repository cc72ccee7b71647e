"""Batch renormalisation: what takes a batch's statistics towards the running ones, in training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distgrad.core.tensor import Tensor
from distgrad.keras.layers.base import Weight
from distgrad.ops.casting import cast, stop_gradient
from distgrad.ops.clipping import clip_by_value, maximum, minimum
from distgrad.ops.powers import sqrt
from distgrad.ops.shape import reshape

_BOUNDS = ("rmax", "rmin", "dmax")


def bounds(clipping: Mapping[str, float] | None) -> dict[str, float]:
    """The bounds of r and d that are given. Raises ValueError for others, and crossed ones."""
    given = dict(clipping or {})
    if set(given) - set(_BOUNDS):
        raise ValueError(
            f"Received invalid keys for `renorm_clipping` argument: {given}. Supported values: "
            f"{list(_BOUNDS)}."
        )
    rmax, rmin, dmax = map(given.get, _BOUNDS)
    if rmax is not None and rmin is not None and rmax < rmin:
        raise ValueError(
            "rmax should be greater than rmin in the `renorm_clipping` argument. Received: "
            f"rmax={rmax}, rmin={rmin}."
        )
    if dmax is not None and dmax < 0:
        raise ValueError(
            f"dmax should be non-negative in the `renorm_clipping` argument. Received: dmax={dmax}."
        )
    return given


def add_weights(layer: Any, shape: tuple[int, ...]) -> list[Weight]:
    """The running deviation for inference, and the running statistics for training."""

    def deviation(shape: Any, dtype: Any = None) -> Tensor:
        return sqrt(layer.moving_variance_initializer(shape, dtype=dtype))

    named = {
        "moving_stddev": deviation,
        "renorm_mean": layer.moving_mean_initializer,
        "renorm_stddev": deviation,
    }
    return [
        layer.add_weight(shape, initializer, trainable=False, name=name, autocast=False)
        for name, initializer in named.items()
    ]


def corrected(
    layer: Any, mean: Tensor, variance: Tensor, gamma: Tensor | None, beta: Tensor | None
) -> tuple[Tensor, Tensor]:
    """``gamma`` and ``beta`` with which batch statistics give ``(y * r + d) * gamma + beta``.

    ``r`` and ``d`` have no gradient.
    """
    shape, dtype = mean._data.shape, mean.dtype
    limits = layer.renorm_clipping
    running = reshape(cast(layer.renorm_mean, dtype), shape)
    spread = maximum(reshape(cast(layer.renorm_stddev, dtype), shape), layer.epsilon**0.5)
    r = sqrt(stop_gradient(variance) + layer.epsilon) / spread
    d = (stop_gradient(mean) - running) / spread
    if limits.get("rmin") is not None:
        r = maximum(r, limits["rmin"])
    if limits.get("rmax") is not None:
        r = minimum(r, limits["rmax"])
    if limits.get("dmax") is not None:
        d = clip_by_value(d, -limits["dmax"], limits["dmax"])
    if gamma is not None:
        r, d = r * gamma, d * gamma
    return r, d if beta is None else d + beta
