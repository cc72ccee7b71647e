"""Clipping: gradients made shorter before an update, in place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from distgrad.core.tensor import Tensor
from distgrad.ops import optim


def clip(
    gradients: Sequence[Any],
    clipvalue: float | None,
    clipnorm: float | None,
    global_clipnorm: float | None,
) -> None:
    """Bounds arrays by the size of each element, the norm of each, or the norm of all."""
    if clipvalue:
        for g in gradients:
            optim.clip_update.into((g,), g, g.dtype.type(clipvalue))
    elif clipnorm:
        for g in gradients:
            _scale(g, _factor(math.sqrt(_square_sum(g)), clipnorm))
    elif global_clipnorm:
        norm = math.sqrt(sum(map(_square_sum, gradients)))
        for g in gradients:  # one that is infinite spoils all, as in Keras
            _scale(g, _factor(norm, global_clipnorm) if norm < math.inf else math.nan)


def _square_sum(g: Any) -> float:
    return float(optim.square_sum(Tensor(g), dtype="float64"))


def _factor(norm: float, bound: float) -> float:
    return bound / max(norm, bound)  # nan for a norm that is no number


def _scale(g: Any, factor: float) -> None:
    if factor != 1:
        optim.scale_update.into((g,), g, g.dtype.type(factor))
