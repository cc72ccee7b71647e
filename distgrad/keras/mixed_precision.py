"""Dtype policies: in which dtype a layer computes, and in which it keeps its weights.

The names are those of Keras 3's ``keras.mixed_precision`` and ``keras.dtype_policies``.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from distgrad.core.dtypes import as_dtype, is_floating
from distgrad.core.precision import (
    enable_tensor_float_32_execution as enable_tensor_float_32_execution,
)
from distgrad.core.precision import (
    tensor_float_32_execution_enabled as tensor_float_32_execution_enabled,
)
from distgrad.keras.registry import Configured


class Policy(Configured):
    """``"float32"``-like: all in that dtype. ``"mixed_float16"``, ``"mixed_bfloat16"``: weights are
    kept in float32. Without a name it is the global one.

    Raises ValueError for a name that is neither, TypeError for what is no text.
    """

    _keras_module, _keras_name = "keras", "DTypePolicy"
    quantization_mode: str | None = None  # no layer here is quantized

    def __init__(self, name: str | None = None) -> None:
        name = global_policy().name if name is None else name
        if not isinstance(name, str):
            raise TypeError(f"a dtype policy is named by a text, not {name!r}")
        self.name: str = name
        compute = name.removeprefix("mixed_")
        if name.startswith("mixed_") and compute not in ("float16", "bfloat16"):
            raise ValueError(
                f"unknown dtype policy {name!r}: use mixed_bfloat16, mixed_float16, or a dtype"
            )
        try:
            self.compute_dtype = as_dtype(compute).name
        except TypeError as error:
            raise ValueError(f"unknown dtype policy {name!r}: {error}") from None
        self.variable_dtype: str = "float32" if name.startswith("mixed_") else self.compute_dtype

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Policy) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f'<DTypePolicy "{self.name}">'


DTypePolicy = Policy
__all__ = ["DTypePolicy", "Policy", "dtype_policy", "global_policy"]
__all__ += ["LossScaleOptimizer"]  # noqa: F822 (of __getattr__)
__all__ += ["set_dtype_policy", "set_global_policy"]

_global = Policy("float32")


def get(identifier: Any) -> Policy:
    """The policy of a dtype, a name, a config or a policy; the global one for None.

    Raises ValueError for anything else.
    """
    if identifier is None:
        return _global
    if isinstance(identifier, Policy):
        return identifier
    if isinstance(identifier, Mapping):  # as Keras writes it into its files
        return Policy(identifier["config"]["name"])
    if isinstance(identifier, str):
        return Policy(identifier)
    if isinstance(identifier, int):  # which TensorFlow takes for a dtype, and Keras does not
        raise ValueError(f"no dtype and no dtype policy: {identifier!r}")
    try:
        return Policy(as_dtype(identifier).name)
    except TypeError as error:
        raise ValueError(f"no dtype and no dtype policy: {error}") from None


def set_global_policy(policy: Any) -> None:
    """Sets the policy of layers that are made from now on without a ``dtype`` of their own."""
    global _global
    _global = get(policy)


def global_policy() -> Policy:
    """The policy of layers that are made without a ``dtype`` of their own."""
    return _global


set_dtype_policy, dtype_policy = set_global_policy, global_policy


class _PerThread(threading.local):
    dtype: np.dtype | None = None


_per_thread = _PerThread()
_lock = threading.Lock()
# Autocast scopes of all threads together: a cheap first test for every read of a weight.
scopes = 0


def autocast_dtype() -> np.dtype | None:
    """What float weights are read as in this thread now; None: as they are."""
    return _per_thread.dtype


class autocast:
    """Context in which float weights are read in ``dtype`` (None: as they are)."""

    def __init__(self, dtype: Any) -> None:
        wanted = None if dtype is None else as_dtype(dtype).numpy_dtype
        self._dtype = wanted if wanted is not None and is_floating(wanted) else None

    def __enter__(self) -> None:
        global scopes
        self._outer, _per_thread.dtype = _per_thread.dtype, self._dtype
        with _lock:
            scopes += 1

    def __exit__(self, *exc: object) -> None:
        global scopes
        _per_thread.dtype = self._outer
        with _lock:
            scopes -= 1


def __getattr__(name: str) -> Any:
    if name == "LossScaleOptimizer":  # whose room is above this one
        from distgrad.keras.optimizers import LossScaleOptimizer

        return LossScaleOptimizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
