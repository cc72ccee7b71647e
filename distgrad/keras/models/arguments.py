"""What fit, evaluate and predict may be given, checked before anything runs.

Wrong types are TypeErrors and wrong values ValueErrors, as in Keras; each says the argument, the
value and what to give instead.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

from distgrad.core.user_line import warn


def whole(name: str, value: Any, least: int, what: str) -> int:
    """An int of ``least`` or more; ``what`` says what it counts. Raises TypeError, ValueError."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}: give a whole number of {what}") from None
    if number < least:
        raise ValueError(f"{name} is {value!r}: give {least} or more {what}")
    return number


def whole_or_none(name: str, value: Any, what: str) -> int | None:
    """A positive int, or None. Raises TypeError, ValueError."""
    return None if value is None else whole(name, value, 1, f"{what}, or None for all")


def batch_size_of(name: str, value: Any) -> int | None:
    """A positive int, or None for the default. Raises TypeError, ValueError."""
    return None if value is None else whole(name, value, 1, "samples, or None for 32")


def fraction_of(name: str, value: Any) -> float:
    """A number from 0 on, below 1. Raises TypeError, ValueError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is {value!r}: give a number, such as 0.2")
    if not 0 <= value < 1:
        raise ValueError(f"{name} is {value!r}: give a fraction of the samples, from 0 to below 1")
    return float(value)


def frequency_of(name: str, value: Any) -> int | list[int]:
    """Every how many epochs, or in which ones, from 1 on. Raises TypeError, ValueError."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [whole(f"{name}[{i}]", each, 1, "epochs") for i, each in enumerate(value)]
    if isinstance(value, str):  # a ValueError in Keras, too
        raise ValueError(f"{name} is {value!r}: give a number of epochs, or a list of epochs")
    return whole(name, value, 1, "epochs")


def class_weight_of(value: Any, batch: Sequence[Any]) -> dict[int, float] | None:
    """The weight of each class, by its number, for batches like this one of (x, y, sample_weight).

    Raises TypeError, and ValueError also where there are weights already or no single target.
    """
    if value is None:
        return None
    _, y, weight = (*batch, None, None)[:3]
    if weight is not None:
        raise ValueError("class_weight and sample_weight cannot be given together")
    if y is None or isinstance(y, (list, tuple, Mapping)):
        found = "none" if y is None else f"{len(y)} of them"
        raise ValueError(f"class_weight is for a model with one array of targets: y has {found}")
    if not isinstance(value, Mapping):
        raise TypeError(f"class_weight is {value!r}: give a dict, such as {{0: 1.0, 1: 2.5}}")
    try:
        return {operator.index(label): float(weight) for label, weight in value.items()}
    except (TypeError, ValueError):
        raise ValueError(
            f"class_weight is {dict(value)!r}: give numbers of classes and their weights, such as "
            "{0: 1.0, 1: 2.5}"
        ) from None


def callbacks_of(value: Any) -> list[Any]:
    """The callbacks of a list, of one, or of none. Raises TypeError for anything else."""
    given = getattr(value, "callbacks", value)
    given = [] if given is None else given if isinstance(given, (list, tuple)) else [given]
    for each in given:
        if not hasattr(each, "set_model") or isinstance(each, type):
            raise TypeError(f"callbacks holds {each!r}: give objects of keras.callbacks.Callback")
    return list(given)


def warn_of_batch_size(batch_size: int | None, kind: str) -> None:
    """Says that batches come ready-made. Keras takes the number, too, and does not use it."""
    if batch_size is not None:
        warn(
            f"batch_size is {batch_size}, and not used: x is a {kind}, which makes its batches "
            f"itself; give it .batch({batch_size}), or leave batch_size out"
        )
