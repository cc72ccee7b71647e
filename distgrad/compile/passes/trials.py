"""Trials: whether a kernel gives each shard the same bits alone and among others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from distgrad.compile.program import Apply, Value
from distgrad.core.dtypes import is_floating


def row_by_row(apply: Apply, count: int, is_wide: Callable[[Any], bool]) -> bool:
    """Whether the kernel gives each shard the same bits alone and among others: by a trial.

    Libraries choose their inner loops by sizes, so that this is no matter of course.
    """
    described = tuple(
        (v.shape, v.dtype, is_wide(v)) if type(v) is Value else repr(v) for v in apply.inputs
    )
    return _trial(apply.primitive, described, repr(sorted(apply.params.items())), count, apply)


class _Trials(dict[Any, bool]):
    """Outcomes of trials in this process, by everything that decides them."""


_trials = _Trials()
_TIMES = 64  # that a kernel is tried, while it takes no more than so many
_NUMBERS = 1 << 20


def _trial(primitive: Any, described: Any, params: str, count: int, apply: Apply) -> bool:
    key = primitive.name, described, params, count
    if key not in _trials:
        _trials[key] = _try(primitive, described, count, apply.params)
    return _trials[key]


def _try(primitive: Any, described: Any, count: int, params: dict[str, Any]) -> bool:
    """Over many numbers: where few of them go another way, a single trial may miss it."""
    if any(isinstance(item, str) for item in described):
        return False
    sizes = [int(np.prod(shape)) for shape, _, _ in described]
    times = max(1, min(_TIMES, _NUMBERS // max(1, count * max(sizes))))
    rng = np.random.default_rng(0)
    return all(_agrees(rng, primitive, described, count, params) for _ in range(times))


def _agrees(rng: Any, primitive: Any, described: Any, count: int, params: dict[str, Any]) -> bool:
    shared: list[Any] = []
    for shape, dtype, wide in described:
        full = (count * shape[0], *shape[1:]) if wide else shape
        values = rng.normal(size=full) if is_floating(dtype) else np.zeros(full)
        shared.append(values.astype(dtype))
    changed = dict(params)
    if "shape" in params:
        first, *rest = params["shape"]
        changed["shape"] = (count * first, *rest)
    together = np.asarray(primitive.kernel(np, *shared, **changed))
    for v in range(count):
        own = [
            array[v * item[0][0] : (v + 1) * item[0][0]] if item[2] else array
            for array, item in zip(shared, described, strict=True)
        ]
        alone = np.asarray(primitive.kernel(np, *own, **params))
        rows = alone.shape[0]
        if together[v * rows : (v + 1) * rows].tobytes() != alone.tobytes():
            return False
    return True
