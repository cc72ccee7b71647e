"""Whether an optimizer's settings make sense, and it can use the gradients that it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distgrad.core.errors import InvalidArgumentError
from distgrad.core.tensor import Tensor
from distgrad.core.user_line import warn
from distgrad.core.variable import Variable


def check_settings(
    clips: Mapping[str, float | None],
    weight_decay: float | None,
    ema_momentum: float,
    ema_overwrite_frequency: int | None,
    gradient_accumulation_steps: int | None,
) -> None:
    """Raises ValueError for a setting out of range, and for two ways of clipping at once."""
    given = [f"{key}={value}" for key, value in clips.items() if value is not None]
    if len(given) > 1:
        raise ValueError(f"only one way of clipping can be set, not {' and '.join(given)}")
    for key, value in {**clips, "weight_decay": weight_decay}.items():
        if value is not None and not value >= 0:
            raise ValueError(f"{key} must not be negative, got {value!r}")
    if not 0 <= ema_momentum <= 1:
        raise ValueError(f"ema_momentum must lie in [0, 1], not {ema_momentum!r}")
    overwrite = ema_overwrite_frequency
    if overwrite is not None and (not isinstance(overwrite, int) or overwrite < 1):
        raise ValueError(f"ema_overwrite_frequency must be an int, 1 or more, not {overwrite!r}")
    every = gradient_accumulation_steps
    if every is not None and (not isinstance(every, int) or every < 2):
        raise ValueError(f"gradient_accumulation_steps must be an int from 2 on, not {every!r}")


def check_gradients(
    pairs: Sequence[tuple[Any, Variable]], positions: Mapping[int, int], once: bool
) -> None:
    """Warns of variables without a gradient, and raises where none can be used.

    ``positions`` are those of the variables that an optimizer was built for, by their ids: none
    yet before its first update. Raises ValueError for no gradients at all, a variable that it was
    not built for or that comes twice where it may come ``once``, InvalidArgumentError for a
    gradient of another shape.
    """
    if not pairs:
        raise ValueError("apply_gradients got an empty list")
    missing = [_name(v) for g, v in pairs if g is None]
    if len(missing) == len(pairs):
        raise ValueError(f"none of the variables has a gradient: {', '.join(missing)}")
    if missing:
        warn(f"no gradient for {', '.join(missing)}")
    if once and len({id(v) for _, v in pairs}) < len(pairs):
        names = ", ".join(_name(v) for _, v in pairs)
        raise ValueError(f"a variable is there twice among {names}; add up its gradients first")
    for gradient, variable in pairs:
        if positions and id(variable) not in positions:
            raise ValueError(f"Unknown variable {_name(variable)}: this optimizer has others")
        if type(gradient) is Tensor and gradient._data.shape == variable._buffer.shape:
            continue
        if gradient is None:
            continue
        shape = tuple(gradient.shape) if hasattr(gradient, "shape") else np.shape(gradient)
        if shape != tuple(variable.shape):
            raise InvalidArgumentError(
                f"a gradient of shape {shape} for {_name(variable)} of shape {variable.shape}"
            )


def check_not_accumulated(variable: Variable, steps: int | None) -> None:
    """Raises ValueError for a variable that comes twice where gradients are accumulated."""
    if steps:
        raise ValueError(
            f"{_name(variable)} has several gradients, and gradient_accumulation_steps={steps} "
            "keeps one of each variable; add them up first"
        )


def _name(variable: Variable) -> str:
    """Where a weight lies in its model: its own name is short, and that of others, too."""
    return getattr(variable, "path", variable.name)
