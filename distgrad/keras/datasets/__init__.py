"""The data sets that Keras users load by name."""

from __future__ import annotations

import importlib
from typing import Any

from distgrad.keras.datasets import cifar10 as cifar10
from distgrad.keras.datasets import cifar100 as cifar100
from distgrad.keras.datasets import fashion_mnist as fashion_mnist
from distgrad.keras.datasets import mnist as mnist

_LATER = ("boston_housing", "california_housing", "imdb", "reuters")


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
