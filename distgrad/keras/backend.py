"""``keras.backend``: the few settings that mean something here, and the old functions."""

from __future__ import annotations

from typing import Any

from distgrad.core.dtypes import as_dtype
from distgrad.keras import mixed_precision
from distgrad.keras.legacy import *  # noqa: F403


def floatx() -> str:
    """The dtype in which layers without a dtype of their own keep their weights."""
    return mixed_precision.global_policy().variable_dtype


def set_floatx(value: str) -> None:
    """Sets it. Raises ValueError for anything but bfloat16, float16, float32 and float64."""
    if value not in ("bfloat16", "float16", "float32", "float64"):
        raise ValueError(f"floatx is bfloat16, float16, float32 or float64, not {value!r}")
    mixed_precision.set_global_policy(as_dtype(value).name)


def epsilon() -> float:
    """The small number by which losses keep probabilities away from 0 and 1."""
    return 1e-7


def clear_session(free_memory: bool = True) -> None:
    """Does nothing that a script could miss: names start anew in every model here."""


def backend() -> str:
    """What stands below: always ``"distgrad"``."""
    return "distgrad"


def is_keras_tensor(x: Any) -> bool:
    """Whether ``x`` is a KerasTensor."""
    from distgrad.keras.layers.symbolic import KerasTensor

    return isinstance(x, KerasTensor)
