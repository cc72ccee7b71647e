"""``tf.compat.v2``: this package, as scripts of both TensorFlows import it."""

from __future__ import annotations

import distgrad as _distgrad


def __getattr__(name: str) -> object:
    return getattr(_distgrad, name)


def __dir__() -> list[str]:
    return dir(_distgrad)
